//! A backend that an operator has taken out: always for a while, so that nobody need remember it.

use std::{collections::BTreeSet, time::Duration};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{Admin, Backend, Change, Held, Rejection, Service, edit::done};
use crate::config::{AfterDetachment, LONGEST_DETACHMENT, Recall};

/// For how long a backend is out, why, and what may end that before its time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Detachment {
    /// When it began, whatever has been changed of it since.
    pub since: Timestamp,
    /// When its time is up.
    pub until: Timestamp,
    /// Whether its time was up and it stays out until somebody acts: [`AfterDetachment::Alarm`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub overdue: bool,
    /// Why, in the operator's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When it is called back, where that is not what the service says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recall: Option<Recall>,
    /// The backends of the service that were in trouble when the operator took this one out: for their sake it is not
    /// called back.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub accepted: BTreeSet<String>,
}

/// How a detachment ended without an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// Its time was up.
    TimeUp,
    /// The rest of the service needed the backend.
    Recalled,
}

impl Detachment {
    /// One that begins.
    pub(super) fn new(since: Timestamp, until: Timestamp) -> Self {
        Self { since, until, overdue: false, reason: None, recall: None, accepted: BTreeSet::new() }
    }

    /// In short: "until 2026-02-26T14:11:00Z", "overdue".
    pub(super) fn words(&self) -> String {
        if self.overdue { "overdue".into() } else { format!("until {}", whole_second(self.until)) }
    }
}

impl Backend {
    /// Has an operator's wish take effect. What stays detached keeps its beginning, and its reason where no other is given.
    pub(super) fn detach(&mut self, admin: Held<Admin>, next: Detachment) {
        self.ended = None;
        self.detachment = (admin.value != Admin::Enabled).then(|| match self.detachment.take() {
            Some(known) => Detachment {
                since: known.since,
                reason: next.reason.or(known.reason),
                recall: next.recall.or(known.recall),
                ..next
            },
            None => next,
        });
        self.admin = admin;
    }

    /// Puts it back without an operator.
    pub(super) fn end_detachment(&mut self, ending: Ending, change: Change) {
        self.admin = Held::new(Admin::Enabled, change.clone());
        self.detachment = None;
        self.ended = Some(Held::new(ending, change));
    }

    /// What an operator did, with its end where it has one.
    pub(super) fn admin_change(&self) -> Change {
        let change = self.admin.change.clone();
        let Some(detachment) = &self.detachment else { return change };
        let reason = detachment.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        let cause = format!("{} by {} {}{reason}", done(self.admin.value), change.actor, detachment.words());
        Change { cause, ..change }
    }

    /// That its time is up and that it waits for somebody.
    pub(super) fn overdue_change(&self) -> Option<Change> {
        let detachment = self.detachment.as_ref().filter(|detachment| detachment.overdue)?;
        let cause = format!("time is up, and it stays out until somebody acts: {}", self.admin.change.cause);
        Some(Change::new(detachment.until, "timer", cause))
    }
}

impl Service {
    /// Whether the time of any is up.
    pub(super) fn ends_a_detachment(&self, now: Timestamp) -> bool {
        self.backends.iter().any(|backend| self.is_time_up(backend, now))
    }

    /// Whether the time of a detachment is up and that has not been acted upon.
    fn is_time_up(&self, backend: &Backend, now: Timestamp) -> bool {
        let stays = |overdue: bool| overdue && self.spec.after_detachment == AfterDetachment::Alarm;
        backend.detachment.as_ref().is_some_and(|known| known.until <= now && !stays(known.overdue))
    }

    /// Ends what is over, or says that it is. Who is not well comes back as soon as it is: nothing but its health keeps it.
    pub(super) fn end_detachments(&mut self, now: Timestamp) {
        let due: Vec<bool> = self.backends.iter().map(|backend| self.is_time_up(backend, now)).collect();
        let after = self.spec.after_detachment;
        for (backend, _) in self.backends.iter_mut().zip(due).filter(|(_, due)| *due) {
            match (after, &mut backend.detachment) {
                (AfterDetachment::Alarm, Some(detachment)) => detachment.overdue = true,
                _ => {
                    let cause = format!("returned, as its time was up: {}", backend.admin.change.cause);
                    backend.end_detachment(Ending::TimeUp, Change::new(now, "timer", cause));
                }
            }
        }
    }
}

/// When a detachment ends: at the time that is wished, or after that long.
///
/// # Errors
/// When that is in the past, or too far off to be an end.
pub(super) fn end(wish: Option<Timestamp>, default: Duration, now: Timestamp) -> Result<Timestamp, Rejection> {
    let until = match wish {
        Some(until) => until,
        None => now.checked_add(default).map_err(|error| Rejection::Invalid(error.to_string()))?,
    };
    if until <= now {
        return Err(Rejection::Invalid(format!("{} is over already", whole_second(until))));
    }
    // A minute of grace: the clock of who asks may be another.
    let longest = SignedDuration::try_from(LONGEST_DETACHMENT).unwrap_or(SignedDuration::MAX);
    if until.duration_since(now) > longest + SignedDuration::from_mins(1) {
        let longest = humantime::format_duration(LONGEST_DETACHMENT);
        let message = format!(
            "a backend is taken out for at most {longest} at a time, so that nobody forgets it; ask again before that is \
             over, or remove the backend"
        );
        return Err(Rejection::Invalid(message));
    }
    Ok(until)
}

pub(super) fn whole_second(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

#[cfg(test)]
mod tests;
