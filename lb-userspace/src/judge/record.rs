//! What was lately seen of one backend, look by look, and what is usual of it.

use std::{
    collections::VecDeque,
    iter::Sum,
    ops::{AddAssign, SubAssign},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};

use super::{Kind, proportion::Proportion};
use crate::dataplane::{BackendSight, HANDSHAKE_BUCKETS, Sight};

/// Requests or connections, and answers, that must be on record before anything is usual.
const ACQUAINTED: f64 = 20.0;
/// Where of as many connections fewer than these get an answer of HTTP, as where it is encrypted, none is expected.
const ANSWERED: f64 = 0.1;
/// What is remembered of older connections, or responses, is halved when they are so many: habits change.
const MEMORY: f64 = 10_000.0;
/// By how many standard deviations connections without an answer must exceed what is usual.
const DEVIATIONS: f64 = 3.0;
/// The least variance of connections without an answer, for each connection, and the least number that is not chance.
const LEAST_VARIANCE: f64 = 0.05;
const LEAST_SILENT: f64 = 2.0;
/// More answers than so many for each request are not all to those that are seen.
const MOST_ANSWERS: f64 = 1.5;
/// So many requests or connections are a handful.
const HANDFUL: u32 = 3;
/// How likely it may be that none of some connections expects an answer, for it not to be chance.
const CHANCE: f64 = 1e-4;
/// What comes before the payload of a packet over IPv4: Ethernet, IP and TCP with timestamps, which SYNs have more options than;
/// what IPv6 adds.
const HEADERS: u64 = 14 + 20 + 32;
const MORE_OF_SYN: u64 = 8;
const MORE_OF_IPV6: u64 = 20;
/// Of what clients send on a connection so many bytes count: more is an upload. Fewer than so many are no request.
const REQUEST: f64 = 256.0;
const LEAST_REQUEST: f64 = 16.0;
/// Fewer bytes than so many are no answer of a server whose answers cannot be read.
const ANSWER: u64 = 256;
/// What has lasted for so long is usual, good or bad.
const HABIT: SignedDuration = SignedDuration::from_hours(1);

/// What happened between two looks, or in several such spans.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// 2xx to 5xx.
    pub(super) responses: u32,
    pub(super) errors: u32,
    pub(super) begun: u32,
    /// Of connections: the client acknowledged what the backend answered. Of a flood of SYNs none is.
    pub(super) opened: u32,
    pub(super) refused: u32,
    pub(super) repeated: u32,
    pub(super) reset: u32,
    pub(super) handshakes: u32,
    /// Handshakes that took longer than is allowed, and than a tenth of it.
    pub(super) slow: u32,
    pub(super) sluggish: u32,
    /// Requests of HTTP, and responses from 1xx to 5xx.
    pub(super) requests: u32,
    pub(super) answers: u32,
    /// Bytes that clients sent, without headers.
    pub(super) sent: u32,
    /// What its backend sent, without headers, may be so many answers.
    pub(super) spoken: u32,
}

/// By what it is known that a client was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Voice {
    /// Its request by a response of HTTP.
    Requests,
    /// Its connection by a response of HTTP, where requests are not seen as such: somebody may put a line of his own before them.
    Http,
    /// By what the backend sends at all, where that is something else or encrypted.
    Bytes,
}

/// What was asked, and answered in one way or the other.
#[derive(Clone, Copy)]
struct Heard {
    /// Requests, or connections.
    asked: u32,
    answers: u32,
    /// Where it is not known who of them asks for anything: how much was sent.
    sent: u32,
}

/// How requests or connections are usually answered.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Habit {
    asked: f64,
    answers: f64,
    /// Squares of what ought to have been answered and was not between two looks, summed up, twice: as often more is answered.
    squares: f64,
    sent: f64,
}

/// How long it is that nothing has been answered.
#[derive(Clone, Copy, Debug, Default)]
struct Silence {
    /// What happened since its last answer, from the first request or connection on.
    unanswered: Option<(Timestamp, Tally)>,
    /// For how long it has left its clients alike before it answered while it was well, and when it last did so for at least half as long.
    patience: Duration,
    tried: Timestamp,
}

/// How a backend, or several, usually answer.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Usual {
    requests: Habit,
    http: Habit,
    bytes: Habit,
    /// 2xx to 5xx, and 5xx.
    responses: f64,
    errors: f64,
}

/// When a backend was ill, roughly: what is usual is not learnt from that.
#[derive(Clone, Copy, Debug)]
struct Illness {
    from: Timestamp,
    until: Timestamp,
}

