//! What the traffic says of each backend, beside its peers and by itself: a pure function of what was counted, look by look.
//!
//! A look takes the counters of those who had traffic. What happened between two looks is kept as far back as a judgement
//! looks, and judged in spans of different lengths, so that a server that fails outright is found within a look or two and one that
//! fails now and then by the whole window. Every share is judged by what it is at least (Wilson's bound), so a few requests
//! condemn nobody. Whoever fails as all others do is not found to fail: then it is not the server.
//!
//! Who has less for it is judged by its newest answers alone, as many of them as tell what it was found to be from what is well
//! (Wald's sequential test): however old errors are, they keep nobody from having its share back.
//!
//! Whether a request, or a connection where requests are not seen, expects an answer is known from what the whole service did while it was
//! well. An illness does not become usual, and whoever answers nothing is never well where answers are usual.

mod proportion;
mod record;

use std::{collections::HashMap, fmt, time::Duration};

use jiff::Timestamp;

use self::{
    proportion::Proportion,
    record::{Record, Tally, Usual, Voice, before},
};
use crate::{config::Passive, dataplane::BackendSight};

/// The spans that are judged, from some looks to the whole window: parts of it.
const SPANS: [u32; 8] = [SHORTEST, 64, 32, 16, 8, 4, 2, 1];
/// The shortest of them.
pub const SHORTEST: u32 = 128;
/// What is older than this part of the window says what is usual.
const USUAL: u32 = 4;
/// Fewer bad cases than this say nothing.
const LEAST: f64 = 3.0;
/// The part of a bound that is trouble already, if not enough to act upon among peers.
const TROUBLE: f64 = 4.0;
/// What is usual is trouble when it is so many times as bad, by the factor that is set, if it is as much as this and that many
/// cases; it is not waited for the part of a bound then.
const SLIGHT: f64 = 0.01;
const SOME: f64 = 8.0;
/// Of so many cases those of peers are something to compare with, and of so many to stand out against.
const COMPARABLE: f64 = 5.0;
const SOLID: f64 = 20.0;
/// Less than so many times as bad as the others is as bad as they are.
const ALIKE: f64 = 2.0;
/// Whoever fails so often fails altogether, if at least so often for certain: of a server that fails every other time a few in a
/// row are nothing special.
const ALTOGETHER: f64 = 0.9;
const SURELY: f64 = 0.7;
/// Who is well may fail in as many cases nevertheless.
const WELL: f64 = 0.02;
/// So many times likelier must it be that a backend is well than that it still is what it was found to be, or the other way
/// round.
const SURE: f64 = 50.0;
/// More relapses than these demand no more.
const MOST_RELAPSES: u32 = 4;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Responses are 5xx.
    Errors,
    /// Connections are refused, or SYNs not answered.
    Connect,
    /// The server resets connections that it accepted.
    Reset,
    /// Handshakes take longer than is allowed.
    Slow,
    /// Handshakes take much longer than those of others.
    Sluggish,
    /// Requests, or connections, get no response.
    Silent,
}

/// What was found, with its figures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Finding {
    kind: Kind,
    seen: Proportion,
    /// The share of the peers.
    peers: Option<f64>,
    span: Duration,
    /// How many times its bound it is, at least.
    excess: f64,
    /// Its bound.
    bound: f64,
    /// Whether it is requests that had no answer, and not connections.
    of_requests: bool,
}

/// What is to be known of a backend to judge it.
#[derive(Clone, Copy, Debug)]
pub struct Seat<'a> {
    /// Its name.
    pub name: &'a str,
    /// Whether it takes new connections.
    pub serves: bool,
    /// Whether it was found to be in trouble.
    pub troubled: bool,
    /// If it has less than its share, what is to be known of that.
    pub reduced: Option<Reduced>,
    /// When it was found to be well again, or came up: what was before counts no more.
    pub cleared: Option<Timestamp>,
}

/// What is to be known of one that has less than its share.
#[derive(Clone, Copy, Debug)]
pub struct Reduced {
    /// Since when it has had what it has.
    pub tried: Timestamp,
    /// Since when it has had less.
    pub since: Timestamp,
    /// How bad it was found to be, from 0 to 1.
    pub ill: f64,
    /// How often it was ill again soon after it had been found to be well.
    pub relapses: u32,
}

