//! What becomes of conditions over time: they fire, are told, told again, silenced, and end.
//!
//! There is no clock and no I/O here. Everything is decided by level, not by edge: at each look, whoever should know of
//! an alarm and does not is told. So a target that is new, a silence that ends and a restart need no case of their own.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{Condition, Kind, Notice, Scope, Silence, Status, Subject};

/// What has yet to fire is forgotten when it has not held for so long: what comes and goes by the second goes on.
const GAP: Duration = Duration::from_secs(2);

/// Whoever is told, as far as the engine must know.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// Its name.
    pub name: String,
    /// Of what it is told.
    pub on: BTreeSet<Kind>,
    /// How often it is told again.
    pub repeat: Duration,
    /// Whether it is told of the beginning of what is silenced too: so is the log.
    pub hears_silenced: bool,
}

/// What one look came to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Step {
    /// What is to be told to whom.
    pub notices: Vec<(String, Notice)>,
    /// What began and what ended, whether or not anybody is told.
    pub changes: Vec<Notice>,
    /// Whether there is anything to keep.
    pub changed: bool,
}

/// A condition that holds or held until a moment ago.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Active {
    /// What, and of whom.
    #[serde(flatten)]
    pub subject: Subject,
    /// In a sentence.
    pub summary: String,
    /// Since when it holds.
    pub since: Timestamp,
    /// Since when it fires, if it does.
    pub firing: Option<Timestamp>,
    /// Since when it holds no more.
    pub well: Option<Timestamp>,
    /// Who was told last when.
    pub told: BTreeMap<String, Told>,
}

/// When somebody was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Told(pub Timestamp);

/// Everything that is remembered of alarms.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Engine {
    active: Vec<Active>,
    silences: Vec<Silence>,
    /// The last time that counted, of what counts once.
    counted: Vec<(Subject, Timestamp)>,
}

impl Engine {
    /// What fires, the worst first.
    pub fn firing(&self) -> impl Iterator<Item = &Active> {
        self.active.iter().filter(|active| active.firing.is_some())
    }

    /// The silences that have not ended.
    #[must_use]
    pub fn silences(&self) -> &[Silence] {
        &self.silences
    }

    /// The silence that covers an alarm for longest.
    #[must_use]
    pub fn silence_of(&self, subject: &Subject) -> Option<&Silence> {
        self.silences.iter().filter(|silence| silence.scope.covers(subject)).max_by_key(|silence| silence.until)
    }

    /// Silences something in the place of an earlier silence of the same; one that ends at once ends that.
    pub fn silence(&mut self, silence: Silence) {
        self.silences.retain(|known| known.scope != silence.scope);
        self.silences.push(silence);
    }

    /// Takes what holds and says what follows from it.
    pub fn step(
        &mut self,
        conditions: Vec<Condition>,
        targets: &[Target],
        resolve_after: Duration,
        now: Timestamp,
    ) -> Step {
        let before = self.clone();
        let mut step = Step::default();
        self.silences.retain(|silence| silence.until > now);
        let holding = self.take(conditions, now, &mut step);
        self.end(&holding, targets, resolve_after, now, &mut step);
        for active in &mut self.active {
            let silenced = self.silences.iter().any(|silence| silence.scope.covers(&active.subject));
            tell(active, targets, silenced, now, &mut step);
        }
        step.changed = *self != before;
        step
    }

    /// Lets conditions begin and fire; returns those that hold.
    fn take(&mut self, conditions: Vec<Condition>, now: Timestamp, step: &mut Step) -> BTreeSet<Subject> {
        let mut holding = BTreeSet::new();
        for condition in conditions {
            if condition.once.is_some_and(|at| !self.counts(&condition.subject, at)) {
                continue;
            }
            let found = self.active.binary_search_by(|active| active.subject.cmp(&condition.subject));
            let place = match found {
                Ok(place) => place,
                Err(_) if condition.lingers => continue,
                Err(place) => {
                    self.active.insert(place, begin(&condition, now));
                    place
                }
            };
            let active = &mut self.active[place];
            active.well = None;
            active.since = active.since.min(condition.since);
            let due = elapsed(active.since, now) >= condition.wait;
            // What lingers says how it is now, and yet what fired is what was bad.
            if !condition.lingers {
                active.summary.clone_from(&condition.summary);
            }
            if active.firing.is_none() && due {
                active.firing = Some(now);
                step.changes.push(notice(active, Status::Firing, false, now));
            }
            holding.insert(condition.subject);
        }
        holding
    }

    /// Whether what counts once has not counted yet.
    fn counts(&mut self, subject: &Subject, at: Timestamp) -> bool {
        match self.counted.iter_mut().find(|(known, _)| known == subject) {
            Some((_, last)) if *last >= at => false,
            Some((_, last)) => {
                *last = at;
                true
            }
            None => {
                self.counted.push((subject.clone(), at));
                true
            }
        }
    }

    /// Ends what has been well for long enough.
    fn end(
        &mut self,
        holding: &BTreeSet<Subject>,
        targets: &[Target],
        resolve_after: Duration,
        now: Timestamp,
        step: &mut Step,
    ) {
        self.active.retain_mut(|active| {
            if holding.contains(&active.subject) {
                return true;
            }
            let well = *active.well.get_or_insert(now);
            if active.firing.is_none() {
                return elapsed(well, now) < GAP;
            }
            if elapsed(well, now) < resolve_after {
                return true;
            }
            let resolved = notice(active, Status::Resolved, false, now);
            // Whoever was told of the beginning hears of the end, also when it was silenced since.
            let told = targets.iter().filter(|target| active.told.contains_key(&target.name));
            step.notices.extend(told.map(|target| (target.name.clone(), resolved.clone())));
            step.changes.push(resolved);
            false
        });
    }
}

fn begin(condition: &Condition, now: Timestamp) -> Active {
    Active {
        subject: condition.subject.clone(),
        summary: condition.summary.clone(),
        since: condition.since.min(now),
        firing: None,
        well: None,
        told: BTreeMap::new(),
    }
}

/// Tells whoever should know and does not, or not for a while.
fn tell(active: &mut Active, targets: &[Target], silenced: bool, now: Timestamp, step: &mut Step) {
    // Of one that is well already nobody hears for the first time, or again.
    if active.firing.is_none() || active.well.is_some() {
        return;
    }
    for target in targets.iter().filter(|target| target.on.contains(&active.subject.kind)) {
        let told = active.told.get(&target.name);
        let due = match told {
            None => !silenced || target.hears_silenced,
            Some(Told(at)) => !silenced && elapsed(*at, now) >= target.repeat,
        };
        if due {
            let notice = notice(active, Status::Firing, told.is_some(), now);
            step.notices.push((target.name.clone(), notice));
            active.told.insert(target.name.clone(), Told(now));
        }
    }
}

fn notice(active: &Active, status: Status, repeated: bool, at: Timestamp) -> Notice {
    let Active { subject, summary, since, .. } = active.clone();
    let severity = subject.kind.severity();
    Notice { status, subject, severity, summary, since, at, repeated }
}

fn elapsed(since: Timestamp, now: Timestamp) -> Duration {
    now.duration_since(since).max(SignedDuration::ZERO).unsigned_abs()
}

impl Silence {
    /// A silence of something.
    #[must_use]
    pub fn new(scope: Scope, at: Timestamp, until: Timestamp, actor: &str, reason: Option<String>) -> Self {
        Self { scope, at, until, actor: actor.to_owned(), reason }
    }
}

#[cfg(test)]
mod tests;
