//! What the agents of servers say, and what becomes of it: a share, a limit, and whether a server is to get anything new.
//!
//! An agent that is not heard any more says nothing good: what it said last holds, but no more than [`UNHEARD`] of the share.
//! A share of 0 is the red line. Who is there gets nothing new while others serve; where nobody else does, all who are there
//! serve in equal shares, each with what it had when it got there.

use std::{fmt::Write as _, sync::Arc};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Backend, Change, Event, Held, Learned, Model, Service};
use crate::config::Probe;

/// So many attempts in a row that hear nothing, and nobody knows how the server is.
const MISSED: u32 = 3;
/// The most that is given then of a share, in percent.
const UNHEARD: u16 = 50;
/// Below this share a server is short of something, in percent.
pub(super) const SHORT: u16 = 50;

/// What an agent on a server wants of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AgentMode {
    /// To serve.
    #[default]
    Ready,
    /// To finish what it has.
    Drain,
    /// To be off.
    Maint,
}

/// What an agent said; what it did not mention stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Agent {
    /// What it wants.
    pub mode: Option<AgentMode>,
    /// The share of its weight that it can take, in percent.
    pub percent: Option<u16>,
    /// Whether the server is down.
    pub down: Option<bool>,
    /// The connections that it can take; 0 for any number.
    pub max_connections: Option<u32>,
    /// Memory available, in percent.
    pub memory: Option<u16>,
    /// All of it, in its own words.
    pub words: String,
}

/// What an agent wants by now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// In a word.
    pub mode: AgentMode,
    /// The share of its weight that it can take, in percent.
    pub percent: u16,
    /// Whether the server is down.
    pub down: bool,
    /// The connections that it can take.
    pub max_connections: Option<u32>,
    /// Whether nobody knows whether that still holds.
    pub unknown: bool,
}

/// What came of listening to an agent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hearing {
    /// When it was last heard, and its words.
    pub last: Option<(Timestamp, String)>,
    /// Memory available by then, in percent.
    pub memory: Option<u16>,
    /// How often in a row it was not heard since.
    pub missed: u32,
    /// Why not.
    pub failure: Option<String>,
}

impl Default for Wish {
    fn default() -> Self {
        Self { mode: AgentMode::Ready, percent: 100, down: false, max_connections: None, unknown: false }
    }
}

impl AgentMode {
    /// As it is written.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Drain => "drain",
            Self::Maint => "maint",
        }
    }
}

impl Wish {
    /// As it is written: "ready 75%", "down, drain 50% maxconn:100", "unknown, ready 75%".
    pub fn words(self) -> String {
        let (unknown, down) = (if self.unknown { "unknown, " } else { "" }, if self.down { "down, " } else { "" });
        let mut words = format!("{unknown}{down}{} {}%", self.mode.word(), self.percent);
        if let Some(most) = self.max_connections {
            let _ = write!(words, " maxconn:{most}");
        }
        words
    }

    /// The share of its weight that it is given, in percent.
    pub fn share(self) -> u16 {
        if self.unknown { self.percent.min(UNHEARD) } else { self.percent }
    }

    /// Whether it wants the server to take new flows, be they few.
    fn serves(self) -> bool {
        self.mode == AgentMode::Ready && !self.down
    }

    fn after(self, said: &Agent) -> Self {
        Self {
            mode: said.mode.unwrap_or(self.mode),
            percent: said.percent.unwrap_or(self.percent),
            down: said.down.unwrap_or(self.down),
            max_connections: said
                .max_connections
                .map_or(self.max_connections, |most| Some(most).filter(|most| *most > 0)),
            unknown: false,
        }
    }
}

impl Backend {
    pub(super) fn agent_agrees(&self) -> bool {
        self.agent.value.serves() && self.agent.value.percent > 0
    }

    /// Whether it would serve, were it not at its red line.
    pub fn is_at_red_line(&self) -> bool {
        self.is_wanted_and_well() && self.agent.value.serves() && self.agent.value.percent == 0
    }

