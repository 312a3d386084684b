//! What becomes of a backend for what its traffic says: first less of its share, then nothing for a while.
//!
//! Who is beyond a bound rests with a thirty-second of its share at once; who stands out by less has half of it. A server that is short
//! of something gets well meanwhile, and its peers do not last long without it. So it is tried again and again, each time after an
//! eighth of the time that it has been ill: its share grows from look to look as its answers are good, until something fails,
//! and then it rests again.
//! Once its answers say that it is well it has all of its share at once, and for half as long as it was ill as much as the others had
//! meanwhile: what it was spared they have to carry still, and as they could, it can. Who fails altogether for as long as an answer may take is ejected for as long, who is ill
//! for as long as is looked back for `eject_for`, each time for twice as long; who was out for that returns with next to nothing. Not sooner: it may have
//! had too much to do, and then another that has it all gets ill of it as well. Less of its share is no relief for one whose clients keep
//! their connections: it is out for as long as an answer may take, which is enough to lose them, and then tried again; where next to nothing of it works for a
//! moment, and for longer each time. The last in
//! rotation is never ejected, and never more than `max_ejected` of all: whoever is needed comes back at once, also where next to nothing of the
//! others works, for there is nothing to lose.

use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};

use super::{Backend, Change, Event, Held, Model, Service};
use crate::{
    health::Health,
    judge::{self, Conduct, Judge, Opinion, Reduced, Seat},
    model::{Admin, Passive},
};

/// So often is the share halved of one that rests: it does little harm.
const REST: u8 = 5;
/// So often when it is tried again, and at least as long as it is not known to be well.
const TRIAL: u8 = 3;
const DOUBT: u8 = 1;
/// The part of the time that it has been ill that passes until it is tried again.
const AGAIN: i32 = 8;
/// For how long a server is ejected at first that is but to lose its clients.
const PARTING: SignedDuration = SignedDuration::from_millis(80);
/// So many times its share has at most who makes up for what the others have taken over, and for this part of the time.
const MOST_MORE: f64 = 16.0;
const MAKES_UP: i32 = 2;
/// As often is the time of an ejection doubled at most.
const MOST_DOUBLINGS: u32 = 4;
/// Why all have their share back.
const NOT_JUDGED: &str = "traffic is not judged any more";
/// By whom.
const ACTOR: &str = "traffic";

/// What was made of a backend's traffic.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Judgement {
    /// What users notice of it, if anything.
    pub complaint: Option<Complaint>,
    /// How often its share has been halved.
    pub halvings: u8,
    /// When that began, when it lost its share this time, and since when what it does counts.
    since: Timestamp,
    fell: Timestamp,
    tried: Timestamp,
    /// How bad it was found to be, and in words.
    ill: f64,
    why: String,
    /// Until when it rests, if it does.
    rests_until: Option<Timestamp>,
    /// Whether it stands out against its peers, but was far from every bound.
    slight: bool,
    /// Whether what it fails in is only known once time has passed.
    late: bool,
    /// When its share was last changed while it is tried.
    grew: Timestamp,
    /// How often it was ill again not long after it had been found to be well.
    relapses: u32,
    /// If it has more than its share: until when, and how many times that.
    makes_up: Option<(Timestamp, f64)>,
    /// Until when it is ejected, if it is.
    pub until: Option<Timestamp>,
    /// What that is for, and how often in a row it was for either of those that are short.
    absence: Absence,
    partings: u32,
    pauses: u32,
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

/// What an ejection is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Absence {
    /// It is ill for good, as far as is known.
    #[default]
    Illness,
    /// Its clients are to connect anew.
    Parting,
    /// Nothing of it works, and it may be well soon.
    Pause,
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
    /// Whether next to nothing of it works.
    pub lost: bool,
}

/// What came of a judgement of a service.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Judged {
    /// Whether anybody's share has changed.
    pub shifted: bool,
    /// Whether it is to be judged at the next look, even if nothing happens to its backends.
    pub lasts: bool,
    /// What there is to tell.
    pub events: Vec<Event>,
}

impl Judgement {
    /// What it gets of its share.
    pub(super) fn share(&self) -> f64 {
        self.makes_up.map_or_else(|| 0.5_f64.powi(self.halvings.into()), |(_, more)| more)
    }

