use std::time::Duration;

use super::*;
use crate::{
    config,
    model::{
        Admin, Agent, AgentMode, Model, Overrides, Rejection,
        tests::{admin, at, backend, service, serving, serving_of, standing, told},
    },
};

/// "a" and "b" serve, "c" is their backup.
fn with_backup() -> Model {
    let mut service = service(&[1, 1, 1]);
    service.backends[2].backup = true;
    serving_of(service)
}

/// Fails as often as it takes, or passes.
fn turn(model: &mut Model, name: &str, up: bool, second: i64) -> Vec<String> {
    let result = if up { Ok("connected".into()) } else { Err("refused".into()) };
    (0..3).flat_map(|_| told(&model.observe("web", name, &result, at(second)))).collect()
}

/// Who gets new flows, with which weight.
fn shares(model: &Model, second: i64) -> Vec<(String, u16)> {
    let plan = model.plan(at(second)).services.remove(0);
    let serving = plan.backends.iter().filter(|backend| backend.in_rotation);
    serving.map(|backend| (backend.name.clone(), backend.weight)).collect()
}

fn named(shares: &[(&str, u16)]) -> Vec<(String, u16)> {
    shares.iter().map(|(name, weight)| ((*name).into(), *weight)).collect()
}

#[test]
fn a_backup_serves_only_while_no_other_does() {
    let mut model = with_backup();
    let web = |model: &Model| {
        let web = &model.services["web"];
        (web.in_rotation(), web.total(), web.verdict())
    };
    assert_eq!(web(&model), (2, 2, Verdict::Ok));
    assert_eq!(standing(&model, "c"), (false, 10, "backup: stands by while others serve".into()));
    turn(&mut model, "a", false, 20);
    assert_eq!((web(&model), shares(&model, 20)), ((1, 2, Verdict::Degraded), named(&[("b", 1)])));
    let events = turn(&mut model, "b", false, 30);
    assert_eq!(
        events,
        ["b health up->down (health check)", "b rotation in->out (health check)", "c rotation out->in (health check)"]
    );
    assert_eq!((web(&model), shares(&model, 30)), ((1, 3, Verdict::Degraded), named(&[("c", 1)])));
    assert_eq!(standing(&model, "c"), (true, 30, "backup: no other serves".into()));
    turn(&mut model, "a", true, 40);
    assert_eq!(shares(&model, 40), named(&[("a", 1)]));
    assert_eq!(standing(&model, "c").1, 40);
    turn(&mut model, "b", true, 50);
    turn(&mut model, "c", false, 60);
    assert_eq!(web(&model), (2, 3, Verdict::Degraded), "a backup that could not step in is redundancy lost");
}

#[test]
fn a_backup_that_can_step_in_lets_the_last_primary_go() {
    let mut model = with_backup();
    model.set("web", "a", &admin(Admin::Disabled), "uid 0", at(20)).unwrap();
    model.set("web", "b", &admin(Admin::Disabled), "uid 0", at(20)).unwrap();
    assert_eq!(shares(&model, 20), named(&[("c", 1)]));
    let refused = model.set("web", "c", &admin(Admin::Disabled), "uid 0", at(20));
    assert!(matches!(refused, Err(Rejection::Refused(_))));
}

#[test]
fn a_backup_is_one_after_a_restart() {
    let model = with_backup();
    let again = Model::new(&[service(&[1, 1])], &model.overrides(), at(100));
    assert!(!again.services["web"].backends.iter().any(|known| known.backup), "the file has no c");
    let mut added = serving(&[1]);
    let spare = config::Backend { backup: true, health_port: Some(81), ..service(&[1, 1]).backends.remove(1) };
    added.add("web", spare.clone(), "uid 0", at(20)).unwrap();
    let again = Model::new(&[service(&[1])], &added.overrides(), at(100));
    assert_eq!(again.as_config()[0].backends[1], spare);
}

#[test]
fn a_service_that_fails_open_gives_traffic_to_all_that_can_be_reached() {
    let mut spec = service(&[1, 2, 1]);
    spec.fail = Fail::Open;
    spec.recall = config::Recall::Never;
    let mut model = serving_of(spec);
    model.set("web", "c", &admin(Admin::Disabled), "uid 0", at(20)).unwrap();
    turn(&mut model, "a", false, 20);
    assert_eq!(shares(&model, 20), named(&[("b", 2)]));
    turn(&mut model, "b", false, 30);
    let web = &model.services["web"];
    assert_eq!((web.fails_open(), web.in_rotation(), web.verdict()), (true, 0, Verdict::Down));
    assert_eq!(shares(&model, 30), named(&[("a", 1), ("b", 2)]));
    turn(&mut model, "b", true, 40);
    assert_eq!((model.services["web"].fails_open(), shares(&model, 40)), (false, named(&[("b", 2)])));

    let mut closed = serving(&[1, 1]);
    turn(&mut closed, "a", false, 20);
    turn(&mut closed, "b", false, 20);
    assert_eq!((closed.services["web"].fails_open(), shares(&closed, 20)), (false, Vec::new()));
}

