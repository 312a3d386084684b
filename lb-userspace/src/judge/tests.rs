use proptest::prelude::*;

use super::*;
use crate::dataplane::Sight;

/// A quarter of a second of traffic: connections begun, responses, 5xx of them.
#[derive(Clone, Copy, Default)]
struct Traffic {
    begun: u64,
    responses: u64,
    errors: u64,
    refused: u64,
    repeated: u64,
    reset: u64,
    /// Requests over connections that are kept.
    requests: u64,
    /// SYNs of those who have other addresses than they say.
    spoofed: u64,
    /// Bytes that the backend sent.
    said: u64,
    /// Handshakes of about 1 ms, 300 ms and 2 s.
    handshakes: [u64; 3],
}

/// So many connections, each with a response.
fn well(begun: u64) -> Traffic {
    Traffic { begun, responses: begun, handshakes: [begun, 0, 0], ..Traffic::default() }
}

fn failing(begun: u64, errors: u64) -> Traffic {
    Traffic { errors, ..well(begun) }
}

/// Backends "a", "b", ... of "web", looked at four times a second.
#[derive(Clone)]
struct Course {
    judge: Judge,
    settings: Passive,
    sums: Vec<Sight>,
    looks: i64,
    cleared: Option<i64>,
}

fn moment(looks: i64) -> Timestamp {
    Timestamp::from_millisecond(1_000_000 + 250 * looks).unwrap()
}

fn name(index: usize) -> String {
    char::from(b'a' + u8::try_from(index).unwrap()).to_string()
}

impl Course {
    fn of(backends: usize) -> Self {
        let course = Self {
            judge: Judge::default(),
            settings: Passive::default(),
            sums: vec![Sight::default(); backends],
            looks: 0,
            cleared: None,
        };
        course.go(1, &vec![Traffic::default(); backends])
    }

    /// Lets so many looks pass with this traffic of each backend in every one.
    fn go(mut self, looks: u32, traffic: &[Traffic]) -> Self {
        for _ in 0..looks {
            self.looks += 1;
            for (index, (sum, traffic)) in self.sums.iter_mut().zip(traffic).enumerate() {
                sum.begun += traffic.begun + traffic.spoofed;
                sum.opened += traffic.begun.saturating_sub(traffic.refused + traffic.repeated);
                sum.requests += traffic.requests;
                sum.responses[1] += traffic.responses - traffic.errors;
                sum.responses[4] += traffic.errors;
                sum.bytes_out += traffic.said;
                sum.refused += traffic.refused;
                sum.repeated += traffic.repeated;
                sum.reset += traffic.reset;
                for (bucket, count) in [3, 12, 14].into_iter().zip(traffic.handshakes) {
                    sum.handshakes[bucket] += count;
                }
                let seen = BackendSight {
                    service: "web".into(),
                    backend: name(index),
                    address: "10.0.0.1:80".parse().unwrap(),
                    sight: *sum,
                };
                self.judge.take(&seen, &self.settings, moment(self.looks));
            }
        }
        self
    }

    /// What is thought of those that serve; `since` is the look since when each has had less than its share.
    fn opinions_since(&mut self, since: Option<i64>) -> Vec<Opinion> {
        self.opinions_as(since.map(|since| (since, 0.5)))
    }

    /// The same, with how bad each was found to be.
    fn opinions_as(&mut self, reduced: Option<(i64, f64)>) -> Vec<Opinion> {
        let names: Vec<String> = (0..self.sums.len()).map(name).collect();
        let seat = |name| Seat {
            name,
            serves: true,
            troubled: reduced.is_some(),
            reduced: reduced.map(|(since, ill)| {
                let since = moment(since);
                Reduced { tried: since, since, ill, relapses: 0 }
            }),
            cleared: self.cleared.map(moment),
        };
        let seats: Vec<Seat<'_>> = names.iter().map(|name| seat(name.as_str())).collect();
        let opinions = self.judge.opinions("web", &seats, &self.settings, moment(self.looks));
        opinions.unwrap_or_else(|| vec![Opinion::default(); seats.len()])
    }

    fn opinion(&mut self) -> Opinion {
        self.opinions_since(None).remove(0)
    }

    fn conduct(&mut self, since: i64) -> Conduct {
        self.opinions_since(Some(since)).remove(0).conduct
    }
}

