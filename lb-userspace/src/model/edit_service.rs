//! What an operator may change of services at run time.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::{Backend, Change, Model, Rejection, Service};
use crate::config::{self, document};

/// What every kind of check has; the rest goes when the kind changes.
const OF_EVERY_CHECK: &[&str] = &["type", "interval", "timeout", "rise", "fall", "jitter", "fast_interval"];

impl Model {
    /// Adds a service. Its backends take flows once they are checked and resolved.
    ///
    /// # Errors
    /// When the name or the address is taken, or the document is no service.
    pub fn add_service(
        &mut self,
        name: &str,
        settings: &Map<String, Value>,
        actor: &str,
        now: Timestamp,
    ) -> Result<(), Rejection> {
        if self.services.contains_key(name) {
            return Err(Rejection::Conflict(format!("there is a service {name} already")));
        }
        let spec = document::service(name, settings).map_err(Rejection::Invalid)?;
        self.refuse_taken(&spec)?;
        let added = Change::new(now, actor, format!("added by {actor}"));
        let backends = spec.backends.iter().map(|entry| {
            let mut backend = Backend::new(entry.clone(), &spec.health, now);
            backend.weight.change = added.clone();
            backend.admin.change = added.clone();
            backend
        });
        let service = Service {
            file: self.removed.remove(name),
            backends: backends.collect(),
            spec: config::Service { backends: Vec::new(), ..spec.clone() },
            recalled: None,
        };
        self.services.insert(name.to_owned(), Arc::new(service));
        Ok(())
    }

    /// Changes settings of a service: what `change` names is replaced, `null` restores the default.
    ///
    /// # Errors
    /// When there is no such service, the address is taken, or it would make no sense.
    pub fn set_service(&mut self, name: &str, change: &Map<String, Value>, now: Timestamp) -> Result<(), Rejection> {
        if change.contains_key("backend") {
            return Err(Rejection::Invalid("the backends of a service are changed one by one".into()));
        }
        let service = self.service_mut(name)?;
        let mut next = document::whole(&service.as_config());
        let kind =
            |settings: &Map<String, Value>| settings.get("health").and_then(|health| health.get("type")).cloned();
        if kind(change).is_some_and(|wanted| Some(wanted) != kind(&next))
            && let Some(health) = next.get_mut("health").and_then(Value::as_object_mut)
        {
            health.retain(|key, _| OF_EVERY_CHECK.contains(&key.as_str()));
        }
        document::patch(&mut next, change);
        let spec = document::service(name, &next).map_err(Rejection::Invalid)?;
        self.refuse_taken(&spec)?;
        let service = self.service_mut(name)?;
        let (was_checked, had_agents) = (service.is_checked(), service.has_agents());
        service.spec = config::Service { backends: service.spec.backends.clone(), ..spec };
        if service.is_checked() != was_checked {
            for backend in &mut service.backends {
                *backend = backend.with_fresh_health(&service.spec.health, now);
            }
        }
        if service.has_agents() != had_agents {
            service.backends.iter_mut().for_each(|backend| backend.forget_agent(now));
        }
        Ok(())
    }

    /// Removes a service with its backends and their flows.
    ///
    /// # Errors
    /// When there is no such service, or it serves and that is not forced.
    pub fn remove_service(&mut self, name: &str, force: bool) -> Result<(), Rejection> {
        let service = self.service_mut(name)?;
        if !force && service.in_rotation() > 0 {
            let (listen, count) = (service.spec.listen, service.in_rotation());
            let message = format!(
                "service {name} has {count} backends in rotation: removing it would cut off every connection to \
                 {listen} and fail every new one"
            );
            return Err(Rejection::Refused(message));
        }
        if let Some(file) = self.services.remove(name).and_then(|service| service.file.clone()) {
            self.removed.insert(name.to_owned(), file);
        }
        Ok(())
    }

    fn refuse_taken(&self, spec: &config::Service) -> Result<(), Rejection> {
        let others = self.services.values().filter(|service| service.spec.name != spec.name);
        match others.map(|service| &service.spec).find(|other| other.listens_like(spec)) {
            Some(other) => {
                Err(Rejection::Conflict(format!("service {} listens on {} already", other.name, other.listen)))
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
