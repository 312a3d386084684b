//! The outage in a simulation: days like those of `cargo xtask outage`, thousands of them, judged by the code that judges real
//! ones. Time is counted in steps, what looks like chance comes from a seed, so a day can be played again.

mod site;

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use fastrand::Rng;
use jiff::Timestamp;
use lab::{AGAIN, DETACHED_AT, Day, VIEWS};

use self::site::{Answer, Failure, Request, Server};
use crate::{
    controller,
    dataplane::{BackendSight, Sight},
    judge::Judge,
    model::{
        Admin, AdminChange, Event, Model,
        tests::{admin, entry_of, service, serving_of},
    },
    plan::BackendPlan,
};

type Millis = i64;

/// Visitors give up after that long.
const PATIENCE: Millis = lab::PATIENCE.as_millis() as Millis;
const STEP: Millis = 10;
/// Between two looks at what was counted.
const LOOK: Millis = controller::LOOK.as_millis() as Millis;
/// Each processor has its own turns.
const PROCESSORS: usize = 2;

/// What is played.
#[derive(Clone, Copy, Debug)]
struct Replay {
    servers: usize,
    failure: Failure,
    clients: u32,
    day: Millis,
    /// What a server has to carry at the peak when all serve, of what it can.
    peak: f64,
    /// The time that the second server's detachment is given, if it is detached.
    detached_for: Option<Millis>,
    /// Pages that a visitor views, and whether over one connection, as long as it lasts.
    views: u32,
    keeps: bool,
    /// Whether who gets an error asks again at once.
    retries: bool,
    /// In 1,000 answers of any server so many are 500, without a reason.
    noise: u32,
    /// So many connections a second that nothing is sent on: an outer balancer's checks, say.
    mute: i64,
    seed: u64,
}

impl Default for Replay {
    fn default() -> Self {
        Self {
            servers: 2,
            failure: Failure::OutOfMemory,
            clients: 120,
            day: 40_000,
            peak: 0.75,
            detached_for: Some(60_000),
            views: VIEWS,
            keeps: false,
            retries: false,
            noise: 0,
            mute: 0,
            seed: 1,
        }
    }
}

/// What came of it.
#[derive(Clone, Debug, Default)]
struct Course {
    sent: u64,
    failed: u64,
    /// What was told, and when.
    events: Vec<(Millis, String)>,
    first_failure: Option<Millis>,
}

impl Course {
    fn failed_share(&self) -> f64 {
        self.failed as f64 / self.sent as f64
    }
}

/// A day while it passes.
struct Stage {
    replay: Replay,
    rng: Rng,
    model: Model,
    judge: Judge,
    servers: Vec<Server>,
    sights: Vec<Sight>,
    /// Who something has happened to since the last look.
    news: Vec<bool>,
    /// Whether the next look is about them all the same.
    concerned: bool,
    weights: Vec<i64>,
    given_up: Vec<bool>,
    /// Who each visitor is connected with who has been answered.
    connections: HashMap<u64, usize>,
    /// How far each processor's turns are.
    turns: [Vec<i64>; PROCESSORS],
    /// When each is checked next.
    checks: Vec<Millis>,
    course: Course,
}

/// Who asks when, in order.
fn requests(visits: Day, views: u32) -> Vec<(Millis, u64)> {
    let viewed =
        |(visitor, at): (u64, Duration)| (0..views).map(move |view| (millis(at + visits.think() * view), visitor));
    let mut requests: Vec<_> = (1..).zip(visits.arrivals(views)).flat_map(viewed).collect();
    requests.sort_unstable();
    requests
}

fn millis(time: Duration) -> Millis {
    time.as_millis() as Millis
}

fn moment(now: Millis) -> Timestamp {
    Timestamp::from_millisecond(20_000 + now).unwrap()
}

fn name(index: usize) -> String {
    entry_of(index, 1).name
}

impl Replay {
    fn play(self) -> Course {
        Stage::new(self).play()
    }

    fn visits(self) -> Day {
        Day::new(Duration::from_millis(self.day.unsigned_abs()), self.clients)
    }
}