fn kind(found: &Option<Finding>) -> Option<Kind> {
    found.map(|found| found.kind)
}

#[test]
fn who_stands_out_or_is_beyond_a_bound_fails() {
    // What "a" does and what "b" does, for ten seconds; whether "a" is in trouble, and fails.
    let check = |own: Traffic, other: Traffic, trouble: Option<Kind>, fails: Option<Kind>| {
        let opinion = Course::of(2).go(40, &[own, other]).opinion();
        assert_eq!((kind(&opinion.trouble), kind(&opinion.failing)), (trouble, fails), "{opinion:?}");
    };
    use Kind::{Connect, Errors, Reset, Slow, Sluggish};
    let (good, errors) = (well(20), Some(Errors));
    check(good, good, None, None);
    check(failing(20, 20), good, errors, errors);
    check(failing(20, 6), good, errors, errors);
    // Less than the bound, and far more than the other.
    check(failing(20, 2), good, errors, errors);
    // A little is neither.
    check(failing(20, 1), failing(40, 1), None, None);
    // All are alike.
    check(failing(20, 10), failing(20, 10), errors, None);
    check(failing(20, 10), failing(20, 6), errors, None);
    check(failing(20, 20), failing(20, 6), errors, errors);
    let refusing = Traffic { refused: 20, repeated: 20, responses: 0, handshakes: [0; 3], ..good };
    check(refusing, good, Some(Connect), Some(Connect));
    check(Traffic { reset: 10, ..good }, good, Some(Reset), Some(Reset));
    check(Traffic { handshakes: [10, 0, 10], ..good }, good, Some(Slow), Some(Slow));
    check(Traffic { handshakes: [2, 18, 0], ..good }, good, None, Some(Sluggish));
    check(Traffic { handshakes: [2, 18, 0], ..good }, Traffic { handshakes: [2, 18, 0], ..good }, None, None);
}

#[test]
fn a_backend_by_itself_is_in_trouble_beyond_a_quarter_of_the_bound() {
    let check = |traffic: Traffic, trouble: bool, beyond: bool| {
        let opinion = Course::of(1).go(40, &[traffic]).opinion();
        assert_eq!((opinion.trouble.is_some(), opinion.beyond), (trouble, beyond), "{opinion:?}");
    };
    check(well(20), false, false);
    check(failing(20, 1), false, false);
    check(failing(20, 2), true, false);
    check(failing(20, 6), true, true);
}

#[test]
fn a_total_failure_is_found_within_two_looks_and_a_slow_one_in_time() {
    let found_after = |traffic: Traffic| {
        let mut course = Course::of(2).go(40, &[well(20), well(20)]);
        (1..=60).find(|_| {
            course = std::mem::replace(&mut course, Course::of(1)).go(1, &[traffic, well(20)]);
            course.opinion().failing.is_some()
        })
    };
    assert_eq!(found_after(failing(20, 20)), Some(1));
    assert_eq!(found_after(failing(20, 10)), Some(1));
    assert_eq!(found_after(failing(2, 2)), Some(2));
    assert!((2..12).contains(&found_after(failing(20, 3)).unwrap()));
    assert_eq!(found_after(well(20)), None);
}

#[test]
fn who_fails_altogether_is_told_apart() {
    let lost = |own: Traffic| Course::of(2).go(4, &[own, well(5)]).opinion().lost;
    assert!(lost(failing(5, 5)));
    assert!(!lost(failing(4, 2)));
    assert!(!lost(Traffic { reset: 5, ..well(5) }), "its clients may have been idle for long");
}

#[test]
fn connections_without_a_response_count_where_responses_are_usual() {
    let silent = Traffic { responses: 0, ..well(20) };
    let opinion = |before: Traffic, after: Traffic, other: Traffic| {
        Course::of(2).go(60, &[before, other]).go(4, &[after, other]).opinion()
    };
    let found = opinion(well(20), silent, well(20));
    assert_eq!((kind(&found.failing), found.hopeless), (Some(Kind::Silent), true), "{found:?}");
    assert_eq!(opinion(silent, silent, silent), Opinion::default(), "encrypted, say");
    // A quarter of them, as a site that is short of memory keeps waiting.
    let found = opinion(well(40), Traffic { responses: 30, ..well(40) }, well(40));
    assert_eq!(kind(&found.trouble), Some(Kind::Silent), "{found:?}");
    // Many requests on few connections.
    let busy = Traffic { responses: 200, ..well(20) };
    assert_eq!(opinion(busy, Traffic { responses: 100, ..busy }, busy), Opinion::default());
    assert_eq!(kind(&opinion(busy, silent, busy).failing), Some(Kind::Silent));
}

