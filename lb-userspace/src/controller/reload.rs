//! The configuration while the daemon runs: read again, shown, and compared with its file.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::{Controller, Refusal, report};
use crate::{
    alarm,
    api::types::{ConfigDocument, Difference, Drift, DriftDocument, ReloadDocument, SCHEMA_VERSION},
    config::{self, Alarms, Config, Global, document},
    model::{Admin, Change, Event, Rejection, What},
    probe,
};

impl Controller {
    /// Reads the file again and takes it over as a whole, or, when anything in it is wrong, not at all.
    pub(super) fn reload(&mut self, discard: bool, actor: &str) -> Result<ReloadDocument, Refusal> {
        let path = self.config.path().display().to_string();
        match self.take_over(discard, actor) {
            Ok(document) => {
                tracing::info!("{path} reloaded by {actor}, {} changes", document.changes.len());
                for difference in &document.next_start {
                    tracing::warn!("{} takes effect with the next start of the daemon", difference.key);
                }
                report::standings(&self.model);
                self.desk.configure(&self.config.alarms);
                self.tallies.reload(Ok(()), Timestamp::now());
                let cause = format!("{path} reloaded by {actor}");
                self.journal.append(&[config_event("reloaded", actor, cause)]);
                Ok(document)
            }
            Err(refusal) => {
                tracing::error!("{path} not reloaded, nothing has changed:\n{refusal}");
                let reason = refusal.to_string().lines().next().unwrap_or_default().to_owned();
                let cause = format!("not reloaded: {reason}");
                self.tallies.reload(Err(reason), Timestamp::now());
                self.journal.append(&[config_event("refused", actor, cause)]);
                Err(refusal)
            }
        }
    }

    fn take_over(&mut self, discard: bool, actor: &str) -> Result<ReloadDocument, Refusal> {
        let next = self.load()?;
        let before = self.running();
        let change = Change::new(Timestamp::now(), actor, format!("{} reloaded by {actor}", next.path().display()));
        let model = if discard {
            self.model.revert(&next.services, change.at)
        } else {
            self.model.reload(&next.services, change.at)
        };
        self.replace(model, &change)?;
        self.probes.refresh();
        let next_start = differences(&globals(&self.config.global), &globals(&next.global));
        self.config.services = next.services;
        self.config.alarms = next.alarms;
        Ok(ReloadDocument {
            schema_version: SCHEMA_VERSION,
            file: self.config.path().to_owned(),
            changes: differences(&before, &self.running()),
            next_start,
        })
    }

    /// What the daemon runs with, as it would stand in a file.
    pub(super) fn configuration(&self) -> ConfigDocument {
        let services = self.model.as_config();
        ConfigDocument {
            schema_version: SCHEMA_VERSION,
            file: self.config.path().to_owned(),
            toml: document::toml(&self.config.global, &self.config.alarms, &services),
            config: document::json(&self.config.global, &self.config.alarms, &services),
        }
    }

    /// What differs between the file as it is on disk and what runs.
    pub(super) fn drift(&self) -> Result<DriftDocument, Refusal> {
        let file = self.load()?;
        let on_disk = document::flat(&file.global, &file.alarms, &file.services);
        let as_read = document::flat(&self.config.global, &self.config.alarms, &self.config.services);
        let removed = file.services.iter().map(|service| service.name.as_str()).filter(|name| {
            let known = self.config.services.iter().any(|service| service.name == **name);
            known && !self.model.services.contains_key(*name)
        });
        let removed: BTreeSet<&str> = removed.collect();
        let of = |key: &str, service: &str| {
            let rest = key.strip_prefix("service.").and_then(|rest| rest.strip_prefix(service));
            rest.is_some_and(|rest| rest.starts_with('.'))
        };
        let gone = |key: &str| removed.iter().any(|service| of(key, service));
        let differences = differences(&on_disk, &self.running()).into_iter().filter(|one| !gone(&one.key));
        let differences = differences.map(|Difference { key, from, to }| {
            let edited = on_disk.get(&key) != as_read.get(&key);
            let because = match (edited, key.starts_with("global.")) {
                (true, true) => "the file was edited; takes effect with the next start of the daemon",
                (true, false) => "the file was edited; `lb config reload` takes it over",
                (false, _) => "changed at run time",
            };
            Drift { key, file: from, running: to, because: because.into() }
        });
        let out = self.model.services.values().flat_map(|service| {
            let backends = service.backends.iter().filter(|backend| backend.admin.value != Admin::Enabled);
            backends.map(|backend| Drift {
                key: format!("service.{}.backend.{}.admin", service.spec.name, backend.name),
                file: None,
                running: Some(backend.admin.value.word().into()),
                because: backend.admin.change.cause.clone(),
            })
        });
        let gone = removed.iter().map(|name| Drift {
            key: format!("service.{name}"),
            file: Some("present".into()),
            running: None,
            because: "removed at run time; `lb config reload --discard` drops all such changes".into(),
        });
        let differences = differences.chain(out).chain(gone).collect();
        Ok(DriftDocument { schema_version: SCHEMA_VERSION, file: self.config.path().to_owned(), differences })
    }

    fn load(&self) -> Result<Config, Refusal> {
        let config = Config::load(self.config.path());
        let config = config.map_err(|error: config::Error| Rejection::Config(error.to_string()))?;
        probe::check_tls(&config.services).map_err(Rejection::Config)?;
        alarm::check(&config.alarms).map_err(Rejection::Config)?;
        Ok(config)
    }

    fn running(&self) -> BTreeMap<String, String> {
        document::flat(&self.config.global, &self.config.alarms, &self.model.as_config())
    }
}

/// What takes effect with the next start only.
fn globals(global: &Global) -> BTreeMap<String, String> {
    let mut values = document::flat(global, &Alarms::default(), &[]);
    values.retain(|key, _| key.starts_with("global."));
    values
}

fn config_event(to: &str, actor: &str, cause: String) -> Event {
    Event::of_daemon(What::Config, "running", to, Change::new(Timestamp::now(), actor, cause))
}

/// What one has and the other has not, or has otherwise.
fn differences(from: &BTreeMap<String, String>, to: &BTreeMap<String, String>) -> Vec<Difference> {
    let keys = from.keys().chain(to.keys().filter(|key| !from.contains_key(*key)));
    let mut differences: Vec<Difference> = keys
        .filter(|key| from.get(*key) != to.get(*key))
        .map(|key| Difference { key: key.clone(), from: from.get(key).cloned(), to: to.get(key).cloned() })
        .collect();
    differences.sort_by(|a, b| a.key.cmp(&b.key));
    differences
}
