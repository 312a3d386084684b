//! Who stands in the rings of a service, and what the maps say of them.

use std::{collections::BTreeMap, net::SocketAddr};

use lb_common::{hash, layout, room::Limits};

use super::super::{
    address::words,
    ring::{self, MAGLEV_SLOTS, Member},
};
use crate::plan::{Algorithm, BackendPlan, NextHop, ServicePlan};

/// Whether any backend has a limit.
pub(super) fn is_limited(plan: &ServicePlan) -> bool {
    plan.backends.iter().any(|backend| limits(backend) != Limits::NONE)
}

pub(super) fn limits(backend: &BackendPlan) -> Limits {
    let most = backend.max_connections.unwrap_or(u32::MAX);
    Limits { comfortable: backend.comfortable_connections.unwrap_or(most).min(most), most }
}

/// Backends that take flows, and those that do when they have no room.
pub(super) fn spare(
    plan: &ServicePlan,
    backends: &BTreeMap<SocketAddr, (u32, layout::Backend)>,
) -> (Vec<u32>, Vec<u32>) {
    let index = |backend: &BackendPlan| backends[&backend.address].0;
    let own = plan.backends.iter().filter(|backend| takes_flows(backend)).map(index);
    let stands_by = |backend: &&BackendPlan| backend.stands_by && backend.next_hop.is_some() && backend.weight > 0;
    (own.collect(), plan.backends.iter().filter(stands_by).map(index).collect())
}

pub(super) fn takes_flows(backend: &BackendPlan) -> bool {
    backend.in_rotation && backend.next_hop.is_some() && backend.weight > 0
}

pub(super) fn entries(plan: &ServicePlan, backends: &BTreeMap<SocketAddr, (u32, layout::Backend)>) -> Vec<u32> {
    let members: Vec<Member> = plan
        .backends
        .iter()
        .filter(|backend| takes_flows(backend))
        .map(|backend| Member {
            index: backends[&backend.address].0,
            weight: backend.weight,
            identity: identity(backend.address),
        })
        .collect();
    // A ring of more than one entry has more than one backend: the packet path goes by that (`schedule::has_choice`).
    if let [only] = members.as_slice() {
        return vec![only.index];
    }
    match plan.algorithm {
        Algorithm::RoundRobin | Algorithm::RandomTwo => ring::round_robin(&members),
        Algorithm::Maglev | Algorithm::SourceHash => ring::maglev(&members, MAGLEV_SLOTS),
        Algorithm::LeastConnections => members.iter().map(|member| member.index).collect(),
    }
}

/// The same on every node, and for as long as the backend has its address.
fn identity(address: SocketAddr) -> u64 {
    hash::nh(&hash::PUBLIC_KEY, words(address.ip()), address.port().into())
}

pub(super) fn path(hop: &NextHop) -> layout::Path {
    let mut bytes = [0; 16];
    bytes[..6].copy_from_slice(&hop.mac);
    bytes[6..12].copy_from_slice(&hop.source_mac);
    bytes[12..].copy_from_slice(&hop.ifindex.to_ne_bytes());
    bytemuck::cast(bytes)
}