#[test]
fn what_cannot_be_read_is_an_answer_nevertheless_where_servers_usually_say_something() {
    let encrypted = |said| Traffic { responses: 0, said, ..well(20) };
    let opinion = |usual, after| {
        let [usual, after] = [usual, after].map(encrypted);
        Course::of(2).go(60, &[usual, usual]).go(4, &[after, usual]).opinion()
    };
    let found = opinion(80_000, 0);
    assert_eq!((kind(&found.failing), found.hopeless), (Some(Kind::Silent), true), "{found:?}");
    assert_eq!(opinion(80_000, 80_000), Opinion::default());
    assert_eq!(opinion(80_000, 20_000), Opinion::default(), "shorter ones");
    assert_eq!(opinion(1000, 0), Opinion::default(), "acknowledgements, say");
    // Nobody is well again for what it accepts.
    let mut course = Course::of(2).go(60, &[encrypted(80_000); 2]);
    let since = course.looks;
    course = course.go(20, &[encrypted(0), encrypted(80_000)]);
    let opinion = course.opinions_since(Some(since)).remove(0);
    assert!(matches!(opinion.conduct, Conduct::Bad(_)) && !opinion.works && opinion.waits, "{opinion:?}");
}

#[test]
fn who_stops_answering_over_kept_connections_is_found() {
    let kept = |requests, responses| Traffic { requests, responses, ..Traffic::default() };
    // A third of a second late, as long as nothing is wrong.
    let slow = |course: Course, looks: u32| {
        (0..looks)
            .fold(course, |course, look| course.go(1, &[if look % 2 == 0 { kept(40, 0) } else { kept(0, 40) }; 2]))
    };
    let course = slow(Course::of(2), 400).go(8, &[kept(20, 0), kept(20, 20)]);
    let found = { course }.opinion();
    assert_eq!((kind(&found.failing), found.hopeless), (Some(Kind::Silent), true), "{found:?}");
    assert!(found.failing.unwrap().to_string().contains(" requests in "), "{found:?}");
    assert_eq!(slow(Course::of(2), 440).opinion(), Opinion::default());
    // Connections that are opened beside that and that nobody asks anything on are no matter.
    let idle = Traffic { begun: 20, handshakes: [20, 0, 0], ..kept(20, 20) };
    assert_eq!(Course::of(2).go(400, &[kept(20, 20); 2]).go(40, &[idle; 2]).opinion(), Opinion::default());
    // Half of them.
    let found = Course::of(2).go(400, &[kept(20, 20); 2]).go(8, &[kept(20, 10), kept(20, 20)]).opinion();
    assert_eq!(kind(&found.failing), Some(Kind::Silent), "{found:?}");
}

#[test]
fn a_few_that_have_no_answer_yet_say_nothing_while_it_is_not_known_that_others_have_theirs() {
    let kept = |requests, responses| Traffic { requests, responses, ..Traffic::default() };
    let polls =
        |course: Course| (0..3).fold(course, |course, _| course.go(1, &[kept(1, 0); 2]).go(1, &[kept(0, 0); 2]));
    let well = || Course::of(2).go(400, &[kept(20, 20); 2]);
    let mut poll = polls(well()).go(2, &[kept(0, 0); 2]);
    assert_eq!(poll.opinion(), Opinion::default());
    let since = poll.looks - 8;
    assert!(!poll.opinions_since(Some(since)).remove(0).hopeless);
    // Of one that hangs, with as little to do, it is when others have answered.
    let hangs = (0..6).fold(well(), |course, _| course.go(2, &[kept(1, 0), kept(1, 1)]));
    assert_eq!(kind(&{ hangs }.opinion().failing), Some(Kind::Silent));
}

