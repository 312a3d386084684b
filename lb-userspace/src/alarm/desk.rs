//! The daemon's side of alarms: has the engine look at facts, writes to the log, gives notices to the couriers, and keeps
//! what must survive.

use std::{
    collections::{BTreeMap, VecDeque},
    path::Path,
};

use jiff::Timestamp;
use tokio::sync::mpsc;

use super::{
    Active, Engine, Facts, Kind, Notice, Silence, Status, Target,
    courier::{Attempt, Courier, Pending},
    rules,
    store::{Kept, Store},
    webhook,
};
use crate::{
    config::{Alarms, Channel},
    model::{Change, Event, What},
    state,
};

/// The name of the log among those who are told.
const LOG: &str = "log";
/// Notices that wait for one courier, at most.
const QUEUE: usize = 256;

/// Everything about alarms in a running daemon.
#[derive(Debug)]
pub struct Desk {
    config: Alarms,
    engine: Engine,
    store: Store,
    next: u64,
    ways: BTreeMap<String, Way>,
    attempts: mpsc::Sender<Attempt>,
}

/// A way to tell somebody: a courier, what it has to carry, and how it fared.
#[derive(Debug)]
struct Way {
    target: String,
    courier: Courier,
    /// The first is under way.
    queue: VecDeque<Pending>,
    tally: Tally,
}

/// How a courier fared since the daemon started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// What it carried.
    pub delivered: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// What was given up, or had no place in the queue.
    pub lost: u64,
    /// What is on its way.
    pub pending: usize,
    /// Why the last attempt failed, if it did.
    pub error: Option<String>,
}

/// Whether everybody who is to be told can be told: secrets can be read, programs are there.
///
/// # Errors
/// With the first that cannot.
pub fn check(alarms: &Alarms) -> Result<(), String> {
    for target in &alarms.targets {
        for channel in &target.by {
            let works = match channel {
                Channel::Webhook(settings) => webhook::check(settings),
                Channel::Exec(program) => super::exec::check(program),
            };
            works.map_err(|error| format!("alarm {} cannot work: {error}", target.name))?;
        }
    }
    Ok(())
}

impl Desk {
    /// Takes up what was left by the last daemon. Call it within a Tokio runtime.
    ///
    /// # Errors
    /// When what it left cannot be read.
    pub fn open(state_dir: &Path, config: &Alarms, attempts: mpsc::Sender<Attempt>) -> Result<Self, state::Error> {
        let (store, kept) = Store::open(state_dir)?;
        let Kept { engine, next, pending, .. } = kept;
        let mut desk = Self { config: Alarms::default(), engine, store, next, ways: BTreeMap::new(), attempts };
        desk.configure(config);
        for pending in pending {
            desk.queue(pending);
        }
        Ok(desk)
    }

    /// Takes over another configuration. What fires and who was told stays; whoever is there no more is told no more.
    pub fn configure(&mut self, config: &Alarms) {
        let mut before = std::mem::take(&mut self.ways);
        for target in &config.targets {
            for channel in &target.by {
                let name = format!("{} {}", target.name, channel.word());
                let way = before.remove(&name);
                let same = |way: &Way| way.courier.channel == *channel && way.courier.timeout == target.timeout;
                let way = match way {
                    Some(way) if same(&way) => way,
                    other => {
                        let courier =
                            Courier::start(name.clone(), channel.clone(), target.timeout, self.attempts.clone());
                        let (queue, tally) = other.map(|way| (way.queue, way.tally)).unwrap_or_default();
                        if let Some(first) = queue.front() {
                            courier.give(first);
                        }
                        Way { target: target.name.clone(), courier, queue, tally }
                    }
                };
                self.ways.insert(name, way);
            }
        }
        self.config = config.clone();
    }

    /// Looks at the facts, tells whom it concerns, and returns what began and what ended.
    pub fn look(&mut self, facts: &Facts, now: Timestamp) -> Vec<Event> {
        let holding = rules::conditions(facts, &self.config.rules, now);
        let step = self.engine.step(holding, &self.targets(), self.config.rules.resolve_after, now);
        for (to, notice) in &step.notices {
            if to == LOG {
                log(notice);
            } else {
                self.send(to, notice);
            }
        }
        if step.changed {
            self.save();
        }
        step.changes.iter().map(event).collect()
    }

    /// Takes note of how an attempt went.
    pub fn note(&mut self, attempt: Attempt) {
        let Attempt { to, id, result, last } = attempt;
        let Some(way) = self.ways.get_mut(&to) else { return };
        // Of a courier that is gone already.
        if way.queue.front().is_none_or(|pending| pending.id != id) {
            return;
        }
        match result {
            Ok(()) => {
                way.tally.delivered += 1;
                way.tally.error = None;
            }
            Err(reason) => {
                way.tally.failed += 1;
                if way.tally.error.as_ref() != Some(&reason) {
                    let then = if last { "given up" } else { "trying again" };
                    tracing::warn!("an alarm could not be told to {to}, {then}: {reason}");
                }
                way.tally.lost += u64::from(last);
                way.tally.error = Some(reason);
            }
        }
        if last {
            way.queue.pop_front();
            if let Some(next) = way.queue.front() {
                way.courier.give(next);
            }
            self.save();
        }
    }

