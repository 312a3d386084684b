//! One backend: the causes that decide whether it is in rotation, each with who set it, when and why.

use std::net::SocketAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Detachment, Ending, Hearing, Judgement, Learned, Wish};
use crate::{
    config,
    health::{Health, Machine, Thresholds},
    plan::{BackendPlan, NextHop},
};

/// What an operator wants of a backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Admin {
    /// To serve.
    #[default]
    Enabled,
    /// To finish what it has and take nothing new.
    Draining,
    /// To be off.
    Disabled,
}

/// What the traffic itself says of a backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Passive {
    /// Nothing bad.
    #[default]
    Ok,
    /// That it fails its clients.
    Ejected,
}

impl Admin {
    /// As it is written.
    pub fn word(self) -> &'static str {
        match self {
            Self::Enabled => "enabled",
            Self::Draining => "draining",
            Self::Disabled => "disabled",
        }
    }
}

impl Passive {
    /// As it is written.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Ejected => "ejected",
        }
    }
}

/// Where a limit of connections comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LimitSource {
    /// An operator set it.
    Configured,
    /// The agent named it: `maxconn:`.
    Agent,
    /// It is what the backend had when its agent said that it can take no more.
    Learned,
}

/// The last check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checked {
    /// When.
    pub at: Timestamp,
    /// Whether it passed.
    pub passed: bool,
    /// What was seen.
    pub seen: String,
}

/// When, by whom and why something became what it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// When.
    pub at: Timestamp,
    /// By whom: "config", "health check", "netlink", "uid 0".
    pub actor: String,
    /// Why, for people.
    pub cause: String,
}

/// A value and the change that made it so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held<T> {
    /// What it is.
    pub value: T,
    /// How it came to be.
    #[serde(flatten)]
    pub change: Change,
}

/// Why there is no way yet.
const NOT_LOOKED_UP: &str = "no route looked up yet";

/// One backend of a service.
#[derive(Clone, Debug)]
pub struct Backend {
    /// Unique in the service.
    pub name: String,
    /// Where it listens; unique in the service.
    pub address: SocketAddr,
    /// Share of new flows; with 0 it is out of rotation.
    pub weight: Held<u16>,
    /// What an operator wants.
    pub admin: Held<Admin>,
    /// For how long it is draining or disabled; nothing while it is enabled.
    pub detachment: Option<Detachment>,
    /// How its last detachment ended, when no operator ended it nor has had a word on it since.
    pub ended: Option<Held<Ending>>,
    /// What its checks say.
    pub health: Machine,
    /// How that came to be.
    pub health_change: Change,
    /// Whether they fail while its clients have what they ask for.
    pub(super) is_belied: bool,
    /// Where its check connects, when not where those of the others do.
    pub health_port: Option<u16>,
    /// Whether it serves only while no other does.
    pub backup: bool,
    /// With so many connections it gets no new one.
    pub max_connections: Option<u32>,
    /// Its open connections, where they were counted lately since somebody has a limit.
    pub open: Option<u64>,
    /// When it joined others that served, while its share still grows.
    pub joined: Option<Timestamp>,
    /// What its agent wants, if it has one.
    pub agent: Held<Wish>,
    /// Since when its agent lets it serve, or not, and why.
    pub consent: Change,
    /// What came of listening to it.
    pub hearing: Hearing,
    /// How many connections it can take, if that was learnt.
    pub learned: Option<Learned>,
    /// Where its agent is asked, when not where those of the others are.
    pub agent_port: Option<u16>,
    /// Who paused its checks, if they are paused.
    pub paused: Option<Change>,
    /// Its last check.
    pub checked: Option<Checked>,
    /// What the traffic says.
    pub passive: Held<Passive>,
    /// What was made of it, and what came of that.
    pub judgement: Judgement,
    /// The way to it; without one, why.
    pub route: Held<Result<NextHop, String>>,
}

/// Whether a backend is in rotation, since when and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Whether it takes new flows.
    pub in_rotation: bool,
    /// The first cause that keeps it out; when none does, the last that let it in.
    pub change: Change,
}

impl Change {
    /// A change at a time.
    pub fn new(at: Timestamp, actor: &str, cause: impl Into<String>) -> Self {
        Self { at, actor: actor.to_owned(), cause: cause.into() }
    }
}

impl<T> Held<T> {
    /// A value with its change.
    pub fn new(value: T, change: Change) -> Self {
        Self { value, change }
    }
}

