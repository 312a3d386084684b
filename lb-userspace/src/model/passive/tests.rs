use std::{collections::HashMap, ops::Range};

use proptest::prelude::*;

use super::*;
use crate::{
    config,
    dataplane::{BackendSight, Sight},
    judge::Finding,
    model::{
        AdminChange, Trouble,
        tests::{admin, at, backend, service, serving, serving_of, standing, told},
    },
};

const BAD: fn() -> Opinion = || Opinion {
    trouble: Some(Finding::example()),
    beyond: true,
    failing: Some(Finding::example()),
    lost: false,
    hopeless: false,
    conduct: Conduct::Bad(Finding::example()),
    stumbles: true,
    works: false,
    waits: false,
    lags: false,
    holds: false,
};
const LOST: fn() -> Opinion = || Opinion { lost: true, hopeless: true, ..BAD() };
const GOOD: fn() -> Opinion = || Opinion { conduct: Conduct::Good, ..Opinion::default() };
const UNCLEAR: fn() -> Opinion = || Opinion { works: true, ..Opinion::default() };

/// Acts upon an opinion of each backend; what there is to tell.
fn judge(model: &mut Model, opinions: &[Opinion], second: i64) -> Vec<String> {
    let service = Arc::make_mut(model.services.get_mut("web").unwrap());
    told(&service.change(at(second), |service| service.act_upon(opinions, at(second))))
}

/// Ejects "a" in a second: it has been ill for as long as is looked back.
fn eject(model: &mut Model, others: &[Opinion], second: i64) {
    for second in [second - 10, second] {
        judge(model, &[&[BAD()], others].concat(), second);
    }
}

/// Checks "a" once in each of these seconds.
fn check(model: &mut Model, passes: bool, seconds: Range<i64>) {
    let result = if passes { Ok("connected".to_owned()) } else { Err("refused".to_owned()) };
    seconds.for_each(|second| drop(model.observe("web", "a", &result, at(second))));
}

fn ejected(model: &Model, name: &str) -> bool {
    backend(model, name).passive.value == Passive::Ejected
}

fn share(model: &Model, name: &str) -> f64 {
    model.services["web"].share(backend(model, name), at(1000))
}

#[test]
fn who_fails_gets_less_and_less_and_then_nothing() {
    let mut model = serving(&[1, 1]);
    let events = judge(&mut model, &[BAD(), GOOD()], 100);
    assert_eq!(events, ["a passive ok->reduced (traffic)"]);
    assert_eq!((share(&model, "a"), share(&model, "b")), (1.0 / 32.0, 1.0));
    // It is tried again and again, and rests.
    for second in 101..110 {
        assert_eq!(judge(&mut model, &[BAD(), GOOD()], second), [""; 0]);
        let expected = if second % 2 == 1 { 1.0 / 8.0 } else { 1.0 / 32.0 };
        assert_eq!(share(&model, "a"), expected, "{second}");
    }
    let events = judge(&mut model, &[BAD(), GOOD()], 110);
    let expected =
        ["a passive reduced->ejected (traffic)", "a rotation in->out (traffic)", "web verdict ok->degraded (traffic)"];
    assert_eq!(events, expected);
    let (in_rotation, since, cause) = standing(&model, "a");
    assert_eq!((in_rotation, since), (false, 110));
    assert!(cause.starts_with("ejected for 30s: 50 % of 20 responses"), "{cause}");
    assert!(matches!(backend(&model, "a").trouble(model.services["web"].thresholds()), Some(Trouble::Out(_))));
}

