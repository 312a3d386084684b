//! Every counter at one moment, from the maps alone.

use std::{collections::BTreeMap, net::SocketAddr, sync::atomic::Ordering};

use lb_common::{
    event,
    flow::{FlowWord, Ticks},
    layout::{BACKEND_COUNTERS, Backend, Service, WAYS, algorithm, backend_flags, forward},
    verdict::DropReason,
};
use serde::{Deserialize, Serialize};

use super::{
    address,
    maps::{self, Maps},
    sight::Sight,
};
use crate::plan::{Algorithm, Forward, Protocol};

/// Every counter at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// By service name.
    pub services: Vec<ServiceCounters>,
    /// Packets dropped, by reason.
    pub drops: Vec<Drop>,
    /// Flow table entries.
    pub flows: Usage,
    /// NAT port table entries.
    pub nat: Usage,
    /// Source ports that there are towards each backend.
    pub nat_ports_per_backend: u64,
}

impl Snapshot {
    /// The flows that a backend has open.
    #[must_use]
    pub fn open(&self, service: &str, backend: &str) -> Option<u64> {
        let service = self.services.iter().find(|known| known.name == service)?;
        service.backends.iter().find(|known| known.name == backend).map(|known| known.connections)
    }
}

/// Packets dropped for one reason.
#[derive(Clone, Copy, Debug)]
pub struct Drop {
    /// In snake case.
    pub reason: &'static str,
    /// How many.
    pub packets: u64,
}

/// How full a table is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Entries in use.
    pub used: u64,
    /// Entries that fit.
    pub capacity: u64,
}

/// What a service forwarded.
#[derive(Clone, Debug)]
pub struct ServiceCounters {
    /// Its name.
    pub name: String,
    /// Its virtual address.
    pub listen: SocketAddr,
    /// Its protocol.
    pub protocol: Protocol,
    /// Its algorithm.
    pub algorithm: Algorithm,
    /// Its forwarding mode.
    pub forward: Forward,
    /// Since it was added, removed backends included.
    pub totals: Counters,
    /// What packets tell of its backends, removed ones included.
    pub sight: Sight,
    /// By name.
    pub backends: Vec<BackendCounters>,
}

impl ServiceCounters {
    /// Whether SYNs and RSTs of its clients tell something.
    #[must_use]
    pub fn sees_handshakes(&self) -> bool {
        self.protocol == Protocol::Tcp
    }

    /// Whether the answers of its backends come by here.
    #[must_use]
    pub fn sees_answers(&self) -> bool {
        self.sees_handshakes() && self.forward.sees_replies()
    }
}

/// What a backend was sent and sent back.
#[derive(Clone, Debug)]
pub struct BackendCounters {
    /// Its name.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// Whether it takes new flows.
    pub in_rotation: bool,
    /// Flows open at this moment: opening, established, or closed on one side.
    pub connections: u64,
    /// Source ports in use towards it.
    pub nat_ports: u64,
    /// Since it was added.
    pub totals: Counters,
    /// What packets tell of it.
    pub sight: Sight,
}

/// Monotonic sums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Flows ever scheduled.
    pub connections: u64,
    /// Packets from clients.
    pub packets_in: u64,
    /// Bytes from clients, Ethernet headers included.
    pub bytes_in: u64,
    /// Packets from backends.
    pub packets_out: u64,
    /// Bytes from backends.
    pub bytes_out: u64,
}

/// From the words of [`lb_common::layout::BackendCounters`].
impl From<[u64; BACKEND_COUNTERS]> for Counters {
    fn from(words: [u64; BACKEND_COUNTERS]) -> Self {
        let Sight { begun, packets, bytes, packets_out, bytes_out, .. } = words.into();
        Self { connections: begun, packets_in: packets, bytes_in: bytes, packets_out, bytes_out }
    }
}

impl std::ops::AddAssign for Counters {
    fn add_assign(&mut self, other: Self) {
        self.connections += other.connections;
        self.packets_in += other.packets_in;
        self.bytes_in += other.bytes_in;
        self.packets_out += other.packets_out;
        self.bytes_out += other.bytes_out;
    }
}

impl std::ops::SubAssign for Counters {
    fn sub_assign(&mut self, other: Self) {
        self.connections -= other.connections;
        self.packets_in -= other.packets_in;
        self.bytes_in -= other.bytes_in;
        self.packets_out -= other.packets_out;
        self.bytes_out -= other.bytes_out;
    }
}

