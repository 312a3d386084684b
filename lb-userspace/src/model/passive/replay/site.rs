//! A server of the site that the outage is about: it keeps in memory what its visitors have viewed, and fails in one way or
//! another when there is no more.

use std::collections::{HashMap, VecDeque};

use fastrand::Rng;

use super::Millis;

/// Requests that a server works on at a time, and connections that wait for it.
const WORKERS: usize = 32;
const BACKLOG: usize = 128;
/// How long a request waits for memory where it does.
const PATIENCE: Millis = 10_000;
/// How long an answer takes of a server that is stuck.
const STUCK: Millis = 4_000;
/// The part of its memory that a leak takes.
const LEAK: f64 = 0.22;
const LEAK_STEPS: i64 = 8;

/// What a server does that is in trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// Who needs memory that there is not gets a 500.
    OutOfMemory,
    /// The same, and some of it leaks now and then.
    Bursts,
    /// All answers are 500 once it has run out of memory, until it has plenty.
    Full,
    /// All of them take four seconds then, and are remembered all the same.
    Stuck,
    /// Half of the answers are 500 once it has run out of memory, until it has plenty.
    Half,
    /// The same, each of them by chance.
    HalfByChance,
    /// Who needs memory waits for it.
    Slow,
    /// So many percent of the answers of the first server are 500, whatever its memory, from a third of the day on.
    Share(u8),
    /// The first server fails altogether and is well, by turns, as long as a tenth of the day each.
    Flapping,
    /// From noon on the first server accepts and answers nothing but checks: it leaves its clients waiting, so
    /// many percent of them.
    Hang(u8),
    /// It closes instead, so many percent of the connections.
    Close(u8),
    /// So many percent of the answers are 500 of a server that has had more requests in a second than it can carry.
    Busy(u8),
    /// The same of one that has had so many more that it has nothing left to make up for them with, until half of that is there again.
    Exhausted(u8),
}

/// A request that is with a server.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    pub(super) visitor: u64,
    pub(super) since: Millis,
}

/// What becomes of a request at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Page,
    Error,
    /// It waits.
    Later,
    /// It is not even accepted.
    Unheard,
    /// Nothing, and no more will come.
    Nothing,
}

/// One server.
#[derive(Debug)]
pub(super) struct Server {
    failure: Failure,
    first: bool,
    day: Millis,
    /// Between two leaks, and the first.
    leaks: (Millis, Millis),
    /// In pages: what there is, what sessions hold.
    room: usize,
    held: usize,
    idle: Millis,
    /// Requests that it can carry in a second, when the last came, and how many there are too many.
    carries: f64,
    lately: VecDeque<Millis>,
    load: (Millis, f64),
    /// Pages of each visitor, and when the last was viewed.
    sessions: HashMap<u64, (usize, Millis)>,
    /// When to see whether a visitor has gone.
    ends: VecDeque<(Millis, u64)>,
    broken: bool,
    answered: u64,
    waiting: VecDeque<Request>,
}

impl Server {
    /// Number `index` of `servers`, with room for so many pages, which it forgets `idle` after the last.
    pub(super) fn new(
        failure: Failure,
        (index, servers): (usize, usize),
        (room, carries): (usize, f64),
        idle: Millis,
        day: Millis,
    ) -> Self {
        let every = day / 4;
        Self {
            failure,
            first: index == 0,
            day,
            leaks: (every, every * index as Millis / servers as Millis),
            room,
            held: 0,
            idle,
            carries,
            lately: VecDeque::new(),
            load: (0, 0.0),
            sessions: HashMap::new(),
            ends: VecDeque::new(),
            broken: false,
            answered: 0,
            waiting: VecDeque::new(),
        }
    }