#[test]
fn whose_clients_keep_their_connections_loses_them() {
    let mut model = serving(&[1, 1]);
    let holding = |opinion| Opinion { holds: true, lost: true, ..opinion };
    assert_eq!(judge(&mut model, &[holding(BAD()), GOOD()], 100)[0], "a passive ok->ejected (traffic)");
    // Some of them at first.
    for (second, period) in [(101, 80), (103, 160), (105, 320), (107, 640)] {
        let until = at(second - 1) + SignedDuration::from_millis(period);
        assert_eq!(backend(&model, "a").judgement.until, Some(until));
        let ended = model.end_ejections("web", at(second));
        assert_eq!(told(&ended)[0], "a passive ejected->reduced (traffic)");
        assert_eq!(share(&model, "a"), 1.0 / 8.0);
        judge(&mut model, &[holding(Opinion { stumbles: true, ..UNCLEAR() }), GOOD()], second);
        assert!(!ejected(&model, "a"), "too little is known");
        judge(&mut model, &[holding(BAD()), GOOD()], second + 1);
        assert!(ejected(&model, "a"));
    }
    assert_eq!(backend(&model, "a").judgement.until, Some(at(109)), "as long as an answer may take");
    model.end_ejections("web", at(109));
    judge(&mut model, &[holding(BAD()), GOOD()], 110);
    assert_eq!(backend(&model, "a").judgement.until, Some(at(140)), "for ten seconds");
}

#[test]
fn who_is_well_again_has_its_share_back_at_once_and_makes_up_for_a_while() {
    let mut model = serving(&[1, 1]);
    (100..104).for_each(|second| drop(judge(&mut model, &[BAD(), GOOD()], second)));
    assert_eq!(judge(&mut model, &[GOOD(), GOOD()], 104), ["a passive reduced->ok (traffic)"]);
    assert_eq!((share(&model, "a"), share(&model, "b")), (16.0, 1.0));
    judge(&mut model, &[UNCLEAR(), GOOD()], 105);
    assert_eq!((share(&model, "a"), backend(&model, "a").judgement.is_clean()), (16.0, false));
    judge(&mut model, &[UNCLEAR(), GOOD()], 106);
    assert_eq!((share(&model, "a"), backend(&model, "a").judgement.is_clean()), (1.0, true));
}

#[test]
fn who_makes_up_has_as_much_as_each_of_the_others_had() {
    // Weights, the first of the one that was ill; how many times its share it gets. Each of two that are left of three had half of everything.
    for (weights, expected) in
        [(vec![1, 1], 16.0), (vec![1, 1, 1], 2.0), (vec![1; 5], 4.0 / 3.0), (vec![1, 3], 1.5), (vec![3, 1], 16.0)]
    {
        let mut model = serving(&weights);
        let others = vec![GOOD(); weights.len() - 1];
        judge(&mut model, &[&[BAD()][..], &others].concat(), 100);
        judge(&mut model, &[&[GOOD()][..], &others].concat(), 104);
        assert_eq!(share(&model, "a"), expected, "{weights:?}");
    }
    // Where the other is ill nobody had it.
    let mut model = serving(&[1, 1]);
    judge(&mut model, &[BAD(), BAD()], 100);
    judge(&mut model, &[GOOD(), BAD()], 104);
    assert_eq!(share(&model, "a"), 1.0);
}

#[test]
fn that_it_failed_counts_for_a_while_after_it_is_well() {
    let mut model = serving(&[1, 1]);
    let failed = |model: &Model, second| {
        let failed = backend(model, "a").failed_within(Duration::from_secs(30), at(second));
        failed.map(|since| since.duration_since(at(0)).as_secs())
    };
    assert_eq!(failed(&model, 100), None);
    eject(&mut model, &[GOOD()], 110);
    assert_eq!((ejected(&model, "a"), failed(&model, 110)), (true, Some(100)));
    Arc::make_mut(model.services.get_mut("web").unwrap()).backends[0].pardon(at(115), "uid 0", "enabled");
    judge(&mut model, &[GOOD(), GOOD()], 115);
    assert_eq!((failed(&model, 144), failed(&model, 145)), (Some(115), None));
}

