//! When something is an alarm: conditions as a function of facts and time.
//!
//! A rule says that a condition holds, since when, and how long it must hold to fire; what becomes of it over time is the
//! [`Engine`](super::Engine)'s. A detachment that an operator planned is none of these alarms while its time runs.

use std::time::Duration;

use jiff::Timestamp;

use super::{BackendFacts, Facts, Kind, ServiceFacts, Subject, TableFacts};
use crate::{config::AlarmRules, model::CALLED_BACK};

/// What must hold so long to be more than a moment between two events.
const MOMENT: Duration = Duration::from_secs(2);
/// By how many percent a table must fall below its mark to be well again.
const RELIEF: u64 = 10;
/// Fewer than this is no redundancy.
const REDUNDANT: usize = 2;
/// A summary has the figures of as many backends.
const QUOTED: usize = 3;

/// Something that holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    /// What, and of whom.
    pub subject: Subject,
    /// In a sentence.
    pub summary: String,
    /// Since when.
    pub since: Timestamp,
    /// How long it must hold to fire.
    pub wait: Duration,
    /// Holds for this look only, and counts once: the time of what happened.
    pub once: Option<Timestamp>,
    /// Does not fire, and lets what fires not end.
    pub lingers: bool,
}

impl Condition {
    fn new(subject: Subject, since: Timestamp, summary: String) -> Self {
        Self { subject, summary, since, wait: Duration::ZERO, once: None, lingers: false }
    }
}

/// What holds.
#[must_use]
pub fn conditions(facts: &Facts, rules: &AlarmRules, now: Timestamp) -> Vec<Condition> {
    let mut found = Vec::new();
    for service in &facts.services {
        found.extend(none_healthy(service));
        found.extend(redundancy_lost(service, now));
        found.extend(failing_together(service));
        for backend in &service.backends {
            found.extend(backend_down(service, backend, now));
            found.extend(out_of_rotation(service, backend, rules, now));
            found.extend(ejected(service, backend));
            found.extend(failing(service, backend));
        }
    }
    found.extend(facts.tables.iter().filter_map(|table| table_pressure(table, rules, now)));
    found.extend(facts.reload_failed.as_ref().map(|reason| {
        let summary = format!("the configuration could not be taken over, the old one goes on: {reason}");
        Condition::new(Subject::of_daemon(Kind::ReloadFailed), now, summary)
    }));
    found.extend(probe_loop_stopped(facts, now));
    found.extend((facts.drift > 0).then(|| {
        let summary = format!("{} map entries were changed by somebody else; they have been repaired", facts.drift);
        Condition::new(Subject::of_daemon(Kind::MapDrift), now, summary)
    }));
    found
}

/// Whether a table is anywhere near its mark.
#[must_use]
pub fn is_notable(table: &TableFacts, rules: &AlarmRules) -> bool {
    table.refused > 0 || percent(table) + RELIEF >= u64::from(rules.table_pressure)
}

fn percent(table: &TableFacts) -> u64 {
    table.used.saturating_mul(100).checked_div(table.capacity).unwrap_or(0)
}

fn none_healthy(service: &ServiceFacts) -> Option<Condition> {
    if service.backends.iter().any(|backend| backend.in_rotation) {
        return None;
    }
    let last = service.backends.iter().max_by_key(|backend| backend.since);
    let why = last.map_or_else(|| "it has none".into(), |last| format!("the last was {}: {}", last.name, last.cause));
    let since = last.map_or(Timestamp::UNIX_EPOCH, |last| last.since);
    let summary = format!("service {} has no backend in rotation; {why}", service.name);
    Some(Condition {
        wait: MOMENT / 2,
        ..Condition::new(Subject::of_service(Kind::NoneHealthy, &service.name), since, summary)
    })
}

fn redundancy_lost(service: &ServiceFacts, now: Timestamp) -> Option<Condition> {
    let backends = &service.backends;
    let available = backends.iter().filter(|backend| backend.is_available()).count();
    let wanted = service.min_healthy.max(REDUNDANT);
    if backends.len() < REDUNDANT || available >= wanted.min(backends.len()) {
        return None;
    }
    let out: Vec<&BackendFacts> = backends.iter().filter(|backend| !backend.is_available()).collect();
    let unplanned = out.iter().copied().filter(|backend| !backend.is_planned(now));
    let since = unplanned.map(lost_since).max()?;
    let whose: Vec<String> = out.iter().map(|backend| format!("{}: {}", backend.name, backend.cause)).collect();
    let (name, all) = (&service.name, backends.len());
    let summary = format!("service {name}: {available} of {all} backends can serve; out are {}", whose.join("; "));
    Some(Condition { wait: MOMENT, ..Condition::new(Subject::of_service(Kind::RedundancyLost, name), since, summary) })
}

/// Since when a backend is missed: not while it was planned to be out.
fn lost_since(backend: &BackendFacts) -> Timestamp {
    backend.until.map_or(backend.since, |until| until.max(backend.since))
}

fn backend_down(service: &ServiceFacts, backend: &BackendFacts, now: Timestamp) -> Option<Condition> {
    if !(backend.down || backend.unreachable) || backend.is_planned(now) {
        return None;
    }
    let subject = Subject::of_backend(Kind::BackendDown, &service.name, &backend.name);
    let what = if backend.down { "is down" } else { "cannot be reached" };
    let summary = format!("{} {what}: {}", subject.whom(), backend.cause);
    Some(Condition { wait: MOMENT, ..Condition::new(subject, backend.since, summary) })
}