    /// Whether there is nothing to say of it.
    pub fn is_clean(&self) -> bool {
        self.complaint.is_none() && self.halvings == 0 && self.until.is_none() && self.makes_up.is_none()
    }

    fn doubled(eject_for: Duration, times: u32) -> SignedDuration {
        signed(eject_for.saturating_mul(1 << times.min(MOST_DOUBLINGS)))
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
        Some((self.failing_since()?, self.complaint().unwrap_or_default().to_owned()))
    }

    fn failing_since(&self) -> Option<Timestamp> {
        let judgement = &self.judgement;
        let beyond = judgement.complaint.as_ref().filter(|complaint| complaint.beyond).map(|complaint| complaint.since);
        beyond.or((judgement.halvings > 0).then_some(judgement.since))
    }

    /// Whether it fails its clients.
    pub(super) fn is_failing(&self) -> bool {
        self.failing_since().is_some()
    }

    /// Since when it fails its clients or is ejected for that; when it was found to be well again, where that is not longer ago than a
    /// span of time.
    pub fn failed_within(&self, span: Duration, now: Timestamp) -> Option<Timestamp> {
        let ejected = self.is_ejected().then_some(self.passive.change.at);
        let cleared = self.judgement.cleared.filter(|cleared| now.duration_since(*cleared) < signed(span));
        self.failing_since().or(ejected).or(cleared)
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
        if self.is_ejected() {
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
        let judgement = &mut self.judgement;
        (judgement.halvings, judgement.probation) = (0, false);
        (judgement.rests_until, judgement.makes_up) = (None, None);
    }

    /// Whether it would be in rotation but for its ejection.
    fn is_merely_ejected(&self) -> bool {
        self.is_ejected()
            && self.admin.value == Admin::Enabled
            && self.weight.value != 0
            && self.route.value.is_ok()
            && self.health.health() == Health::Up
            && self.agent_agrees()
    }

    /// Whether its checks have failed since it was ejected, and pass again.
    fn was_restarted(&self) -> bool {
        self.came_up().is_some_and(|at| at > self.passive.change.at)
    }

    /// When its checks began to pass, if they do: another server, perhaps, than the one that did not answer before.
    fn came_up(&self) -> Option<Timestamp> {
        (self.health.health() == Health::Up).then_some(self.health_change.at)
    }

    /// Whether an eighth of its ejection is over.
    fn has_rested(&self, now: Timestamp) -> bool {
        let ejected = self.passive.change.at;
        let most = self.judgement.until.map(|until| until.duration_since(ejected));
        most.is_some_and(|most| now.duration_since(ejected) >= most / AGAIN)
    }

    /// Has it rest, at least for as long as is judged at a time.
    fn rest(&mut self, window: Duration, now: Timestamp) {
        self.reduce(if self.judgement.slight { TRIAL } else { REST }, now);
        let least = signed(window / judge::SHORTEST);
        let period = least.max(now.duration_since(self.judgement.since) / AGAIN);
        self.judgement.rests_until = Some(now.checked_add(period).unwrap_or(Timestamp::MAX));
    }

    /// Gives it less.
    fn reduce(&mut self, halvings: u8, now: Timestamp) {
        let judgement = &mut self.judgement;
        if judgement.halvings == 0 {
            let lately = |cleared: Timestamp| now.duration_since(cleared) < cleared.duration_since(judgement.since);
            if judgement.cleared.is_some_and(lately) {
                judgement.relapses += 1;
            } else {
                (judgement.since, judgement.relapses) = (now, 0);
                (judgement.partings, judgement.pauses) = (0, 0);
            }
            judgement.fell = now;
        }
        judgement.makes_up = None;
        (judgement.halvings, judgement.tried) = (halvings, now);
        let left = 1 << halvings;
        judgement.change = Some(Change::new(now, ACTOR, format!("gets 1/{left} of its share: {}", judgement.why)));
    }

    /// Tries whether it is well again: what it does counts from here.
    fn try_again(&mut self, now: Timestamp) {
        let judgement = &mut self.judgement;
        judgement.halvings = if judgement.slight { DOUBT } else { TRIAL };
        (judgement.rests_until, judgement.tried, judgement.grew) = (None, now, now);
    }

    /// Has it have more, once what it did with what it has is known.
    fn grow(&mut self, latency: Duration, now: Timestamp) {
        let judgement = &mut self.judgement;
        if !judgement.late || now.duration_since(judgement.grew).unsigned_abs() >= latency {
            (judgement.halvings, judgement.grew) = ((judgement.halvings - 1).max(DOUBT), now);
        }
    }

    /// Gives it all of its share.
    fn clear(&mut self, why: &str, now: Timestamp) {
        let judgement = &mut self.judgement;
        (judgement.halvings, judgement.probation, judgement.rests_until) = (0, false, None);
        judgement.cleared = Some(now);
        judgement.change = Some(Change::new(now, ACTOR, why));
    }

    /// Gives it more than that. Who was just before has shown that this is too much; and who was down was not spared, but gone.
    fn make_up(&mut self, more: f64, now: Timestamp) {
        let was_down = self.came_up().is_some_and(|at| at > self.judgement.since);
        let judgement = &mut self.judgement;
        if judgement.relapses == 0 && !was_down && more > 1.0 {
            let until = now.checked_add(now.duration_since(judgement.since) / MAKES_UP);
            judgement.makes_up = Some((until.unwrap_or(Timestamp::MAX), more));
        }
    }

    fn eject(&mut self, eject_for: Duration, now: Timestamp) {
        let severity = self.judgement.severity(eject_for, now);
        (self.judgement.severity, self.judgement.absence) = (severity + 1, Absence::Illness);
        self.take_out(Judgement::doubled(eject_for, severity), now);
    }

    /// Ejects it for so short a time that it but loses its clients: all of them, or some at first where next to nothing of it
    /// works, as it may have had too much to do and another has to take them.
    fn part(&mut self, latency: Duration, lost: bool, now: Timestamp) {
        let (judgement, most) = (&mut self.judgement, signed(latency));
        let period = PARTING.saturating_mul(1 << judgement.partings.min(MOST_DOUBLINGS)).min(most);
        (judgement.absence, judgement.partings) = (Absence::Parting, judgement.partings + 1);
        self.take_out(if lost && !self.judgement.late { period } else { most }, now);
    }

    /// Ejects it for as long as an answer may take, and for twice as long each time: it may be well by then, and another that has its
    /// load is not for long, if that was too much.
    fn pause(&mut self, latency: Duration, now: Timestamp) {
        let judgement = &mut self.judgement;
        let period = Judgement::doubled(latency, judgement.pauses);
        (judgement.absence, judgement.pauses) = (Absence::Pause, judgement.pauses + 1);
        self.take_out(period, now);
    }

    fn take_out(&mut self, period: SignedDuration, now: Timestamp) {
        let judgement = &mut self.judgement;
        judgement.makes_up = None;
        judgement.ejections += 1;
        judgement.until = Some(now.checked_add(period).unwrap_or(Timestamp::MAX));
        let cause = format!("ejected for {}: {}", humantime::format_duration(period.unsigned_abs()), judgement.why);
        self.passive = Held::new(Passive::Ejected, Change::new(now, ACTOR, cause));
    }

    /// Has it return with next to nothing.
    fn put_on_probation(&mut self, now: Timestamp) {
        let how = if self.judgement.absence == Absence::Illness { "returned on probation" } else { "is tried again" };
        let cause = format!("{how}; it had been {}", self.passive.change.cause);
        let change = Change::new(now, ACTOR, cause);
        self.passive = Held::new(Passive::Ok, change.clone());
        let judgement = &mut self.judgement;
        judgement.until = None;
        judgement.change = Some(change);
        judgement.returned = Some(now);
        (judgement.fell, judgement.tried, judgement.grew) = (now, now, now);
        judgement.rests_until = None;
        judgement.halvings = match judgement.absence {
            Absence::Illness => REST,
            Absence::Parting => TRIAL,
            Absence::Pause => TRIAL + 1,
        };
        if judgement.absence == Absence::Illness {
            (judgement.since, judgement.probation, judgement.relapses) = (now, true, 1);
        }
    }
}

impl Service {
    /// What is to be known of the backends to judge them.
    pub(super) fn seats(&self) -> Vec<Seat<'_>> {
        let stand_by = self.primary_serves();
        let reduced = |backend: &'_ Backend| {
            let judgement = &backend.judgement;
            let &Judgement { tried, fell, ill, relapses, .. } = judgement;
            let up = backend.came_up().unwrap_or(Timestamp::MIN);
            (judgement.halvings > 0).then_some(Reduced { tried: tried.max(up), since: fell.max(up), ill, relapses })
        };
        let seats = self.backends.iter().map(|backend| Seat {
            name: &backend.name,
            serves: backend.serves(stand_by),
            troubled: backend.judgement.complaint.is_some() || backend.judgement.halvings > 0,
            reduced: reduced(backend),
            cleared: backend.judgement.cleared.max(backend.came_up()),
        });
        seats.collect()
    }

    /// Acts upon what the traffic says of each backend.
    fn act_upon(&mut self, opinions: &[Opinion], now: Timestamp) {
        for (backend, opinion) in self.backends.iter_mut().zip(opinions) {
            let judgement = &mut backend.judgement;
            let was_beyond = judgement.complaint.as_ref().is_some_and(|known| known.beyond);
            if was_beyond && opinion.trouble.is_none() && judgement.halvings == 0 {
                judgement.change = Some(Change::new(now, ACTOR, "nothing bad is left of what was seen"));
            }
            backend.judgement.complaint = opinion.trouble.map(|found| {
                let known = backend.judgement.complaint.as_ref();
                let since = known.map_or(now, |known| known.since);
                let beyond = opinion.beyond || known.is_some_and(|known| known.beyond);
                if beyond && known.is_none_or(|known| !known.beyond) && backend.judgement.halvings == 0 {
                    backend.judgement.change = Some(Change::new(now, ACTOR, found.to_string()));
                }
                Complaint { since, why: found.to_string(), beyond, lost: opinion.lost }
            });
        }
        // Whoever is called back takes what the others are to have less of.
        self.recall(now);
        for (index, opinion) in opinions.iter().enumerate().take(self.backends.len()) {
            self.step(index, opinion, now);
        }
    }

    fn step(&mut self, index: usize, opinion: &Opinion, now: Timestamp) {
        let others = self.others(index).any(Backend::is_fit);
        let (may_eject, alone) = (self.ejected() < self.most_ejected(), self.in_rotation() < 2);
        let settings = &self.spec.passive;
        let (window, latency, eject_for) = (settings.window, settings.latency, settings.eject_for);
        let backend = &mut self.backends[index];
        backend.judgement.makes_up.take_if(|(until, _)| *until <= now);
        if !backend.is_fit() {
            return;
        }
        if !others {
            if backend.judgement.halvings > 0 {
                backend.pardon(now, ACTOR, "no other is in rotation");
            }
            return;
        }
        let judgement = &mut backend.judgement;
        if judgement.halvings == 0 {
            let Some(found) = &opinion.failing else { return };
            (judgement.ill, judgement.why) = (found.share(), found.to_string());
            let beyond = found.is_beyond();
            (judgement.slight, judgement.late) = (found.is_slight(), found.is_late());
            match () {
                () if may_eject && alone && beyond => backend.eject(eject_for, now),
                () if may_eject && opinion.hopeless => {
                    backend.reduce(REST, now);
                    backend.pause(latency, now);
                }
                () if may_eject && beyond && opinion.holds => {
                    backend.reduce(REST, now);
                    backend.part(latency, opinion.lost, now);
                }
                () if beyond => backend.rest(window, now),
                () => backend.reduce(DOUBT, now),
            }
            return;
        }
        if let Conduct::Bad(found) = &opinion.conduct {
            judgement.why = found.to_string();
            judgement.slight &= found.is_slight();
        }
        let lasts = |since: Timestamp| now.duration_since(since).unsigned_abs() >= window;
        let given_up = may_eject && lasts(judgement.since) && !judgement.slight;
        let parts = may_eject && opinion.holds && !judgement.slight;
        let has_paused = judgement.absence == Absence::Pause && judgement.pauses > 0;
        let fails_still = opinion.hopeless && (opinion.stumbles || opinion.waits);
        match &opinion.conduct {
            Conduct::Good => {
                backend.clear("as well as the others again", now);
                let more = self.carried_by_others(index);
                self.backends[index].make_up(more, now);
            }
            Conduct::Bad(_) if may_eject && judgement.probation || given_up => backend.eject(eject_for, now),
            Conduct::Bad(_) if may_eject && opinion.hopeless => backend.pause(latency, now),
            Conduct::Bad(_) if parts => backend.part(latency, opinion.lost, now),
            Conduct::Bad(_) if may_eject && has_paused => backend.pause(latency, now),
            Conduct::Unclear if fails_still && given_up => backend.eject(eject_for, now),
            Conduct::Unclear if fails_still && may_eject => backend.pause(latency, now),
            // Nothing of it worked before it was out: one more is enough.
            Conduct::Unclear if opinion.stumbles && has_paused && !opinion.holds && may_eject => {
                backend.pause(latency, now);
            }
            _ if judgement.rests_until.is_some_and(|until| now < until) => {}
            _ if judgement.rests_until.is_some() => backend.try_again(now),
            Conduct::Bad(_) => backend.rest(window, now),
            Conduct::Unclear if opinion.stumbles && given_up => backend.eject(eject_for, now),
            Conduct::Unclear if opinion.stumbles => backend.rest(window, now),
            Conduct::Unclear if lasts(judgement.tried) && !opinion.waits => {
                if opinion.works || judgement.halvings <= DOUBT {
                    backend.clear("nothing bad was seen for a while", now);
                } else {
                    // Nobody came: what it has may be too little for an algorithm that goes by open flows.
                    (judgement.halvings, judgement.tried) = (judgement.halvings - 1, now);
                }
            }
            Conduct::Unclear if opinion.works && !opinion.lags => backend.grow(latency, now),
            Conduct::Unclear => {}
        }
    }

    /// How many times its share a backend has to have for its part of everything to be that which each of those that are well has had
    /// without it.
    fn carried_by_others(&self, index: usize) -> f64 {
        let weight = |backend: &Backend| f64::from(backend.weight.value);
        let own = weight(&self.backends[index]);
        let rest: f64 = self.others(index).filter(|other| other.is_fit() && !other.is_failing()).map(weight).sum();
        match () {
            () if rest == 0.0 => 1.0,
            () if rest > own => (rest / (rest - own)).min(MOST_MORE),
            // Of two, nothing is left for the other.
            () => MOST_MORE,
        }
    }

    /// All but one.
    fn others(&self, index: usize) -> impl Iterator<Item = &Backend> {
        self.backends.iter().enumerate().filter(move |(other, _)| *other != index).map(|(_, backend)| backend)
    }

    /// Whether the checks of any fail though its clients have what they ask for.
    fn is_belied(&self) -> bool {
        self.backends.iter().any(|backend| backend.is_belied)
    }

    /// How many backends may be ejected at the same time.
    fn most_ejected(&self) -> usize {
        self.backends.len() * usize::from(self.spec.passive.max_ejected) / 100
    }

    fn ejected(&self) -> usize {
        self.backends.iter().filter(|backend| backend.is_ejected()).count()
    }

    /// Whether an ejection is over, by time or because its backend is needed.
    pub(super) fn ends_an_ejection(&self, now: Timestamp) -> bool {
        self.backends.iter().any(|backend| self.may_return(backend, now)) || self.needed_again().is_some()
    }

    /// Ends ejections whose time is up, or would be but for others that do no better.
    pub(super) fn end_ejections(&mut self, now: Timestamp) {
        let over: Vec<bool> = self.backends.iter().map(|backend| self.may_return(backend, now)).collect();
        let over = self.backends.iter_mut().zip(over).filter(|(_, over)| *over);
        over.for_each(|(backend, _)| backend.put_on_probation(now));
    }

    /// Whether an ejected backend's time is up; where all others fail their clients as well, that is after an eighth of it.
    fn may_return(&self, backend: &Backend, now: Timestamp) -> bool {
        let Some(until) = backend.judgement.until else { return false };
        let mut others = self.backends.iter().filter(|other| other.is_fit());
        until <= now
            // Unless that has not helped before.
            || backend.was_restarted() && backend.judgement.severity < 2
            || backend.has_rested(now) && backend.is_merely_ejected() && others.all(Backend::is_failing)
    }

    /// Has those serve who are ejected and needed.
    pub(super) fn pardon_the_needed(&mut self, now: Timestamp) {
        while let Some((index, why)) = self.needed_again() {
            self.backends[index].pardon(now, ACTOR, why);
        }
    }

    /// Whether anybody is in rotation of whom more than next to nothing works, as far as is known.
    pub(super) fn anybody_works(&self) -> bool {
        let is_lost = |backend: &Backend| backend.judgement.complaint.as_ref().is_some_and(|complaint| complaint.lost);
        self.backends.iter().any(|backend| backend.is_fit() && !is_lost(backend))
    }

    /// Who is to be ejected no more, and why: of several the one that has been out longest for its time.
    fn needed_again(&self) -> Option<(usize, &'static str)> {
        let ejected = self.backends.iter().enumerate().filter(|(_, backend)| backend.is_ejected());
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
        if self.anybody_works() {
            return None;
        }
        let why = match self.in_rotation() {
            0 => "no other is in rotation",
            _ => "next to nothing of the others works",
        };
        ejected.iter().find(|(_, _, merely)| *merely).map(|found| (first(found), why))
    }
}

