//! What becomes of a backend for what its traffic says: first less of its share, then nothing for a while.
//!
//! Who is beyond a bound gets an eighth of its share at once, who stands out by less half of it, and half of that again and again
//! while that goes on: a server that is short of something is well with less, and one that is broken does little harm with a
//! thirty-second. Once it is well it has its share back at once, before the others fail for what they have taken over. Who fails
//! altogether, or goes on failing with next to nothing, is ejected, each time for twice as long. It returns with next to
//! nothing, and has its share back in two steps. The last in rotation is never ejected, and never more than `max_ejected` of all: whoever is needed
//! comes back at once.

use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};

use super::{Backend, Change, Event, Held, Model, Service};
use crate::{
    health::Health,
    judge::{Conduct, Judge, Opinion, Seat},
    model::{Admin, Passive},
};

/// As often is a share halved at most.
const MOST_HALVINGS: u8 = 5;
/// As often is the time of an ejection doubled at most.
const MOST_DOUBLINGS: u32 = 4;
/// Why all have their share back.
const NOT_JUDGED: &str = "traffic is not judged any more";
/// So often is a share halved that it does little harm and still shows at once when the server is well again; beyond that it
/// takes longer.
const QUICK_HALVINGS: u8 = 3;
/// The part of the window that passes after a step until the next, and until one beyond those.
const STEP: u32 = 20;
const LATE_STEP: u32 = 4;
/// So many are undone at once: the others should not have to do without for long, or they fail next. In a replay where a server
/// whose memory is full fails half of its answers until it has plenty again, with two servers that are well at half of the load
/// each, steps of one let 17 % fail, as the load swung from one to the other, and steps of three 0.7 % in one run and 8.2 % in
/// another, where it swung all the same.
const EASED: u8 = QUICK_HALVINGS;
/// By whom.
const ACTOR: &str = "traffic";

/// What was made of a backend's traffic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judgement {
    /// What users notice of it, if anything.
    pub complaint: Option<Complaint>,
    /// How often its share has been halved.
    pub halvings: u8,
    /// When that began, and when it last changed.
    since: Timestamp,
    stepped: Timestamp,
    /// Until when it is ejected, if it is.
    pub until: Option<Timestamp>,
    /// How often it has been ejected altogether.
    pub ejections: u64,
    /// How many of them have not been made up for.
    severity: u32,
    /// When it was last found to be well again.
    cleared: Option<Timestamp>,
    /// When the last was over.
    returned: Option<Timestamp>,
    /// Whether it has yet to show that it is well again.
    probation: bool,
    /// How it came to be what it is, in a word.
    change: Option<Change>,
}

/// What users notice of a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// Since when.
    pub since: Timestamp,
    /// In words, with figures.
    pub why: String,
    /// Whether it is beyond a bound that is set for it.
    pub beyond: bool,
}

impl Judgement {
    /// What it gets of its share.
    pub(super) fn share(&self) -> f64 {
        0.5_f64.powi(self.halvings.into())
    }

    /// Whether there is nothing to say of it.
    pub fn is_clean(&self) -> bool {
        self.complaint.is_none() && self.halvings == 0 && self.until.is_none()
    }

    fn doubled(eject_for: Duration, times: u32) -> SignedDuration {
        let period = eject_for.saturating_mul(1 << times.min(MOST_DOUBLINGS));
        SignedDuration::try_from(period).unwrap_or(SignedDuration::MAX)
    }

    /// How many ejections count: one is made up for by as long a time of good conduct.
    fn severity(&self, eject_for: Duration, now: Timestamp) -> u32 {
        let Some(returned) = self.returned else { return self.severity };
        let (mut good, mut severity) = (now.duration_since(returned), self.severity);
        while severity > 0 && good >= Self::doubled(eject_for, severity - 1) {
            good -= Self::doubled(eject_for, severity - 1);
            severity -= 1;
        }
        severity
    }
}