#[test]
fn fewer_than_min_healthy_is_degraded() {
    let mut spec = service(&[1, 1]);
    spec.min_healthy = 2;
    let mut model = serving_of(spec);
    model.remove("web", "a", true).unwrap();
    assert_eq!(model.services["web"].verdict(), Verdict::Degraded);
}

#[test]
fn a_backend_that_joins_others_grows_to_its_share() {
    let mut spec = service(&[1, 1]);
    spec.slow_start = Some(Duration::from_secs(100));
    let mut model = serving_of(spec);
    model.start_at_once();
    assert_eq!((model.is_growing(), shares(&model, 10)), (false, named(&[("a", 1), ("b", 1)])));
    turn(&mut model, "a", false, 20);
    turn(&mut model, "a", true, 100);
    for (second, share) in [(100, 1), (101, 1), (110, 10), (150, 50), (199, 99)] {
        model.tick(at(second));
        assert!(model.is_growing());
        assert_eq!(shares(&model, second), named(&[("a", share), ("b", 100)]));
    }
    model.tick(at(200));
    assert_eq!((model.is_growing(), shares(&model, 200)), (false, named(&[("a", 1), ("b", 1)])));

    // Nobody is there to take the rest.
    turn(&mut model, "a", false, 300);
    turn(&mut model, "b", false, 300);
    turn(&mut model, "b", true, 310);
    assert_eq!(shares(&model, 310), named(&[("b", 1)]));

    // By an operator's hand as well.
    let before = model.clone();
    model.add("web", config::Backend::new("c", "10.0.0.9:80".parse().unwrap(), 1), "uid 0", at(400)).unwrap();
    model.set("web", "b", &admin(Admin::Disabled), "uid 0", at(400)).unwrap_err();
    model.start_slowly_since(&before, at(400));
    assert!(!model.is_growing(), "c is not checked yet");
}

#[test]
fn an_agent_takes_off_weight_drains_and_stops() {
    let mut model = serving(&[2, 2]);
    let mut say = |mode: Option<AgentMode>, percent: Option<u16>, second: i64| {
        let events = told(&model.hear("web", "a", &Agent { mode, percent, ..Agent::default() }, None, at(second)));
        (events, shares(&model, second))
    };
    assert_eq!(say(None, None, 20), (vec![], named(&[("a", 2), ("b", 2)])));
    assert_eq!(
        say(None, Some(25), 21),
        (vec!["a agent ready 100%->ready 25% (agent)".into()], named(&[("a", 50), ("b", 200)]))
    );
    let (events, serving) = say(Some(AgentMode::Drain), None, 22);
    assert_eq!(events[1], "a rotation in->out (agent)");
    assert_eq!(serving.len(), 1);
    assert_eq!(say(None, Some(100), 23).1.len(), 1, "it goes on draining until it is ready");
    assert_eq!(say(Some(AgentMode::Ready), None, 24).1, named(&[("a", 2), ("b", 2)]));
    assert_eq!(say(None, Some(0), 25).1.len(), 1);
    assert_eq!(say(Some(AgentMode::Maint), Some(100), 26).1.len(), 1);
    assert_eq!(standing(&model, "a"), (false, 25, "the agent says maint 100%".into()), "out since it said 0%");
}

#[test]
fn paused_checks_stay_paused_over_a_restart() {
    let mut model = serving(&[1, 1]);
    model.pause("web", "a", true, Some("debugging"), "uid 7", at(20)).unwrap();
    let mut again = Model::new(&[service(&[1, 1])], &model.overrides(), at(30));
    let paused = backend(&again, "a").paused.clone().unwrap();
    assert_eq!((paused.cause.as_str(), paused.at), ("checks paused by uid 7: debugging", at(20)));
    let before = again.clone();
    again.pause("web", "a", false, None, "uid 0", at(40)).unwrap();
    let change = Change::new(at(40), "uid 0", "checks resumed by uid 0");
    assert_eq!(told(&before.changes_to(&again, &change)), ["a checks paused->running (uid 0)"]);
    assert_eq!(again.overrides(), Overrides::default());
    let mut spec = service(&[1]);
    spec.health.probe = config::Probe::None;
    let unchecked = serving_of(spec).pause("web", "a", true, None, "uid 0", at(20));
    assert!(matches!(unchecked, Err(Rejection::Invalid(_))));
    assert!(matches!(again.pause("web", "z", true, None, "uid 0", at(20)), Err(Rejection::NotFound(_))));
}