#[test]
fn who_is_ill_again_soon_has_no_more_than_its_share_the_next_time() {
    let mut model = serving(&[1, 1]);
    (100..104).for_each(|second| drop(judge(&mut model, &[BAD(), GOOD()], second)));
    judge(&mut model, &[GOOD(), GOOD()], 104);
    judge(&mut model, &[BAD(), GOOD()], 107);
    assert_eq!(share(&model, "a"), 1.0 / 32.0);
    judge(&mut model, &[GOOD(), GOOD()], 108);
    assert_eq!(share(&model, "a"), 1.0);
}

#[test]
fn who_is_tried_gets_more_and_more_until_something_fails() {
    let mut model = serving(&[1, 1]);
    let stumble = || Opinion { stumbles: true, ..UNCLEAR() };
    judge(&mut model, &[BAD(), GOOD()], 100);
    let mut shares = |opinions: [Opinion; 6]| -> Vec<f64> {
        let judge = |(second, opinion)| {
            judge(&mut model, &[opinion, GOOD()], second);
            1.0 / share(&model, "a")
        };
        (101..).zip(opinions).map(judge).collect()
    };
    let seen = shares([UNCLEAR(), UNCLEAR(), UNCLEAR(), UNCLEAR(), stumble(), stumble()]);
    assert_eq!(seen, [8.0, 4.0, 2.0, 2.0, 32.0, 8.0]);
    assert!(standing(&model, "a").0);
    // Ten seconds of that are enough.
    judge(&mut model, &[stumble(), GOOD()], 110);
    assert!(ejected(&model, "a"));
}

#[test]
fn whose_answers_were_missing_gets_more_no_faster_than_that_shows() {
    let mut model = serving(&[1, 1]);
    let late = Finding::late_example();
    let silent = Opinion { trouble: Some(late), failing: Some(late), conduct: Conduct::Bad(late), ..BAD() };
    let lags = || Opinion { lags: true, ..UNCLEAR() };
    judge(&mut model, &[silent, GOOD()], 100);
    let course = [(101, UNCLEAR()), (102, UNCLEAR()), (102, UNCLEAR()), (103, lags()), (104, UNCLEAR())];
    let shares = course.into_iter().map(|(second, opinion)| {
        judge(&mut model, &[opinion, GOOD()], second);
        1.0 / share(&model, "a")
    });
    assert_eq!(shares.collect::<Vec<f64>>(), [8.0, 4.0, 4.0, 4.0, 2.0]);
}

#[test]
fn whom_nobody_tries_gets_more_and_more() {
    let mut model = serving(&[1, 1]);
    judge(&mut model, &[BAD(), GOOD()], 100);
    for (second, expected) in [(102, 8.0), (111, 8.0), (112, 4.0), (121, 4.0), (122, 2.0), (131, 2.0), (132, 1.0)] {
        judge(&mut model, &[Opinion::default(), GOOD()], second);
        assert_eq!(share(&model, "a"), 1.0 / expected, "{second}");
    }
}

#[test]
fn who_is_ejected_is_tried_again_when_the_others_do_no_better() {
    let mut model = serving(&[1, 1]);
    eject(&mut model, &[GOOD()], 100);
    judge(&mut model, &[UNCLEAR(), BAD()], 102);
    // An eighth of half a minute.
    model.tick(at(103));
    assert!(ejected(&model, "a"));
    model.tick(at(104));
    assert_eq!((ejected(&model, "a"), share(&model, "a")), (false, 1.0 / 32.0));
}