impl Backend {
    /// What its traffic came to, in a word.
    pub(super) fn judged(&self) -> &'static str {
        let beyond = self.judgement.complaint.as_ref().is_some_and(|complaint| complaint.beyond);
        match self.passive.value {
            Passive::Ejected => Passive::Ejected.word(),
            Passive::Ok if self.judgement.halvings > 0 => "reduced",
            Passive::Ok if beyond => "failing",
            Passive::Ok => Passive::Ok.word(),
        }
    }

    /// How that came to be.
    pub(super) fn judged_change(&self) -> Change {
        match (self.passive.value, &self.judgement.change) {
            (Passive::Ok, Some(change)) => change.clone(),
            _ => self.passive.change.clone(),
        }
    }

    /// Since when it fails its clients, and how: beyond a bound, or so that it gets less.
    pub fn failing(&self) -> Option<(Timestamp, String)> {
        let judgement = &self.judgement;
        let beyond = judgement.complaint.as_ref().filter(|complaint| complaint.beyond).map(|complaint| complaint.since);
        let since = beyond.or((judgement.halvings > 0).then_some(judgement.since))?;
        Some((since, self.complaint().unwrap_or_default().to_owned()))
    }

    /// Why it gets less than its share, or ought to.
    pub fn complaint(&self) -> Option<&str> {
        let judgement = &self.judgement;
        let reduced = judgement.change.as_ref().filter(|_| judgement.halvings > 0).map(|change| change.cause.as_str());
        judgement.complaint.as_ref().map(|complaint| complaint.why.as_str()).or(reduced)
    }

    /// Gives it its share back, whatever it has done.
    pub(super) fn pardon(&mut self, now: Timestamp, actor: &str, why: &str) {
        let change = Change::new(now, actor, why);
        if self.passive.value == Passive::Ejected {
            self.passive = Held::new(Passive::Ok, change.clone());
        }
        if self.judgement.until.is_some() || self.judgement.halvings > 0 {
            self.judgement.change = Some(change);
        }
        if self.judgement.until.take().is_some() {
            self.judgement.returned = Some(now);
        }
        if !self.judgement.is_clean() {
            self.judgement.cleared = Some(now);
        }
        (self.judgement.halvings, self.judgement.probation) = (0, false);
    }

    /// Whether it would be in rotation but for its ejection.
    fn is_merely_ejected(&self) -> bool {
        self.passive.value == Passive::Ejected
            && self.admin.value == Admin::Enabled
            && self.weight.value != 0
            && self.route.value.is_ok()
            && self.health.health() == Health::Up
            && self.agent_agrees()
    }

    fn halve(&mut self, times: u8, why: &str, now: Timestamp) {
        let judgement = &mut self.judgement;
        if judgement.halvings == 0 {
            judgement.since = now;
        }
        judgement.halvings = (judgement.halvings + times).min(MOST_HALVINGS);
        judgement.stepped = now;
        let left = 1 << judgement.halvings;
        judgement.change = Some(Change::new(now, ACTOR, format!("gets 1/{left} of its share: {why}")));
    }

    /// Gives it more.
    fn ease(&mut self, now: Timestamp, why: &str) {
        let judgement = &mut self.judgement;
        judgement.halvings = judgement.halvings.saturating_sub(EASED);
        judgement.stepped = now;
        if judgement.halvings == 0 {
            (judgement.probation, judgement.cleared) = (false, Some(now));
            judgement.change = Some(Change::new(now, ACTOR, why));
        }
    }

    fn eject(&mut self, why: &str, eject_for: Duration, now: Timestamp) {
        let judgement = &mut self.judgement;
        judgement.severity = judgement.severity(eject_for, now);
        let period = Judgement::doubled(eject_for, judgement.severity);
        judgement.severity += 1;
        judgement.ejections += 1;
        judgement.until = Some(now.checked_add(period).unwrap_or(Timestamp::MAX));
        let period = humantime::format_duration(period.unsigned_abs());
        self.passive = Held::new(Passive::Ejected, Change::new(now, ACTOR, format!("ejected for {period}: {why}")));
    }

    /// Has it return with next to nothing.
    fn put_on_probation(&mut self, now: Timestamp) {
        let cause = format!("returned on probation; it had been {}", self.passive.change.cause);
        let change = Change::new(now, ACTOR, cause);
        self.passive = Held::new(Passive::Ok, change.clone());
        let judgement = &mut self.judgement;
        judgement.until = None;
        judgement.change = Some(change);
        (judgement.returned, judgement.since, judgement.stepped) = (Some(now), now, now);
        (judgement.halvings, judgement.probation) = (MOST_HALVINGS, true);
    }
}

