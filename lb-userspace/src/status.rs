//! The model and the counters as one answer: what `lb status` shows.

use std::collections::HashMap;

use jiff::Timestamp;

use crate::{
    api::types::{
        AgentState, AgentStatus, BackendHealth, BackendStatus, DetachmentStatus, HealthDocument, LimitStatus,
        SCHEMA_VERSION, ServiceStatus,
    },
    dataplane::{BackendCounters, Snapshot},
    health::Health,
    model::{Backend, Model, Service},
    plan::Protocol,
};

/// The status of every service, ordered by name.
pub fn of(model: &Model, snapshot: &Snapshot, now: Timestamp) -> Vec<ServiceStatus> {
    let counters: HashMap<&str, &[BackendCounters]> =
        snapshot.services.iter().map(|service| (service.name.as_str(), service.backends.as_slice())).collect();
    let status = |service: &Service| {
        let known = counters.get(service.spec.name.as_str()).copied().unwrap_or_default();
        of_service(service, known, now)
    };
    model.services.values().map(|service| status(service)).collect()
}

fn of_service(service: &Service, counters: &[BackendCounters], now: Timestamp) -> ServiceStatus {
    let (in_rotation, total) = (service.in_rotation(), service.total());
    let backends = service.backends.iter().map(|backend| {
        let known = counters.iter().find(|known| backend.is(&known.name, known.address));
        of_backend(service, backend, known, now)
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
        min_healthy: service.spec.min_healthy,
        fail: service.spec.fail,
        fails_open: service.fails_open(),
        last_resort: service.is_last_resort(),
        unjudged: unjudged(service),
        backends: backends.collect(),
    }
}

fn of_backend(
    service: &Service,
    backend: &Backend,
    counters: Option<&BackendCounters>,
    now: Timestamp,
) -> BackendStatus {
    let standing = service.standing(backend);
    let share = (service.share(backend, now) * 100.0).round();
    let totals = counters.map(|counters| counters.totals).unwrap_or_default();
    BackendStatus {
        name: backend.name.clone(),
        address: backend.address,
        in_rotation: standing.in_rotation,
        admin: backend.admin.value,
        health: backend.health.health(),
        passive: backend.passive.value,
        ejected_until: backend.judgement.until.map(whole_second),
        ejections_total: backend.judgement.ejections,
        complaint: backend.complaint().map(str::to_owned),
        weight: backend.weight.value,
        // Percent of at most 100.
        share: Some(share as u16).filter(|share| *share < 100),
        backup: backend.backup,
        standby: backend.backup && backend.is_fit() && !standing.in_rotation,
        max_connections: backend.max_connections,
        limit: backend.limit().map(|(connections, source)| LimitStatus { connections, source }),
        agent: service.has_agents().then(|| agent(backend, now)),
        paused: backend.paused.is_some(),
        since: whole_second(standing.change.at),
        cause: standing.change.cause,
        until: backend.detachment.as_ref().map(|detachment| whole_second(detachment.until)),
        detachment: detachment(service, backend),
        ended: backend.ended.clone(),
        connections: counters.map_or(0, |counters| counters.connections),
        connections_total: totals.connections,
        packets_total: totals.packets_in + totals.packets_out,
        bytes_total: totals.bytes_in + totals.bytes_out,
    }
}

/// What of a service's traffic cannot be judged: with direct return only the client's packets come by.
fn unjudged(service: &Service) -> Vec<String> {
    let words: &[&str] = match (service.spec.protocol, service.spec.forward.sees_replies()) {
        _ if !service.spec.passive.enabled => &[],
        (Protocol::Udp, _) => &["5xx", "unanswered", "refusals", "resets", "latency"],
        (Protocol::Tcp, true) => &[],
        (Protocol::Tcp, false) => &["5xx", "refusals", "resets", "latency"],
    };
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn agent(backend: &Backend, now: Timestamp) -> AgentStatus {
    let (wish, hearing) = (backend.agent.value, &backend.hearing);
    let (heard, words) = hearing.last.clone().unzip();
    AgentStatus {
        state: if wish.unknown || heard.is_none() { AgentState::Unknown } else { AgentState::Known },
        mode: wish.mode,
        down: wish.down,
        percent: wish.percent,
        max_connections: wish.max_connections,
        memory_available_percent: hearing.memory,
        words,
        heard: heard.map(whole_second),
        age_seconds: heard.map(|heard| now.duration_since(heard).as_secs().max(0).unsigned_abs()),
        failure: hearing.failure.clone(),
    }
}

fn detachment(service: &Service, backend: &Backend) -> Option<DetachmentStatus> {
    let known = backend.detachment.as_ref()?;
    Some(DetachmentStatus {
        actor: backend.admin.change.actor.clone(),
        reason: known.reason.clone(),
        since: whole_second(known.since),
        until: whole_second(known.until),
        overdue: known.overdue,
        after: service.spec.after_detachment,
        recall: known.recall.unwrap_or(service.spec.recall),
    })
}

/// How each backend is checked, and what came of it.
pub fn health(model: &Model) -> HealthDocument {
    let backends = model.services.values().flat_map(|service| {
        service.backends.iter().map(|backend| {
            let check = &service.spec.health;
            let up = backend.health.health() == Health::Up;
            BackendHealth {
                service: service.spec.name.clone(),
                backend: backend.name.clone(),
                check: check.probe.word().into(),
                health: backend.health.health(),
                contrary: backend.health.contrary(),
                needed: if up { check.fall } else { check.rise },
                interval_seconds: check.interval.as_secs_f64(),
                last: backend.checked.clone(),
                paused: backend.paused.clone(),
            }
        })
    });
    HealthDocument { schema_version: SCHEMA_VERSION, backends: backends.collect() }
}

/// Nobody needs nanoseconds.
fn whole_second(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

#[cfg(test)]
mod tests;
