use super::*;
use crate::model::{
    AdminChange, Agent, Model,
    tests::{admin, at, backend, service, serving_of, standing, told},
};

const OUT: fn() -> Trouble = || Trouble::Out("refused".into());
const STRAINED: fn() -> Trouble = || Trouble::Strained("full".into());

#[test]
fn who_is_called_back_follows_from_how_the_others_are() {
    use Recall::{Last, Never, Pressure};
    let check = |policy, anybody_serves, troubled: &[(&str, Trouble)], accepted: &[&str], expected: Option<&str>| {
        let troubled: Vec<_> = troubled.iter().map(|(name, trouble)| ((*name).to_owned(), trouble.clone())).collect();
        let accepted = accepted.iter().map(|name| (*name).to_owned()).collect();
        let why = wanted(policy, &accepted, Rest { anybody_serves, troubled: &troubled });
        assert_eq!(why.as_deref(), expected, "{policy:?} {anybody_serves} {troubled:?} {accepted:?}");
    };
    let out = [("b", OUT())];
    let strained = [("b", STRAINED())];
    let both = [("b", OUT()), ("c", STRAINED())];
    for policy in [Never, Last, Pressure] {
        check(policy, true, &[], &[], None);
        check(policy, false, &[], &[], None);
        check(policy, false, &out, &["b"], None);
    }
    check(Never, false, &out, &[], None);
    check(Last, true, &out, &[], None);
    check(Last, false, &out, &[], Some("no other is in rotation; b: refused"));
    check(Last, true, &strained, &[], None);
    check(Last, false, &both, &["b"], None);
    check(Pressure, true, &out, &[], Some("b is out of rotation: refused"));
    check(Pressure, false, &out, &[], Some("no other is in rotation; b: refused"));
    check(Pressure, true, &strained, &[], Some("b is under pressure: full"));
    check(Pressure, true, &strained, &["b"], None);
    check(Pressure, true, &both, &["b"], Some("c is under pressure: full"));
}

#[test]
fn what_is_wrong_with_a_backend_is_trouble() {
    type Step = fn(&mut Model);
    let check = |step: Step, expected: Option<Trouble>| {
        let mut model = serving_of(service(&[1, 1]));
        step(&mut model);
        let web = &model.services["web"];
        assert_eq!(backend(&model, "a").trouble(web.thresholds()), expected);
    };
    let out = |why: &str| Some(Trouble::Out(why.into()));
    let strained = |why: &str| Some(Trouble::Strained(why.into()));
    check(|_| {}, None);
    check(|model| fail(model, "a", 1), None);
    check(|model| fail(model, "a", 2), strained("2 checks in a row: refused"));
    check(|model| fail(model, "a", 3), out("refused"));
    check(|model| says(model, "drain"), strained("the agent says drain 100%"));
    check(|model| says(model, "maint"), out("the agent says maint 100%"));
    check(|model| says(model, "down"), out("the agent says down, ready 100%"));
    check(|model| says(model, "0%"), out("the agent says ready 0%"));
    check(|model| says(model, "49%"), strained("the agent says ready 49%"));
    check(|model| says(model, "50%"), None);
    check(|model| detach(model, "a", 20), None);
}

/// One word of an agent.
fn says(model: &mut Model, word: &str) {
    let mode = [("drain", AgentMode::Drain), ("maint", AgentMode::Maint)];
    let said = Agent {
        mode: mode.into_iter().find(|(known, _)| *known == word).map(|(_, mode)| mode),
        percent: word.strip_suffix('%').and_then(|percent| percent.parse().ok()),
        down: (word == "down").then_some(true),
        ..Agent::default()
    };
    model.hear("web", "a", &said, None, at(20));
}

fn fail(model: &mut Model, name: &str, times: i64) {
    for second in 0..times {
        model.observe("web", name, &Err("refused".into()), at(30 + second));
    }
}

fn pass(model: &mut Model, name: &str) {
    for second in 0..2 {
        model.observe("web", name, &Ok("connected".into()), at(40 + second));
    }
}

fn detach(model: &mut Model, name: &str, second: i64) {
    let wish = AdminChange { reason: Some("test".into()), force: true, ..admin(Admin::Disabled) };
    model.set("web", name, &wish, "uid 7", at(second)).unwrap();
}

