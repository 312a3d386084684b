//! What was lately seen of one backend, look by look, and what is usual of it.

use std::{
    collections::VecDeque,
    iter::Sum,
    ops::{AddAssign, SubAssign},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};

use super::{Kind, proportion::Proportion};
use crate::dataplane::{HANDSHAKE_BUCKETS, Sight};

/// Connections that must be on record before anything is usual.
const ACQUAINTED: f64 = 20.0;
/// Of as many connections a backend must have answered so many for an answer to be usual.
const ANSWERED: f64 = 0.9;
/// What is remembered of older connections is halved when they are so many: habits change.
const MEMORY: f64 = 10_000.0;
/// By how many standard deviations connections without an answer must exceed what is usual.
const DEVIATIONS: f64 = 3.0;
/// The least variance of connections without an answer, for each connection, and the least number that is not chance.
const LEAST_VARIANCE: f64 = 0.05;
const LEAST_SILENT: f64 = 2.0;

/// What happened between two looks, or in several such spans.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// 2xx to 5xx.
    pub(super) responses: u32,
    pub(super) errors: u32,
    pub(super) begun: u32,
    pub(super) refused: u32,
    pub(super) repeated: u32,
    pub(super) reset: u32,
    pub(super) handshakes: u32,
    /// Handshakes that took longer than is allowed, and than a tenth of it.
    pub(super) slow: u32,
    pub(super) sluggish: u32,
    /// 1xx to 5xx.
    pub(super) answers: u32,
}

/// How a backend usually answers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Usual {
    begun: f64,
    answers: f64,
    /// Squares of what was begun and not answered between two looks, summed up, twice: as often more is answered than begun.
    squares: f64,
}

/// What was lately seen of one backend.
#[derive(Clone, Debug, Default)]
pub(super) struct Record {
    last: Sight,
    /// Each look with what had happened since the one before, as far back as a judgement looks.
    looks: VecDeque<(Timestamp, Tally)>,
    /// Looks that are further back.
    older: Usual,
    /// When something bad was last seen.
    alarmed: Option<Timestamp>,
}

impl Tally {
    /// What happened from one look to the next; none where the counters began anew.
    fn between(before: &Sight, after: &Sight, latency: Duration) -> Option<Self> {
        let less = |after: u64, before: u64| u32::try_from(after.checked_sub(before)?).ok();
        let sum = |from: usize| {
            let of = |sight: &Sight| sight.responses[from..].iter().sum();
            less(of(after), of(before))
        };
        let slower = |than: Duration| {
            let of = |sight: &Sight| sight.handshakes[bucket(than)..].iter().sum();
            less(of(after), of(before))
        };
        Some(Self {
            responses: sum(1)?,
            errors: sum(4)?,
            begun: less(after.begun, before.begun)?,
            refused: less(after.refused, before.refused)?,
            repeated: less(after.repeated, before.repeated)?,
            reset: less(after.reset, before.reset)?,
            handshakes: slower(Duration::ZERO)?,
            slow: slower(latency)?,
            sluggish: slower(latency / 10)?,
            answers: sum(0)?,
        })
    }

    /// How often something bad of a kind happened.
    pub(super) fn of(&self, kind: Kind, usual: Usual) -> Proportion {
        let of = |bad: u32, of: u32| Proportion::new(bad.into(), of.into());
        match kind {
            Kind::Errors => of(self.errors, self.responses),
            // A SYN that is refused comes again.
            Kind::Connect => {
                let failed = self.refused.max(self.repeated);
                of(failed, self.begun.max(failed))
            }
            Kind::Reset => of(self.reset, self.begun),
            Kind::Slow => of(self.slow, self.handshakes),
            Kind::Sluggish => of(self.sluggish, self.handshakes),
            Kind::Silent if usual.answers() => {
                let silent = of(self.begun.saturating_sub(self.answers), self.begun);
                Proportion { margin: usual.margin(silent.of), ..silent }
            }
            Kind::Silent => Proportion::default(),
        }
    }

    fn is_bad(&self) -> bool {
        self.is_failure() || self.sluggish > 0
    }

    /// Whether anything failed.
    pub(super) fn is_failure(&self) -> bool {
        self.errors + self.refused + self.repeated + self.reset + self.slow > 0
    }
}

impl Tally {
    fn each(&mut self, other: Self, change: impl Fn(u32, u32) -> u32) {
        let Self { responses, errors, begun, refused, repeated, reset, handshakes, slow, sluggish, answers } = other;
        for (own, other) in [
            (&mut self.responses, responses),
            (&mut self.errors, errors),
            (&mut self.begun, begun),
            (&mut self.refused, refused),
            (&mut self.repeated, repeated),
            (&mut self.reset, reset),
            (&mut self.handshakes, handshakes),
            (&mut self.slow, slow),
            (&mut self.sluggish, sluggish),
            (&mut self.answers, answers),
        ] {
            *own = change(*own, other);
        }
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.each(other, u32::saturating_add);
    }
}

impl SubAssign for Tally {
    fn sub_assign(&mut self, other: Self) {
        self.each(other, u32::saturating_sub);
    }
}