/// What the traffic says of a backend.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Opinion {
    /// That users notice.
    pub trouble: Option<Finding>,
    /// That it is beyond an absolute bound, whatever its peers do.
    pub beyond: bool,
    /// That it stands out against its peers, or is beyond a bound where they are not.
    pub failing: Option<Finding>,
    /// That next to nothing of it works.
    pub lost: bool,
    /// That nothing of it has worked for as long as anything may take, while its peers were well.
    pub hopeless: bool,
    /// What it has been like since its share is what it is.
    pub conduct: Conduct,
    /// Whether anything of that was bad.
    pub stumbles: bool,
    /// Whether anything of that was good.
    pub works: bool,
    /// Whether it was asked for anything, and nothing came of it.
    pub waits: bool,
    /// Whether nothing has come of some yet.
    pub lags: bool,
    /// Whether most of what it answers comes over connections that its clients keep.
    pub holds: bool,
}

/// What a backend has been like for a while.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Conduct {
    /// Too little is known.
    #[default]
    Unclear,
    /// As its peers, or well enough.
    Good,
    /// Bad.
    Bad(Finding),
}

/// What was lately seen of every backend.
#[derive(Clone, Debug, Default)]
pub struct Judge {
    services: HashMap<String, HashMap<String, Record>>,
}

impl Judge {
    /// Takes a look at a backend: the sums that it has come to. The first look at it says where they begin.
    pub fn take(&mut self, seen: &BackendSight, settings: &Passive, now: Timestamp) {
        let Some(service) = self.services.get_mut(&seen.service) else {
            let record = HashMap::from([(seen.backend.clone(), Record::first(seen.sight))]);
            self.services.insert(seen.service.clone(), record);
            return;
        };
        match service.get_mut(&seen.backend) {
            Some(record) => record.take(seen, settings.latency, settings.window, now),
            None => drop(service.insert(seen.backend.clone(), Record::first(seen.sight))),
        }
    }

    /// Forgets those that are gone.
    pub fn retain(&mut self, is_present: impl Fn(&str, &str) -> bool) {
        self.services.retain(|service, backends| {
            backends.retain(|backend, _| is_present(service, backend));
            !backends.is_empty()
        });
    }

    /// Whether the clients of a backend have lately had what they asked for, all but a few.
    pub fn is_well(&self, service: &str, backend: &str, settings: &Passive, now: Timestamp) -> bool {
        let record = self.services.get(service).and_then(|backends| backends.get(backend));
        record.is_some_and(|record| {
            let lately = record.since(before(settings.latency, now));
            lately.responses > 0 && f64::from(lately.errors) <= WELL * f64::from(lately.responses)
        })
    }

    /// What the traffic says of each backend of a service, in their order; nothing of any where nothing is bad.
    pub fn opinions(
        &mut self,
        service: &str,
        seats: &[Seat<'_>],
        settings: &Passive,
        now: Timestamp,
    ) -> Option<Vec<Opinion>> {
        let records = self.services.get_mut(service)?;
        for seat in seats.iter().filter(|seat| seat.troubled) {
            if let Some(record) = records.get_mut(seat.name) {
                record.fell_ill(settings.window / USUAL, settings.window, now);
            }
        }
        let records = &*records;
        let calm = |seat: &Seat<'_>| {
            let suspicious = records.get(seat.name).is_some_and(|record| record.is_suspicious(settings.window, now));
            !(seat.troubled || suspicious)
        };
        if seats.iter().all(calm) {
            return None;
        }
        let view = View::new(records, seats, settings, now);
        Some((0..seats.len()).map(|index| view.opinion(index)).collect())
    }
}

/// A service at a moment.
struct View<'a> {
    seats: &'a [Seat<'a>],
    settings: &'a Passive,
    now: Timestamp,
    /// What is known of each, if anything.
    records: Vec<Option<(&'a Record, Past)>>,
    /// What all did together that serve.
    all: Past,
    /// How the service usually answers.
    usual: Usual,
}

/// What one did, or several together, in each of [`SPANS`].
type Past = [Tally; SPANS.len()];

/// What a backend did, and its peers meanwhile.
#[derive(Clone, Copy)]
struct Pair {
    own: Tally,
    peers: Tally,
}