impl Service {
    /// What is to be known of the backends to judge them.
    pub(super) fn seats(&self) -> Vec<Seat<'_>> {
        let stand_by = self.primary_serves();
        let seat = |backend: &'_ Backend| {
            let judgement = &backend.judgement;
            (judgement.halvings > 0).then_some(judgement.stepped)
        };
        let seats = self.backends.iter().map(|backend| Seat {
            name: &backend.name,
            serves: backend.is_fit() && !(backend.backup && stand_by),
            troubled: backend.judgement.complaint.is_some() || backend.judgement.halvings > 0,
            since: seat(backend),
            cleared: backend.judgement.cleared,
        });
        seats.collect()
    }

    /// Acts upon what the traffic says of each backend.
    fn act_upon(&mut self, opinions: &[Opinion], now: Timestamp) {
        for (backend, opinion) in self.backends.iter_mut().zip(opinions) {
            backend.judgement.complaint = opinion.trouble.map(|found| {
                let known = backend.judgement.complaint.as_ref();
                let since = known.map_or(now, |known| known.since);
                let beyond = opinion.beyond || known.is_some_and(|known| known.beyond);
                if beyond && known.is_none_or(|known| !known.beyond) && backend.judgement.halvings == 0 {
                    backend.judgement.change = Some(Change::new(now, ACTOR, found.to_string()));
                }
                Complaint { since, why: found.to_string(), beyond }
            });
        }
        // Whoever is called back takes what the others are to have less of.
        self.recall(now);
        for (index, opinion) in opinions.iter().enumerate().take(self.backends.len()) {
            self.step(index, opinion, now);
        }
    }

    fn step(&mut self, index: usize, opinion: &Opinion, now: Timestamp) {
        let others = self.backends.iter().enumerate().any(|(other, backend)| other != index && backend.is_fit());
        let (may_eject, alone) = (self.may_eject(index), self.in_rotation() < 2);
        let settings = &self.spec.passive;
        let (window, eject_for) = (settings.window, settings.eject_for);
        let backend = &mut self.backends[index];
        if !backend.is_fit() {
            return;
        }
        let judgement = &backend.judgement;
        let lasts = |since: Timestamp, span: Duration| now.duration_since(since).unsigned_abs() >= span;
        if !others {
            if judgement.halvings > 0 {
                backend.pardon(now, ACTOR, "no other is in rotation");
            }
            return;
        }
        let pause = if judgement.halvings < QUICK_HALVINGS { STEP } else { LATE_STEP };
        match (&opinion.conduct, &opinion.failing) {
            _ if judgement.halvings == 0 => {
                let Some(found) = &opinion.failing else { return };
                if opinion.altogether && may_eject {
                    backend.eject(&found.to_string(), eject_for, now);
                } else {
                    let times = if found.is_beyond() { QUICK_HALVINGS } else { 1 };
                    backend.halve(times, &found.to_string(), now);
                }
            }
            (Conduct::Bad(found), _) => {
                let enough = judgement.halvings == MOST_HALVINGS && (alone || lasts(judgement.since, window));
                if may_eject && (opinion.altogether || judgement.probation || enough) {
                    backend.eject(&found.to_string(), eject_for, now);
                } else if judgement.halvings < MOST_HALVINGS && lasts(judgement.stepped, window / pause) {
                    backend.halve(1, &found.to_string(), now);
                }
            }
            (Conduct::Good, _) if lasts(judgement.stepped, window / STEP) => {
                backend.ease(now, "as well as the others again");
            }
            (Conduct::Good, _) => {}
            (Conduct::Unclear, _) if lasts(judgement.stepped, window) => {
                backend.ease(now, "nothing bad was seen for a while");
            }
            (Conduct::Unclear, _) => {}
        }
    }

    /// How many backends may be ejected at the same time.
    fn most_ejected(&self) -> usize {
        self.backends.len() * usize::from(self.spec.passive.max_ejected) / 100
    }

    fn ejected(&self) -> usize {
        self.backends.iter().filter(|backend| backend.passive.value == Passive::Ejected).count()
    }

    fn may_eject(&self, index: usize) -> bool {
        let others = self.backends.iter().enumerate().any(|(other, backend)| other != index && backend.is_fit());
        others && self.ejected() < self.most_ejected()
    }

    /// Whether an ejection is over, by time or because its backend is needed.
    pub(super) fn ends_an_ejection(&self, now: Timestamp) -> bool {
        let over = |backend: &Backend| backend.judgement.until.is_some_and(|until| until <= now);
        self.backends.iter().any(over) || self.needed_again().is_some()
    }

    /// Ends ejections whose time is up.
    pub(super) fn end_ejections(&mut self, now: Timestamp) {
        let over = |backend: &&mut Backend| backend.judgement.until.is_some_and(|until| until <= now);
        self.backends.iter_mut().filter(over).for_each(|backend| backend.put_on_probation(now));
    }

    /// Has those serve who are ejected and needed.
    pub(super) fn pardon_the_needed(&mut self, now: Timestamp) {
        while let Some((index, why)) = self.needed_again() {
            self.backends[index].pardon(now, ACTOR, why);
        }
    }

    /// Who is to be ejected no more, and why: of several the one that has been out longest for its time.
    fn needed_again(&self) -> Option<(usize, &'static str)> {
        let ejected = self.backends.iter().enumerate().filter(|(_, backend)| backend.passive.value == Passive::Ejected);
        let mut ejected: Vec<_> =
            ejected.map(|(index, backend)| (backend.judgement.until, index, backend.is_merely_ejected())).collect();
        ejected.sort();
        let first = |(_, index, _): &(_, usize, _)| *index;
        if !self.spec.passive.enabled {
            return ejected.first().map(|found| (first(found), NOT_JUDGED));
        }
        if ejected.len() > self.most_ejected() {
            return ejected.first().map(|found| (first(found), "too many are ejected for those that are left"));
        }
        if self.in_rotation() > 0 {
            return None;
        }
        let found = ejected.iter().find(|(_, _, merely)| *merely);
        found.map(|found| (first(found), "no other is in rotation"))
    }
}