impl Sum for Tally {
    fn sum<I: Iterator<Item = Self>>(tallies: I) -> Self {
        tallies.fold(Self::default(), |mut sum, tally| {
            sum += tally;
            sum
        })
    }
}

impl Usual {
    fn learn(&mut self, tally: &Tally) {
        let (begun, answers) = (f64::from(tally.begun), f64::from(tally.answers));
        self.begun += begun;
        self.answers += answers;
        self.squares += 2.0 * (begun - answers).max(0.0).powi(2);
        if self.begun > MEMORY {
            *self = Self { begun: self.begun / 2.0, answers: self.answers / 2.0, squares: self.squares / 2.0 };
        }
    }

    /// Whether connections usually get an answer.
    pub(super) fn answers(&self) -> bool {
        self.begun >= ACQUAINTED && self.answers >= ANSWERED * self.begun
    }

    pub(super) fn is_acquainted(&self) -> bool {
        self.begun >= ACQUAINTED
    }

    /// How many of so many may have no answer yet, as far as that is usual.
    fn margin(&self, begun: f64) -> f64 {
        let variance = (self.squares / self.begun.max(1.0)).max(LEAST_VARIANCE);
        LEAST_SILENT + DEVIATIONS * (variance * begun).sqrt()
    }
}

impl AddAssign for Usual {
    fn add_assign(&mut self, other: Self) {
        self.begun += other.begun;
        self.answers += other.answers;
        self.squares += other.squares;
    }
}

impl SubAssign for Usual {
    fn sub_assign(&mut self, other: Self) {
        self.begun = (self.begun - other.begun).max(0.0);
        self.answers = (self.answers - other.answers).max(0.0);
        self.squares = (self.squares - other.squares).max(0.0);
    }
}

impl Record {
    pub(super) fn first(sight: Sight) -> Self {
        Self { last: sight, ..Self::default() }
    }

    /// Takes another look.
    pub(super) fn take(&mut self, sight: Sight, latency: Duration, window: Duration, now: Timestamp) {
        let tally = Tally::between(&self.last, &sight, latency);
        self.last = sight;
        let Some(tally) = tally else {
            self.looks.clear();
            return;
        };
        if self.looks.back().is_some_and(|(at, _)| *at > now) {
            // The clock was put back.
            self.looks.clear();
        }
        if tally.is_bad() {
            self.alarmed = Some(now);
        }
        self.looks.push_back((now, tally));
        while let Some((_, old)) = self.looks.pop_front_if(|(at, _)| !is_within(*at, window, now)) {
            self.older.learn(&old);
        }
    }

    /// What happened after a moment.
    pub(super) fn since(&self, moment: Timestamp) -> Tally {
        self.looks.iter().rev().take_while(|(at, _)| *at > moment).map(|(_, tally)| *tally).sum()
    }

    /// What happened after each of these moments, later ones first.
    pub(super) fn spans<const N: usize>(&self, begins: [Timestamp; N]) -> [Tally; N] {
        let (mut sum, mut looks) = (Tally::default(), self.looks.iter().rev().peekable());
        begins.map(|begin| {
            while let Some((_, tally)) = looks.next_if(|(at, _)| *at > begin) {
                sum += *tally;
            }
            sum
        })
    }

    /// What happened after a moment: of the newest look, of the two newest, and so on, each with when that begins.
    pub(super) fn latest(&self, moment: Timestamp) -> impl Iterator<Item = (Timestamp, Tally)> {
        let looks = self.looks.iter().rev().take_while(move |(at, _)| *at > moment);
        looks.scan(Tally::default(), |sum, (at, tally)| {
            *sum += *tally;
            Some((*at, *sum))
        })
    }

    /// How it answered until a span of time ago.
    pub(super) fn usual(&self, span: Duration, now: Timestamp) -> Usual {
        let mut usual = self.older;
        self.looks.iter().take_while(|(at, _)| !is_within(*at, span, now)).for_each(|(_, tally)| usual.learn(tally));
        usual
    }

    /// Whether anything was bad in a span of time until now, or may have been.
    pub(super) fn is_suspicious(&self, span: Duration, now: Timestamp) -> bool {
        let silent = |tally: &Tally| i64::from(tally.begun) - i64::from(tally.answers);
        self.alarmed.is_some_and(|at| is_within(at, span, now))
            || self.looks.iter().rev().take(4).map(|(_, tally)| silent(tally)).sum::<i64>() > 2
    }
}

fn is_within(at: Timestamp, span: Duration, now: Timestamp) -> bool {
    now.duration_since(at) < SignedDuration::try_from(span).unwrap_or(SignedDuration::MAX)
}

/// The first bucket of what takes longer: the one whose bound is nearest.
fn bucket(than: Duration) -> usize {
    // Each bucket begins at the bound of the one before, and is twice as wide; half a bucket is a factor of the root of two.
    Sight::bounds()
        .position(|bound| bound.as_secs_f64() > than.as_secs_f64() / std::f64::consts::SQRT_2)
        .map_or(HANDSHAKE_BUCKETS - 1, |index| if than.is_zero() { 0 } else { index + 1 })
}
