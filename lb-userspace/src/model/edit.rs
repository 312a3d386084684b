//! What an operator may change at run time, and what is refused.

use std::{net::SocketAddr, sync::Arc};

use jiff::Timestamp;

use super::{
    Admin, Backend, Change, Detachment, Held, Model, Service,
    detachment::{self, whole_second},
};
use crate::{
    config::{self, DEFAULT_DETACHED_FOR, Recall},
    plan::{MAX_CONNECTIONS, MAX_WEIGHT},
};

/// The longest reason, in bytes.
const REASON_LEN: usize = 256;

/// Why a change was not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// There is no such service or backend.
    #[error("{0}")]
    NotFound(String),
    /// It would leave a service with nothing in rotation.
    #[error("{0}")]
    Refused(String),
    /// It makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// The configuration file is wrong.
    #[error("{0}")]
    Config(String),
    /// It is there already.
    #[error("{0}")]
    Conflict(String),
}

/// A wish of an operator for one backend; what is absent stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AdminChange {
    /// Whether it is to serve.
    pub admin: Option<Admin>,
    /// Share of new flows.
    pub weight: Option<u16>,
    /// With so many connections it gets no new one; 0 for no limit.
    pub max_connections: Option<u32>,
    /// When draining or disabling ends by itself, if not when the configuration says.
    pub until: Option<Timestamp>,
    /// When the backend is called back before that, if not when the configuration says.
    pub recall: Option<Recall>,
    /// Why, in the operator's words.
    pub reason: Option<String>,
    /// Whether to do it even when the service is left with nothing in rotation.
    pub force: bool,
}

impl AdminChange {
    /// In words, for the log: "weight 3, disabled (kernel upgrade)".
    pub fn describe(&self) -> String {
        let weight = self.weight.map(|weight| format!("weight {weight}"));
        let until = self.until.map(|until| format!(" until {}", whole_second(until))).unwrap_or_default();
        let admin = self.admin.map(|admin| format!("{}{until}", done(admin)));
        let limit = self.max_connections.map(|most| match most {
            0 => "no limit of connections".into(),
            most => format!("at most {most} connections"),
        });
        let changes: Vec<String> = weight.into_iter().chain(limit).chain(admin).collect();
        let reason = self.reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
        changes.join(", ") + &reason
    }
}

impl Model {
    /// Adds a backend. It takes flows once it is checked and resolved.
    ///
    /// # Errors
    /// When the service is unknown, or the name or the address is taken or unfit.
    pub fn add(&mut self, service: &str, entry: config::Backend, actor: &str, now: Timestamp) -> Result<(), Rejection> {
        let service = self.service_mut(service)?;
        config::check_name(&entry.name).map_err(|error| Rejection::Invalid(error.to_string()))?;
        check_weight(entry.weight)?;
        check_limit(entry.max_connections, 1)?;
        config::check_pair(service.spec.listen, service.spec.forward, entry.address).map_err(Rejection::Invalid)?;
        let taken = |known: &&Backend| known.name == entry.name || known.address == entry.address;
        if let Some(known) = service.backends.iter().find(taken) {
            let message = format!("service {} has {} at {} already", service.spec.name, known.name, known.address);
            return Err(Rejection::Conflict(message));
        }
        let added = Change::new(now, actor, format!("added by {actor}"));
        let mut backend = Backend::new(entry, &service.spec.health, now);
        backend.weight.change = added.clone();
        backend.admin.change = added;
        service.backends.push(backend);
        Ok(())
    }

    /// Changes the weight or the admin state of a backend.
    ///
    /// # Errors
    /// When there is no such backend, the weight is out of range, or nothing would be left in rotation.
    pub fn set(
        &mut self,
        service: &str,
        backend: &str,
        wish: &AdminChange,
        actor: &str,
        now: Timestamp,
    ) -> Result<(), Rejection> {
        let default = self.detached_for.unwrap_or(DEFAULT_DETACHED_FOR);
        let service = self.service_mut(service)?;
        let index = service.index(backend)?;
        if let Some(weight) = wish.weight {
            check_weight(weight)?;
        }
        check_limit(wish.max_connections, 0)?;
        check_reason(wish.reason.as_deref())?;
        check_detachment(wish)?;
        let until = detachment::end(wish.until, service.spec.detached_for.unwrap_or(default), now)?;
        let action = match (wish.admin, wish.weight) {
            (Some(Admin::Draining), _) => Some("draining"),
            (Some(Admin::Disabled), _) => Some("disabling"),
            (_, Some(0)) => Some("giving weight 0 to"),
            _ => None,
        };
        if let Some(action) = action.filter(|_| !wish.force) {
            service.refuse_emptying(index, action)?;
        }
        let troubled = service.troubled();
        let backend = &mut service.backends[index];
        if let Some(weight) = wish.weight {
            backend.set_weight(weight, Change::new(now, actor, explain("weight set", actor, wish)));
        }
        if let Some(most) = wish.max_connections {
            backend.max_connections = Some(most).filter(|most| *most != 0);
        }
        if let Some(admin) = wish.admin {
            if admin == Admin::Enabled {
                backend.pardon(now, actor, &explain(done(admin), actor, wish));
            }
            // The same for longer is the same, unless for another reason.
            let news = admin != backend.admin.value || wish.reason.is_some();
            let held = Held::new(admin, Change::new(now, actor, explain(done(admin), actor, wish)));
            let accepted = troubled.into_iter().map(|(name, _)| name).filter(|name| *name != backend.name).collect();
            let (reason, recall) = (wish.reason.clone(), wish.recall);
            let next = Detachment { reason, recall, accepted, ..Detachment::new(now, until) };
            backend.detach(if news { held } else { backend.admin.clone() }, next);
        }
        Ok(())
    }

