//! The model and the counters as one answer: what `lb status` shows.

use std::collections::HashMap;

use jiff::Timestamp;

use crate::{
    api::types::{BackendStatus, ServiceStatus},
    dataplane::{BackendCounters, Snapshot},
    model::{Backend, Model, Service},
};

/// The status of every service, ordered by name.
pub fn of(model: &Model, snapshot: &Snapshot) -> Vec<ServiceStatus> {
    let counters: HashMap<&str, &[BackendCounters]> =
        snapshot.services.iter().map(|service| (service.name.as_str(), service.backends.as_slice())).collect();
    let status = |service: &Service| {
        let known = counters.get(service.spec.name.as_str()).copied().unwrap_or_default();
        of_service(service, known)
    };
    model.services.values().map(status).collect()
}

fn of_service(service: &Service, counters: &[BackendCounters]) -> ServiceStatus {
    let (in_rotation, total) = (service.in_rotation(), service.backends.len());
    let backends = service.backends.iter().map(|backend| {
        let known = counters.iter().find(|known| backend.is(&known.name, known.address));
        of_backend(backend, known)
    });
    ServiceStatus {
        name: service.spec.name.clone(),
        listen: service.spec.listen,
        protocol: service.spec.protocol,
        algorithm: service.spec.algorithm,
        forward: service.spec.forward,
        verdict: service.verdict(),
        in_rotation,
        total,
        backends: backends.collect(),
    }
}

fn of_backend(backend: &Backend, counters: Option<&BackendCounters>) -> BackendStatus {
    let standing = backend.standing();
    let totals = counters.map(|counters| counters.totals).unwrap_or_default();
    BackendStatus {
        name: backend.name.clone(),
        address: backend.address,
        in_rotation: standing.in_rotation,
        admin: backend.admin.value,
        health: backend.health.health(),
        passive: backend.passive.value,
        weight: backend.weight.value,
        since: whole_second(standing.change.at),
        cause: standing.change.cause,
        until: backend.admin_until.map(whole_second),
        connections: counters.map_or(0, |counters| counters.connections),
        connections_total: totals.connections,
        packets_total: totals.packets_in + totals.packets_out,
        bytes_total: totals.bytes_in + totals.bytes_out,
    }
}

/// Nobody needs nanoseconds.
fn whole_second(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

#[cfg(test)]
mod tests;