fn out_of_rotation(
    service: &ServiceFacts,
    backend: &BackendFacts,
    rules: &AlarmRules,
    now: Timestamp,
) -> Option<Condition> {
    let subject = Subject::of_backend(Kind::OutOfRotation, &service.name, &backend.name);
    let whom = subject.whom();
    if let Some(recalled) = backend.recalled.filter(|_| backend.is_available()) {
        let why = backend.cause.strip_prefix(CALLED_BACK).unwrap_or(&backend.cause);
        let summary = format!("{whom} was called back before its time, because the service needs it: {why}");
        return Some(Condition { once: Some(recalled), ..Condition::new(subject, recalled, summary) });
    }
    if backend.is_available() {
        let returned = backend.returned?;
        let summary = format!("{whom} was detached and forgotten: its time ran out, and it has returned by itself");
        return Some(Condition { once: Some(returned), ..Condition::new(subject, returned, summary) });
    }
    if backend.is_planned(now) {
        return None;
    }
    let cause = &backend.cause;
    let over = backend.until.filter(|_| backend.detached);
    let returned = backend.returned.filter(|returned| backend.since <= *returned);
    if let Some(over) = over.or(returned) {
        let summary =
            format!("{whom} was detached and forgotten: its time is up, and it is out of rotation still: {cause}");
        return Some(Condition::new(subject, over, summary));
    }
    let summary = format!("{whom} is out of rotation: {cause}");
    Some(Condition { wait: rules.out_of_rotation, ..Condition::new(subject, backend.since, summary) })
}

fn ejected(service: &ServiceFacts, backend: &BackendFacts) -> Option<Condition> {
    let subject = Subject::of_backend(Kind::Ejected, &service.name, &backend.name);
    let summary = format!("{} fails its clients and is out of rotation therefore: {}", subject.whom(), backend.cause);
    backend.ejected.then(|| Condition::new(subject, backend.since, summary))
}

fn failing(service: &ServiceFacts, backend: &BackendFacts) -> Option<Condition> {
    let (since, why) = backend.failing.as_ref()?;
    let subject = Subject::of_backend(Kind::Failing, &service.name, &backend.name);
    let others = service.backends.iter().filter(|other| other.name != backend.name && other.is_available()).count();
    let alone = if others == 0 { "; no other can serve in its place" } else { "" };
    let summary = format!("{} fails its clients: {why}{alone}", subject.whom());
    Some(Condition { wait: MOMENT, ..Condition::new(subject, *since, summary) })
}

/// Most backends of a service fail, at once or in turn: taking them out does not help.
fn failing_together(service: &ServiceFacts) -> Option<Condition> {
    let mut failed: Vec<(Timestamp, &BackendFacts)> =
        service.backends.iter().filter_map(|backend| Some((backend.failed?, backend))).collect();
    failed.sort_by_key(|(since, _)| *since);
    let (of, all) = (failed.len(), service.backends.len());
    // Since when there is more than one.
    let (since, _) = *failed.get(REDUNDANT - 1).filter(|_| 2 * of > all)?;
    let quote = |(_, backend): &(Timestamp, &BackendFacts)| match &backend.failing {
        Some((_, why)) => format!("{}: {why}", backend.name),
        None if backend.ejected => format!("{}: {}", backend.name, backend.cause),
        None => format!("{}: not long ago", backend.name),
    };
    let mut whose: Vec<String> = failed.iter().take(QUOTED).map(quote).collect();
    if of > QUOTED {
        whose.push(format!("{} others", of - QUOTED));
    }
    let (name, whose) = (&service.name, whose.join("; "));
    let summary = format!(
        "{of} of {all} backends of service {name} fail its clients, together or in turn: they have too much to do, or something that \
         all of them need fails; {whose}"
    );
    Some(Condition { wait: MOMENT, ..Condition::new(Subject::of_service(Kind::Failing, name), since, summary) })
}

fn table_pressure(table: &TableFacts, rules: &AlarmRules, now: Timestamp) -> Option<Condition> {
    let percent = percent(table);
    let mark = u64::from(rules.table_pressure);
    let full = percent >= mark || table.refused > 0;
    if !is_notable(table, rules) {
        return None;
    }
    let subject = match &table.towards {
        Some((service, backend)) => Subject::of_backend(Kind::TablePressure, service, backend),
        None => Subject::of_daemon(Kind::TablePressure),
    };
    let towards = table.towards.as_ref().map(|(service, backend)| format!(" towards {service}/{backend}"));
    let mut summary = format!("{}{}: {percent} % in use", table.name, towards.unwrap_or_default());
    if table.refused > 0 {
        summary.push_str(&format!("; {} new flows found no place", table.refused));
    }
    Some(Condition { lingers: !full, ..Condition::new(subject, now, summary) })
}

fn probe_loop_stopped(facts: &Facts, now: Timestamp) -> Option<Condition> {
    let (first, others) = facts.silent_checks.split_first()?;
    let more = if others.is_empty() { String::new() } else { format!(" and {} others", others.len()) };
    let summary = format!("the checks of {first}{more} had stopped: nobody was watching; they have been started again");
    Some(Condition::new(Subject::of_daemon(Kind::ProbeLoopStopped), now, summary))
}
