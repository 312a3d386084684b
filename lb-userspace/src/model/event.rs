//! What changed between two moments of a service, as a list of events: each with its cause, its actor and its time.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Admin, Backend, Change, Learned, Model, Service, Verdict, Wish, detachment::whole_second};
use crate::health::Health;

/// One change, as the event log keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When.
    pub at: Timestamp,
    /// What kind of thing changed.
    pub what: What,
    /// Of which service; none when the daemon as a whole is meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Of which backend; none when the service as a whole is meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
    /// What it was.
    pub from: String,
    /// What it is.
    pub to: String,
    /// By whom.
    pub actor: String,
    /// Why, for people.
    pub cause: String,
}

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum What {
    /// What an operator wants of a backend: enabled, draining, disabled.
    Admin,
    /// For how long a backend is out: "until 2026-02-26T14:11:00Z" becomes another time, or "overdue".
    Detachment,
    /// What the checks of a backend say: unknown, up, down.
    Health,
    /// The checks of a backend: running, paused.
    Checks,
    /// What the agent of a backend wants: "ready 100%", "drain 50%", "unknown, ready 50%" when it is not heard.
    Agent,
    /// How many connections a backend can take, as was learnt: "none", "120".
    Limit,
    /// What the traffic says of a backend: ok, failing, reduced, ejected.
    Passive,
    /// The way to a backend: resolved, missing.
    Route,
    /// A backend's share of new flows.
    Weight,
    /// Whether a backend takes new flows: in, out.
    Rotation,
    /// A backend: absent, present.
    Backend,
    /// A service: absent, present.
    Service,
    /// A service in a word: ok, degraded, down.
    Verdict,
    /// The configuration file: read again, or refused.
    Config,
    /// The daemon itself: started, stopped.
    Daemon,
    /// An alarm: quiet, firing, resolved.
    Alarm,
    /// Alarms that somebody knows of already: heard, silenced.
    Silence,
}

/// What is compared of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Facts {
    admin: Admin,
    health: Health,
    paused: bool,
    agent: Wish,
    learned: Option<Learned>,
    judged: &'static str,
    routed: bool,
    weight: u16,
    in_rotation: bool,
    until: Option<Timestamp>,
    overdue: bool,
}

impl Facts {
    fn detachment(self) -> String {
        match self.until {
            _ if self.overdue => "overdue".into(),
            Some(until) => format!("until {}", whole_second(until)),
            None => "none".into(),
        }
    }
}

/// What is compared of a service.
#[derive(Clone, Debug, Default)]
pub(super) struct Moment {
    verdict: Option<Verdict>,
    backends: BTreeMap<String, Facts>,
}

impl Moment {
    pub(super) fn anybody_serves(&self) -> bool {
        self.backends.values().any(|facts| facts.in_rotation)
    }

    pub(super) fn serves(&self, backend: &str) -> bool {
        self.backends.get(backend).is_some_and(|facts| facts.in_rotation)
    }
}

impl What {
    /// As it is written.
    pub fn word(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Detachment => "detachment",
            Self::Health => "health",
            Self::Checks => "checks",
            Self::Agent => "agent",
            Self::Limit => "limit",
            Self::Passive => "passive",
            Self::Route => "route",
            Self::Weight => "weight",
            Self::Rotation => "rotation",
            Self::Backend => "backend",
            Self::Service => "service",
            Self::Verdict => "verdict",
            Self::Config => "config",
            Self::Daemon => "daemon",
            Self::Alarm => "alarm",
            Self::Silence => "silence",
        }
    }
}

impl Event {
    /// An event of the daemon as a whole.
    pub fn of_daemon(what: What, from: &str, to: &str, change: Change) -> Self {
        let Change { at, actor, cause } = change;
        Self { at, what, service: None, backend: None, from: from.into(), to: to.into(), actor, cause }
    }
}

impl Model {
    /// What is different in `next`; `change` is the cause of whatever does not carry one of its own.
    pub fn changes_to(&self, next: &Self, change: &Change) -> Vec<Event> {
        let mut events = Vec::new();
        let differ = next.since(self);
        for (known, service) in &differ {
            if let (Some(gone), None) = (known, service) {
                events.push(gone.event(What::Service, None, "present", "absent", change));
            }
        }
        for (known, service) in differ {
            let Some(service) = service else { continue };
            let before = match known {
                Some(known) => known.moment(),
                None => {
                    events.push(service.event(What::Service, None, "absent", "present", change));
                    Moment::default()
                }
            };
            events.extend(service.changes_since(&before, change));
        }
        events
    }
}

