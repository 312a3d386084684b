//! The flows in the pinned maps: listed, and ended, with or without a daemon.
//!
//! A flow that is ended leaves words that were once in use, never zero: `lb_common::flow::find` relies on that.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use lb_common::{
    event,
    flow::{FlowWord, Key, State, TICK_SHIFT, Ticks},
    layout::{FlowSlot, NatSlot, Service},
    wire::Be16,
};
use serde::Serialize;

use super::{
    Error, address,
    maps::{self, Maps},
};

/// How far a connection has come, as people are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FlowState {
    /// The client sent a SYN.
    Opening,
    /// The backend answered it.
    Answered,
    /// The backend answered and the client acknowledged; with direct return, the client went on for more than half a second.
    Established,
    /// The client sent a FIN.
    ClientClosed,
    /// The backend sent a FIN.
    BackendClosed,
    /// Both did, or the backend sent a RST.
    Closed,
    /// UDP.
    Datagram,
    /// With direct return: established as far as the client said within half a second.
    Tentative,
    /// The same, and the client sent a FIN.
    TentativeClosed,
    /// The client sent a RST.
    Reset,
}

/// A flow of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Flow {
    /// Address and port; none for IPv6 with direct return, where only a hash of them is kept.
    pub client: Option<SocketAddr>,
    /// The service.
    pub service: String,
    /// The backend that it belongs to.
    pub backend: String,
    /// How far it has come.
    pub state: FlowState,
    /// Since its last packet, to about half a second.
    pub idle_seconds: u64,
    /// The source port towards the backend, where addresses are rewritten.
    pub nat_port: Option<u16>,
}

/// Which flows: those of every service, of one, or of one of its backends.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// The service; none for all.
    pub service: Option<String>,
    /// The backend; none for all of the service.
    pub backend: Option<String>,
}

/// The pinned flow tables.
#[derive(Debug)]
pub struct Flows {
    maps: Maps,
}

/// Service and backend of a backend's index.
struct Owner {
    slot: u32,
    value: Service,
    service: String,
    backend: String,
}

impl Flows {
    /// Opens the tables to read, or also to end flows.
    ///
    /// # Errors
    ///
    /// Where nothing is pinned there, or by another layout.
    pub fn open(pin_dir: &Path, writable: bool) -> Result<Self, Error> {
        let config = maps::pinned_config(pin_dir)?.ok_or_else(|| super::nothing(pin_dir))?;
        Ok(Self { maps: Maps::open(pin_dir, config, writable)? })
    }

    /// Whether there is such a service or backend, with flows or not.
    #[must_use]
    pub fn knows(&self, of: &Selection) -> bool {
        let Selection { service: Some(service), backend } = of else { return true };
        match backend {
            Some(_) => !self.owners(of).is_empty(),
            None => self.maps.services().iter().any(|(slot, value)| {
                value.protocol != 0
                    && address::protocol(value.protocol).is_some()
                    && address::name(&self.maps.service_info.read(*slot).name) == *service
            }),
        }
    }

    /// The flows that have not been idle for too long, in the order of service, backend and client.
    #[must_use]
    pub fn list(&self, of: &Selection) -> Vec<Flow> {
        let owners = self.owners(of);
        let clients = self.clients(&owners);
        let now = Ticks::from_ns(maps::now_ns());
        let flow = |tag: u64, word: FlowWord| {
            let owner = owners.get(&word.backend()).filter(|owner| u64::from(owner.slot) == tag & 0xffff)?;
            let client = if owner.value.family == 4 {
                Some(address::socket([tag >> 32, 0], 4, Be16::from_raw((tag >> 16) as u16)))
            } else {
                clients.get(&(tag, word.backend(), word.port().raw())).copied()
            };
            Some(Flow {
                client,
                service: owner.service.clone(),
                backend: owner.backend.clone(),
                state: state(word.state())?,
                idle_seconds: idle_seconds(word, now),
                nat_port: event::is_nat(&owner.value).then(|| word.port().get()),
            })
        };
        const TAG: usize = std::mem::offset_of!(FlowSlot, tag) / 8;
        const WORD: usize = std::mem::offset_of!(FlowSlot, word) / 8;
        let slots = self.maps.flows.words().chunks_exact(size_of::<FlowSlot>() / 8);
        let mut flows: Vec<Flow> = slots
            .filter_map(|slot| {
                let word = FlowWord(slot[WORD].load(Ordering::Acquire));
                if !word.is_live(now, &self.maps.config) {
                    return None;
                }
                let tag = slot[TAG].load(Ordering::Acquire);
                // Another flow may have taken the slot between the two.
                let same = FlowWord(slot[WORD].load(Ordering::Acquire)).backend() == word.backend();
                if same { flow(tag, word) } else { None }
            })
            .collect();
        flows.sort_by(|a, b| (&a.service, &a.backend, a.client).cmp(&(&b.service, &b.backend, b.client)));
        flows
    }