    /// Takes what its agent said, and the flows that it has open, where they were counted.
    fn hear(&mut self, said: &Agent, open: Option<u64>, now: Timestamp) {
        let was = self.agent.value;
        let wish = was.after(said);
        // "# text" is HAProxy's way to say why.
        let why = said.words.split_once('#').map(|(_, why)| format!(": {}", why.trim())).unwrap_or_default();
        self.wish(wish, now, || format!("the agent says {}{why}", wish.words()));
        self.learned = match (wish.percent, was.percent) {
            (0, 0) => self.learned,
            (0, _) => open.or(self.open).map(|open| Learned::at_red_line(open, self.learned)).or(self.learned),
            (percent, _) => self.learned.and_then(|learned| learned.after(percent)),
        };
        self.hearing = Hearing { last: Some((now, said.words.clone())), memory: said.memory, ..Hearing::default() };
    }

    /// Takes that its agent was not heard.
    fn miss(&mut self, why: &str, now: Timestamp) {
        self.hearing.missed = self.hearing.missed.saturating_add(1);
        self.hearing.failure = Some(why.to_owned());
        if self.hearing.missed >= MISSED {
            let wish = Wish { unknown: true, ..self.agent.value };
            self.wish(wish, now, || format!("the agent is not heard: {why}"));
        }
    }

    fn wish(&mut self, wish: Wish, now: Timestamp, cause: impl FnOnce() -> String) {
        if wish == self.agent.value {
            return;
        }
        let agreed = self.agent_agrees();
        self.agent = Held::new(wish, Change::new(now, "agent", cause()));
        if self.agent_agrees() != agreed {
            self.consent = self.agent.change.clone();
        } else if !agreed {
            // The same for another reason: the reason of today helps.
            self.consent.cause.clone_from(&self.agent.change.cause);
        }
    }

    /// Forgets whatever an agent said.
    pub(super) fn forget_agent(&mut self, now: Timestamp) {
        let configured = Change::new(now, "config", "configured");
        self.agent = Held::new(Wish::default(), configured.clone());
        (self.consent, self.hearing, self.learned) = (configured, Hearing::default(), None);
    }
}

impl Service {
    /// Whether its backends have agents.
    pub fn has_agents(&self) -> bool {
        self.spec.agent.is_some() || matches!(self.spec.health.probe, Probe::Agent { .. })
    }

    /// Whether all that could serve are at their red lines, and serve nevertheless: somebody must.
    pub fn is_last_resort(&self) -> bool {
        self.in_rotation() == 0 && self.backends.iter().any(Backend::is_at_red_line)
    }
}

impl Model {
    /// Takes what the agent of a backend said, and the flows that the backend has open, where they were counted.
    pub fn hear(
        &mut self,
        service: &str,
        backend: &str,
        said: &Agent,
        open: Option<u64>,
        now: Timestamp,
    ) -> Vec<Event> {
        self.listen(service, backend, now, |backend| backend.hear(said, open, now))
    }

    /// Takes that the agent of a backend was not heard, and why.
    pub fn miss(&mut self, service: &str, backend: &str, why: &str, now: Timestamp) -> Vec<Event> {
        self.listen(service, backend, now, |backend| backend.miss(why, now))
    }

    fn listen(&mut self, service: &str, name: &str, now: Timestamp, take: impl FnOnce(&mut Backend)) -> Vec<Event> {
        let Some(service) = self.services.get_mut(service).map(Arc::make_mut) else { return Vec::new() };
        let Some(index) = service.backends.iter().position(|known| known.name == name) else { return Vec::new() };
        let known = &mut service.backends[index];
        let mut next = known.clone();
        take(&mut next);
        if next.agent.value == known.agent.value && next.learned.is_some() == known.learned.is_some() {
            // The usual case, a thousand times a second: nothing to compare.
            *known = next;
            return Vec::new();
        }
        service.change(now, |service| service.backends[index] = next)
    }

    /// Whether an agent says that its server has come to its red line: then the flows that it has open are what it can take.
    pub fn comes_to_red_line(&self, service: &str, backend: &str, said: &Agent) -> bool {
        said.percent == Some(0) && self.find(service, backend).is_ok_and(|(_, backend)| backend.agent.value.percent > 0)
    }
}

#[cfg(test)]
mod tests;