impl<'a> View<'a> {
    fn new(records: &'a HashMap<String, Record>, seats: &'a [Seat<'a>], settings: &'a Passive, now: Timestamp) -> Self {
        let (all, usual) = (Past::default(), Usual::default());
        let mut view = Self { seats, settings, now, records: Vec::new(), all, usual };
        for seat in seats {
            let known = records.get(seat.name).map(|record| (record, record.spans(view.begins(Timestamp::MIN))));
            if let Some((record, past)) = known {
                view.usual += record.usual(settings.window / USUAL, now);
                if seat.serves {
                    view.all.iter_mut().zip(past).for_each(|(sum, span)| *sum += span);
                }
            }
            view.records.push(known);
        }
        view
    }

    fn opinion(&self, index: usize) -> Opinion {
        let mut opinion = Opinion::default();
        let seat = &self.seats[index];
        let Some((record, past)) = self.records[index] else { return opinion };
        let mut peers = self.all;
        if seat.serves {
            peers.iter_mut().zip(past).for_each(|(all, own)| *all -= own);
        }
        let own = seat.cleared.map_or(past, |cleared| record.spans(self.begins(cleared)));
        let pair = |at: usize| Pair { own: own[at], peers: peers[at] };
        let whole = pair(SPANS.len() - 1);
        let usually = Kind::ALL.map(|kind| self.of(kind, whole).1);
        for (at, part) in SPANS.into_iter().enumerate() {
            let (span, pair) = (self.settings.window / part, pair(at));
            for (kind, usually) in Kind::ALL.into_iter().zip(usually) {
                let (seen, mut peers) = self.of(kind, pair);
                // Of few connections without an answer none are well enough known, unless they do as they did all along.
                if peers.of < COMPARABLE
                    || kind == Kind::Silent && peers.of >= SOLID && peers.share() <= usually.share()
                {
                    peers = usually;
                }
                self.weigh(&mut opinion, kind, span, seen, peers);
            }
        }
        if let Some((since, tally)) = self.overdue(record, seat).filter(|(_, tally)| self.usual.is_mute(tally)) {
            let (seen, peers) = self.of(Kind::Silent, Pair { own: tally, peers: self.others_since(index, since) });
            let span = self.now.duration_since(since).unsigned_abs();
            if peers.of >= COMPARABLE || self.others(index).next().is_none() {
                self.weigh(&mut opinion, Kind::Silent, span, Proportion { margin: 0.0, ..seen }, peers);
            }
        }
        let lately = record.since(before(self.settings.latency, self.now));
        opinion.holds = lately.responses > 2 * lately.begun;
        opinion.trouble = opinion.trouble.or_else(|| seat.troubled.then(|| self.lingers(whole)).flatten());
        if let Some(reduced) = &seat.reduced {
            let lately = record.since(reduced.tried);
            opinion.conduct = self.conduct_lately(record, reduced, &peers);
            opinion.stumbles = lately.is_failure();
            opinion.works = self.well(&lately) > 0.0;
            opinion.waits = lately.begun + lately.requests > 0 && !opinion.works;
            opinion.lags = self.usual.lacks(&lately);
            opinion.hopeless |= self.is_hopeless(index, record, reduced.since);
        }
        opinion
    }

    /// How often it and its peers were bad.
    fn of(&self, kind: Kind, pair: Pair) -> (Proportion, Proportion) {
        (pair.own.of(kind, self.usual), pair.peers.of(kind, self.usual))
    }

    /// How many connections were well. Where responses are usual, nothing less says so.
    fn well(&self, tally: &Tally) -> f64 {
        let fine = tally.responses - tally.errors;
        f64::from(match self.usual.voice() {
            Some(Voice::Requests | Voice::Http) => fine,
            Some(Voice::Bytes) => fine.max(tally.spoken.min(tally.opened)),
            None => fine.max(tally.handshakes - tally.slow),
        })
    }

    /// Whether nothing of it has worked for as long as anything may take, while its peers were well.
    fn is_hopeless(&self, index: usize, record: &Record, since: Timestamp) -> bool {
        let tally = record.since(since);
        if self.now.duration_since(since).unsigned_abs() < self.settings.latency || self.well(&tally) > 0.0 {
            return false;
        }
        let lately = Pair { own: tally, peers: self.others_since(index, since) };
        // Whoever waited when it lost its share still does.
        let overdue = self.overdue(record, &self.seats[index]);
        let silent = overdue.map_or(lately, |(since, own)| Pair { own, peers: self.others_since(index, since) });
        let mut kinds = Kind::ALL.into_iter().filter(|kind| !matches!(kind, Kind::Reset | Kind::Sluggish));
        kinds.any(|kind| {
            let pair = if kind == Kind::Silent { silent } else { lately };
            let (seen, peers) = self.of(kind, pair);
            let is_no_chance = kind != Kind::Silent || self.usual.is_mute(&pair.own);
            seen.bad >= LEAST && is_no_chance && peers.of >= COMPARABLE && peers.share() < self.bound(kind)
        })
    }

    /// What the others that serve did after a moment. Not what they did before: what is asked for by then may take its time.
    fn others_since(&self, index: usize, since: Timestamp) -> Tally {
        self.others(index).flatten().map(|(record, _)| record.since(since)).sum()
    }

    /// What is known of each of the others that serve, if anything.
    fn others(&self, index: usize) -> impl Iterator<Item = Option<&(&'a Record, Past)>> {
        let known = self.seats.iter().zip(&self.records).enumerate();
        let others = known.filter(move |(other, (seat, _))| *other != index && seat.serves);
        others.map(|(_, (_, known))| known.as_ref())
    }

    /// What it has left without an answer for too long, so far as it counts.
    fn overdue(&self, record: &Record, seat: &Seat<'_>) -> Option<(Timestamp, Tally)> {
        let overdue = self.usual.voice().and_then(|voice| record.overdue(voice, self.settings.latency, self.now));
        overdue.filter(|(since, _)| seat.cleared.is_none_or(|cleared| *since >= cleared))
    }

    /// The span that has what happened since a moment.
    fn span(&self, since: Timestamp) -> usize {
        self.begins(Timestamp::MIN).iter().position(|begin| *begin < since).unwrap_or(SPANS.len() - 1)
    }

    /// When each span until now begins, if not at a later moment.
    fn begins(&self, moment: Timestamp) -> [Timestamp; SPANS.len()] {
        SPANS.map(|part| before(self.settings.window / part, self.now).max(moment))
    }

    fn weigh(&self, opinion: &mut Opinion, kind: Kind, span: Duration, seen: Proportion, peers: Proportion) {
        if seen.bad < LEAST {
            return;
        }
        let (bound, least) = (self.bound(kind), seen.at_least());
        let found = self.finding(kind, seen, peers, span, least / bound);
        let known = found.peers;
        // Connections that wait for their answer are among the silent of those that are well.
        let doubtful = kind != Kind::Silent && peers.bad > 0.0 && least < peers.at_most();
        let alike = known.is_some_and(|known| seen.share() < ALIKE * known || doubtful);
        let absolute = kind != Kind::Sluggish && least > bound;
        let factor = f64::from(self.settings.factor);
        let floor = match kind {
            Kind::Sluggish => 0.5,
            Kind::Errors if seen.bad >= SOME => (factor * self.usual.errors().at_most()).clamp(SLIGHT, bound / TROUBLE),
            _ => bound / TROUBLE,
        };
        let relative = peers.of >= SOLID && least > floor && least > factor * peers.at_most();
        let worse = |known: &Option<Finding>| known.as_ref().is_none_or(|known| known.excess < found.excess);
        opinion.beyond |= absolute;
        if kind != Kind::Sluggish && least > floor && worse(&opinion.trouble) {
            opinion.trouble = Some(found);
        }
        if (absolute && !alike || relative) && worse(&opinion.failing) {
            opinion.failing = Some(found);
        }
        let is_lost = seen.share() >= ALTOGETHER && least >= SURELY && !matches!(kind, Kind::Reset | Kind::Sluggish);
        opinion.lost |= is_lost;
        // It has been waited for as long as anything may take.
        opinion.hopeless |= is_lost && kind == Kind::Silent && known.is_some_and(|known| known < bound);
    }

    /// What was trouble once is trouble still while half as much is left of it.
    fn lingers(&self, whole: Pair) -> Option<Finding> {
        let kinds = Kind::ALL.into_iter().filter(|kind| *kind != Kind::Sluggish);
        let found = kinds.filter_map(|kind| {
            let (seen, peers) = self.of(kind, whole);
            let least = self.bound(kind) / TROUBLE / 2.0;
            let left = Proportion { bad: seen.beyond_margin(), ..seen };
            let found = self.finding(kind, seen, peers, self.settings.window, seen.share() / least);
            (left.share() > least).then_some(found)
        });
        found.max_by(|one, other| one.excess.total_cmp(&other.excess))
    }

    /// What it has been like since its share is what it is: the newest that says enough, however much that takes.
    fn conduct_lately(&self, record: &Record, reduced: &Reduced, peers: &Past) -> Conduct {
        let mut conducts = record.latest(reduced.tried).map(|(at, own)| {
            let lately = Pair { own, peers: peers[self.span(at)] };
            self.conduct(lately, self.now.duration_since(at).unsigned_abs(), reduced)
        });
        conducts.find(|conduct| *conduct != Conduct::Unclear).unwrap_or_default()
    }

    /// Whether it is as bad as it was found to be, or as well as others.
    fn conduct(&self, lately: Pair, span: Duration, reduced: &Reduced) -> Conduct {
        let (ill, sure) = (reduced.ill, SURE.ln());
        let mut good = true;
        for kind in Kind::ALL {
            let (seen, peers) = self.of(kind, lately);
            let known = (peers.of >= COMPARABLE).then(|| peers.share());
            let well = (ALIKE * known.unwrap_or(0.0)).clamp(WELL, 0.45);
            let ill = ill.max(ALIKE * well).min(ALTOGETHER);
            let bad = seen.beyond_margin();
            let evidence = |bad: f64, of: f64| bad * (ill / well).ln() + (of - bad) * ((1.0 - ill) / (1.0 - well)).ln();
            if evidence(bad, seen.of) >= sure {
                return Conduct::Bad(self.finding(kind, seen, peers, span, seen.share() / self.bound(kind)));
            }
            // Who was ill again soon after it had been found to be well has to show more. What may be chance is no sign of health.
            let shown = evidence(seen.bad, self.well(&lately.own) + seen.bad);
            good &= shown <= -sure * f64::from(1 + reduced.relapses.min(MOST_RELAPSES));
        }
        if good { Conduct::Good } else { Conduct::Unclear }
    }

    fn finding(&self, kind: Kind, seen: Proportion, peers: Proportion, span: Duration, excess: f64) -> Finding {
        let peers = (peers.of >= COMPARABLE).then(|| peers.share());
        let of_requests = self.usual.voice() == Some(Voice::Requests);
        Finding { kind, seen, peers, span, excess, bound: self.bound(kind), of_requests }
    }

    fn bound(&self, kind: Kind) -> f64 {
        let percent = match kind {
            Kind::Errors | Kind::Silent => self.settings.errors,
            Kind::Connect | Kind::Reset | Kind::Slow | Kind::Sluggish => self.settings.connect_failures,
        };
        f64::from(percent) / 100.0
    }
}

impl Kind {
    const ALL: [Self; 6] = [Self::Errors, Self::Connect, Self::Reset, Self::Slow, Self::Sluggish, Self::Silent];
}

impl Finding {
    /// How often it was bad.
    pub fn share(&self) -> f64 {
        self.seen.share()
    }

