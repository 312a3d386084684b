//! When a backend that an operator has taken out is called back: a pure function of how the others are.
//!
//! What was wrong already when the operator acted calls nobody back: whoever takes a server out knows of it, and would
//! otherwise see it come back at once.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use super::{Admin, AgentMode, Backend, Change, Ending, Service, agent::SHORT};
use crate::{config::Recall, health::Health};

/// After one was called back, how long the next waits to see whether that was enough, while somebody serves.
const PATIENCE: SignedDuration = SignedDuration::from_secs(10);

/// How the cause of a recall begins.
pub const CALLED_BACK: &str = "called back: ";

/// What is wrong with a backend that is to serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It is out of rotation, and why.
    Out(String),
    /// It serves, but hardly, and why.
    Strained(String),
}

/// How a service is, as far as one of its detached backends is concerned.
#[derive(Clone, Copy, Debug)]
struct Rest<'a> {
    /// Whether any backend is in rotation.
    anybody_serves: bool,
    /// The others that are in trouble, by name.
    troubled: &'a [(String, Trouble)],
}

/// Why a detached backend is to be called back, if it is.
fn wanted(policy: Recall, accepted: &BTreeSet<String>, rest: Rest<'_>) -> Option<String> {
    let mut news = rest.troubled.iter().filter(|(name, _)| !accepted.contains(name));
    let (name, trouble) = match policy {
        Recall::Never => return None,
        Recall::Last if rest.anybody_serves => return None,
        Recall::Last => news.find(|(_, trouble)| matches!(trouble, Trouble::Out(_)))?,
        Recall::Pressure => news.next()?,
    };
    Some(match trouble {
        Trouble::Out(why) if rest.anybody_serves => format!("{name} is out of rotation: {why}"),
        Trouble::Out(why) => format!("no other is in rotation; {name}: {why}"),
        Trouble::Strained(why) => format!("{name} is under pressure: {why}"),
    })
}

impl Backend {
    /// What is wrong with it, if it is to serve at all.
    pub fn trouble(&self, thresholds: crate::health::Thresholds) -> Option<Trouble> {
        if self.admin.value != Admin::Enabled || self.weight.value == 0 {
            return None;
        }
        if self.route.value.is_err() {
            return Some(Trouble::Out(self.route_change().cause));
        }
        if self.health.health() == Health::Down {
            return Some(Trouble::Out(self.health_change.cause.clone()));
        }
        if self.is_ejected() {
            return Some(Trouble::Out(self.passive.change.cause.clone()));
        }
        let wish = self.agent.value;
        match (wish.mode, wish.percent) {
            (AgentMode::Maint, _) | (_, 0) => return Some(Trouble::Out(self.agent.change.cause.clone())),
            _ if wish.down => return Some(Trouble::Out(self.agent.change.cause.clone())),
            (AgentMode::Ready, SHORT..) => {}
            _ => return Some(Trouble::Strained(self.agent.change.cause.clone())),
        }
        if let Some((most, _)) = self.limit().filter(|_| self.is_full()) {
            return Some(Trouble::Strained(format!("it has the {most} connections that it may have")));
        }
        if let Some(why) = self.complaint() {
            return Some(Trouble::Strained(why.to_owned()));
        }
        // One odd check tells nothing, unless it takes no more.
        let failed = if self.health.health() == Health::Up { self.health.contrary() } else { 0 };
        if failed >= thresholds.fall.min(2) {
            let seen = self.checked.as_ref().map(|checked| checked.seen.as_str()).unwrap_or_default();
            return Some(Trouble::Strained(format!("{failed} checks in a row: {seen}")));
        }
        None
    }
}

impl Service {
    /// The backends in trouble.
    pub(super) fn troubled(&self) -> Vec<(String, Trouble)> {
        let thresholds = self.thresholds();
        let trouble = |backend: &Backend| Some((backend.name.clone(), backend.trouble(thresholds)?));
        self.backends.iter().filter_map(trouble).collect()
    }

    /// Calls a detached backend back, if one is needed and can serve.
    pub(super) fn recall(&mut self, now: Timestamp) {
        if !self.calls_back(now) {
            return;
        }
        let troubled = self.troubled();
        for backend in &mut self.backends {
            if let Some(detachment) = &mut backend.detachment {
                detachment.accepted.retain(|name| is_among(name, &troubled));
            }
        }
        if let Some((index, why)) = self.needed(&troubled, now) {
            let backend = &mut self.backends[index];
            let cause = format!("{CALLED_BACK}{why}; it had been {}", backend.admin.change.cause);
            backend.end_detachment(Ending::Recalled, Change::new(now, "recall", cause));
            self.recalled = Some(now);
        }
    }

    /// Whether [`recall`](Self::recall) would change anything.
    pub(super) fn calls_back(&self, now: Timestamp) -> bool {
        let mut detached = self.backends.iter().filter_map(|backend| backend.detachment.as_ref()).peekable();
        if detached.peek().is_none() {
            return false;
        }
        let troubled = self.troubled();
        // Who recovered and is in trouble again is news.
        detached.any(|known| known.accepted.iter().any(|name| !is_among(name, &troubled)))
            || self.needed(&troubled, now).is_some()
    }

    /// Who is to be called back, and why: of several the one that has been out longest.
    fn needed(&self, troubled: &[(String, Trouble)], now: Timestamp) -> Option<(usize, String)> {
        let rest = Rest { anybody_serves: self.in_rotation() > 0, troubled };
        let waits = self.recalled.is_some_and(|last| now.duration_since(last) < PATIENCE);
        if rest.anybody_serves && waits {
            return None;
        }
        let called = self.backends.iter().enumerate().filter(|(_, backend)| backend.would_serve());
        let called = called.filter_map(|(index, backend)| {
            let detachment = backend.detachment.as_ref()?;
            let why = wanted(detachment.recall.unwrap_or(self.spec.recall), &detachment.accepted, rest)?;
            Some((detachment.since, index, why))
        });
        called.min_by_key(|(since, ..)| *since).map(|(_, index, why)| (index, why))
    }
}

fn is_among(name: &str, troubled: &[(String, Trouble)]) -> bool {
    troubled.iter().any(|(other, _)| other == name)
}

#[cfg(test)]
mod tests;