impl Stage {
    fn new(replay: Replay) -> Self {
        let Replay { servers, failure, day, peak, seed, .. } = replay;
        let visits = replay.visits();
        let mut rng = Rng::with_seed(seed);
        let room = (visits.pages_remembered_at_peak(replay.views) / (peak * servers as f64)) as usize;
        let most = requests(visits, replay.views)
            .chunk_by(|(one, _), (next, _)| one / 1000 == next / 1000)
            .map(<[_]>::len)
            .max();
        let carries = most.unwrap_or_default() as f64 / (peak * servers as f64);
        let server = |index| Server::new(failure, (index, servers), (room, carries), millis(visits.idle()), day);
        let model = serving_of(service(&vec![1; servers]));
        let checks = (0..servers).map(|_| rng.i64(0..2000)).collect();
        let mut stage = Self {
            replay,
            rng,
            model,
            judge: Judge::default(),
            servers: (0..servers).map(server).collect(),
            sights: vec![Sight::default(); servers],
            news: vec![true; servers],
            concerned: false,
            weights: Vec::new(),
            given_up: Vec::new(),
            connections: HashMap::new(),
            turns: std::array::from_fn(|_| vec![0; servers]),
            checks,
            course: Course::default(),
        };
        stage.rotate(0);
        stage
    }

    fn play(mut self) -> Course {
        let Replay { day, detached_for, .. } = self.replay;
        let mut requests = requests(self.replay.visits(), self.replay.views);
        requests.reverse();
        let mut again = VecDeque::new();
        let mut looks = self.rng.i64(0..LOOK);
        let mut ticks = self.rng.i64(0..1000);
        let detach_at = (day as f64 * DETACHED_AT) as Millis;
        for now in (0..day).step_by(STEP as usize) {
            if let Some(detached_for) = detached_for.filter(|_| (now..now + STEP).contains(&detach_at)) {
                let wish = AdminChange { until: Some(moment(now + detached_for)), ..admin(Admin::Disabled) };
                self.model.set("web", "b", &wish, "uid 0", moment(now)).unwrap();
                self.rotate(now);
            }
            while let Some((_, visitor)) = requests.pop_if(|(at, _)| *at <= now) {
                if !self.ask(visitor, now) && self.replay.retries {
                    again.push_back((now + millis(AGAIN), visitor));
                }
            }
            while let Some((_, visitor)) = again.pop_front_if(|(at, _)| *at <= now) {
                self.ask(visitor, now);
            }
            if self.rng.i64(0..1000) < self.replay.mute * STEP {
                self.connect();
            }
            self.work(now);
            self.check(now);
            if now >= looks {
                looks += LOOK;
                self.look(now);
            }
            if now >= ticks {
                ticks += 1000;
                let events = self.model.tick(moment(now));
                self.tell(now, &events);
                if self.model.is_growing() {
                    self.rotate(now);
                }
            }
        }
        self.course
    }

    /// A visitor asks: whether that is well, as far as is known by then.
    fn ask(&mut self, visitor: u64, now: Millis) -> bool {
        self.course.sent += 1;
        let Some((index, begun)) = self.connection(visitor) else {
            self.fail(now);
            return false;
        };
        self.news[index] = true;
        let noise = self.rng.u32(..1000) < self.replay.noise;
        let answer = self.servers[index].ask(Request { visitor, since: now }, &mut self.rng);
        let sight = &mut self.sights[index];
        sight.begun += u64::from(begun);
        sight.bytes += 300;
        match answer {
            Answer::Unheard => sight.repeated += 1,
            _ => {
                sight.requests += 1;
                sight.opened += u64::from(begun);
                sight.handshakes[4] += u64::from(begun);
            }
        }
        match answer {
            Answer::Page if !noise => sight.responses[1] += 1,
            Answer::Page | Answer::Error => sight.responses[4] += 1,
            Answer::Later | Answer::Unheard | Answer::Nothing => {}
        }
        if self.replay.keeps && matches!(answer, Answer::Page | Answer::Error) {
            self.connections.insert(visitor, index);
        }
        let failed = noise || matches!(answer, Answer::Error | Answer::Unheard | Answer::Nothing);
        if failed {
            self.fail(now);
        }
        !failed
    }

    /// Who answers a visitor, and whether over a new connection.
    fn connection(&mut self, visitor: u64) -> Option<(usize, bool)> {
        let kept = self.connections.remove(&visitor).filter(|index| !self.given_up[*index]);
        if let Some(index) = kept {
            return Some((index, false));
        }
        let processor = self.rng.usize(..PROCESSORS);
        let index = self.next(processor)?;
        Some((index, true))
    }

    /// Somebody connects and sends nothing.
    fn connect(&mut self) {
        let processor = self.rng.usize(..PROCESSORS);
        if let Some(index) = self.next(processor) {
            self.news[index] = true;
            self.sights[index].begun += 1;
            self.sights[index].opened += 1;
            self.sights[index].bytes += 8;
            self.sights[index].handshakes[4] += 1;
        }
    }