    /// Whether it is far from its bound.
    pub fn is_slight(&self) -> bool {
        self.seen.share() < self.bound / 2.0
    }

    /// Whether it is only known once time has passed.
    pub fn is_late(&self) -> bool {
        self.kind == Kind::Silent
    }

    /// Whether it is more than its bound, at least.
    pub fn is_beyond(&self) -> bool {
        self.excess > 1.0
    }
}

#[cfg(test)]
impl Finding {
    /// Half of a few responses.
    pub(crate) fn example() -> Self {
        let seen = Proportion::new(10, 20);
        let (span, of_requests) = (Duration::from_secs(1), false);
        Self { kind: Kind::Errors, seen, peers: Some(0.0), span, excess: 1.5, bound: 0.2, of_requests }
    }

    /// The same of connections without a response.
    pub(crate) fn late_example() -> Self {
        Self { kind: Kind::Silent, ..Self::example() }
    }
}

/// "42 % of 310 responses in 2.5 s were 5xx, of the others' 0.3 %".
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (of, what) = match self.kind {
            Kind::Errors => ("responses", "were 5xx"),
            Kind::Connect => ("connections", "were refused or not answered"),
            Kind::Reset => ("connections", "were reset by the server"),
            Kind::Slow => ("handshakes", "were slower than is allowed"),
            Kind::Sluggish => ("handshakes", "were slower than a tenth of what is allowed"),
            Kind::Silent if self.of_requests => ("requests", "had no response"),
            Kind::Silent => ("connections", "had no response"),
        };
        let span = self.span.as_secs_f64();
        let percent = Percent(self.seen.share());
        write!(f, "{percent} of {:.0} {of} in {:.1} s {what}", self.seen.of, span.max(0.1))?;
        match self.peers {
            Some(share) => write!(f, ", of the others' {}", Percent(share)),
            None => Ok(()),
        }
    }
}

struct Percent(f64);

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = 100.0 * self.0;
        if percent == 0.0 || percent >= 1.0 { write!(f, "{percent:.0} %") } else { write!(f, "{percent:.1} %") }
    }
}

#[cfg(test)]
mod tests;