    /// Ends flows; returns how many were live. What a client sends next belongs to no flow.
    #[must_use]
    pub fn flush(&self, of: &Selection) -> usize {
        let owners = self.owners(of);
        let now = Ticks::from_ns(maps::now_ns());
        let forget = |word: &AtomicU64| {
            let forgotten = word.fetch_update(Ordering::AcqRel, Ordering::Acquire, |old| {
                let old = FlowWord(old);
                let theirs =
                    !matches!(old.state(), State::Free | State::Claimed) && owners.contains_key(&old.backend());
                theirs.then_some(FlowWord::forgotten().0)
            });
            forgotten.is_ok_and(|old| FlowWord(old).is_live(now, &self.maps.config))
        };
        let ended = self.maps.flow_words().filter(|word| forget(word)).count();
        self.maps.nat_words().for_each(|word| {
            forget(word);
        });
        ended
    }

    /// Backends of a selection by their index.
    fn owners(&self, of: &Selection) -> BTreeMap<u32, Owner> {
        let backends = self.maps.backends().into_iter().map(|(index, backend)| {
            let owner = Owner {
                slot: backend.service,
                value: self.maps.services.read(backend.service),
                service: address::name(&self.maps.service_info.read(backend.service).name),
                backend: address::name(&self.maps.backend_info.read(index).name),
            };
            (index, owner)
        });
        let fits = |wanted: &Option<String>, name: &str| wanted.as_deref().is_none_or(|wanted| wanted == name);
        backends.filter(|(_, owner)| fits(&of.service, &owner.service) && fits(&of.backend, &owner.backend)).collect()
    }

    /// IPv6 clients of NAT and DNAT by what their flows hold: tag, backend, port.
    fn clients(&self, owners: &BTreeMap<u32, Owner>) -> HashMap<(u64, u32, u16), SocketAddr> {
        let rows = self.maps.nat.words().chunks_exact(size_of::<NatSlot>() / 8);
        rows.filter_map(|row| {
            const WORD: usize = std::mem::offset_of!(NatSlot, word) / 8;
            const CLIENT: usize = std::mem::offset_of!(NatSlot, client) / 8;
            const PORT_SERVICE: usize = std::mem::offset_of!(NatSlot, port_service) / 8;
            let [word, a, b, port_service] =
                [WORD, CLIENT, CLIENT + 1, PORT_SERVICE].map(|at| row[at].load(Ordering::Acquire));
            let word = FlowWord(word);
            let owner = owners.get(&word.backend())?;
            if owner.value.family != 6 || matches!(word.state(), State::Free | State::Claimed) {
                return None;
            }
            let port = Be16::from_raw(port_service as u16);
            let tag = Key::new(&self.maps.config, 6, [a, b], port, owner.slot).tag;
            Some(((tag, word.backend(), word.port().raw()), address::socket([a, b], 6, port)))
        })
        .collect()
    }
}

/// Seconds since a flow's last packet.
pub(super) fn idle_seconds(word: FlowWord, now: Ticks) -> u64 {
    (u64::from(now.since(word.seen())) << TICK_SHIFT) / 1_000_000_000
}

/// A state for people; none where it is nobody's flow.
pub(super) fn state(state: State) -> Option<FlowState> {
    Some(match state {
        State::Free | State::Claimed => return None,
        State::Opening | State::Repeated => FlowState::Opening,
        State::Answered => FlowState::Answered,
        State::Established => FlowState::Established,
        State::ClientClosed => FlowState::ClientClosed,
        State::BackendClosed => FlowState::BackendClosed,
        State::Closed => FlowState::Closed,
        State::Datagram => FlowState::Datagram,
        State::Tentative => FlowState::Tentative,
        State::TentativeClosed => FlowState::TentativeClosed,
        State::Reset => FlowState::Reset,
    })
}