    fn fail(&mut self, now: Millis) {
        self.course.failed += 1;
        self.course.first_failure.get_or_insert(now);
    }

    /// Whose turn it is: weighted and smooth.
    fn next(&mut self, processor: usize) -> Option<usize> {
        let turns = &mut self.turns[processor];
        let sum: i64 = self.weights.iter().sum();
        for (turn, weight) in turns.iter_mut().zip(&self.weights) {
            *turn += weight;
        }
        let eligible = (0..turns.len()).filter(|index| self.weights[*index] > 0);
        let next = eligible.max_by_key(|index| turns[*index])?;
        turns[next] -= sum;
        Some(next)
    }

    fn work(&mut self, now: Millis) {
        for index in 0..self.servers.len() {
            for (request, fine) in self.servers[index].work(now) {
                self.news[index] = true;
                let late = now - request.since >= PATIENCE;
                if !late {
                    if self.replay.keeps {
                        self.connections.insert(request.visitor, index);
                    }
                    self.sights[index].responses[if fine { 1 } else { 4 }] += 1;
                }
                if late || !fine {
                    self.fail(now);
                }
            }
        }
    }

    fn check(&mut self, now: Millis) {
        for index in 0..self.servers.len() {
            if now < self.checks[index] {
                continue;
            }
            let passed = self.servers[index].check(u64::MAX - now.unsigned_abs(), now, &mut self.rng);
            let result = if passed { Ok("HTTP 200".to_owned()) } else { Err("HTTP 500".to_owned()) };
            let events = self.model.observe("web", &name(index), &result, moment(now));
            self.concerned |= self.model.belie("web", &self.judge, moment(now));
            self.tell(now, &events);
            let service = &self.model.services["web"];
            let interval = service.spec.health.pace(service.backends[index].health.is_settled());
            self.checks[index] = now + millis(interval) * self.rng.i64(90..110) / 100;
        }
    }

    fn look(&mut self, now: Millis) {
        let settings = self.model.services["web"].spec.passive.clone();
        let mut concerned = std::mem::take(&mut self.concerned);
        for index in 0..self.servers.len() {
            if !std::mem::take(&mut self.news[index]) {
                continue;
            }
            concerned = true;
            let seen = BackendSight {
                service: "web".into(),
                backend: name(index),
                address: "10.0.0.1:80".parse().unwrap(),
                sight: self.sights[index],
            };
            self.judge.take(&seen, &settings, moment(now));
        }
        if concerned {
            let judged = self.model.judge("web", &mut self.judge, moment(now));
            self.concerned = judged.lasts;
            self.tell(now, &judged.events);
            if judged.shifted {
                self.rotate(now);
            }
        }
    }

    fn tell(&mut self, now: Millis, events: &[Event]) {
        for event in events {
            let told = format!(
                "{} {} {}->{}: {}",
                event.backend.as_deref().unwrap_or_default(),
                event.what.word(),
                event.from,
                event.to,
                event.cause
            );
            self.course.events.push((now, told));
        }
        if !events.is_empty() {
            self.rotate(now);
        }
    }

    /// Has new connections go where the model wants them.
    fn rotate(&mut self, now: Millis) {
        let plan = self.model.plan(moment(now));
        let next = &plan.services[0];
        let weight = |backend: &BackendPlan| if backend.in_rotation { i64::from(backend.weight) } else { 0 };
        self.given_up = next.backends.iter().map(|backend| backend.given_up).collect();
        let weights: Vec<i64> = next.backends.iter().map(weight).collect();
        if weights != self.weights {
            self.turns = std::array::from_fn(|_| vec![0; weights.len()]);
            self.weights = weights;
        }
    }
}

/// Asserts that no more than a part of all requests fails.
fn check(replay: Replay, most: f64) -> Course {
    let course = replay.play();
    assert!(
        course.failed_share() <= most,
        "{:.2} % of {replay:?}: {:#?}",
        100.0 * course.failed_share(),
        course.events
    );
    course
}

/// The failed share of some days on average, and of each.
fn mean(replays: impl IntoIterator<Item = Replay>) -> (f64, Vec<f64>) {
    let shares: Vec<f64> = replays.into_iter().map(|replay| replay.play().failed_share()).collect();
    (shares.iter().sum::<f64>() / shares.len() as f64, shares)
}

