//! What should be, as a value: services, backends, and why each backend is or is not in rotation.
//!
//! Everything that happens (the file, an operator, a check, netlink) is a function from a model to the next; what
//! comes out is a [`Plan`] for the dataplane. There is no clock and no I/O here: the caller brings the time.
//! Whether a backend is in rotation is computed from its separate causes and stored nowhere.

mod backend;
mod edit;
mod overrides;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
};

pub use backend::{Admin, Backend, Change, Held, Passive, Standing};
pub use edit::{AdminChange, Rejection, entry, no_such_backend, no_such_service};
use jiff::Timestamp;
pub use overrides::{Entry, Override, Overrides};

use crate::{
    config,
    health::{Health, Thresholds},
    plan::{NextHop, Plan, ServicePlan},
};

/// Every service.
#[derive(Clone, Debug, Default)]
pub struct Model {
    /// By name.
    pub services: BTreeMap<String, Service>,
}

/// One service.
#[derive(Clone, Debug)]
pub struct Service {
    /// What the file says of it.
    pub spec: config::Service,
    /// The backends there are: those of the file, as changed at run time.
    pub backends: Vec<Backend>,
}

/// A backend entered or left rotation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// Its service.
    pub service: String,
    /// Its name.
    pub backend: String,
    /// What it is by now.
    pub standing: Standing,
    /// Backends of the service that are in rotation by now.
    pub in_rotation: usize,
    /// Backends of the service.
    pub total: usize,
}

impl Model {
    /// The services of the file, with the changes that were made at run time.
    pub fn new(services: &[config::Service], overrides: &Overrides, now: Timestamp) -> Self {
        let services = services.iter().map(|spec| {
            let backends = overrides.apply(spec).into_iter().map(|(entry, admin)| {
                let mut backend = Backend::new(entry, &spec.health, now);
                if let Some(admin) = admin {
                    backend.admin = admin;
                }
                backend
            });
            (spec.name.clone(), Service { backends: backends.collect(), spec: spec.clone() })
        });
        Self { services: services.collect() }
    }

    /// The model of another file. Backends that stay the same keep what was learnt of them.
    pub fn reload(&self, services: &[config::Service], now: Timestamp) -> Self {
        let mut next = Self::new(services, &self.overrides(), now);
        for (name, service) in &mut next.services {
            let Some(known) = self.services.get(name) else { continue };
            let check_is_on = service.spec.health.probe != config::Probe::None;
            let check_was_on = known.spec.health.probe != config::Probe::None;
            for backend in &mut service.backends {
                let Some(known) = known.backends.iter().find(|known| known.is(&backend.name, backend.address)) else {
                    continue;
                };
                backend.inherit(known, check_is_on == check_was_on);
            }
        }
        next
    }

    /// Takes over what the maps remember of a backend's health. A backend that is not checked stays up.
    pub fn adopt(&mut self, service: &str, backend: &str, address: SocketAddr, healthy: bool, now: Timestamp) {
        let Some(service) = self.services.get_mut(service) else { return };
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
    ) -> Option<Transition> {
        let service = self.services.get_mut(service)?;
        let thresholds = Thresholds { rise: service.spec.health.rise, fall: service.spec.health.fall };
        let index = service.backends.iter().position(|known| known.name == backend)?;
        service.change(index, |backend| backend.observe(result, thresholds, now))
    }

    /// Takes the ways to the backends; an address that is missing keeps the way it had.
    pub fn resolve(&mut self, routes: &HashMap<IpAddr, Result<NextHop, String>>, now: Timestamp) -> Vec<Transition> {
        let mut transitions = Vec::new();
        for service in self.services.values_mut() {
            for index in 0..service.backends.len() {
                if let Some(route) = routes.get(&service.backends[index].address.ip()) {
                    transitions.extend(service.change(index, |backend| backend.resolve(route, now)));
                }
            }
        }
        transitions
    }

    /// The addresses that a way is needed to.
    pub fn addresses(&self) -> BTreeSet<IpAddr> {
        self.services.values().flat_map(|service| &service.backends).map(|backend| backend.address.ip()).collect()
    }

    /// What the packet path should do.
    pub fn plan(&self) -> Plan {
        let services = self.services.values().map(|service| ServicePlan {
            name: service.spec.name.clone(),
            listen: service.spec.listen,
            protocol: service.spec.protocol,
            algorithm: service.spec.algorithm,
            forward: service.spec.forward,
            backends: service.backends.iter().map(Backend::plan).collect(),
        });
        Plan { services: services.collect() }
    }
}

impl Service {
    /// How many backends take new flows.
    pub fn in_rotation(&self) -> usize {
        self.backends.iter().filter(|backend| backend.in_rotation()).count()
    }

    /// Changes a backend and says whether that moved it in or out of rotation.
    fn change(&mut self, index: usize, change: impl FnOnce(&mut Backend)) -> Option<Transition> {
        let backend = &mut self.backends[index];
        let before = backend.in_rotation();
        change(backend);
        if backend.in_rotation() == before {
            return None;
        }
        let (name, standing) = (backend.name.clone(), backend.standing());
        Some(Transition {
            service: self.spec.name.clone(),
            backend: name,
            standing,
            in_rotation: self.in_rotation(),
            total: self.backends.len(),
        })
    }
}

#[cfg(test)]
mod tests;