impl Model {
    /// Acts upon what the traffic of a service says.
    pub fn judge(&mut self, name: &str, judge: &mut Judge, now: Timestamp) -> Judged {
        let mut events = self.end_ejections(name, now);
        let belied = self.belie(name, judge, now);
        let judged = self.weigh(name, judge, now);
        events.extend(judged.events);
        let lasts = judged.lasts || self.services.get(name).is_some_and(|service| service.is_belied());
        Judged { shifted: judged.shifted || belied, lasts, events }
    }

    /// Ends ejections whose time is up: what is thought of their backends goes by what they do from here on.
    fn end_ejections(&mut self, name: &str, now: Timestamp) -> Vec<Event> {
        let Some(service) = self.services.get_mut(name) else { return Vec::new() };
        if !service.backends.iter().any(|backend| service.may_return(backend, now)) {
            return Vec::new();
        }
        Arc::make_mut(service).change(now, |service| service.end_ejections(now))
    }

    /// Notes whose checks fail though its clients have what they ask for: it does not lose those. Whether that has changed.
    pub fn belie(&mut self, name: &str, judge: &Judge, now: Timestamp) -> bool {
        let Some(service) = self.services.get_mut(name) else { return false };
        let settings = &service.spec.passive;
        let is_belied = |backend: &Backend| {
            backend.health.health() == Health::Down
                && backend.passive.value == Passive::Ok
                && settings.enabled
                && judge.is_well(name, &backend.name, settings, now)
        };
        let belied: Vec<bool> = service.backends.iter().map(is_belied).collect();
        let changed = service.backends.iter().zip(&belied).any(|(backend, belied)| backend.is_belied != *belied);
        if changed {
            let backends = Arc::make_mut(service).backends.iter_mut();
            backends.zip(belied).for_each(|(backend, belied)| backend.is_belied = belied);
        }
        changed
    }