/// How long a day is, in seconds, and how many visitors it has at a time.
const DAYS: [(Millis, u32); 7] = [(12, 36), (12, 120), (20, 36), (20, 120), (40, 36), (40, 120), (120, 120)];

#[test]
fn a_forgotten_server_costs_no_more_than_one_request_in_a_hundred() {
    for failure in [Failure::OutOfMemory, Failure::Bursts, Failure::Half, Failure::Slow] {
        for (seed, (day, clients)) in (0..).zip(DAYS) {
            let day = 1000 * day;
            // It returns before it is missed, while the load is highest, or not by itself.
            for detached_for in [day * 15 / 100, day / 2, day] {
                let detached_for = Some(detached_for);
                check(Replay { failure, clients, day, detached_for, seed, ..Replay::default() }, 0.01);
            }
        }
    }
}

#[test]
fn chance_does_not_decide_whether_the_load_swings() {
    for seed in 0..20 {
        check(Replay { failure: Failure::Half, seed, ..Replay::default() }, 0.01);
        // Where three checks in a row fail by chance, the first server is down until two pass, well or not.
        let course = Replay { failure: Failure::HalfByChance, seed, ..Replay::default() }.play();
        let down = course.events.iter().any(|(_, told)| told.contains("health up->down"));
        assert!(down || course.failed_share() <= 0.01, "{:.2} %: {:#?}", 100.0 * course.failed_share(), course.events);
    }
}

#[test]
fn nor_do_visitors_who_ask_again_or_more_servers() {
    for failure in [Failure::OutOfMemory, Failure::Bursts, Failure::Half, Failure::Slow] {
        check(Replay { failure, retries: true, ..Replay::default() }, 0.01);
        check(Replay { failure, servers: 5, peak: 0.85, ..Replay::default() }, 0.01);
        if failure != Failure::Half {
            // Two that fail half of their answers at the same time have nowhere to leave their load.
            check(Replay { failure, servers: 3, peak: 0.8, ..Replay::default() }, 0.01);
        }
    }
}

#[test]
fn a_server_that_fails_for_itself_is_left_alone_and_found_in_time() {
    let alone = Replay { detached_for: None, ..Replay::default() };
    for seed in 0..4 {
        let course = check(Replay { failure: Failure::Share(100), seed, ..alone }, 0.005);
        // It has next to nothing at once, and nothing soon, be it for its traffic or for its checks.
        for (what, most) in [("a passive ok->reduced", 200), ("a rotation in->out", 4000)] {
            let found = course.events.iter().find(|(_, told)| told.starts_with(what)).expect("it fails altogether");
            let after = found.0 - course.first_failure.unwrap();
            assert!((0..=most).contains(&after), "{what} after {after} ms");
        }
        check(Replay { failure: Failure::Flapping, seed, ..alone }, 0.01);
        // More than a quarter of its requests would fail, one in seven of all.
        check(Replay { failure: Failure::Share(30), seed, ..alone }, 0.012);
    }
}

#[test]
fn what_fails_now_and_then_everywhere_moves_nobody() {
    for seed in 0..20 {
        let course = Replay { detached_for: None, noise: 5, seed, ..Replay::default() }.play();
        let moved = course.events.iter().find(|(_, told)| told.contains("passive"));
        assert_eq!(moved, None, "seed {seed}");
    }
}

#[test]
fn a_server_that_accepts_and_does_not_answer_is_found() {
    for seed in 0..4 {
        for failure in [Failure::Hang(100), Failure::Close(100)] {
            for (detached_for, mute) in [(None, 0), (Some(20_000), 0), (None, 25), (Some(20_000), 25)] {
                check(Replay { failure, detached_for, mute, seed, ..Replay::default() }, 0.01);
            }
        }
    }
}

#[test]
fn nor_does_it_matter_that_its_clients_keep_their_connections() {
    for seed in 0..4 {
        for (percent, most) in [(100, 0.01), (50, 0.02)] {
            let hang = Replay { failure: Failure::Hang(percent), keeps: true, seed, ..Replay::default() };
            for (detached_for, views) in [(None, VIEWS), (None, 25), (Some(20_000), 25)] {
                check(Replay { detached_for, views, ..hang }, most);
            }
        }
    }
}

#[test]
fn a_server_that_fails_half_of_its_clients_costs_little() {
    for seed in 0..8 {
        for detached_for in [None, Some(20_000)] {
            check(Replay { failure: Failure::Share(50), detached_for, seed, ..Replay::default() }, 0.015);
        }
    }
}

