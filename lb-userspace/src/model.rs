//! What should be, as a value: services, backends, and why each backend is or is not in rotation.
//!
//! Everything that happens (the file, an operator, a check, netlink) is a function from a model to the next; what
//! comes out is a [`Plan`] for the dataplane. There is no clock and no I/O here: the caller brings the time.
//! Whether a backend is in rotation is computed from its separate causes and stored nowhere.

mod agent;
mod backend;
mod derived;
mod detachment;
mod edit;
mod edit_checks;
mod edit_service;
mod event;
mod learned;
mod overrides;
mod passive;
mod recall;
mod rotation;
mod share;

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

pub use agent::{Agent, AgentMode, Hearing, Wish};
pub use backend::{Admin, Backend, Change, Checked, Held, LimitSource, Passive, Standing};
pub use derived::Derived;
pub use detachment::{Detachment, Ending};
pub(crate) use edit::check_reason;
pub use edit::{AdminChange, Rejection, entry, no_such_backend, no_such_service};
pub use event::{Event, What};
use jiff::Timestamp;
pub use learned::Learned;
pub use overrides::{Entry, Override, Overrides, SettingsOverride};
pub use passive::{Complaint, Judged, Judgement};
pub use recall::{CALLED_BACK, Trouble};
use serde::{Deserialize, Serialize};

use crate::{
    config::{self, DEFAULT_DETACHED_FOR},
    dataplane::Load,
    health::{Health, Thresholds},
    plan::{NextHop, Plan},
};

/// Every service.
#[derive(Clone, Debug, Default)]
pub struct Model {
    /// By name. Models share what is the same in both, so that a change costs what it changes, not what there is.
    pub services: BTreeMap<String, Arc<Service>>,
    /// What the file says of services that were removed at run time.
    removed: BTreeMap<String, config::Service>,
    /// How long a detachment lasts where neither the operator nor the service says, if not as long as by default.
    detached_for: Option<Duration>,
}

/// One service.
#[derive(Clone, Debug)]
pub struct Service {
    /// What the file says of it; nothing, when it was added at run time.
    pub file: Option<config::Service>,
    /// What it is: the file's settings as changed at run time. Its backends are those it began with.
    pub spec: config::Service,
    /// The backends there are: those of the file, as changed at run time.
    pub backends: Vec<Backend>,
    /// When one was last called back.
    recalled: Option<Timestamp>,
}

/// A service in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Every backend is in rotation, and they are enough.
    Ok,
    /// One is not, or they are fewer than `min_healthy`.
    Degraded,
    /// None is.
    Down,
}

/// What a service was, and what it is.
pub type Difference<'a> = (Option<&'a Arc<Service>>, Option<&'a Arc<Service>>);

impl Model {
    /// The services of the file, with the changes that were made at run time.
    pub fn new(services: &[config::Service], overrides: &Overrides, now: Timestamp) -> Self {
        let (specs, removed) = overrides.settle(services);
        let services = specs.into_iter().map(|(file, spec)| {
            let backends = overrides.apply(&spec, file.is_some()).into_iter().map(|(entry, change)| {
                let mut backend = Backend::new(entry, &spec.health, now);
                if let Some(admin) = change.and_then(|change| change.admin.clone()) {
                    let since = admin.change.at;
                    let always = || Detachment::new(since, since + DEFAULT_DETACHED_FOR);
                    let known = change.and_then(|change| change.detachment.clone());
                    backend.detach(admin, known.unwrap_or_else(always));
                }
                backend.paused = change.and_then(|change| change.paused.clone());
                backend
            });
            (spec.name.clone(), Arc::new(Service { file, backends: backends.collect(), spec, recalled: None }))
        });
        Self { services: services.collect(), removed, detached_for: None }
    }

    /// The same with another length of detachments for services that say none.
    #[must_use]
    pub fn with_detached_for(self, detached_for: Duration) -> Self {
        Self { detached_for: Some(detached_for), ..self }
    }

    /// The model of another file. Backends that stay the same keep what was learnt of them.
    pub fn reload(&self, services: &[config::Service], now: Timestamp) -> Self {
        self.renewed(services, &self.overrides(), now)
    }

    /// The same without what was changed at run time.
    pub fn revert(&self, services: &[config::Service], now: Timestamp) -> Self {
        self.renewed(services, &Overrides::default(), now)
    }