impl Backend {
    /// As the file has it: enabled, not checked, not looked up.
    pub(super) fn new(entry: config::Backend, check: &config::HealthCheck, now: Timestamp) -> Self {
        let configured = Change::new(now, "config", "configured");
        let (health, health_change) = fresh_health(check, now);
        Self {
            name: entry.name,
            address: entry.address,
            weight: Held::new(entry.weight, configured.clone()),
            admin: Held::new(Admin::Enabled, configured.clone()),
            detachment: None,
            ended: None,
            health: Machine::new(health),
            health_change,
            is_belied: false,
            health_port: entry.health_port,
            backup: entry.backup,
            max_connections: entry.max_connections,
            open: None,
            joined: None,
            agent: Held::new(Wish::default(), configured.clone()),
            consent: configured.clone(),
            hearing: Hearing::default(),
            learned: None,
            agent_port: entry.agent_port,
            paused: None,
            checked: None,
            passive: Held::new(Passive::Ok, configured),
            judgement: Judgement::default(),
            route: Held::new(Err(NOT_LOOKED_UP.into()), Change::new(now, "netlink", "started")),
        }
    }

    /// The same with nothing known of its health.
    pub(super) fn with_fresh_health(&self, check: &config::HealthCheck, now: Timestamp) -> Self {
        let (health, health_change) = fresh_health(check, now);
        Self { health: Machine::new(health), health_change, ..self.clone() }
    }

    /// Whether it is this very server.
    pub fn is(&self, name: &str, address: SocketAddr) -> bool {
        self.name == name && self.address == address
    }

    /// Whether nothing keeps it from taking new flows, but that it may be a backup.
    pub fn is_fit(&self) -> bool {
        self.admin.value == Admin::Enabled && self.would_serve()
    }

    /// Whether it takes new flows: a backup does not while primaries serve.
    pub(super) fn serves(&self, primaries_serve: bool) -> bool {
        self.is_fit() && !self.stands_by(primaries_serve)
    }

    /// Whether it is a backup that could take new flows, and need not.
    pub(super) fn stands_by(&self, primaries_serve: bool) -> bool {
        self.backup && primaries_serve && self.is_fit()
    }

    /// Whether it would, were it enabled.
    pub(super) fn would_serve(&self) -> bool {
        self.is_well() && self.agent_agrees()
    }

    /// Whether it is enabled, and nothing but its agent may keep it from taking new flows.
    pub(super) fn is_wanted_and_well(&self) -> bool {
        self.admin.value == Admin::Enabled && self.is_well()
    }

    fn is_well(&self) -> bool {
        self.weight.value != 0
            && self.route.value.is_ok()
            && self.health.health() == Health::Up
            && self.passive.value == Passive::Ok
    }

    /// Whether it fails its clients or its checks.
    pub(super) fn is_at_fault(&self) -> bool {
        self.health.health() == Health::Down || self.is_ejected()
    }

    /// Whether it is out for what its traffic says.
    pub fn is_ejected(&self) -> bool {
        self.passive.value == Passive::Ejected
    }

    /// The least of its limits, if it has any, and where that comes from.
    pub fn limit(&self) -> Option<(u32, LimitSource)> {
        let configured = self.max_connections.map(|most| (most, LimitSource::Configured));
        let reported = self.agent.value.max_connections.map(|most| (most, LimitSource::Agent));
        let learned = self.learned.map(|learned| (learned.most, LimitSource::Learned));
        [configured, reported, learned].into_iter().flatten().min_by_key(|(most, _)| *most)
    }

    /// Whether it has as many connections as it may have.
    pub fn is_full(&self) -> bool {
        self.open.zip(self.limit()).is_some_and(|(open, (most, _))| open >= u64::from(most))
    }

    /// How the way to it came to be what it is.
    pub(super) fn route_change(&self) -> Change {
        match &self.route.value {
            Ok(_) => self.route.change.clone(),
            Err(why) => Change { cause: why.clone(), ..self.route.change.clone() },
        }
    }

    /// Whether it takes new flows when there is no word on whether it is fit: it is wanted, and there is a way to it.
    pub(super) fn is_reachable(&self) -> bool {
        self.admin.value == Admin::Enabled && self.weight.value != 0 && self.route.value.is_ok()
    }

    /// Whether it is fit, since when and why.
    pub(super) fn fitness(&self) -> Standing {
        let change = self.blocker().unwrap_or_else(|| {
            let agreeing = [
                &self.health_change,
                &self.admin.change,
                &self.consent,
                &self.weight.change,
                &self.passive.change,
                &self.route.change,
            ];
            // The earlier of equals: what the checks say tells most.
            agreeing.into_iter().rev().max_by_key(|change| change.at).expect("the list is not empty").clone()
        });
        Standing { in_rotation: self.is_fit(), change }
    }