#[test]
fn an_ejection_lasts_twice_as_long_as_the_one_before_up_to_16_times() {
    let mut model = serving(&[1, 1]);
    let mut now = 100;
    judge(&mut model, &[BAD(), GOOD()], 90);
    let eject = |model: &mut Model, now: &mut i64| {
        judge(model, &[BAD(), GOOD()], *now);
        let until = backend(model, "a").judgement.until.expect("it is ejected").as_second();
        let lasts = until - *now;
        *now = until;
        assert!(ejected(model, "a"));
        model.tick(at(*now - 1));
        assert!(ejected(model, "a"));
        model.tick(at(*now));
        assert!(!ejected(model, "a"));
        lasts
    };
    let lasted: Vec<i64> = (0..7).map(|_| eject(&mut model, &mut now)).collect();
    assert_eq!(lasted, [30, 60, 120, 240, 480, 480, 480]);
    assert_eq!(backend(&model, "a").judgement.ejections, 7);
    // As long as an ejection was, good conduct makes up for it.
    now += 480 + 480 + 240;
    assert_eq!(eject(&mut model, &mut now), 480);
    now += 480 + 480 + 240 + 120 + 60;
    assert_eq!(eject(&mut model, &mut now), 60);
    now += 100_000;
    assert_eq!(eject(&mut model, &mut now), 30);
}

#[test]
fn who_fails_altogether_is_out_for_a_moment_and_twice_as_long_each_time() {
    let mut model = serving(&[1, 1]);
    let mut now = 100;
    for lasts in [1, 2, 4, 30] {
        judge(&mut model, &[LOST(), GOOD()], now);
        assert_eq!(backend(&model, "a").judgement.until, Some(at(now + lasts)), "at {now}");
        now += lasts;
        model.tick(at(now));
        assert_eq!(
            (ejected(&model, "a"), share(&model, "a")),
            (false, if lasts < 30 { 1.0 / 16.0 } else { 1.0 / 32.0 })
        );
        // Not long enough to say whether it is well. It has been ill for as long as is looked back after the last.
        judge(&mut model, &[UNCLEAR(), GOOD()], now + 1);
        now += 2;
    }
}

#[test]
fn who_returns_is_on_probation() {
    let mut model = serving(&[1, 1]);
    eject(&mut model, &[GOOD()], 100);
    assert!(!standing(&model, "a").0);
    let events = told(&model.tick(at(130)));
    let expected =
        ["a passive ejected->reduced (traffic)", "a rotation out->in (traffic)", "web verdict degraded->ok (traffic)"];
    assert_eq!((events, share(&model, "a")), (expected.map(str::to_owned).to_vec(), 1.0 / 32.0));
    assert!(standing(&model, "a").2.starts_with("returned on probation; it had been ejected for 30s: 50 %"));
    judge(&mut model, &[UNCLEAR(), GOOD()], 131);
    assert_eq!(share(&model, "a"), 1.0 / 16.0);
    judge(&mut model, &[BAD(), GOOD()], 132);
    assert!(ejected(&model, "a"), "at once, for a minute");
    model.tick(at(193));
    judge(&mut model, &[GOOD(), GOOD()], 194);
    assert!(backend(&model, "a").judgement.is_clean());
    judge(&mut model, &[BAD(), GOOD()], 200);
    assert_eq!((ejected(&model, "a"), share(&model, "a")), (false, 1.0 / 32.0), "it has shown that it was well");
}

#[test]
fn the_last_in_rotation_is_not_ejected() {
    let mut model = serving(&[1, 1]);
    judge(&mut model, &[LOST(), GOOD()], 100);
    assert_eq!([ejected(&model, "a"), ejected(&model, "b")], [true, false]);
    judge(&mut model, &[UNCLEAR(), BAD()], 101);
    assert_eq!((ejected(&model, "b"), share(&model, "b")), (false, 1.0));
    assert_eq!(backend(&model, "b").complaint(), Some(Finding::example().to_string().as_str()));
    // Whoever is ejected comes back when nobody else is left.
    let mut told_of = Vec::new();
    for _ in 0..3 {
        told_of.extend(told(&model.observe("web", "b", &Err("refused".into()), at(102))));
    }
    assert_eq!((model.services["web"].in_rotation(), share(&model, "a")), (1, 1.0), "{told_of:?}");
    assert!(told_of.contains(&"a passive ejected->ok (traffic)".to_owned()), "{told_of:?}");
}