#[test]
fn for_how_long_clients_once_waited_is_forgotten() {
    let kept = |requests, responses| Traffic { requests, responses, ..Traffic::default() };
    // Four requests have their answers after five seconds, all the others at once.
    let slow = Course::of(2)
        .go(400, &[kept(20, 20); 2])
        .go(1, &[kept(4, 0); 2])
        .go(20, &[kept(0, 0); 2])
        .go(1, &[kept(0, 4); 2]);
    let hangs =
        |course: Course| course.go(1, &[kept(4, 0), kept(4, 4)]).go(16, &[kept(0, 0), kept(4, 4)]).opinion().failing;
    assert_eq!(kind(&hangs(slow.clone().go(400, &[kept(20, 20); 2]))), None);
    assert_eq!(kind(&hangs(slow.go(4 * 3700, &[kept(20, 20); 2]))), Some(Kind::Silent));
}

#[test]
fn what_is_left_without_an_answer_now_and_then_comes_to_much() {
    let kept = |requests, responses| Traffic { requests, responses, ..Traffic::default() };
    let by_turns = |busy: [Traffic; 2], course: Course, times: u32| {
        (0..times).fold(course, |course, _| course.go(1, &busy).go(1, &[Traffic::default(); 2]))
    };
    let well = || by_turns([kept(4, 4); 2], Course::of(2), 200);
    let found = by_turns([kept(4, 3), kept(4, 4)], well(), 20).opinion();
    assert_eq!(kind(&found.trouble), Some(Kind::Silent), "{found:?}");
    assert_eq!(by_turns([kept(4, 4); 2], well(), 20).opinion(), Opinion::default());
}

#[test]
fn a_hang_is_found_that_is_as_old_as_the_record() {
    let kept = |requests, responses| Traffic { requests, responses, ..Traffic::default() };
    let found = Course::of(2).go(20, &[kept(20, 0), kept(20, 20)]).opinion();
    assert_eq!(kind(&found.failing), Some(Kind::Silent), "{found:?}");
}

#[test]
fn where_most_requests_are_not_seen_as_such_connections_count() {
    // A line of a proxy's own comes before the first request of each connection.
    let proxied = |begun, responses| Traffic { requests: responses / 4, responses, ..well(begun) };
    let course = Course::of(2).go(400, &[proxied(20, 20); 2]);
    let found = course.go(8, &[Traffic { begun: 20, ..Traffic::default() }, proxied(20, 20)]).opinion();
    assert_eq!(kind(&found.failing), Some(Kind::Silent), "{found:?}");
    assert!(found.failing.unwrap().to_string().contains(" connections in "), "{found:?}");
}

#[test]
fn a_flood_of_syns_says_nothing_of_who_answers_its_clients_late() {
    // Clients who stay connected, and are answered late while a flood keeps everybody busy.
    let flooded = |responses| Traffic { spoofed: 20_000, responses, ..Traffic::default() };
    let mut course = Course::of(2).go(60, &[well(20), well(20)]).go(4, &[flooded(0), flooded(20)]);
    assert_eq!(course.opinion(), Opinion::default());
    let silent = Traffic { spoofed: 20_000, responses: 0, ..well(20) };
    let mut course = Course::of(2).go(60, &[well(20), well(20)]).go(4, &[silent, well(20)]);
    assert_eq!(kind(&course.opinion().failing), Some(Kind::Silent), "nor does it hide anything");
}

#[test]
fn who_answers_more_than_twice_on_a_connection_has_clients_who_keep_theirs() {
    let holds = |traffic: Traffic| Course::of(2).go(8, &[traffic, well(20)]).opinion().holds;
    assert!(!holds(failing(20, 10)));
    assert!(!holds(Traffic { begun: 10, ..failing(20, 10) }));
    assert!(holds(Traffic { begun: 5, ..failing(20, 10) }));
    let before = Course::of(2).go(8, &[Traffic { begun: 0, ..failing(20, 10) }, well(20)]);
    assert!(!before.go(4, &[failing(20, 10), well(20)]).opinion().holds, "a second ago");
}