#[test]
fn connections_that_nothing_is_sent_on_move_nobody() {
    for seed in 0..20 {
        let course = Replay { detached_for: None, noise: 1, mute: 25, seed, ..Replay::default() }.play();
        let moved = course.events.iter().find(|(_, told)| told.contains("passive"));
        assert_eq!(moved, None, "seed {seed}");
    }
}

#[test]
fn a_server_that_fails_a_few_of_its_clients_is_relieved() {
    for seed in 0..6 {
        // One in forty of all, without a judgement.
        check(Replay { failure: Failure::Share(5), seed, detached_for: Some(20_000), ..Replay::default() }, 0.016);
    }
}

#[test]
fn connections_that_are_kept_do_not_keep_users_with_a_server_that_fails_them() {
    for seed in 0..6 {
        for (share, most) in [(30, 0.02), (50, 0.015), (100, 0.01)] {
            for (detached_for, servers) in [(None, 2), (Some(20_000), 2), (None, 3)] {
                let failure = Failure::Share(share);
                check(
                    Replay { failure, keeps: true, views: 25, servers, detached_for, seed, ..Replay::default() },
                    most,
                );
            }
        }
    }
}

#[test]
fn nor_with_one_that_is_short_of_memory() {
    let kept = Replay { keeps: true, ..Replay::default() };
    for seed in 0..4 {
        for views in [VIEWS, 25] {
            for failure in [Failure::OutOfMemory, Failure::Bursts, Failure::Slow] {
                check(Replay { failure, views, seed, ..kept }, 0.01);
            }
        }
        check(Replay { failure: Failure::Half, views: 25, seed, ..kept }, 0.01);
    }
    // A third of them, if whoever half fails kept its clients; 4 % of most days if it did not make up for what it was spared.
    let (mean, shares) = mean((0..8).map(|seed| Replay { failure: Failure::Half, seed, ..kept }));
    assert!(mean <= 0.01, "{:.2} %: {shares:.4?}", 100.0 * mean);
}

#[test]
fn a_server_that_leaves_some_of_its_clients_waiting_is_relieved() {
    for seed in 0..4 {
        for (percent, detached_for, most) in [(50, None, 0.025), (25, None, 0.025), (50, Some(20_000), 0.03)] {
            // A quarter or an eighth of all that come after noon, without a judgement.
            check(Replay { failure: Failure::Hang(percent), detached_for, seed, ..Replay::default() }, most);
        }
    }
}

#[test]
fn a_server_that_closes_on_some_of_its_clients_is_relieved() {
    for seed in 0..4 {
        // 7 and 4.6 % of all, if it went unnoticed.
        for (servers, most) in [(2, 0.035), (3, 0.03)] {
            let day = Replay { failure: Failure::Close(20), servers, detached_for: None, seed, ..Replay::default() };
            check(day, most);
        }
    }
}

#[test]
fn a_server_that_needs_a_moment_of_rest_does_not_leave_its_load_to_the_others_for_longer() {
    // Twice as much on average if it were out for half a minute.
    for (failure, most) in [(Failure::Full, 0.02), (Failure::Stuck, 0.012)] {
        let mut replays = Vec::new();
        for (seed, (day, clients)) in (0..).zip(DAYS).filter(|(_, (day, _))| *day <= 40) {
            for (servers, peak) in [(2, 0.75), (2, 0.8), (3, 0.75), (3, 0.8)] {
                for detached_for in [day * 150, day * 500, day * 1000] {
                    let (day, detached_for) = (1000 * day, Some(detached_for));
                    let of = Replay { failure, clients, day, seed, ..Replay::default() };
                    replays.push(Replay { servers, peak, detached_for, ..of });
                }
            }
        }
        let (mean, shares) = mean(replays);
        assert!(mean <= most, "{:.2} % of {failure:?}: {shares:.4?}", 100.0 * mean);
    }
}

#[test]
fn a_server_that_has_too_much_to_do_does_not_leave_it_all_to_another() {
    for failure in [Failure::Busy(50), Failure::Busy(100), Failure::Exhausted(50), Failure::Exhausted(100)] {
        for (seed, (day, clients)) in (0..8).zip(DAYS.into_iter().cycle()) {
            // Each can carry five eighths of what there is at the peak. A third to six tenths of all fail where the load swings.
            let day = Replay { failure, day: 1000 * day, clients, peak: 0.8, seed, ..Replay::default() };
            check(day, 0.01);
            check(Replay { servers: 3, ..day }, 0.04);
        }
    }
}
