//! Frames, and how those of one case differ from each other.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, ensure};
use lab::Family;
use lb_common::{
    flow::State,
    host::{ACK, SYN, TcpFrame},
};
use lb_userspace::dataplane::{
    Action, Dataplane,
    bench::{BackendFlow, FlowKey, Frames},
};

use crate::site::{ADDRESSES, Kind};

/// What kind of packets come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Traffic {
    /// For an address that is no service's.
    Stranger,
    /// From clients, of flows that are established.
    Established { family: Family, flows: u32 },
    /// From backends, of flows that are established.
    Answers { family: Family, flows: u32 },
    /// SYNs of clients that have never been seen.
    New { family: Family },
    /// Of established flows that have been idle for half a second: their times are due.
    Stale { family: Family },
}

/// One flow of so many may be refused where many are to be established, and another stands in its place: a set-associative table
/// has no room for a few long before it is full. How many, the scale cases tell.
pub(crate) const FEW: usize = 100;

/// New or stale flows: as many as packets in a round.
pub(crate) const EVENTS: u32 = 1 << 17;

const MOST_ADDRESSES: u32 = ADDRESSES as u32;

/// Client ports: each second one, as Linux gives them.
const PORTS: u32 = 1 << 14;

impl Traffic {
    /// How many flows there are at a time.
    pub(crate) fn flows(self) -> u32 {
        match self {
            Self::Stranger => 1,
            Self::Established { flows, .. } | Self::Answers { flows, .. } => flows,
            Self::New { .. } | Self::Stale { .. } => EVENTS,
        }
    }

    /// The flows that have to be established for it.
    pub(crate) fn established(self) -> Option<(Family, u32)> {
        match self {
            Self::Stranger | Self::New { .. } => None,
            Self::Established { family, flows } | Self::Answers { family, flows } => Some((family, flows)),
            Self::Stale { family } => Some((family, EVENTS)),
        }
    }

    /// What must become of every packet.
    pub(crate) fn action(self) -> Action {
        match self {
            Self::Stranger => Action::Pass,
            Self::Answers { .. } => Action::Transmit,
            _ => Action::Redirect,
        }
    }

    /// The frames: of flows that are held, as far as they are of established ones. `round` makes new flows new.
    pub(crate) fn frames<'h>(
        self,
        kind: Kind,
        dataplane: &Dataplane,
        held: impl Fn(Family) -> &'h [FlowKey],
        round: u8,
    ) -> Result<Frames> {
        match self {
            Self::Stranger => Ok(plain()),
            Self::Established { family, .. } | Self::Stale { family } => {
                let (held, wanted) = (held(family), self.flows() as usize);
                ensure!(held.len() >= wanted, "only {} flows of {wanted} are established", held.len());
                Ok(Frames { flows: held[..wanted].to_vec(), ..requests(kind, family, 1, ACK, 1) })
            }
            Self::New { family } => Ok(requests(kind, family, EVENTS, SYN, 100 + round)),
            Self::Answers { family, flows } => {
                answers(&dataplane.backend_flows(State::Established), family, flows, ACK)
            }
        }
    }
}

/// One frame that is for no service.
pub(crate) fn plain() -> Frames {
    let client = SocketAddr::from(([192, 0, 2, 1], 40_000));
    Frames {
        frame: frame(client, SocketAddr::from(([203, 0, 113, 99], 80)), ACK),
        address_at: 26,
        port_at: 34,
        flows: vec![([192, 0, 2, 1], 40_000)],
    }
}

/// Packets of clients, in an order that no cache foresees.
pub(crate) fn requests(kind: Kind, family: Family, flows: u32, flags: u8, clients: u8) -> Frames {
    let client: IpAddr = match family {
        Family::V4 => [192, 0, 2, 1].into(),
        Family::V6 => [0x2001, 0xdb8, 0, 0, 0, 0, 0, 1].into(),
    };
    let port = |turn: u32| 20_000 + (turn % PORTS) as u16 * 2;
    let listen = |service: u32| kind.listen(family, service as u16);
    let services = u32::from(kind.services);
    let (source_at, destination_at, port_at) = offsets(family);
    let key = |flow: u32| -> FlowKey {
        match services {
            1 => {
                let [_, _, a, b] = (flow / PORTS).to_be_bytes();
                ([10, clients, a, b], port(flow))
            }
            2..=MOST_ADDRESSES => (last_bytes(listen(flow % services).ip()), port(flow / services)),
            // One client port, a flow for each service.
            _ => (last_bytes(listen(flow).ip()), listen(flow).port()),
        }
    };
    let mut keys: Vec<FlowKey> = (0..flows).map(key).collect();
    shuffle(&mut keys);
    Frames {
        frame: frame(SocketAddr::new(client, 1), listen(0), flags),
        address_at: if services == 1 { source_at } else { destination_at },
        port_at: if services > MOST_ADDRESSES { port_at + 2 } else { port_at },
        flows: keys,
    }
}

/// Packets of backends to as many clients.
pub(crate) fn answers(there: &[BackendFlow], family: Family, wanted: u32, flags: u8) -> Result<Frames> {
    let of_family = |flow: &&BackendFlow| flow.backend.is_ipv4() == (family == Family::V4);
    let mut flows: Vec<BackendFlow> = there.iter().filter(of_family).copied().collect();
    let (there, wanted) = (flows.len(), wanted as usize);
    ensure!(there + wanted / FEW >= wanted, "only {there} flows of {wanted} are there");
    shuffle(&mut flows);
    flows.extend_from_within(..wanted.saturating_sub(there));
    flows.truncate(wanted);
    let first = flows[0];
    let keys = flows.iter().map(|flow| (last_bytes(flow.backend.ip()), flow.client.port())).collect();
    let (address_at, _, port_at) = offsets(family);
    Ok(Frames { frame: frame(first.backend, first.client, flags), address_at, port_at: port_at + 2, flows: keys })
}

fn frame(source: SocketAddr, destination: SocketAddr, flags: u8) -> Vec<u8> {
    TcpFrame { source, destination, flags, payload: &[0; 32], ..Default::default() }.bytes()
}

/// Of the last four bytes of the source address and of the destination address, and of the source port.
fn offsets(family: Family) -> (u32, u32, u32) {
    match family {
        Family::V4 => (26, 30, 34),
        Family::V6 => (34, 50, 54),
    }
}

fn last_bytes(address: IpAddr) -> [u8; 4] {
    match address {
        IpAddr::V4(v4) => v4.octets(),
        IpAddr::V6(v6) => {
            let [.., a, b, c, d] = v6.octets();
            [a, b, c, d]
        }
    }
}

/// The same order in every run.
fn shuffle<T>(items: &mut [T]) {
    fastrand::Rng::with_seed(7).shuffle(items);
}