#[test]
fn who_does_not_answer_is_never_taken_for_well_however_long_that_lasts() {
    let silent = Traffic { responses: 0, ..well(1) };
    let mut course = Course::of(2).go(60, &[well(20), well(20)]);
    let since = course.looks;
    for _ in 0..400 {
        course = course.go(1, &[silent, well(20)]);
        assert_ne!(course.conduct(since), Conduct::Good, "after {}", course.looks - since);
    }
    let opinion = course.opinions_since(Some(since)).remove(0);
    assert!(opinion.waits && !opinion.works && opinion.hopeless, "{opinion:?}");
    assert!(!course.opinions_since(Some(course.looks - 1)).remove(1).hopeless);
}

#[test]
fn where_few_connections_get_an_answer_none_is_telling_as_well() {
    // Two in three send nothing.
    let quiet = Traffic { responses: 10, ..well(30) };
    let mut course = Course::of(2).go(60, &[quiet, quiet]);
    assert_eq!(course.opinion(), Opinion::default());
    let mut course = course.go(4, &[Traffic { responses: 0, ..quiet }, quiet]);
    assert_eq!(kind(&course.opinion().failing), Some(Kind::Silent));
}

#[test]
fn a_handful_without_an_answer_for_a_second_is_trouble() {
    let silent = Traffic { responses: 0, ..well(1) };
    let mut course = Course::of(1).go(60, &[well(1)]).go(3, &[silent]);
    assert_eq!(course.opinion().trouble, None, "they may yet be answered");
    let mut course = course.go(2, &[Traffic::default()]);
    assert_eq!(kind(&course.opinion().trouble), Some(Kind::Silent));
    // It was down meanwhile, and has come up.
    course.cleared = Some(course.looks);
    assert_eq!(course.opinion().trouble, None);
    // Where that has been so before it is nothing special.
    let slow = |course: Course| {
        course.go(3, &[silent]).go(5, &[Traffic::default()]).go(1, &[Traffic { responses: 3, ..Traffic::default() }])
    };
    let mut course = slow(slow(Course::of(1).go(2, &[well(1)]))).go(3, &[silent]).go(3, &[Traffic::default()]);
    assert_eq!(course.opinion().trouble, None);
}

#[test]
fn a_few_errors_are_trouble_where_there_were_none() {
    let mut course = Course::of(2).go(100, &[well(40), well(40)]).go(20, &[failing(40, 2), well(40)]);
    let opinion = course.opinion();
    assert_eq!((kind(&opinion.trouble), kind(&opinion.failing)), (Some(Kind::Errors), Some(Kind::Errors)));
    assert!(opinion.failing.is_some_and(|found| found.is_slight()));
    let mut course = Course::of(2).go(100, &[failing(40, 1), failing(40, 1)]).go(20, &[failing(40, 2), failing(40, 1)]);
    assert_eq!(course.opinion().trouble, None, "half of it is usual");
}

#[test]
fn answers_that_come_and_go_with_the_load_of_a_slow_site_are_usual() {
    let mut course = Course::of(1);
    // Each look as many come as were answered in the one before, more or less.
    for looks in 0..80 {
        let begun = 10 + 6 * (looks * 7 % 3);
        let responses = 10 + 6 * ((looks + 2) * 7 % 3);
        course = course.go(1, &[Traffic { responses, ..well(begun) }]);
        assert_eq!(course.opinion(), Opinion::default(), "after {looks}");
    }
}

#[test]
fn what_a_backend_has_been_like_since_counts_only_what_came_since() {
    let bad = [failing(8, 4), well(8)];
    let mut course = Course::of(2).go(20, &[well(8), well(8)]).go(4, &bad);
    assert!(matches!(course.conduct(course.looks - 1), Conduct::Bad(_)));
    let since = course.looks;
    assert_eq!(course.conduct(since), Conduct::Unclear);
    let mut course = course.go(1, &[well(4), well(14)]);
    assert_eq!(course.conduct(since), Conduct::Unclear);
    let mut course = course.go(1, &[well(2), well(14)]);
    assert_eq!(course.conduct(since), Conduct::Good);
    let mut course = course.go(1, &[failing(3, 2), well(14)]);
    assert!(matches!(course.conduct(since), Conduct::Bad(_)));
}