#[test]
fn a_backup_that_stands_by_lets_the_last_primary_be_ejected() {
    let mut spec = service(&[1, 1]);
    spec.backends[1].backup = true;
    let mut model = serving_of(spec);
    (100..108).for_each(|second| drop(judge(&mut model, &[BAD(), UNCLEAR()], second)));
    assert_eq!((ejected(&model, "a"), standing(&model, "b").0), (true, true));
}

#[test]
fn no_more_are_ejected_than_may_be() {
    for (backends, most, expected) in [(2, 50, 1), (3, 50, 1), (4, 50, 2), (4, 100, 3), (4, 24, 0), (4, 0, 0)] {
        let mut spec = service(&vec![1; backends]);
        spec.passive.max_ejected = most;
        let mut model = serving_of(spec);
        // Something of each works, or whoever was ejected would be needed.
        let hopeless = Opinion { lost: false, ..LOST() };
        (100..120).for_each(|second| drop(judge(&mut model, &vec![hopeless.clone(); backends], second)));
        assert_eq!(model.services["web"].ejected(), expected, "{most} % of {backends}");
    }
}

#[test]
fn of_fewer_that_are_left_fewer_stay_ejected() {
    let mut model = serving(&[1, 1, 1, 1]);
    eject(&mut model, &[BAD(), GOOD(), GOOD()], 100);
    assert_eq!(model.services["web"].ejected(), 2);
    model.remove("web", "d", false).unwrap();
    model.tick(at(101));
    assert_eq!([ejected(&model, "a"), ejected(&model, "b")], [false, true]);
}

#[test]
fn an_operator_who_enables_a_backend_pardons_it() {
    let mut model = serving(&[1, 1]);
    judge(&mut model, &[LOST(), GOOD()], 100);
    let wish = AdminChange { reason: Some("fixed".into()), ..admin(Admin::Enabled) };
    model.set("web", "a", &wish, "uid 7", at(101)).unwrap();
    assert_eq!(standing(&model, "a"), (true, 101, "enabled by uid 7: fixed".into()));
    assert_eq!(share(&model, "a"), 1.0);
}

#[test]
fn who_switches_judgement_off_has_all_back() {
    let mut model = serving(&[1, 1, 1]);
    judge(&mut model, &[LOST(), BAD(), GOOD()], 100);
    let off = serde_json::json!({"passive": {"enabled": false}});
    model.set_service("web", off.as_object().unwrap(), at(101)).unwrap();
    model.tick(at(102));
    assert!(!ejected(&model, "a"));
    let mut judge = Judge::default();
    let judged = model.judge("web", &mut judge, at(103));
    assert!(judged.shifted && !judged.lasts);
    assert_eq!(["a", "b"].map(|name| share(&model, name)), [1.0; 2]);
}

#[test]
fn who_leaves_its_clients_without_an_answer_gets_no_more() {
    let mut model = serving(&[1, 1]);
    judge(&mut model, &[BAD(), GOOD()], 100);
    let waits = || Opinion { waits: true, ..Opinion::default() };
    (101..130).for_each(|second| drop(judge(&mut model, &[waits(), GOOD()], second)));
    assert_eq!(share(&model, "a"), 1.0 / 8.0);
}

#[test]
fn what_was_before_a_server_came_up_counts_no_more() {
    let mut model = serving(&[1, 1]);
    let cleared = |model: &Model| model.services["web"].seats()[0].cleared;
    assert_eq!(cleared(&model), Some(at(10)));
    check(&mut model, false, 20..23);
    assert_eq!(cleared(&model), None);
    check(&mut model, true, 24..26);
    assert_eq!(cleared(&model), Some(at(25)));
}