impl Model {
    /// The services where something came of what their traffic said.
    pub fn judged(&self) -> impl Iterator<Item = &str> {
        let judged = self
            .services
            .values()
            .filter(|service| service.backends.iter().any(|backend| !backend.judgement.is_clean()));
        judged.map(|service| service.spec.name.as_str())
    }

    /// Acts upon what the traffic of a service says. Whether anything came of it, and what there is to tell.
    pub fn judge(&mut self, name: &str, judge: &Judge, now: Timestamp) -> (bool, Vec<Event>) {
        let Some(service) = self.services.get_mut(name) else { return (false, Vec::new()) };
        let clean = service.backends.iter().all(|backend| backend.judgement.is_clean());
        let opinions = match judge.opinions(name, &service.seats(), &service.spec.passive, now) {
            Some(opinions) if service.spec.passive.enabled => opinions,
            _ if clean => return (false, Vec::new()),
            _ => vec![Opinion::default(); service.backends.len()],
        };
        let quiet = |opinion: &Opinion| opinion.trouble.is_none() && opinion.failing.is_none();
        if clean && opinions.iter().all(quiet) {
            return (false, Vec::new());
        }
        let shares = |service: &Service| -> Vec<(u8, bool)> {
            let share = |backend: &Backend| (backend.judgement.halvings, backend.is_fit());
            service.backends.iter().map(share).collect()
        };
        let before = shares(service);
        let service = Arc::make_mut(service);
        let events = service.change(now, |service| {
            service.act_upon(&opinions, now);
            if !service.spec.passive.enabled {
                service.backends.iter_mut().for_each(|backend| backend.pardon(now, ACTOR, NOT_JUDGED));
            }
        });
        (shares(service) != before, events)
    }
}

#[cfg(test)]
mod tests;