    /// A visitor asks for a page.
    pub(super) fn ask(&mut self, request: Request, rng: &mut Rng) -> Answer {
        let (visitor, now) = (request.visitor, request.since);
        self.forget_the_gone(now);
        self.answered += 1;
        let answer = |fine: bool| if fine { Answer::Page } else { Answer::Error };
        match self.failure {
            Failure::OutOfMemory | Failure::Bursts => answer(self.remember(visitor, now)),
            Failure::Half | Failure::HalfByChance => {
                self.broken &= self.held * 2 > self.room;
                let other = if self.failure == Failure::Half { self.answered.is_multiple_of(2) } else { rng.bool() };
                if self.broken && other {
                    return Answer::Error;
                }
                self.broken |= !self.remember(visitor, now);
                Answer::Page
            }
            Failure::Full => {
                self.broken &= self.held * 2 > self.room;
                self.broken |= !self.broken && !self.remember(visitor, now);
                answer(!self.broken)
            }
            Failure::Stuck => {
                self.broken &= self.held * 5 > self.room * 4;
                self.broken |= !self.remember(visitor, now);
                if !self.broken {
                    return Answer::Page;
                }
                self.waiting.push_back(request);
                Answer::Later
            }
            Failure::Slow => {
                if self.waiting.len() >= WORKERS + BACKLOG {
                    return Answer::Unheard;
                }
                if self.waiting.is_empty() && self.remember(visitor, now) {
                    return Answer::Page;
                }
                self.waiting.push_back(request);
                Answer::Later
            }
            Failure::Share(percent) => answer(!self.first || now < self.day / 3 || rng.u8(..100) >= percent),
            Failure::Hang(percent) => {
                if !self.first || now < self.day / 2 || rng.u8(..100) >= percent {
                    return Answer::Page;
                }
                self.waiting.push_back(request);
                Answer::Later
            }
            Failure::Close(percent) => {
                let closes = self.first && now >= self.day / 2 && rng.u8(..100) < percent;
                if closes { Answer::Nothing } else { Answer::Page }
            }
            Failure::Busy(percent) | Failure::Exhausted(percent) => {
                self.carry(now);
                answer(!self.broken || rng.u8(..100) >= percent)
            }
            Failure::Flapping => answer(!self.first || (now * 10 / self.day) % 2 == 0),
        }
    }

    /// Those that have waited and are answered by now, well or not.
    pub(super) fn work(&mut self, now: Millis) -> Vec<(Request, bool)> {
        self.forget_the_gone(now);
        let mut done = Vec::new();
        let mut rest = VecDeque::new();
        let mut busy = 0;
        // For how long all wait alike, and whether they are answered well then.
        let wait = match self.failure {
            Failure::Stuck => Some((STUCK, true)),
            Failure::Hang(_) => Some((PATIENCE, false)),
            _ => None,
        };
        while let Some(request) = self.waiting.pop_front() {
            if let Some((wait, fine)) = wait {
                if now - request.since >= wait {
                    done.push((request, fine));
                } else {
                    rest.push_back(request);
                }
                continue;
            }
            let works = busy < WORKERS;
            if works && self.remember(request.visitor, now) {
                done.push((request, true));
            } else if works && now - request.since > PATIENCE {
                done.push((request, false));
            } else {
                busy += 1;
                rest.push_back(request);
            }
        }
        self.waiting = rest;
        done
    }

    /// What a check gets.
    pub(super) fn check(&mut self, visitor: u64, now: Millis, rng: &mut Rng) -> bool {
        if self.failure == Failure::Slow {
            return self.waiting.len() < WORKERS && self.remember(visitor, now);
        }
        if matches!(self.failure, Failure::Hang(_) | Failure::Close(_) | Failure::Busy(_) | Failure::Exhausted(_)) {
            return true;
        }
        self.ask(Request { visitor, since: now }, rng) == Answer::Page
    }

    /// Takes a request: whether that is too much from here on.
    fn carry(&mut self, now: Millis) {
        /// What it can make up for, in seconds of what it can carry.
        const RESERVE: f64 = 0.4;
        self.lately.push_back(now);
        while self.lately.pop_front_if(|at| *at <= now - 1000).is_some() {}
        if let Failure::Busy(_) = self.failure {
            self.broken = self.lately.len() as f64 > self.carries;
            return;
        }
        let (last, load) = self.load;
        let reserve = RESERVE * self.carries;
        let load = (load - self.carries * (now - last) as f64 / 1000.0).max(0.0) + 1.0;
        self.load = (now, load.min(1.5 * reserve));
        self.broken = load > if self.broken { reserve / 2.0 } else { reserve };
    }

    fn remember(&mut self, visitor: u64, now: Millis) -> bool {
        if self.held + self.leaked(now) >= self.room {
            return false;
        }
        self.held += 1;
        let session = self.sessions.entry(visitor).or_default();
        *session = (session.0 + 1, now);
        self.ends.push_back((now + self.idle, visitor));
        true
    }

    fn forget_the_gone(&mut self, now: Millis) {
        while let Some((_, visitor)) = self.ends.pop_front_if(|(end, _)| *end <= now) {
            if let Some((pages, seen)) = self.sessions.get(&visitor).copied()
                && seen + self.idle <= now
            {
                self.held -= pages;
                self.sessions.remove(&visitor);
            }
        }
    }

    /// Pages that have leaked: more and more in a sixteenth of the time between two leaks, and none in its second half.
    fn leaked(&self, now: Millis) -> usize {
        let (every, first) = self.leaks;
        if self.failure != Failure::Bursts || now < first {
            return 0;
        }
        let into = (now - first) % every;
        let steps = if into >= every / 2 { 0 } else { (into * 16 * LEAK_STEPS / every + 1).min(LEAK_STEPS) };
        (self.room as f64 * LEAK * steps as f64 / LEAK_STEPS as f64) as usize
    }
}