    fn weigh(&mut self, name: &str, judge: &mut Judge, now: Timestamp) -> Judged {
        let Some(service) = self.services.get_mut(name) else { return Judged::default() };
        let is_clean = |service: &Service| service.backends.iter().all(|backend| backend.judgement.is_clean());
        let clean = is_clean(service);
        let opinions = match judge.opinions(name, &service.seats(), &service.spec.passive, now) {
            Some(opinions) if service.spec.passive.enabled => opinions,
            _ if clean => return Judged::default(),
            _ => vec![Opinion::default(); service.backends.len()],
        };
        let quiet = |opinion: &Opinion| opinion.trouble.is_none() && opinion.failing.is_none();
        if clean && opinions.iter().all(quiet) {
            // What has no answer yet may be found to have none.
            return Judged { lasts: true, ..Judged::default() };
        }
        let shares = |service: &Service| -> Vec<(f64, bool)> {
            let share = |backend: &Backend| (backend.judgement.share(), backend.is_fit());
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
        Judged { shifted: shares(service) != before, lasts: !is_clean(service), events }
    }
}

/// As times are counted with.
fn signed(span: Duration) -> SignedDuration {
    SignedDuration::try_from(span).unwrap_or(SignedDuration::MAX)
}

#[cfg(test)]
mod replay;
#[cfg(test)]
mod tests;