#[test]
fn the_newest_answers_count_and_as_many_as_tell_ill_from_well() {
    // What came since its share is what it is, the newest last: how often it was bad before, and what that makes of it.
    let conduct = |ill: f64, looks: &[Traffic]| {
        let course = Course::of(2).go(20, &[well(8), well(80)]);
        let since = course.looks;
        let mut course = looks.iter().fold(course, |course, traffic| course.go(1, &[*traffic, well(80)]));
        course.opinions_as(Some((since, ill))).remove(0).conduct
    };
    let bad = |conduct| matches!(conduct, Conduct::Bad(_));
    assert_eq!(conduct(0.5, &[failing(8, 4), well(6)]), Conduct::Good, "old errors keep nobody");
    assert!(bad(conduct(0.5, &[well(8), failing(6, 3)])));
    assert_eq!(conduct(0.5, &[well(5)]), Conduct::Unclear);
    // Who failed altogether shows sooner that it is well, who failed one in ten must show it longer.
    assert_eq!(conduct(1.0, &[well(2)]), Conduct::Good);
    assert_eq!(conduct(0.1, &[well(20), well(20)]), Conduct::Unclear);
    assert_eq!(conduct(0.1, &[well(20), well(30)]), Conduct::Good);
    assert_eq!(conduct(0.1, &[failing(20, 1), well(8)]), Conduct::Unclear, "chance");
    assert!(bad(conduct(0.1, &[failing(40, 5)])));
}

#[test]
fn what_was_before_a_backend_was_found_to_be_well_counts_no_more() {
    let mut course = Course::of(2).go(8, &[failing(20, 20), well(20)]).go(2, &[well(20), well(20)]);
    assert!(course.opinion().failing.is_some());
    course.cleared = Some(course.looks - 2);
    assert_eq!(course.opinion(), Opinion::default());
    let mut course = course.go(1, &[failing(20, 20), well(20)]);
    assert!(course.opinion().failing.is_some());
}

#[test]
fn one_that_is_as_bad_as_its_peers_has_its_share_back() {
    let mut course = Course::of(2).go(20, &[failing(10, 5), failing(10, 4)]);
    assert_eq!(course.conduct(course.looks - 8), Conduct::Good);
}

#[test]
fn counters_that_begin_anew_and_a_clock_that_goes_back_say_nothing() {
    let mut course = Course::of(2).go(8, &[failing(20, 20), well(20)]);
    assert!(course.opinion().failing.is_some());
    course.sums[0] = Sight::default();
    let mut course = course.go(1, &[Traffic::default(), well(20)]);
    assert_eq!(course.opinion().failing, None);
    let mut course = Course::of(2).go(8, &[failing(20, 20), well(20)]);
    course.looks = -1000;
    let mut course = course.go(1, &[well(20), well(20)]);
    assert_eq!(course.opinion().failing, None);
}

#[test]
fn those_that_are_gone_are_forgotten() {
    let mut course = Course::of(2).go(8, &[failing(20, 20), well(20)]);
    course.judge.retain(|service, backend| (service, backend) == ("web", "b"));
    assert_eq!(course.opinion(), Opinion::default());
    course.judge.retain(|_, _| false);
    assert!(course.judge.services.is_empty());
}

#[test]
fn a_finding_has_its_figures() {
    let opinion = Course::of(2).go(40, &[failing(20, 10), failing(200, 1)]).opinion();
    let told = opinion.failing.unwrap().to_string();
    assert!(
        told.starts_with("50 % of ") && told.ends_with(" responses in 10.0 s were 5xx, of the others' 0.5 %"),
        "{told}"
    );
}

proptest! {
    #[test]
    fn nothing_bad_condemns_nobody(looks in prop::collection::vec((0u64..200, 0u64..200, 0u64..200), 1..80)) {
        let mut course = Course::of(3);
        for (a, b, c) in looks {
            course = course.go(1, &[well(a), well(b), well(c)]);
            prop_assert!(course.opinions_since(None).iter().all(|opinion| *opinion == Opinion::default()));
        }
    }

    #[test]
    fn whoever_does_as_all_others_do_is_not_found_to_fail(begun in 1u64..100, errors in 0u64..100, looks in 1u32..80) {
        let errors = errors.min(begun);
        let traffic = failing(begun, errors);
        let mut course = Course::of(3).go(looks, &[traffic; 3]);
        prop_assert!(course.opinions_since(None).iter().all(|opinion| opinion.failing.is_none()));
    }
}