#[test]
fn who_was_relieved_and_then_down_is_judged_from_when_it_came_up_and_makes_up_for_nothing() {
    let mut model = serving(&[1, 1]);
    judge(&mut model, &[BAD(), GOOD()], 20);
    check(&mut model, false, 21..24);
    check(&mut model, true, 24..26);
    let reduced = model.services["web"].seats()[0].reduced.unwrap();
    assert_eq!((reduced.tried, reduced.since), (at(25), at(25)));
    judge(&mut model, &[GOOD(), GOOD()], 26);
    assert_eq!(share(&model, "a"), 1.0);
}

#[test]
fn whose_checks_fail_while_its_clients_have_what_they_ask_for_keeps_them() {
    let mut model = serving(&[1, 1]);
    let mut judge = Judge::default();
    let mut sight = Sight::default();
    let mut see = |judge: &mut Judge, responses, errors, second| {
        sight.responses[1] += responses;
        sight.responses[4] += errors;
        let address = "10.0.0.1:80".parse().unwrap();
        let seen = BackendSight { service: "web".into(), backend: "a".into(), address, sight };
        judge.take(&seen, &config::Passive::default(), at(second));
    };
    let given_up = |model: &Model| model.plan(at(200)).services[0].backends[0].given_up;
    see(&mut judge, 0, 0, 99);
    see(&mut judge, 100, 1, 100);
    assert!(!model.belie("web", &judge, at(100)), "its checks pass");
    for _ in 0..3 {
        model.observe("web", "a", &Err("HTTP 500".into()), at(100));
    }
    assert!(given_up(&model));
    assert!(model.belie("web", &judge, at(100)));
    assert!(!given_up(&model));
    assert!(model.judge("web", &mut judge, at(100)).lasts, "that may change");
    // A second later nothing is known of it, and after another it fails some.
    assert!(model.judge("web", &mut judge, at(101)).shifted);
    assert!(given_up(&model));
    see(&mut judge, 20, 1, 102);
    assert!(!model.belie("web", &judge, at(102)));
    assert!(given_up(&model));
}

#[test]
fn who_is_ejected_is_given_up_whatever_the_checks_of_the_others_say() {
    let mut model = serving(&[1, 1]);
    model.observe("web", "b", &Err("HTTP 500".into()), at(100));
    eject(&mut model, &[GOOD()], 110);
    assert!(model.plan(at(110)).services[0].backends[0].given_up);
}

#[test]
fn who_was_restarted_while_it_was_ejected_returns() {
    let mut model = serving(&[1, 1]);
    eject(&mut model, &[GOOD()], 100);
    check(&mut model, false, 101..104);
    check(&mut model, true, 104..106);
    model.tick(at(106));
    assert_eq!((ejected(&model, "a"), share(&model, "a")), (false, 1.0 / 32.0));
}

#[test]
fn who_is_ejected_has_all_of_its_share_as_soon_as_next_to_nothing_of_the_others_works() {
    let mut model = serving(&[1, 1]);
    judge(&mut model, &[LOST(), GOOD()], 100);
    judge(&mut model, &[UNCLEAR(), Opinion { hopeless: false, ..LOST() }], 101);
    assert_eq!((ejected(&model, "a"), share(&model, "a")), (false, 1.0));
}

#[test]
fn the_end_of_a_complaint_is_told_with_its_own_time_and_cause() {
    let mut model = serving(&[1]);
    judge(&mut model, &[BAD()], 100);
    judge(&mut model, &[UNCLEAR()], 110);
    let change = backend(&model, "a").judged_change();
    assert_eq!((change.at, change.cause.as_str()), (at(110), "nothing bad is left of what was seen"));
}

