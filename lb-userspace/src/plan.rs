//! What the packet path should do, in words: the model's output and the dataplane's input.
//!
//! A plan knows neither map indexes nor hashes nor table layouts; [`crate::dataplane`] turns it into map contents.
//! It is a value: two plans compare equal when the same packets would go the same ways.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

/// Everything that is balanced, ordered by service name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The services; names are unique, and so are `(listen, protocol)` pairs. A plan shares what is the same with the one
    /// before it.
    pub services: Vec<Arc<ServicePlan>>,
}

impl FromIterator<ServicePlan> for Plan {
    fn from_iter<I: IntoIterator<Item = ServicePlan>>(services: I) -> Self {
        Self { services: services.into_iter().map(Arc::new).collect() }
    }
}

/// One virtual address and where its flows go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePlan {
    /// At most [`NAME_LEN`] bytes.
    pub name: String,
    /// The virtual address and port.
    pub listen: SocketAddr,
    /// The transport protocol.
    pub protocol: Protocol,
    /// How a new flow finds its backend.
    pub algorithm: Algorithm,
    /// How a packet reaches its backend.
    pub forward: Forward,
    /// In the order of the configuration; addresses are unique within a service.
    pub backends: Vec<BackendPlan>,
}

/// One server of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendPlan {
    /// At most [`NAME_LEN`] bytes; unique within the service.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// Share of new flows, 0 to [`MAX_WEIGHT`]; with 0 it gets none.
    pub weight: u16,
    /// Whether it takes new flows. Established flows stay with it either way, for as long as it is in the plan and not given up.
    pub in_rotation: bool,
    /// Whether health checks pass; remembered in the maps so that a restarted daemon starts from it.
    pub healthy: bool,
    /// Whether its clients are to go elsewhere with what they ask for next: it is out for its own fault, and others are well.
    pub given_up: bool,
    /// Whether it takes new flows that those in rotation have no room for.
    pub stands_by: bool,
    /// With so many open flows it gets no new one.
    pub max_connections: Option<u32>,
    /// With so many it gets a new one only where nobody else has room.
    pub comfortable_connections: Option<u32>,
    /// The way to it; without one it gets no new flow.
    pub next_hop: Option<NextHop>,
}

/// The resolved way to a backend: what netlink's routes and neighbours say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// The interface that packets leave by.
    pub ifindex: u32,
    /// The address of that interface that packets leave with (the route's preferred source).
    pub source: IpAddr,
    /// The MAC address of that interface.
    pub source_mac: [u8; 6],
    /// The MAC address of the backend, or of the gateway to it.
    pub mac: [u8; 6],
    /// The largest IP packet that the interface, or the route, lets through; 0 where that is not known.
    pub mtu: u16,
}

impl Forward {
    /// As the configuration writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nat => "nat",
            Self::Dnat => "dnat",
            Self::L2 => "l2",
            Self::Ipip => "ipip",
            Self::Gue => "gue",
        }
    }

    /// Whether replies come back through the front node.
    #[must_use]
    pub const fn sees_replies(self) -> bool {
        matches!(self, Self::Nat | Self::Dnat)
    }

    /// Whether a backend may be of another address family than the service.
    #[must_use]
    pub const fn crosses_families(self) -> bool {
        matches!(self, Self::Ipip | Self::Gue)
    }
}

/// The longest name of a service or a backend, in bytes.
pub const NAME_LEN: usize = 63;

/// The largest limit of a backend's connections: as many flows as can be.
pub const MAX_CONNECTIONS: u32 = 1 << 26;

/// The largest weight of a backend.
pub const MAX_WEIGHT: u16 = 256;

/// A transport protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
}

/// How a new flow finds its backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Algorithm {
    /// By turns, weighted, exact over any window as long as the sum of weights, per CPU.
    #[default]
    RoundRobin,
    /// Weighted consistent hashing of the 5-tuple (Eisenbud et al., NSDI 2016).
    Maglev,
    /// The same of the client's address: a client stays with its backend.
    SourceHash,
    /// The backend with the fewest open flows for its weight.
    LeastConnections,
    /// The better of two at random.
    RandomTwo,
}

/// How a packet reaches its backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Forward {
    /// Source and destination rewritten, replies rewritten back; the backend needs no configuration.
    #[default]
    Nat,
    /// Destination rewritten, the client's address kept; the front node is the backends' gateway.
    Dnat,
    /// MAC addresses rewritten; the backend has the virtual address and answers the client directly.
    L2,
    /// IP in IP; the backend takes the outer header off (`lb decap`) and answers the client directly.
    Ipip,
    /// The same behind a UDP header (GUE), which routers and network cards spread by flow.
    Gue,
}
