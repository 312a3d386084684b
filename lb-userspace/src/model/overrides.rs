//! What was changed at run time, relative to the file: the difference between a model and its file, and its way back.
//!
//! Each difference carries what the file said when it was made. When the file says something else of that backend by
//! then, somebody has edited it, and the file wins.

use std::{collections::BTreeMap, net::SocketAddr};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Admin, Change, Detachment, Held, Model, Service};
use crate::config::{self, document};

/// The changes of every service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Overrides {
    /// By service, then by backend.
    pub services: BTreeMap<String, BTreeMap<String, Override>>,
    /// Of services themselves.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub settings: BTreeMap<String, SettingsOverride>,
}

/// The changes of a service apart from its backends; documents as in [`document`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SettingsOverride {
    /// What the file said; nothing, when the service was added at run time. With backends, when it was removed.
    pub file: Option<Map<String, Value>>,
    /// What it is instead; nothing, when it was removed.
    pub service: Option<Map<String, Value>>,
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
    /// For how long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detachment: Option<Detachment>,
    /// Who paused its checks, if they are paused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<Change>,
}

/// What can be said of a backend in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Where it listens.
    pub address: SocketAddr,
    /// Share of new flows.
    pub weight: u16,
    /// Where its check connects, when not where those of the others do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_port: Option<u16>,
    /// Where its agent is asked, when not where those of the others are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_port: Option<u16>,
    /// Whether it serves only while no other does.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub backup: bool,
    /// With so many connections it gets no new one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<u32>,
}

impl From<&config::Backend> for Entry {
    fn from(backend: &config::Backend) -> Self {
        let config::Backend { address, weight, health_port, agent_port, backup, max_connections, .. } = *backend;
        Self { address, weight, health_port, agent_port, backup, max_connections }
    }
}

/// What was changed of one service.
#[derive(Debug)]
pub(super) struct Changes {
    backends: BTreeMap<String, Override>,
    settings: Option<SettingsOverride>,
}

impl Model {
    /// What was changed at run time.
    pub fn overrides(&self) -> Overrides {
        let changes: Vec<Changes> = self.services.values().map(|service| service.run_time_changes()).collect();
        self.overrides_of(self.services.keys().zip(&changes))
    }

    /// The changes of each service, and the services that are gone.
    pub(super) fn overrides_of<'a>(&self, changed: impl Iterator<Item = (&'a String, &'a Changes)>) -> Overrides {
        let removed = self
            .removed
            .iter()
            .map(|(name, file)| (name.clone(), SettingsOverride { file: Some(document::whole(file)), service: None }));
        let mut overrides = Overrides { services: BTreeMap::new(), settings: removed.collect() };
        for (name, changes) in changed {
            if !changes.backends.is_empty() {
                overrides.services.insert(name.clone(), changes.backends.clone());
            }
            if let Some(settings) = &changes.settings {
                overrides.settings.insert(name.clone(), settings.clone());
            }
        }
        overrides
    }
}

impl Service {
    pub(super) fn run_time_changes(&self) -> Changes {
        let settings = SettingsOverride {
            file: self.file.as_ref().map(document::settings),
            service: Some(document::settings(&self.spec)),
        };
        let settings = (settings.file != settings.service).then_some(settings);
        Changes { backends: self.backend_changes(), settings }
    }

    fn backend_changes(&self) -> BTreeMap<String, Override> {
        let mut changes = BTreeMap::new();
        for backend in self.file.iter().flat_map(|file| &file.backends) {
            let file = Some(Entry::from(backend));
            changes.insert(backend.name.clone(), Override { file, ..Override::default() });
        }
        for backend in &self.backends {
            let change: &mut Override = changes.entry(backend.name.clone()).or_default();
            change.backend = Some(Entry::from(&backend.as_config()));
            change.paused = backend.paused.clone();
            change.admin = Some(backend.admin.clone()).filter(|admin| admin.value != Admin::Enabled);
            change.detachment = backend.detachment.clone();
        }
        changes.retain(|_, change| change.file != change.backend || change.admin.is_some() || change.paused.is_some());
        changes
    }
}

/// A service as the file has it, if it has it, and as it is.
type Settled = (Option<config::Service>, config::Service);

impl Overrides {
    /// The services of the file with their settings as changed, those added at run time, and those removed.
    pub(super) fn settle(&self, file: &[config::Service]) -> (Vec<Settled>, BTreeMap<String, config::Service>) {
        let (mut settled, mut removed) = (Vec::<Settled>::new(), BTreeMap::new());
        for spec in file {
            match self.settings.get(&spec.name) {
                Some(SettingsOverride { file: Some(was), service: None }) if *was == document::whole(spec) => {
                    removed.insert(spec.name.clone(), spec.clone());
                }
                Some(SettingsOverride { file: Some(was), service: Some(is) }) => {
                    let mut merged = document::whole(spec);
                    document::carry(was, is, &mut merged);
                    // What has become of the file may not go with the change: the file wins.
                    let changed = document::service(&spec.name, &merged).unwrap_or_else(|_| spec.clone());
                    settled.push((Some(spec.clone()), changed));
                }
                _ => settled.push((Some(spec.clone()), spec.clone())),
            }
        }
        for (name, change) in &self.settings {
            let (None, Some(is)) = (&change.file, &change.service) else { continue };
            if !file.iter().any(|spec| spec.name == *name)
                && let Ok(added) = document::service(name, is)
            {
                settled.push((None, added));
            }
        }
        // So it is with an address that somebody else has been given.
        let listeners = |settled: &[Settled], spec: &config::Service| {
            settled.iter().filter(|(_, other)| other.listens_like(spec)).count()
        };
        for index in 0..settled.len() {
            if let (Some(file), changed) = &settled[index]
                && listeners(&settled, changed) > 1
            {
                settled[index].1 = file.clone();
            }
        }
        let all = settled.clone();
        settled.retain(|(file, spec)| file.is_some() || listeners(&all, spec) == 1);
        (settled, removed)
    }

    /// The backends of a service: the file's, in its order, then those added at run time; with what else was changed.
    pub(super) fn apply(&self, spec: &config::Service, in_file: bool) -> Vec<(config::Backend, Option<&Override>)> {
        static NONE: BTreeMap<String, Override> = BTreeMap::new();
        let added = self.settings.get(&spec.name).is_some_and(|change| change.file.is_none());
        // Added at run time and written into the file since: what it was is not what the file means.
        let superseded = in_file && added;
        let changes = self.services.get(&spec.name).filter(|_| !superseded).unwrap_or(&NONE);
        let mut backends = Vec::new();
        for backend in &spec.backends {
            let file = Entry::from(backend);
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
    let Entry { address, weight, health_port, agent_port, backup, max_connections } = entry;
    config::Backend { health_port, agent_port, backup, max_connections, ..config::Backend::new(name, address, weight) }
}