/// Reads every counter.
pub(super) fn take(maps: &Maps) -> Snapshot {
    let now = Ticks::from_ns(maps::now_ns());
    let live = |word: u64| Some(FlowWord(word)).filter(|word| word.is_live(now, &maps.config));
    let (flows, open) = open_flows(maps);
    let mut ports = vec![0; maps.config.backends as usize];
    let mut nat = 0;
    for word in maps.nat_words().filter_map(|word| live(word.load(Ordering::Relaxed))) {
        nat += 1;
        if let Some(count) = ports.get_mut(word.backend() as usize) {
            *count += 1;
        }
    }
    Snapshot {
        services: services(maps, &open, &ports),
        drops: drops(maps),
        flows: Usage { used: flows, capacity: u64::from(maps.config.flow_sets) * WAYS as u64 },
        nat: Usage { used: nat, capacity: maps.config.nat_slots().into() },
        nat_ports_per_backend: maps.config.nat_port_count.into(),
    }
}

/// Live flows, and by backend those that are open.
pub(super) fn open_flows(maps: &Maps) -> (u64, Vec<u64>) {
    let services: Vec<Option<Service>> = {
        let mut services = vec![None; maps.config.backends as usize];
        for (index, backend) in maps.backends() {
            services[index as usize] = Some(maps.services.read(backend.service));
        }
        services
    };
    let now = Ticks::from_ns(maps::now_ns());
    let mut open = vec![0; maps.config.backends as usize];
    let mut flows = 0;
    for word in maps.flow_words().map(|word| FlowWord(word.load(Ordering::Relaxed))) {
        if !word.is_live(now, &maps.config) {
            continue;
        }
        flows += 1;
        let index = word.backend() as usize;
        if let (Some(Some(service)), Some(count)) = (services.get(index), open.get_mut(index))
            && event::is_open(service, word)
        {
            *count += 1;
        }
    }
    (flows, open)
}

fn services(maps: &Maps, open: &[u64], ports: &[u64]) -> Vec<ServiceCounters> {
    let mut backends: BTreeMap<u32, Vec<(u32, Backend)>> = BTreeMap::new();
    for (index, backend) in maps.backends() {
        backends.entry(backend.service).or_default().push((index, backend));
    }
    let mut services: Vec<ServiceCounters> = maps
        .services()
        .into_iter()
        .filter_map(|(slot, service)| Some((slot, service, address::protocol(service.protocol)?)))
        .map(|(slot, service, protocol)| {
            let info = maps.service_info.read(slot);
            let (mut totals, mut sight) = (Counters::from(info.retired), Sight::from(info.retired));
            let mut backends: Vec<BackendCounters> = backends
                .remove(&slot)
                .unwrap_or_default()
                .into_iter()
                .map(|(index, backend)| {
                    let counters = maps.counters(index);
                    BackendCounters {
                        name: address::name(&maps.backend_info.read(index).name),
                        address: address::of_backend(&backend),
                        in_rotation: backend.flags & backend_flags::IN_ROTATION != 0,
                        connections: open[index as usize],
                        nat_ports: ports[index as usize],
                        totals: counters.into(),
                        sight: counters.into(),
                    }
                })
                .collect();
            for backend in &backends {
                totals += backend.totals;
                sight += backend.sight;
            }
            backends.sort_by(|a, b| a.name.cmp(&b.name));
            ServiceCounters {
                name: address::name(&info.name),
                listen: address::socket(service.address, service.family, service.port),
                protocol,
                algorithm: algorithm(service.algorithm),
                forward: match service.forward {
                    forward::DNAT => Forward::Dnat,
                    forward::L2 => Forward::L2,
                    forward::IPIP => Forward::Ipip,
                    forward::GUE => Forward::Gue,
                    _ => Forward::Nat,
                },
                totals,
                sight,
                backends,
            }
        })
        .collect();
    services.sort_by(|a, b| a.name.cmp(&b.name));
    services
}

/// An algorithm of its number in the maps.
pub(super) fn algorithm(number: u8) -> Algorithm {
    match number {
        algorithm::MAGLEV => Algorithm::Maglev,
        algorithm::SOURCE_HASH => Algorithm::SourceHash,
        algorithm::LEAST_CONNECTIONS => Algorithm::LeastConnections,
        algorithm::RANDOM_TWO => Algorithm::RandomTwo,
        _ => Algorithm::RoundRobin,
    }
}

/// Packets dropped, by reason.
pub(super) fn drops(maps: &Maps) -> Vec<Drop> {
    let packets = |reason: DropReason| {
        (0..maps.config.cpus).map(|cpu| maps.drops.read(cpu * maps::DROP_ROW + reason as u32)).sum()
    };
    DropReason::ALL.iter().map(|&reason| Drop { reason: reason.name(), packets: packets(reason) }).collect()
}
