//! What the traffic says of each backend, beside its peers and by itself: a pure function of what was counted, look by look.
//!
//! A look takes the counters of those who had traffic. What happened between two looks is kept as far back as a judgement
//! looks, and judged in spans of different lengths, so that a server that fails outright is found within a look or two and one that
//! fails now and then by the whole window. Every share is judged by what it is at least (Wilson's bound), so a few requests
//! condemn nobody. Whoever fails as all others do is not found to fail: then it is not the server.
//!
//! Who has less for it is judged by its newest answers alone, as many of them as tell what it was found to be from what is well
//! (Wald's sequential test): however old errors are, they keep nobody from having its share back.

mod proportion;
mod record;

use std::{collections::HashMap, fmt, time::Duration};

use jiff::Timestamp;

use self::{
    proportion::Proportion,
    record::{Record, Tally, Usual},
};
use crate::{config::Passive, dataplane::BackendSight};

/// The spans that are judged, from some looks to the whole window: parts of it.
const SPANS: [u32; 8] = [SHORTEST, 64, 32, 16, 8, 4, 2, 1];
/// The shortest of them.
pub const SHORTEST: u32 = 128;
/// Connections without an answer are judged in spans up to this part of the window; what is older says what is usual.
const SILENT: u32 = 4;
/// Fewer bad cases than this say nothing.
const LEAST: f64 = 3.0;
/// The part of a bound that is trouble already, if not enough to act upon among peers.
const TROUBLE: f64 = 4.0;
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
    /// Connections get no response.
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
    /// If it has less than its share: since when it has had what it has, and how bad it was found to be, from 0 to 1.
    pub reduced: Option<(Timestamp, f64)>,
    /// When it was found to be well again: what was before counts no more.
    pub cleared: Option<Timestamp>,
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
    /// That next to nothing of it works, while its peers are well.
    pub altogether: bool,
    /// What it has been like since its share is what it is.
    pub conduct: Conduct,
    /// Whether anything of that was bad.
    pub stumbles: bool,
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
#[derive(Debug, Default)]
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
            Some(record) => record.take(seen.sight, settings.latency, settings.window, now),
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

    /// What the traffic says of each backend of a service, in their order; nothing of any where nothing is bad.
    pub fn opinions(
        &self,
        service: &str,
        seats: &[Seat<'_>],
        settings: &Passive,
        now: Timestamp,
    ) -> Option<Vec<Opinion>> {
        let records = self.services.get(service)?;
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
}

/// What one did, or several together.
#[derive(Clone, Copy, Default)]
struct Past {
    /// In each of [`SPANS`].
    spans: [Tally; SPANS.len()],
    usual: Usual,
}

impl Past {
    fn without(self, part: &Self) -> Self {
        let mut rest = self;
        rest.spans.iter_mut().zip(&part.spans).for_each(|(span, part)| *span -= *part);
        rest.usual -= part.usual;
        rest
    }
}

/// A backend beside its peers.
struct Pair {
    own: (Tally, Usual),
    peers: (Tally, Usual),
}

impl Pair {
    fn of(&self, kind: Kind) -> (Proportion, Proportion) {
        let usual = if self.own.1.is_acquainted() { self.own.1 } else { self.peers.1 };
        (self.own.0.of(kind, usual), self.peers.0.of(kind, self.peers.1))
    }
}

impl<'a> View<'a> {
    fn new(records: &'a HashMap<String, Record>, seats: &'a [Seat<'a>], settings: &'a Passive, now: Timestamp) -> Self {
        let mut view = Self { seats, settings, now, records: Vec::new(), all: Past::default() };
        for seat in seats {
            let past = |record: &'a Record| {
                let usual = record.usual(settings.window / SILENT, now);
                (record, Past { spans: record.spans(view.begins(Timestamp::MIN)), usual })
            };
            let known = records.get(seat.name).map(past);
            if let Some((_, past)) = known.filter(|_| seat.serves) {
                view.all.spans.iter_mut().zip(past.spans).for_each(|(sum, span)| *sum += span);
                view.all.usual += past.usual;
            }
            view.records.push(known);
        }
        view
    }

    fn opinion(&self, index: usize) -> Opinion {
        let mut opinion = Opinion::default();
        let seat = &self.seats[index];
        let Some((record, past)) = self.records[index] else { return opinion };
        let peers = if seat.serves { self.all.without(&past) } else { self.all };
        let own = match seat.cleared {
            Some(cleared) => Past { spans: record.spans(self.begins(cleared)), ..past },
            None => past,
        };
        let pair = |at: usize| Pair { own: (own.spans[at], own.usual), peers: (peers.spans[at], peers.usual) };
        let whole = pair(SPANS.len() - 1);
        for (at, part) in SPANS.into_iter().enumerate() {
            let (span, pair) = (self.settings.window / part, pair(at));
            for kind in Kind::ALL {
                if kind == Kind::Silent && part < SILENT {
                    continue;
                }
                let (seen, mut peers) = pair.of(kind);
                if peers.of < COMPARABLE {
                    peers = whole.of(kind).1;
                }
                self.weigh(&mut opinion, kind, span, seen, peers);
            }
        }
        opinion.trouble = opinion.trouble.or_else(|| seat.troubled.then(|| self.lingers(&whole)).flatten());
        if let Some((since, ill)) = seat.reduced {
            opinion.conduct = self.conduct_lately(record, since, ill, (past.usual, &peers));
            opinion.stumbles = record.since(since).is_failure();
        }
        opinion
    }

    /// When each span until now begins, if not at a later moment.
    fn begins(&self, moment: Timestamp) -> [Timestamp; SPANS.len()] {
        let begin = |part| self.now.checked_sub(self.settings.window / part).unwrap_or(Timestamp::MIN);
        SPANS.map(|part| begin(part).max(moment))
    }

    fn weigh(&self, opinion: &mut Opinion, kind: Kind, span: Duration, seen: Proportion, peers: Proportion) {
        if seen.bad < LEAST {
            return;
        }
        let (bound, least) = (self.bound(kind), seen.at_least());
        let known = (peers.of >= COMPARABLE).then(|| peers.share());
        let found = Finding { kind, seen, peers: known, span, excess: least / bound };
        let alike = known.is_some_and(|known| seen.share() < ALIKE * known);
        let absolute = kind != Kind::Sluggish && least > bound;
        let factor = f64::from(self.settings.factor);
        let floor = if kind == Kind::Sluggish { 0.5 } else { bound / TROUBLE };
        let relative = peers.of >= SOLID && least > floor && least > factor * peers.at_most();
        let worse = |known: &Option<Finding>| known.as_ref().is_none_or(|known| known.excess < found.excess);
        opinion.beyond |= absolute;
        if kind != Kind::Sluggish && least > bound / TROUBLE && worse(&opinion.trouble) {
            opinion.trouble = Some(found);
        }
        if (absolute && !alike || relative) && worse(&opinion.failing) {
            opinion.failing = Some(found);
        }
        let fails_altogether =
            seen.share() >= ALTOGETHER && least >= SURELY && known.is_some_and(|known| known < bound);
        opinion.altogether |= fails_altogether && !matches!(kind, Kind::Reset | Kind::Sluggish);
    }

    /// What was trouble once is trouble still while half as much is left of it.
    fn lingers(&self, whole: &Pair) -> Option<Finding> {
        let kinds = Kind::ALL.into_iter().filter(|kind| *kind != Kind::Sluggish);
        let found = kinds.filter_map(|kind| {
            let (seen, peers) = whole.of(kind);
            let least = self.bound(kind) / TROUBLE / 2.0;
            let left = Proportion { bad: seen.beyond_margin(), ..seen };
            let peers = (peers.of >= COMPARABLE).then(|| peers.share());
            let found = Finding { kind, seen, peers, span: self.settings.window, excess: seen.share() / least };
            (left.share() > least).then_some(found)
        });
        found.max_by(|one, other| one.excess.total_cmp(&other.excess))
    }

    /// What it has been like since its share is what it is: the newest that says enough, however much that takes.
    fn conduct_lately(&self, record: &Record, since: Timestamp, ill: f64, (usual, peers): (Usual, &Past)) -> Conduct {
        let answers = record.usual(Duration::ZERO, self.now).answers();
        let begins = self.begins(Timestamp::MIN);
        let mut conducts = record.latest(since).map(|(at, tally)| {
            let span = begins.iter().position(|begin| *begin < at).unwrap_or(SPANS.len() - 1);
            let lately = Pair { own: (tally, usual), peers: (peers.spans[span], peers.usual) };
            self.conduct(&lately, self.now.duration_since(at).unsigned_abs(), ill, answers)
        });
        conducts.find(|conduct| *conduct != Conduct::Unclear).unwrap_or_default()
    }

    /// Whether it is as bad as it was found to be, or as well as others.
    fn conduct(&self, lately: &Pair, span: Duration, ill: f64, answers: bool) -> Conduct {
        let tally = &lately.own.0;
        // Where responses are usual, nothing less says that it is well.
        let said = f64::from(if answers { tally.responses } else { tally.responses.max(tally.handshakes) });
        let mut good = true;
        for kind in Kind::ALL {
            let (seen, peers) = lately.of(kind);
            let known = (peers.of >= COMPARABLE).then(|| peers.share());
            let well = (ALIKE * known.unwrap_or(0.0)).clamp(WELL, 0.45);
            let ill = ill.max(ALIKE * well).min(ALTOGETHER);
            let bad = seen.beyond_margin();
            let evidence = |of: f64| bad * (ill / well).ln() + (of - bad) * ((1.0 - ill) / (1.0 - well)).ln();
            if evidence(seen.of) >= SURE.ln() {
                return Conduct::Bad(Finding {
                    kind,
                    seen,
                    peers: known,
                    span,
                    excess: seen.share() / self.bound(kind),
                });
            }
            good &= evidence(said.max(bad)) <= -SURE.ln();
        }
        if good { Conduct::Good } else { Conduct::Unclear }
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
        Self { kind: Kind::Errors, seen, peers: Some(0.0), span: Duration::from_secs(1), excess: 1.5 }
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
            Kind::Silent => ("connections", "had no response"),
        };
        let span = self.span.as_secs_f64();
        let percent = Percent(self.seen.share());
        write!(f, "{percent} of {} {of} in {:.1} s {what}", self.seen.of, span.max(0.1))?;
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