impl Service {
    /// What to compare with later.
    pub(super) fn moment(&self) -> Moment {
        let stand_by = self.primary_serves();
        let facts = |backend: &Backend| {
            let facts = Facts {
                admin: backend.admin.value,
                health: backend.health.health(),
                paused: backend.paused.is_some(),
                agent: backend.agent.value,
                learned: backend.learned,
                judged: backend.judged(),
                routed: backend.route.value.is_ok(),
                weight: backend.weight.value,
                in_rotation: backend.serves(stand_by),
                until: backend.detachment.as_ref().map(|detachment| detachment.until),
                overdue: backend.detachment.as_ref().is_some_and(|detachment| detachment.overdue),
            };
            (backend.name.clone(), facts)
        };
        Moment { verdict: Some(self.verdict()), backends: self.backends.iter().map(facts).collect() }
    }

    /// What is different from then; in each backend causes come before their effect.
    pub(super) fn changes_since(&self, before: &Moment, change: &Change) -> Vec<Event> {
        let now = self.moment();
        let mut events = Vec::new();
        for name in before.backends.keys().filter(|name| !now.backends.contains_key(*name)) {
            events.push(self.event(What::Backend, Some(name), "present", "absent", change));
        }
        for backend in &self.backends {
            let after = now.backends[&backend.name];
            match before.backends.get(&backend.name) {
                Some(before) => self.compare(backend, *before, after, change, &mut events),
                None => events.push(self.event(What::Backend, Some(&backend.name), "absent", "present", change)),
            }
        }
        if let (Some(from), Some(to)) = (before.verdict, now.verdict)
            && from != to
        {
            // The last word on a backend is what made the difference.
            let cause = events.last().map(|event| {
                let backend = event.backend.as_deref().unwrap_or_default();
                Change::new(event.at, &event.actor, format!("{backend}: {}; {}", event.cause, self.count()))
            });
            events.push(self.event(What::Verdict, None, from.word(), to.word(), &cause.unwrap_or(change.clone())));
        }
        events
    }

    fn compare(&self, backend: &Backend, from: Facts, to: Facts, change: &Change, events: &mut Vec<Event>) {
        let mut note = |what, from: &str, to: &str, change: &Change| {
            if from != to {
                events.push(self.event(what, Some(&backend.name), from, to, change));
            }
        };
        note(What::Admin, from.admin.word(), to.admin.word(), &backend.admin_change());
        if from.until.is_some() && to.until.is_some() {
            let change = backend.overdue_change().unwrap_or_else(|| change.clone());
            note(What::Detachment, &from.detachment(), &to.detachment(), &change);
        }
        note(What::Weight, &from.weight.to_string(), &to.weight.to_string(), change);
        note(What::Route, routed(from.routed), routed(to.routed), &backend.route_change());
        note(What::Health, from.health.word(), to.health.word(), &backend.health_change);
        let paused = backend.paused.as_ref().unwrap_or(change);
        note(What::Checks, checks(from.paused), checks(to.paused), paused);
        note(What::Agent, &from.agent.words(), &to.agent.words(), &backend.agent.change);
        if let Some((from, to)) = learned(from.learned, to.learned) {
            note(What::Limit, &from, &to, &backend.agent.change);
        }
        note(What::Passive, from.judged, to.judged, &backend.judged_change());
        note(What::Rotation, rotation(from.in_rotation), rotation(to.in_rotation), &self.standing(backend).change);
    }

    fn event(&self, what: What, backend: Option<&String>, from: &str, to: &str, change: &Change) -> Event {
        let Change { at, actor, cause } = change.clone();
        let (service, backend) = (Some(self.spec.name.clone()), backend.cloned());
        Event { at, what, service, backend, from: from.into(), to: to.into(), actor, cause }
    }
}

fn checks(paused: bool) -> &'static str {
    if paused { "paused" } else { "running" }
}

/// A limit that was learnt, or is over; that it grows meanwhile is no news.
fn learned(from: Option<Learned>, to: Option<Learned>) -> Option<(String, String)> {
    let word = |learned: Option<Learned>| learned.map_or("none".into(), |learned| learned.most.to_string());
    let grows = from.zip(to).is_some_and(|(from, to)| from.most <= to.most);
    (!grows).then(|| (word(from), word(to)))
}

fn routed(routed: bool) -> &'static str {
    if routed { "resolved" } else { "missing" }
}

fn rotation(in_rotation: bool) -> &'static str {
    if in_rotation { "in" } else { "out" }
}
