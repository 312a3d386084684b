//! What is seen of the daemon from outside: facts for alarms, and everything for metrics and the page.

use std::time::Instant;

use jiff::Timestamp;

use super::{Controller, Handle, Refusal};
use crate::{
    alarm::{Active, Facts, Scope, Silence, TableFacts, is_notable},
    api::types::{
        AlarmStatus, AlarmsDocument, CourierStatus, NewSilence, SCHEMA_VERSION, SilenceStatus, StatusDocument,
    },
    config::{AlarmRules, AlarmTarget},
    dataplane::Snapshot,
    metrics::Overview,
    model::Rejection,
    plan::Forward,
    status,
};

/// What was seen of the tables when they were last looked at.
#[derive(Debug, Default)]
pub(super) struct Tables {
    facts: Vec<TableFacts>,
    /// New flows that had found no place by then.
    refused: Option<[u64; 2]>,
}

impl Controller {
    /// Looks whether something is an alarm.
    pub(super) fn look(&mut self) {
        let now = Timestamp::now();
        self.tallies.pass(&self.model, now);
        let facts = Facts {
            tables: self.tables.facts.clone(),
            reload_failed: self.tallies.reload_failed.clone(),
            silent_checks: std::mem::take(&mut self.silent),
            drift: self.drift,
            ..Facts::of(&self.model, now)
        };
        let events = self.desk.look(&facts, now);
        self.journal.append(&events);
    }

    /// Looks how full the tables are.
    pub(super) fn look_at_tables(&mut self) {
        self.tables = Tables::seen(&self.dataplane.snapshot(), &self.tables, &self.config.alarms.rules);
    }

    /// What fires, the worst first.
    pub(super) fn alarms(&self) -> Vec<AlarmStatus> {
        self.desk.firing().map(|active| self.alarm(active)).collect()
    }

    fn alarm(&self, active: &Active) -> AlarmStatus {
        let Active { subject, summary, since, firing, .. } = active.clone();
        AlarmStatus {
            alarm: subject.kind,
            severity: subject.kind.severity(),
            silenced_until: self.desk.engine().silence_of(&subject).map(|silence| whole_second(silence.until)),
            service: subject.service,
            backend: subject.backend,
            summary,
            since: whole_second(since),
            firing_since: whole_second(firing.unwrap_or(since)),
        }
    }

    fn silences(&self) -> Vec<SilenceStatus> {
        let now = Timestamp::now();
        let lasting = self.desk.engine().silences().iter().filter(|silence| silence.until > now);
        let status = |silence: &Silence| SilenceStatus {
            scope: silence.scope.to_string(),
            at: whole_second(silence.at),
            until: whole_second(silence.until),
            actor: silence.actor.clone(),
            reason: silence.reason.clone(),
        };
        lasting.map(status).collect()
    }

    fn alarms_document(&self) -> AlarmsDocument {
        let couriers = self.desk.ways().map(|(name, channel, tally)| CourierStatus {
            name: name.to_owned(),
            channel: channel.word().into(),
            pending: tally.pending,
            delivered: tally.delivered,
            failed: tally.failed,
            lost: tally.lost,
            error: tally.error,
        });
        AlarmsDocument {
            schema_version: SCHEMA_VERSION,
            alarms: self.alarms(),
            silences: self.silences(),
            couriers: couriers.collect(),
        }
    }

    fn silence(&mut self, wish: NewSilence, actor: &str) -> Result<AlarmsDocument, Refusal> {
        let NewSilence { scope, until, reason } = wish;
        let scope = Scope::of(&scope);
        match &scope {
            Scope::Kind(_) => {}
            Scope::Service(service) if !self.model.services.contains_key(service) => {
                let kinds: Vec<&str> = crate::alarm::Kind::ALL.iter().map(|kind| kind.word()).collect();
                let names: Vec<&str> = self.model.services.keys().map(String::as_str).collect();
                let message = format!(
                    "there is no service and no alarm {service}; the services are {}, the alarms {}",
                    names.join(", "),
                    kinds.join(", ")
                );
                return Err(Rejection::NotFound(message).into());
            }
            Scope::Service(_) => {}
            Scope::Backend(service, backend) => drop(self.model.find(service, backend)?),
        }
        crate::model::check_reason(reason.as_deref())?;
        let event = self.desk.silence(Silence::new(scope, Timestamp::now(), until, actor, reason));
        self.journal.append(&[event]);
        Ok(self.alarms_document())
    }

