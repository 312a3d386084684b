//! Which backend a flow has or would get, by the code of the packet path on a copy of the maps.

use std::{net::SocketAddr, path::Path};

use lb_common::{
    flow::{self, Key, State, Ticks},
    host::{HostTables, SYN, TcpFrame, process},
    layout::backend_flags,
    verdict::DropReason,
    wire::Be16,
};

use super::{
    Error, address,
    flows::{self, FlowState},
    host,
    maps::{self, Maps},
    snapshot,
};
use crate::plan::{Algorithm, Protocol};

/// The CPU whose turns and counters the copy has.
const CPU: u32 = 0;

/// What becomes of a flow, and why.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// The service that it is for.
    pub service: String,
    /// How that schedules.
    pub algorithm: Algorithm,
    /// What becomes of it.
    pub outcome: Outcome,
}

/// What becomes of a flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It exists.
    Has {
        /// Its backend.
        backend: String,
        /// How far it has come.
        state: FlowState,
        /// Since its last packet.
        idle_seconds: u64,
    },
    /// It would begin with this backend.
    WouldGet {
        /// The backend.
        backend: String,
        /// Whether its checks pass. If not, none's do, and the service fails open.
        healthy: bool,
    },
    /// It would not be forwarded.
    Nothing {
        /// As the counter of such packets is called.
        reason: &'static str,
    },
}

/// What becomes of a flow between two addresses of one family; none where no service listens at `destination`.
/// Nothing is changed.
///
/// # Errors
///
/// Where nothing is pinned there, or by another layout.
pub fn explain(
    pin_dir: &Path,
    source: SocketAddr,
    destination: SocketAddr,
    protocol: Protocol,
) -> Result<Option<Explanation>, Error> {
    let config = maps::pinned_config(pin_dir)?.ok_or_else(|| super::nothing(pin_dir))?;
    let maps = Maps::open(pin_dir, config, false)?;
    let tables = host::tables(&maps, CPU);
    let (family, number) = (address::family(destination.ip()), address::protocol_number(protocol));
    let to = address::words(destination.ip());
    let Some(slot) = tables.find_service(to, Be16::new(destination.port()), number, family) else { return Ok(None) };
    let from = address::words(source.ip());
    let key = Key::new(&config, family, from, Be16::new(source.port()), slot);
    let name = |index: u32| address::name(&maps.backend_info.read(index).name);
    let outcome = existing(&tables, &key, name)
        .unwrap_or_else(|| begun(&tables, &key, TcpFrame { source, destination, ..first(number) }, name));
    Ok(Some(Explanation {
        service: address::name(&maps.service_info.read(slot).name),
        algorithm: snapshot::algorithm(tables.services[slot as usize].algorithm),
        outcome,
    }))
}

/// The first packet of a flow.
fn first(protocol: u8) -> TcpFrame<'static> {
    TcpFrame { flags: SYN, protocol, ..TcpFrame::default() }
}

/// The flow, unless its client's next packet would begin another.
fn existing(tables: &HostTables, key: &Key, name: impl Fn(u32) -> String) -> Option<Outcome> {
    let now = Ticks::from_ns(tables.now_ns);
    let word = flow::find(tables, key).filter(|word| word.is_live(now, &tables.config))?;
    let serves = tables.backends.get(word.backend() as usize)?.serves();
    if !serves || matches!(word.state(), State::Closed | State::Reset) {
        return None;
    }
    Some(Outcome::Has {
        backend: name(word.backend()),
        state: flows::state(word.state())?,
        idle_seconds: flows::idle_seconds(word, now),
    })
}

/// What the packet path makes of the flow's first packet.
fn begun(tables: &HostTables, key: &Key, first: TcpFrame<'_>, name: impl Fn(u32) -> String) -> Outcome {
    process(&mut first.bytes(), 1, tables);
    if let Some(reason) = DropReason::ALL.into_iter().find(|&reason| tables.dropped(reason) > 0) {
        return Outcome::Nothing { reason: reason.name() };
    }
    match flow::find(tables, key) {
        Some(word) => {
            let flags = tables.backends.get(word.backend() as usize).map_or(0, |backend| backend.flags);
            Outcome::WouldGet { backend: name(word.backend()), healthy: flags & backend_flags::HEALTHY != 0 }
        }
        None => Outcome::Nothing { reason: DropReason::Internal.name() },
    }
}
