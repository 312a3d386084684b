//! What the packet path should do, in words: the model's output and the dataplane's input.
//!
//! A plan knows neither map indexes nor hashes nor table layouts; [`crate::dataplane`] turns it into map contents.
//! It is a value: two plans compare equal when the same packets would go the same ways.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// Everything that is balanced, ordered by service name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The services; names are unique, and so are `(listen, protocol)` pairs.
    pub services: Vec<ServicePlan>,
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
    /// Whether it takes new flows. Established flows stay with it either way, for as long as it is in the plan.
    pub in_rotation: bool,
    /// Whether health checks pass; remembered in the maps so that a restarted daemon starts from it.
    pub healthy: bool,
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
}

/// The longest name of a service or a backend, in bytes.
pub const NAME_LEN: usize = 63;

/// The largest weight of a backend.
pub const MAX_WEIGHT: u16 = 256;

/// A transport protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
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
}

/// How a packet reaches its backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Forward {
    /// Source and destination rewritten, replies rewritten back; the backend needs no configuration.
    #[default]
    Nat,
}