    /// What keeps it out of rotation: of several causes the one that an operator must undo first.
    fn blocker(&self) -> Option<Change> {
        if self.admin.value != Admin::Enabled {
            let at = self.detachment.as_ref().map_or(self.admin.change.at, |detachment| detachment.since);
            return Some(Change { at, ..self.admin.change.clone() });
        }
        if self.weight.value == 0 {
            let cause = format!("weight 0 ({})", self.weight.change.cause);
            return Some(Change { cause, ..self.weight.change.clone() });
        }
        // Before health: without a way to the backend its checks fail too, and say less.
        if self.route.value.is_err() {
            return Some(self.route_change());
        }
        if self.health.health() != Health::Up {
            return Some(self.health_change.clone());
        }
        if !self.agent_agrees() {
            return Some(self.consent.clone());
        }
        Some(self.passive.change.clone()).filter(|_| self.passive.value != Passive::Ok)
    }

    /// Takes over what is known of the same server from before a reload.
    pub(super) fn inherit(&mut self, known: &Self, health: bool, agent: bool) {
        self.route = known.route.clone();
        self.passive = known.passive.clone();
        self.judgement = known.judgement.clone();
        self.joined = known.joined;
        self.open = known.open;
        self.ended = known.ended.clone();
        self.paused = known.paused.clone();
        if agent {
            self.agent = known.agent.clone();
            self.consent = known.consent.clone();
            self.hearing = known.hearing.clone();
            self.learned = known.learned;
        }
        if health {
            self.checked = known.checked.clone();
            self.health = known.health;
            self.health_change = known.health_change.clone();
        }
        // What stays the same stays so since when it did.
        if self.admin.value == known.admin.value {
            self.admin.change = known.admin.change.clone();
        }
        if (self.weight.value == 0) == (known.weight.value == 0) {
            self.weight.change = known.weight.change.clone();
        }
    }

    pub(super) fn adopt(&mut self, health: Health, now: Timestamp) {
        self.health = Machine::new(health);
        self.health_change = Change::new(now, "health check", "as it was before the daemon started");
    }

    pub(super) fn observe(&mut self, result: &Result<String, String>, thresholds: Thresholds, now: Timestamp) {
        let (Ok(seen) | Err(seen)) = result;
        self.checked = Some(Checked { at: now, passed: result.is_ok(), seen: seen.clone() });
        if self.health.observe(result.is_ok(), thresholds) {
            self.health_change = Change::new(now, "health check", seen);
        } else if result.is_ok() == (self.health.health() == Health::Up) {
            // The same state for another reason, say a timeout after a refusal: the reason of today helps.
            self.health_change.cause.clone_from(seen);
        }
    }

    pub(super) fn resolve(&mut self, route: &Result<NextHop, String>, now: Timestamp) {
        if self.route.value == *route {
            return;
        }
        // Neither another way nor the first is news: only one that was missing.
        let was_missing = self.route.value.as_ref().is_err_and(|why| why != NOT_LOOKED_UP);
        let at = if route.is_err() || was_missing { now } else { self.route.change.at };
        self.route = Held::new(route.clone(), Change::new(at, "netlink", "route and neighbour resolved"));
    }

    pub(super) fn set_weight(&mut self, weight: u16, change: Change) {
        // Another share is no change of rotation, some share after none is.
        if (weight == 0) != (self.weight.value == 0) {
            self.weight.change = change;
        }
        self.weight.value = weight;
    }

    pub(super) fn as_config(&self) -> config::Backend {
        let Self { health_port, agent_port, backup, max_connections, .. } = *self;
        let named = config::Backend::new(&self.name, self.address, self.weight.value);
        config::Backend { health_port, agent_port, backup, max_connections, ..named }
    }

    pub(super) fn plan(&self, weight: u16, in_rotation: bool, stands_by: bool) -> BackendPlan {
        BackendPlan {
            name: self.name.clone(),
            address: self.address,
            weight,
            in_rotation,
            healthy: self.health.health() == Health::Up,
            given_up: false,
            stands_by,
            max_connections: self.limit().map(|(most, _)| most),
            comfortable_connections: None,
            next_hop: self.route.value.as_ref().ok().copied(),
        }
    }
}

/// Before any check.
fn fresh_health(check: &config::HealthCheck, now: Timestamp) -> (Health, Change) {
    let (health, cause) = match check.probe {
        config::Probe::None => (Health::Up, "not checked: type = \"none\""),
        _ => (Health::Unknown, "not checked yet"),
    };
    (health, Change::new(now, "config", cause))
}
