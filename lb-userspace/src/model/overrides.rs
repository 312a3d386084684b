//! What was changed at run time, relative to the file: the difference between a model and its file, and its way back.
//!
//! Each difference carries what the file said when it was made. When the file says something else of that backend by
//! then, somebody has edited it, and the file wins.

use std::{collections::BTreeMap, net::SocketAddr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Admin, Held, Model, Service};
use crate::config;

/// The changes of every service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Overrides {
    /// By service, then by backend.
    pub services: BTreeMap<String, BTreeMap<String, Override>>,
}

/// The changes of one backend.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Override {
    /// What the file said; nothing, when the backend was added at run time.
    pub file: Option<Entry>,
    /// What it is instead; nothing, when it was removed.
    pub backend: Option<Entry>,
    /// What an operator wants of it, when that is not to serve.
    pub admin: Option<Held<Admin>>,
    /// When that ends by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin_until: Option<Timestamp>,
}

/// What can be said of a backend in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Where it listens.
    pub address: SocketAddr,
    /// Share of new flows.
    pub weight: u16,
}

impl Model {
    /// What was changed at run time.
    pub fn overrides(&self) -> Overrides {
        let changed = self.services.values().map(|service| (service.spec.name.clone(), service.overrides()));
        Overrides { services: changed.filter(|(_, changes)| !changes.is_empty()).collect() }
    }
}

impl Service {
    fn overrides(&self) -> BTreeMap<String, Override> {
        let mut changes = BTreeMap::new();
        for backend in &self.spec.backends {
            let file = Some(Entry { address: backend.address, weight: backend.weight });
            changes.insert(backend.name.clone(), Override { file, ..Override::default() });
        }
        for backend in &self.backends {
            let change: &mut Override = changes.entry(backend.name.clone()).or_default();
            change.backend = Some(Entry { address: backend.address, weight: backend.weight.value });
            change.admin = Some(backend.admin.clone()).filter(|admin| admin.value != Admin::Enabled);
            change.admin_until = backend.admin_until;
        }
        changes.retain(|_, change| change.file != change.backend || change.admin.is_some());
        changes
    }
}

impl Overrides {
    /// The backends of a service: the file's, in its order, then those added at run time; with what else was changed.
    pub(super) fn apply(&self, spec: &config::Service) -> Vec<(config::Backend, Option<&Override>)> {
        static NONE: BTreeMap<String, Override> = BTreeMap::new();
        let changes = self.services.get(&spec.name).unwrap_or(&NONE);
        let mut backends = Vec::new();
        for backend in &spec.backends {
            let file = Entry { address: backend.address, weight: backend.weight };
            let change = changes.get(&backend.name);
            let kept = change.filter(|change| change.file == Some(file));
            let Some(entry) = kept.map_or(Some(file), |change| change.backend) else { continue };
            // The file has no word on admin, so no edit of it overrules an operator, unless the server is another.
            let same = change.filter(|change| change.backend.is_some_and(|was| was.address == entry.address));
            backends.push((named(&backend.name, entry), same));
        }
        for (name, change) in changes {
            let (None, Some(entry)) = (change.file, change.backend) else { continue };
            if !spec.backends.iter().any(|known| known.name == *name || known.address == entry.address) {
                backends.push((named(name, entry), Some(change)));
            }
        }
        backends
    }
}

fn named(name: &str, entry: Entry) -> config::Backend {
    config::Backend { name: name.to_owned(), address: entry.address, weight: entry.weight }
}