    fn overview(&self, snapshot: &Snapshot) -> Overview {
        let at = Timestamp::now();
        Overview {
            services: status::of(&self.model, snapshot, at),
            checks: self.checks(),
            tallies: self.tallies.clone(),
            interfaces: self.config.global.interfaces.clone(),
            alarms: self.alarms(),
            silences: self.silences(),
            couriers: self.desk.ways().map(|(name, _, tally)| (name.to_owned(), tally)).collect(),
            maps_current: !self.behind,
            at,
        }
    }

    fn checks(&self) -> crate::api::types::ChecksStatus {
        let crate::probe::Pulse { running, overdue, restarted } = self.probes.pulse(Instant::now());
        crate::api::types::ChecksStatus { running, heartbeat: self.heartbeat, overdue, restarted }
    }
}

impl Tables {
    fn seen(snapshot: &Snapshot, before: &Self, rules: &AlarmRules) -> Self {
        let dropped = |reason| snapshot.drops.iter().find(|drop| drop.reason == reason).map_or(0, |drop| drop.packets);
        let refused = ["flow_table_full", "nat_ports_exhausted"].map(dropped);
        // Before the first look nothing is known to be new.
        let new = |which: usize| before.refused.map_or(0, |before| refused[which].saturating_sub(before[which]));
        let flows = TableFacts {
            name: "the flow table".into(),
            towards: None,
            used: snapshot.flows.used,
            capacity: snapshot.flows.capacity,
            refused: new(0) + new(1),
        };
        // With DNAT clients keep their ports.
        let by_ports = snapshot.services.iter().filter(|service| service.forward == Forward::Nat);
        let ports = by_ports.flat_map(|service| {
            service.backends.iter().map(|backend| TableFacts {
                name: "source ports".into(),
                towards: Some((service.name.clone(), backend.name.clone())),
                used: backend.nat_ports,
                capacity: snapshot.nat_ports_per_backend,
                refused: 0,
            })
        });
        let notable = std::iter::once(flows).chain(ports).filter(|table| is_notable(table, rules));
        Self { facts: notable.collect(), refused: Some(refused) }
    }
}

impl Handle {
    /// Where every service stands, with the alarms and the state of the checks.
    ///
    /// # Errors
    /// When the daemon is stopping.
    pub async fn status(&self) -> Result<StatusDocument, Refusal> {
        self.call(|controller| {
            Ok(StatusDocument {
                schema_version: SCHEMA_VERSION,
                services: controller.status(),
                checks: Some(controller.checks()),
                alarms: controller.alarms(),
                silences: controller.silences(),
            })
        })
        .await
    }

    /// Everything that metrics and the page show, with these counters.
    ///
    /// # Errors
    /// When the daemon is stopping.
    pub async fn overview(&self, snapshot: Snapshot) -> Result<Overview, Refusal> {
        self.call(move |controller| Ok(controller.overview(&snapshot))).await
    }

    /// Whether the maps say what the model says.
    ///
    /// # Errors
    /// When the daemon is stopping.
    pub async fn is_current(&self) -> Result<bool, Refusal> {
        self.call(|controller| Ok(controller.attached && !controller.behind)).await
    }

    /// What fires, what is silenced, and how those fare who carry alarms.
    ///
    /// # Errors
    /// When the daemon is stopping.
    pub async fn alarms(&self) -> Result<AlarmsDocument, Refusal> {
        self.call(|controller| Ok(controller.alarms_document())).await
    }

    /// Silences something in the name of `actor`.
    ///
    /// # Errors
    /// When there is no such thing.
    pub async fn silence(&self, wish: NewSilence, actor: &str) -> Result<AlarmsDocument, Refusal> {
        let actor = actor.to_owned();
        self.call(move |controller| controller.silence(wish, &actor)).await
    }

    /// Who is told of alarms.
    ///
    /// # Errors
    /// When the daemon is stopping.
    pub async fn alarm_targets(&self) -> Result<Vec<AlarmTarget>, Refusal> {
        self.call(|controller| Ok(controller.desk.config().targets.clone())).await
    }
}

/// Nobody needs nanoseconds.
fn whole_second(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}