#[test]
fn a_detached_server_is_called_back_first_and_takes_what_the_other_is_relieved_of() {
    let mut model = serving(&[1, 1]);
    model.set("web", "b", &admin(Admin::Disabled), "uid 0", at(50)).unwrap();
    let events = judge(&mut model, &[BAD(), UNCLEAR()], 100);
    let expected =
        ["a passive ok->reduced (traffic)", "b admin disabled->enabled (recall)", "b rotation out->in (recall)"];
    assert_eq!(events[..3], expected, "{events:?}");
    assert_eq!((share(&model, "a"), standing(&model, "b").0), (1.0 / 32.0, true));
    assert!(standing(&model, "b").2.starts_with("called back: a is under pressure: 50 % of 20 responses"));
}

#[test]
fn what_was_wrong_when_the_operator_acted_calls_nobody_back() {
    let mut model = serving(&[1, 1]);
    let trouble = || Opinion { trouble: Some(Finding::example()), ..UNCLEAR() };
    judge(&mut model, &[trouble(), trouble()], 40);
    model.set("web", "b", &admin(Admin::Disabled), "uid 0", at(50)).unwrap();
    judge(&mut model, &[trouble(), UNCLEAR()], 100);
    assert!(!standing(&model, "b").0);
}

#[test]
fn what_was_found_survives_a_reload() {
    let mut model = serving(&[1, 1]);
    eject(&mut model, &[BAD()], 100);
    let model = model.reload(&[service(&[1, 1])], at(101));
    assert!(ejected(&model, "a") && backend(&model, "a").judgement.until == Some(at(130)));
    assert_eq!(backend(&model, "a").passive.change.at, at(100));
}

#[test]
fn a_model_that_nothing_is_found_of_stays_the_same() {
    let mut model = serving(&[1, 1]);
    let before = model.clone();
    assert_eq!(model.judge("web", &mut Judge::default(), at(100)), Judged::default());
    assert!(model.since(&before).is_empty());
}

proptest! {
    #[test]
    fn somebody_serves_and_ejections_are_few_and_end(
        backends in 2usize..6,
        most in 0u8..=100,
        steps in prop::collection::vec((0u8..9, 0usize..6, 1i64..40), 1..120),
    ) {
        let mut spec = service(&vec![1; backends]);
        spec.passive.max_ejected = most;
        let mut model = serving_of(spec);
        let mut opinions = vec![UNCLEAR(); backends];
        let mut condemned = HashMap::new();
        let mut now = 100;
        for (step, index, passes) in steps {
            let index = index % backends;
            let name = char::from(b'a' + index as u8).to_string();
            now += if step == 8 { passes } else { 1 };
            match step {
                0 => opinions[index] = BAD(),
                1 => opinions[index] = LOST(),
                2 => opinions[index] = GOOD(),
                3 => opinions[index] = UNCLEAR(),
                4 => drop(model.observe("web", &name, &Err("refused".into()), at(now))),
                5 => drop(model.observe("web", &name, &Ok("connected".into()), at(now))),
                6 => drop(model.set("web", &name, &admin(Admin::Disabled), "uid 0", at(now))),
                7 => drop(model.set("web", &name, &admin(Admin::Enabled), "uid 0", at(now))),
                _ => {}
            }
            for (index, opinion) in opinions.iter().enumerate() {
                *condemned.entry(index).or_insert(false) |= opinion.failing.is_some();
            }
            model.tick(at(now));
            judge(&mut model, &opinions, now);
            let web = &model.services["web"];
            let merely = web.backends.iter().any(Backend::is_merely_ejected);
            prop_assert!(web.in_rotation() > 0 || !merely, "{web:?}");
            prop_assert!(web.ejected() * 100 <= backends * usize::from(most));
            for (index, backend) in web.backends.iter().enumerate() {
                let judgement = &backend.judgement;
                prop_assert_eq!(judgement.until.is_some(), backend.passive.value == Passive::Ejected);
                prop_assert!(judgement.until.is_none_or(|until| until > at(now) && until <= at(now + 16 * 30)));
                prop_assert!(judgement.halvings <= REST);
                prop_assert!(condemned[&index] || judgement.is_clean(), "no evidence");
            }
        }
    }
}