    fn renewed(&self, services: &[config::Service], overrides: &Overrides, now: Timestamp) -> Self {
        let mut next = Self { detached_for: self.detached_for, ..Self::new(services, overrides, now) };
        for (name, service) in &mut next.services {
            let Some(known) = self.services.get(name) else { continue };
            let same_kind = service.is_checked() == known.is_checked();
            let same_agents = service.has_agents() == known.has_agents();
            let service = Arc::make_mut(service);
            service.recalled = known.recalled;
            for backend in &mut service.backends {
                let Some(known) = known.backends.iter().find(|known| known.is(&backend.name, backend.address)) else {
                    continue;
                };
                backend.inherit(known, same_kind, same_agents);
            }
        }
        next
    }

    /// Takes over what the maps remember of a backend's health. A backend that is not checked stays up.
    pub fn adopt(&mut self, service: &str, backend: &str, address: SocketAddr, healthy: bool, now: Timestamp) {
        let Some(service) = self.services.get_mut(service).map(Arc::make_mut) else { return };
        if service.spec.health.probe == config::Probe::None {
            return;
        }
        let Some(backend) = service.backends.iter_mut().find(|known| known.is(backend, address)) else { return };
        let health = if healthy { Health::Up } else { Health::Down };
        backend.adopt(health, now);
    }

    /// Takes the result of a check: `Ok` or `Err`, with what was seen.
    pub fn observe(
        &mut self,
        service: &str,
        backend: &str,
        result: &Result<String, String>,
        now: Timestamp,
    ) -> Vec<Event> {
        let Some(service) = self.services.get_mut(service).map(Arc::make_mut) else { return Vec::new() };
        let thresholds = service.thresholds();
        let Some(index) = service.backends.iter().position(|known| known.name == backend) else { return Vec::new() };
        if !service.backends[index].health.flips(result.is_ok(), thresholds) {
            // The usual case, a thousand times a second: nothing to compare.
            service.backends[index].observe(result, thresholds, now);
            return Vec::new();
        }
        service.change(now, |service| service.backends[index].observe(result, thresholds, now))
    }

    /// Takes the open connections of backends of services with limits; of others nobody counts them.
    pub fn count(&mut self, loads: &[Load]) {
        let loads: HashMap<(&str, &str), u64> =
            loads.iter().map(|load| ((load.service.as_str(), load.backend.as_str()), load.open)).collect();
        for (name, service) in &mut self.services {
            let open = |backend: &Backend| loads.get(&(name.as_str(), backend.name.as_str())).copied();
            if service.backends.iter().any(|backend| backend.open != open(backend)) {
                Arc::make_mut(service).backends.iter_mut().for_each(|backend| backend.open = open(backend));
            }
        }
    }

    /// Takes the ways to the backends; an address that is missing keeps the way it had.
    pub fn resolve(&mut self, routes: &HashMap<IpAddr, Result<NextHop, String>>, now: Timestamp) -> Vec<Event> {
        self.services.values_mut().flat_map(|service| resolve(service, routes, now)).collect()
    }

    /// The same for the services that differ from those of `before`.
    pub fn resolve_since(
        &mut self,
        before: &Self,
        routes: &HashMap<IpAddr, Result<NextHop, String>>,
        now: Timestamp,
    ) -> Vec<Event> {
        let differ = self.since(before).into_iter().filter_map(|(_, service)| Some(service?.spec.name.clone()));
        let differ: Vec<String> = differ.collect();
        let service = |name| self.services.get_mut(&name).map(|service| resolve(service, routes, now));
        differ.into_iter().filter_map(service).flatten().collect()
    }

    /// Lets time pass: what was wanted until a time ends then, and who is needed before is called back.
    pub fn tick(&mut self, now: Timestamp) -> Vec<Event> {
        let mut events = Vec::new();
        for service in self.services.values_mut() {
            let due = service.is_due(now);
            if !due && !service.is_growing() {
                continue;
            }
            let service = Arc::make_mut(service);
            service.end_slow_starts(now);
            if due {
                events.extend(service.change(now, |service| {
                    service.end_detachments(now);
                    service.end_ejections(now);
                }));
            }
        }
        events
    }

    /// The addresses that a way is needed to.
    pub fn addresses(&self) -> BTreeSet<IpAddr> {
        self.services.values().flat_map(|service| service.addresses()).collect()
    }