    /// Silences something; a silence that is over at once ends an earlier one.
    pub fn silence(&mut self, silence: Silence) -> Event {
        let Silence { scope, at, until, actor, reason } = silence.clone();
        let reason = reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
        let (from, to) = if until > at { ("heard", "silenced") } else { ("silenced", "heard") };
        let cause = match until > at {
            true => format!("{scope} silenced until {} by {actor}{reason}", super::whole_second(until)),
            false => format!("the silence of {scope} ended by {actor}{reason}"),
        };
        tracing::info!("{cause}");
        self.engine.silence(silence);
        self.save();
        Event::of_daemon(What::Silence, from, to, Change::new(at, &actor, cause))
    }

    /// What fires and what is silenced.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// What fires, the worst first.
    pub fn firing(&self) -> impl Iterator<Item = &Active> {
        self.engine.firing()
    }

    /// The ways to tell somebody, by name: of which target, how, and how they fared.
    pub fn ways(&self) -> impl Iterator<Item = (&str, &Channel, Tally)> {
        self.ways.iter().map(|(name, way)| {
            let tally = Tally { pending: way.queue.len(), ..way.tally.clone() };
            (name.as_str(), &way.courier.channel, tally)
        })
    }

    /// Who is told, and of what.
    #[must_use]
    pub fn config(&self) -> &Alarms {
        &self.config
    }

    fn targets(&self) -> Vec<Target> {
        let log = Target {
            name: LOG.into(),
            on: Kind::ALL.into_iter().collect(),
            repeat: self.config.rules.repeat,
            hears_silenced: true,
        };
        let others = self.config.targets.iter().map(|target| Target {
            // A file may call somebody "log": a name has no space.
            name: format!("{} ", target.name),
            on: target.on.clone(),
            repeat: target.repeat,
            hears_silenced: false,
        });
        std::iter::once(log).chain(others).collect()
    }

    fn send(&mut self, to: &str, notice: &Notice) {
        let ways: Vec<String> =
            self.ways.iter().filter(|(_, way)| way.target == to.trim_end()).map(|(name, _)| name.clone()).collect();
        for to in ways {
            self.next += 1;
            self.queue(Pending { id: self.next, to, notice: notice.clone() });
        }
    }

    fn queue(&mut self, pending: Pending) {
        let Some(way) = self.ways.get_mut(&pending.to) else { return };
        let is_known = |known: &Pending| known.notice.subject == pending.notice.subject;
        if pending.notice.repeated && way.queue.iter().any(is_known) {
            return;
        }
        if way.queue.is_empty() {
            way.courier.give(&pending);
        } else if way.queue.len() >= QUEUE {
            // The first is under way; of the others the oldest says least about today.
            way.queue.remove(1);
            way.tally.lost += 1;
            tracing::error!("{QUEUE} alarms wait to be told to {}: the oldest is dropped", pending.to);
        }
        way.queue.push_back(pending);
    }

    fn save(&mut self) {
        let pending = self.ways.values().flat_map(|way| way.queue.iter().cloned()).collect();
        self.store.save(&Kept::new(self.engine.clone(), self.next, pending));
    }
}

/// A line of the log, with fields for those who search it.
fn log(notice: &Notice) {
    let Notice { status, subject, severity, summary, since, repeated, .. } = notice;
    let (alarm, status, severity) = (subject.kind.word(), status.word(), severity.word());
    let (service, backend) = (subject.service.as_deref(), subject.backend.as_deref());
    match (notice.status, notice.severity) {
        (Status::Firing, super::Severity::Critical) => {
            tracing::error!(alarm, status, severity, service, backend, %since, repeated, "{summary}");
        }
        (Status::Firing, super::Severity::Warning) => {
            tracing::warn!(alarm, status, severity, service, backend, %since, repeated, "{summary}");
        }
        (Status::Resolved | Status::Test, _) => {
            tracing::info!(alarm, status, severity, service, backend, %since, "{summary}");
        }
    }
}

fn event(notice: &Notice) -> Event {
    let (from, to) = match notice.status {
        Status::Firing => ("quiet", "firing"),
        Status::Resolved | Status::Test => ("firing", "resolved"),
    };
    let cause = format!("{}: {}", notice.subject.kind.word(), notice.summary);
    Event {
        service: notice.subject.service.clone(),
        backend: notice.subject.backend.clone(),
        ..Event::of_daemon(What::Alarm, from, to, Change::new(notice.at, "lb", cause))
    }
}

#[cfg(test)]
mod tests;