fn of_policy(recall: Recall, weights: &[u16]) -> Model {
    let mut spec = service(weights);
    spec.recall = recall;
    serving_of(spec)
}

#[test]
fn the_last_server_to_go_calls_the_detached_one_back() {
    for (policy, checks, back) in [
        (Recall::Never, 3, false),
        (Recall::Last, 2, false),
        (Recall::Last, 3, true),
        (Recall::Pressure, 1, false),
        (Recall::Pressure, 2, true),
    ] {
        let mut model = of_policy(policy, &[1, 1]);
        detach(&mut model, "b", 20);
        fail(&mut model, "a", checks);
        model.tick(at(35));
        assert_eq!(standing(&model, "b").0, back, "{policy:?} after {checks}");
    }
}

#[test]
fn a_recall_is_told_with_its_cause() {
    let mut model = of_policy(Recall::Last, &[1, 1]);
    detach(&mut model, "b", 20);
    fail(&mut model, "a", 2);
    let events = model.observe("web", "a", &Err("refused".into()), at(35));
    assert_eq!(
        told(&events),
        [
            "a health up->down (health check)",
            "a rotation in->out (health check)",
            "b admin disabled->enabled (recall)",
            "b rotation out->in (recall)",
        ]
    );
    let cause = "called back: no other is in rotation; a: refused; it had been disabled by uid 7: test";
    assert_eq!((events[2].cause.as_str(), events[2].at), (cause, at(35)));
    let ended = backend(&model, "b").ended.clone().unwrap();
    assert_eq!((ended.value, ended.change.cause.as_str()), (Ending::Recalled, cause));
    // Until the next word of an operator.
    detach(&mut model, "b", 50);
    assert_eq!(backend(&model, "b").ended, None);
}

#[test]
fn what_the_operator_knew_calls_nobody_back_until_it_happens_again() {
    let mut model = of_policy(Recall::Pressure, &[1, 1, 1]);
    fail(&mut model, "a", 3);
    detach(&mut model, "b", 33);
    model.tick(at(34));
    assert!(!standing(&model, "b").0, "a was down before");
    // Nor after a restart.
    let mut again = Model::new(&[model.services["web"].spec.clone()], &model.overrides(), at(35));
    assert_eq!(backend(&again, "b").detachment, backend(&model, "b").detachment);
    again.tick(at(36));
    pass(&mut model, "a");
    model.tick(at(42));
    fail(&mut model, "a", 3);
    assert!(standing(&model, "b").0);
}

#[test]
fn who_cannot_serve_is_not_called_back() {
    let mut model = of_policy(Recall::Pressure, &[1, 1]);
    detach(&mut model, "b", 20);
    fail(&mut model, "b", 3);
    fail(&mut model, "a", 3);
    model.tick(at(40));
    assert_eq!(backend(&model, "b").admin.value, Admin::Disabled);
    // But as soon as it can.
    pass(&mut model, "b");
    assert!(standing(&model, "b").0);
}

#[test]
fn one_after_the_other_is_called_back_while_somebody_serves() {
    let mut model = of_policy(Recall::Pressure, &[1, 1, 1, 1]);
    detach(&mut model, "c", 20);
    detach(&mut model, "b", 21);
    fail(&mut model, "a", 2);
    let out = |model: &Model| {
        let detached = model.services["web"].backends.iter().filter(|backend| backend.detachment.is_some());
        detached.map(|backend| backend.name.clone()).collect::<Vec<_>>()
    };
    model.tick(at(32));
    assert_eq!(out(&model), ["b"], "c has been out longest");
    model.tick(at(41));
    assert_eq!(out(&model), ["b"]);
    model.tick(at(42));
    assert!(out(&model).is_empty(), "that was not enough");
}

#[test]
fn a_word_of_the_operator_goes_before_that_of_the_service() {
    let mut model = of_policy(Recall::Pressure, &[1, 1]);
    let wish = AdminChange { recall: Some(Recall::Never), ..admin(Admin::Disabled) };
    model.set("web", "b", &wish, "uid 7", at(20)).unwrap();
    fail(&mut model, "a", 3);
    assert!(!standing(&model, "b").0);
}