/// What was lately seen of one backend.
#[derive(Clone, Debug, Default)]
pub(super) struct Record {
    last: Sight,
    /// Each look with what had happened since the one before, as far back as a judgement looks.
    looks: VecDeque<(Timestamp, Tally)>,
    /// What happened in all of these.
    sum: Tally,
    /// Looks that are further back.
    older: Usual,
    /// When something bad was last seen.
    alarmed: Option<Timestamp>,
    illness: Option<Illness>,
    /// By each [`Voice`].
    requests: Silence,
    http: Silence,
    bytes: Silence,
}

impl Tally {
    /// What happened from one look to the next; none where the counters began anew.
    fn between(before: &Sight, after: &Sight, latency: Duration, is_ipv6: bool) -> Option<Self> {
        let less = |after: u64, before: u64| u32::try_from(after.checked_sub(before)?).ok();
        let sum = |from: usize| {
            let of = |sight: &Sight| sight.responses[from..].iter().sum();
            less(of(after), of(before))
        };
        let slower = |than: Duration| {
            let of = |sight: &Sight| sight.handshakes[bucket(than)..].iter().sum();
            less(of(after), of(before))
        };
        let headers = HEADERS + if is_ipv6 { MORE_OF_IPV6 } else { 0 };
        let packets = after.packets.checked_sub(before.packets)?;
        let begun = after.begun.checked_sub(before.begun)?;
        let sent = after.bytes.checked_sub(before.bytes)?.saturating_sub(headers * packets + MORE_OF_SYN * begun);
        let (packets, handshakes) = (after.packets_out.checked_sub(before.packets_out)?, slower(Duration::ZERO)?);
        let said = after.bytes_out.checked_sub(before.bytes_out)?;
        let said = said.saturating_sub(headers * packets + MORE_OF_SYN * u64::from(handshakes));
        let opened = less(after.opened, before.opened)?;
        Some(Self {
            responses: sum(1)?,
            errors: sum(4)?,
            begun: less(after.begun, before.begun)?,
            opened,
            refused: less(after.refused, before.refused)?,
            repeated: less(after.repeated, before.repeated)?,
            reset: less(after.reset, before.reset)?,
            handshakes,
            slow: slower(latency)?,
            sluggish: slower(latency / 10)?,
            requests: less(after.requests, before.requests)?,
            answers: sum(0)?,
            sent: sent.try_into().unwrap_or(u32::MAX),
            // Of those from the look before as well; but one download is not many answers.
            spoken: u32::try_from(said / ANSWER).unwrap_or(u32::MAX).min(2 + 2 * opened),
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
            Kind::Silent => usual.silent(self),
        }
    }

    fn heard(&self, voice: Voice) -> Heard {
        let Self { requests, opened, answers, spoken, sent, .. } = *self;
        match voice {
            Voice::Requests => Heard { asked: requests, answers, sent: 0 },
            Voice::Http => Heard { asked: opened, answers, sent },
            Voice::Bytes => Heard { asked: opened, answers: spoken, sent },
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
    /// Each of its numbers with that of another.
    fn with(&self, other: &Self, change: impl Fn(u32, u32) -> u32) -> Self {
        Self {
            responses: change(self.responses, other.responses),
            errors: change(self.errors, other.errors),
            begun: change(self.begun, other.begun),
            opened: change(self.opened, other.opened),
            refused: change(self.refused, other.refused),
            repeated: change(self.repeated, other.repeated),
            reset: change(self.reset, other.reset),
            handshakes: change(self.handshakes, other.handshakes),
            slow: change(self.slow, other.slow),
            sluggish: change(self.sluggish, other.sluggish),
            requests: change(self.requests, other.requests),
            answers: change(self.answers, other.answers),
            sent: change(self.sent, other.sent),
            spoken: change(self.spoken, other.spoken),
        }
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        *self = self.with(&other, u32::saturating_add);
    }
}

impl SubAssign for Tally {
    fn sub_assign(&mut self, other: Self) {
        *self = self.with(&other, u32::saturating_sub);
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

impl Habit {
    fn learn(&mut self, heard: Heard) {
        let (asked, answers) = (f64::from(heard.asked), f64::from(heard.answers));
        self.asked += asked;
        self.answers += answers;
        // What was opened in one look may be asked for in the next.
        self.sent += f64::from(heard.sent).min(REQUEST * (2.0 + asked.max(answers)));
        self.squares += 2.0 * (self.expected(heard) - answers).max(0.0).powi(2);
    }

    fn sums(&mut self) -> [&mut f64; 4] {
        let Self { asked, answers, squares, sent } = self;
        [asked, answers, squares, sent]
    }

    /// The part that gets an answer; there may be more than one to each connection.
    fn ratio(&self) -> f64 {
        (self.answers / self.asked.max(1.0)).min(1.0)
    }

    /// Whether there usually is an answer, at least to a part.
    fn answers(&self) -> bool {
        self.asked + self.answers >= ACQUAINTED && self.ratio() >= ANSWERED
    }

    /// Whether that is most of what is asked for: of other answers it is not known to what they are.
    fn asks_for_most(&self) -> bool {
        self.asked >= ACQUAINTED && self.answers <= MOST_ANSWERS * self.asked
    }

    /// What clients usually send for an answer, if that tells those who ask from those who only connect.
    fn request(&self) -> Option<f64> {
        let request = self.sent / self.answers.max(1.0);
        (request >= LEAST_REQUEST).then(|| request.min(REQUEST))
    }

    /// How many ought to have got an answer: no more than usual, and no more than clients have sent requests for.
    fn expected(&self, heard: Heard) -> f64 {
        let sent_for = self.request().map_or(f64::INFINITY, |request| f64::from(heard.sent) / request);
        (self.ratio() * f64::from(heard.asked)).min(sent_for)
    }

    /// How many answers are missing of those that ought to have come.
    fn silent(&self, heard: Heard) -> Proportion {
        let least = LEAST_VARIANCE.max(self.ratio() * (1.0 - self.ratio()));
        let variance = (self.squares / self.asked.max(1.0)).max(least);
        let expected = self.expected(heard);
        let margin = LEAST_SILENT + DEVIATIONS * (variance * f64::from(heard.asked)).sqrt();
        Proportion { bad: (expected - f64::from(heard.answers)).max(0.0), of: expected, margin }
    }

    /// Whether that nothing was answered is more than chance.
    fn is_mute(&self, heard: Heard) -> bool {
        let chance = (1.0 - self.ratio()).powf(heard.asked.into());
        heard.answers == 0 && (chance <= CHANCE || self.request().is_some())
    }
}

impl Usual {
    fn learn(&mut self, tally: &Tally) {
        self.requests.learn(tally.heard(Voice::Requests));
        self.http.learn(tally.heard(Voice::Http));
        self.bytes.learn(tally.heard(Voice::Bytes));
        self.responses += f64::from(tally.responses);
        self.errors += f64::from(tally.errors);
        if self.http.asked.max(self.requests.asked).max(self.responses) > MEMORY {
            self.sums().for_each(|sum| *sum /= 2.0);
        }
    }

    fn sums(&mut self) -> impl Iterator<Item = &mut f64> {
        let Self { requests, http, bytes, responses, errors } = self;
        requests.sums().into_iter().chain(http.sums()).chain(bytes.sums()).chain([responses, errors])
    }

    /// How many responses are 5xx.
    pub(super) fn errors(&self) -> Proportion {
        Proportion { bad: self.errors, of: self.responses, margin: 0.0 }
    }

    /// By what it is known that a client was answered, if clients usually are.
    pub(super) fn voice(&self) -> Option<Voice> {
        match () {
            () if self.requests.asks_for_most() && self.requests.answers() => Some(Voice::Requests),
            () if self.http.answers() => Some(Voice::Http),
            () if self.http.asked >= ACQUAINTED && self.bytes.answers() => Some(Voice::Bytes),
            () => None,
        }
    }

    fn habit(&self, voice: Voice) -> &Habit {
        match voice {
            Voice::Requests => &self.requests,
            Voice::Http => &self.http,
            Voice::Bytes => &self.bytes,
        }
    }

    /// How many answers are missing of those that ought to have come.
    fn silent(&self, tally: &Tally) -> Proportion {
        self.voice().map_or_else(Proportion::default, |voice| self.habit(voice).silent(tally.heard(voice)))
    }

    /// Whether more than a request or two, or as many connections, are without the answer that they ought to get.
    pub(super) fn lacks(&self, tally: &Tally) -> bool {
        self.silent(tally).bad > LEAST_SILENT
    }

    /// Whether that nothing was answered is more than chance.
    pub(super) fn is_mute(&self, tally: &Tally) -> bool {
        self.voice().is_some_and(|voice| self.habit(voice).is_mute(tally.heard(voice)))
    }
}

impl AddAssign for Usual {
    fn add_assign(&mut self, mut other: Self) {
        self.sums().zip(other.sums()).for_each(|(sum, other)| *sum += *other);
    }
}

impl Silence {
    fn take(&mut self, voice: Voice, tally: &Tally, illness: Option<Illness>, now: Timestamp) {
        if tally.heard(voice).answers > 0 {
            let waited = self.unanswered.take();
            let waited = waited.filter(|(at, sum)| sum.heard(voice).asked >= HANDFUL && teaches(illness, *at));
            let waited = waited.map_or(Duration::ZERO, |(at, _)| now.duration_since(at).unsigned_abs());
            if waited >= self.patience || now.duration_since(self.tried) > HABIT {
                self.patience = waited;
            }
            if 2 * waited >= self.patience {
                self.tried = now;
            }
        } else if tally.heard(voice).asked > 0 || self.unanswered.is_some() {
            self.unanswered.get_or_insert_with(|| (now, Tally::default())).1 += *tally;
        }
    }
}

impl Record {
    pub(super) fn first(sight: Sight) -> Self {
        Self { last: sight, ..Self::default() }
    }

    /// Takes another look.
    pub(super) fn take(&mut self, seen: &BackendSight, latency: Duration, window: Duration, now: Timestamp) {
        let sight = seen.sight;
        let tally = Tally::between(&self.last, &sight, latency, seen.address.is_ipv6());
        self.last = sight;
        let Some(tally) = tally else {
            self.begin_anew();
            return;
        };
        if self.looks.back().is_some_and(|(at, _)| *at > now) {
            // The clock was put back.
            self.begin_anew();
        }
        if tally.is_bad() {
            self.alarmed = Some(now);
        }
        self.wait(&tally, now);
        self.looks.push_back((now, tally));
        self.sum += tally;
        while let Some((at, old)) = self.looks.pop_front_if(|(at, _)| !is_within(*at, window, now)) {
            self.sum -= old;
            if teaches(self.illness, at) {
                self.older.learn(&old);
            }
        }
    }

    fn begin_anew(&mut self) {
        self.looks.clear();
        self.sum = Tally::default();
        self.silences().for_each(|(_, silence)| silence.unanswered = None);
    }

    fn wait(&mut self, tally: &Tally, now: Timestamp) {
        let illness = self.illness;
        self.silences().for_each(|(voice, silence)| silence.take(voice, tally, illness, now));
    }

    fn silences(&mut self) -> impl Iterator<Item = (Voice, &mut Silence)> {
        let Self { requests, http, bytes, .. } = self;
        [(Voice::Requests, requests), (Voice::Http, http), (Voice::Bytes, bytes)].into_iter()
    }

    fn silence(&self, voice: Voice) -> &Silence {
        match voice {
            Voice::Requests => &self.requests,
            Voice::Http => &self.http,
            Voice::Bytes => &self.bytes,
        }
    }

    /// Since when a handful of requests or connections has had no answer, for longer than that has happened while it was well, and than
    /// is allowed.
    pub(super) fn overdue(&self, voice: Voice, latency: Duration, now: Timestamp) -> Option<(Timestamp, Tally)> {
        let Silence { unanswered, patience, .. } = *self.silence(voice);
        let least = latency.max(2 * patience);
        unanswered.filter(|(at, sum)| sum.heard(voice).asked >= HANDFUL && !is_within(*at, least, now))
    }

    /// Takes it that it is ill by now, and may have been for a span of time when that was found.
    pub(super) fn fell_ill(&mut self, span: Duration, window: Duration, now: Timestamp) {
        let from = before(span, now);
        let lasts = self.illness.filter(|illness| is_within(illness.until, window, now));
        self.illness = Some(Illness { from: lasts.map_or(from, |illness| illness.from), until: now });
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
        let looks = self.looks.iter().take_while(|(at, _)| !is_within(*at, span, now));
        looks.filter(|(at, _)| teaches(self.illness, *at)).for_each(|(_, tally)| usual.learn(tally));
        usual
    }

    /// Whether anything was bad in a span of time until now, or may have been.
    pub(super) fn is_suspicious(&self, span: Duration, now: Timestamp) -> bool {
        let is_silent = |voice| {
            let asked = |tally: &Tally| tally.heard(voice).asked;
            let silent = |tally: &Tally| i64::from(asked(tally)) - i64::from(tally.heard(voice).answers);
            let silence = self.silence(voice).unanswered;
            // How much was sent is not a sum that fits.
            let all = Heard { sent: u32::MAX, ..self.sum.heard(voice) };
            silence.is_some_and(|(at, sum)| asked(&sum) >= HANDFUL && is_within(at, span, now))
                || self.looks.iter().rev().take(4).map(|(_, tally)| silent(tally)).sum::<i64>() > 2
                || self.older.habit(voice).silent(all).beyond_margin() > 0.0
        };
        self.alarmed.is_some_and(|at| is_within(at, span, now))
            || match self.older.voice() {
                Some(voice) => is_silent(voice),
                // Others may have said by what it is to be known.
                None => is_silent(Voice::Requests) || is_silent(Voice::Http),
            }
    }
}

/// Whether what happened then says what is usual.
fn teaches(illness: Option<Illness>, at: Timestamp) -> bool {
    illness.is_none_or(|Illness { from, until }| at < from || at > until || at.duration_since(from) > HABIT)
}

/// The moment a span of time ago.
pub(super) fn before(span: Duration, now: Timestamp) -> Timestamp {
    now.checked_sub(span).unwrap_or(Timestamp::MIN)
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