    /// Whether a way is needed to other addresses than before.
    pub fn reaches_others_than(&self, before: &Self) -> bool {
        let addresses =
            |service: Option<&Arc<Service>>| service.map_or(Vec::new(), |service| service.addresses().collect());
        self.since(before).into_iter().any(|(known, service)| addresses(known) != addresses(service))
    }

    /// Whether a share still grows.
    pub fn is_growing(&self) -> bool {
        self.services.values().any(|service| service.is_growing())
    }

    /// Gives what serves its whole share: nothing served before it.
    pub fn start_at_once(&mut self) {
        for service in self.services.values_mut().filter(|service| service.is_growing()) {
            Arc::make_mut(service).backends.iter_mut().for_each(|backend| backend.joined = None);
        }
    }

    /// Lets what joined since then grow slowly to its share.
    pub fn start_slowly_since(&mut self, before: &Self, now: Timestamp) {
        let moment = |(known, service): Difference<'_>| Some((service?.spec.name.clone(), known?.moment()));
        let differ: Vec<_> = self.since(before).into_iter().filter_map(moment).collect();
        for (name, moment) in differ {
            if let Some(service) = self.services.get_mut(&name) {
                Arc::make_mut(service).start_slowly(&moment, now);
            }
        }
    }

    /// The services as they would stand in a file.
    pub fn as_config(&self) -> Vec<config::Service> {
        self.services.values().map(|service| service.as_config()).collect()
    }

    /// What the packet path should do.
    pub fn plan(&self, now: Timestamp) -> Plan {
        self.services.values().map(|service| service.plan(now)).collect()
    }

    /// The services that differ from those of `before`, each beside what had its name: new ones had nothing, those that
    /// are gone have become nothing.
    pub fn since<'a>(&'a self, before: &'a Self) -> Vec<Difference<'a>> {
        let (mut old, mut new) = (before.services.iter().peekable(), self.services.iter().peekable());
        let mut differ = Vec::new();
        loop {
            let order = match (old.peek(), new.peek()) {
                (None, None) => return differ,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some((known, _)), Some((name, _))) => known.cmp(name),
            };
            let known = if order.is_le() { old.next() } else { None }.map(|(_, service)| service);
            let service = if order.is_ge() { new.next() } else { None }.map(|(_, service)| service);
            match (known, service) {
                (Some(known), Some(service)) if Arc::ptr_eq(known, service) => {}
                pair => differ.push(pair),
            }
        }
    }
}

impl Service {
    /// What it is by now, as it would stand in a file.
    pub fn as_config(&self) -> config::Service {
        let backends = self.backends.iter().map(Backend::as_config).collect();
        config::Service { backends, ..self.spec.clone() }
    }

    fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.backends.iter().map(|backend| backend.address.ip())
    }

    fn is_checked(&self) -> bool {
        self.spec.health.probe != config::Probe::None
    }

    /// Whether time, or what was learnt without a word, changes anything of what operators did.
    fn is_due(&self, now: Timestamp) -> bool {
        self.ends_a_detachment(now) || self.calls_back(now) || self.ends_an_ejection(now)
    }

    /// How many results in a row it takes. Where nobody works there is nothing to lose by whoever passes once.
    fn thresholds(&self) -> Thresholds {
        Thresholds { rise: if self.anybody_works() { self.spec.health.rise } else { 1 }, fall: self.spec.health.fall }
    }

    /// Changes the service, calls back who is needed then, and says what that changed.
    fn change(&mut self, now: Timestamp, change: impl FnOnce(&mut Self)) -> Vec<Event> {
        let before = self.moment();
        change(self);
        self.recall(now);
        self.pardon_the_needed(now);
        self.start_slowly(&before, now);
        self.changes_since(&before, &Change::new(now, "lb", "changed"))
    }
}

/// Takes the ways to the backends of a service, if there is any news.
fn resolve(
    service: &mut Arc<Service>,
    routes: &HashMap<IpAddr, Result<NextHop, String>>,
    now: Timestamp,
) -> Vec<Event> {
    let news = |backend: &Backend| routes.get(&backend.address.ip()).is_some_and(|route| *route != backend.route.value);
    if !service.backends.iter().any(news) {
        return Vec::new();
    }
    Arc::make_mut(service).change(now, |service| {
        for backend in &mut service.backends {
            if let Some(route) = routes.get(&backend.address.ip()) {
                backend.resolve(route, now);
            }
        }
    })
}

impl Verdict {
    /// As it is written.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Degraded => "degraded",
            Self::Down => "down",
        }
    }
}

#[cfg(test)]
mod tests;