    /// Removes a backend and, with it, its flows.
    ///
    /// # Errors
    /// When there is no such backend or nothing would be left in rotation.
    pub fn remove(&mut self, service: &str, backend: &str, force: bool) -> Result<(), Rejection> {
        let service = self.service_mut(service)?;
        let index = service.index(backend)?;
        if !force {
            service.refuse_emptying(index, "removing")?;
        }
        service.backends.remove(index);
        Ok(())
    }

    pub(super) fn service_mut(&mut self, name: &str) -> Result<&mut Service, Rejection> {
        if self.services.contains_key(name) {
            return Ok(Arc::make_mut(self.services.get_mut(name).expect("it contains the key")));
        }
        let known: Vec<String> = self.services.keys().cloned().collect();
        Err(no_such_service(name, &known))
    }
}

impl Service {
    /// The place of a backend by its name.
    ///
    /// # Errors
    /// When there is none.
    pub(super) fn index(&self, name: &str) -> Result<usize, Rejection> {
        self.backends.iter().position(|known| known.name == name).ok_or_else(|| {
            let known: Vec<String> = self.backends.iter().map(|known| known.name.clone()).collect();
            no_such_backend(&self.spec.name, name, &known)
        })
    }

    fn refuse_emptying(&self, index: usize, action: &str) -> Result<(), Rejection> {
        let backend = &self.backends[index];
        let takes = |backend: &Backend| backend.is_fit() || backend.is_at_red_line();
        let others_serve = self.backends.iter().any(|other| other.name != backend.name && takes(other));
        if !(self.standing(backend).in_rotation || backend.is_at_red_line()) || others_serve {
            return Ok(());
        }
        let (service, name, listen) = (&self.spec.name, &backend.name, self.spec.listen);
        let mut message = format!(
            "{service}/{name} is the last backend in rotation of service {service}: {action} it would leave none, and \
             every new connection to {listen} would fail"
        );
        let others: Vec<String> = self
            .backends
            .iter()
            .filter(|other| other.name != *name)
            .map(|other| format!("{} ({})", other.name, self.standing(other).change.cause))
            .collect();
        if !others.is_empty() {
            message.push_str(&format!("; out of rotation already: {}", others.join(", ")));
        }
        Err(Rejection::Refused(message))
    }
}

/// What to say when a service is unknown.
pub fn no_such_service(name: &str, known: &[String]) -> Rejection {
    Rejection::NotFound(format!("there is no service {name:?}; {}", listed("services", known)))
}

/// What to say when a backend is unknown.
pub fn no_such_backend(service: &str, name: &str, known: &[String]) -> Rejection {
    let listed = listed("backends", known);
    Rejection::NotFound(format!("service {service} has no backend {name:?}; {listed}"))
}

fn listed(plural: &str, known: &[String]) -> String {
    if known.is_empty() { format!("there are no {plural}") } else { format!("the {plural} are {}", known.join(", ")) }
}

fn check_weight(weight: u16) -> Result<(), Rejection> {
    if weight > MAX_WEIGHT {
        return Err(Rejection::Invalid(format!("a weight is between 0 and {MAX_WEIGHT}, not {weight}")));
    }
    Ok(())
}

/// A limit that is given, from the least that means anything.
fn check_limit(limit: Option<u32>, least: u32) -> Result<(), Rejection> {
    match limit {
        Some(most) if !(least..=MAX_CONNECTIONS).contains(&most) => Err(Rejection::Invalid(format!(
            "a limit of connections is between {least} and {MAX_CONNECTIONS}, not {most}"
        ))),
        _ => Ok(()),
    }
}

/// A reason is shown on terminals and stored.
/// Whether it fits a line of the status.
pub(crate) fn check_reason(reason: Option<&str>) -> Result<(), Rejection> {
    let Some(reason) = reason else { return Ok(()) };
    if reason.len() > REASON_LEN || reason.contains(char::is_control) {
        return Err(Rejection::Invalid(format!("a reason is one line of at most {REASON_LEN} bytes")));
    }
    Ok(())
}

/// Only what takes a backend out of service is for a while.
fn check_detachment(wish: &AdminChange) -> Result<(), Rejection> {
    if matches!(wish.admin, Some(Admin::Draining | Admin::Disabled)) {
        return Ok(());
    }
    let message = match wish {
        AdminChange { until: Some(_), .. } => "a time to end belongs to draining and disabling only",
        AdminChange { recall: Some(_), .. } => "whether to be called back belongs to draining and disabling only",
        _ => return Ok(()),
    };
    Err(Rejection::Invalid(message.into()))
}

pub(super) fn done(admin: Admin) -> &'static str {
    match admin {
        Admin::Enabled => "enabled",
        Admin::Draining => "drained",
        Admin::Disabled => "disabled",
    }
}

fn explain(done: &str, actor: &str, wish: &AdminChange) -> String {
    match &wish.reason {
        Some(reason) => format!("{done} by {actor}: {reason}"),
        None => format!("{done} by {actor}"),
    }
}

/// Reads a backend's name and address as an operator gives them; the name defaults to the address.
///
/// # Errors
/// When the address is none of another machine.
pub fn entry(name: Option<String>, address: &str, weight: u16) -> Result<config::Backend, Rejection> {
    let address: SocketAddr = config::parse_backend(address).map_err(|error| Rejection::Invalid(error.to_string()))?;
    Ok(config::Backend::new(name.unwrap_or_else(|| address.to_string()), address, weight))
}
