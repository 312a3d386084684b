use std::time::Duration;

use super::*;
use crate::{
    config::{self, AgentCheck, Fail},
    model::{
        Admin, LimitSource, Overrides, Rejection, Verdict,
        tests::{admin, at, backend, service, serving_of, standing, told},
    },
    plan::BackendPlan,
};

/// Backends "a", "b", … that are up, of these weights, with an agent each.
fn with_agents(weights: &[u16]) -> Model {
    let agent = AgentCheck {
        port: 9634,
        interval: Duration::from_secs(2),
        timeout: Duration::from_secs(1),
        send: String::new(),
    };
    serving_of(config::Service { agent: Some(agent), ..service(weights) })
}

/// Has an agent say a percentage and why, with so many flows open.
fn say(model: &mut Model, name: &str, percent: u16, open: u64, second: i64) -> Vec<String> {
    let words = format!("up ready {percent}% # memory");
    let said =
        Agent { mode: Some(AgentMode::Ready), percent: Some(percent), down: Some(false), words, ..Agent::default() };
    told(&model.hear("web", name, &said, Some(open), at(second)))
}

fn plan(model: &Model, second: i64) -> Vec<BackendPlan> {
    model.plan(at(second)).services[0].backends.clone()
}

/// Who gets new flows, with which weight and which limit.
fn shares(model: &Model, second: i64) -> Vec<(String, u16, Option<u32>)> {
    let serving = plan(model, second).into_iter().filter(|backend| backend.in_rotation);
    serving.map(|backend| (backend.name, backend.weight, backend.max_connections)).collect()
}

fn named(shares: &[(&str, u16, Option<u32>)]) -> Vec<(String, u16, Option<u32>)> {
    shares.iter().map(|(name, weight, limit)| ((*name).into(), *weight, *limit)).collect()
}

#[test]
fn what_an_agent_does_not_mention_stays() {
    let said =
        |mode, percent, down, max_connections| Agent { mode, percent, down, max_connections, ..Agent::default() };
    let steps = [
        (said(None, None, None, None), "ready 100%"),
        (said(None, Some(75), None, None), "ready 75%"),
        (said(Some(AgentMode::Drain), None, None, Some(30)), "drain 75% maxconn:30"),
        (said(None, None, Some(true), None), "down, drain 75% maxconn:30"),
        (said(Some(AgentMode::Ready), None, None, None), "down, ready 75% maxconn:30"),
        (said(None, Some(100), Some(false), None), "ready 100% maxconn:30"),
        (said(None, None, None, Some(0)), "ready 100%"),
    ];
    let mut wish = Wish::default();
    for (said, expected) in steps {
        wish = wish.after(&said);
        assert_eq!(wish.words(), expected, "{said:?}");
    }
}

#[test]
fn a_server_at_its_red_line_gets_nothing_while_another_serves() {
    let mut model = with_agents(&[1, 1]);
    assert_eq!(say(&mut model, "a", 40, 100, 20), ["a agent ready 100%->ready 40% (agent)"]);
    assert_eq!(shares(&model, 20), named(&[("a", 40, None), ("b", 100, None)]));
    assert_eq!(standing(&model, "a").1, 10, "another share is no change of rotation");
    assert_eq!(
        say(&mut model, "a", 0, 100, 21),
        [
            "a agent ready 40%->ready 0% (agent)",
            "a limit none->100 (agent)",
            "a rotation in->out (agent)",
            "web verdict ok->degraded (agent)"
        ]
    );
    assert_eq!(shares(&model, 21), named(&[("b", 100, None)]));
    assert_eq!(standing(&model, "a"), (false, 21, "the agent says ready 0%: memory".into()));
    // It comes back with what it had, and is given more as long as it is well.
    say(&mut model, "a", 25, 0, 30);
    assert_eq!(shares(&model, 30), named(&[("a", 25, Some(100)), ("b", 100, None)]));
    say(&mut model, "a", 60, 0, 32);
    assert_eq!(shares(&model, 32), named(&[("a", 60, Some(110)), ("b", 100, None)]));
    assert!(model.is_growing());
    let told: Vec<String> = (0..8).flat_map(|more| say(&mut model, "a", 100, 0, 34 + more)).collect();
    assert_eq!(told, ["a agent ready 60%->ready 100% (agent)", "a limit 193->none (agent)"]);
    assert_eq!((shares(&model, 50), model.is_growing()), (named(&[("a", 1, None), ("b", 1, None)]), false));
}

#[test]
fn when_all_are_at_their_red_lines_all_serve_in_equal_shares_with_what_they_had() {
    let mut model = with_agents(&[3, 1]);
    say(&mut model, "a", 0, 40, 20);
    say(&mut model, "b", 0, 60, 21);
    let web = &model.services["web"];
    assert_eq!((web.in_rotation(), web.verdict(), web.is_last_resort()), (0, Verdict::Down, true));
    assert_eq!(shares(&model, 21), named(&[("a", 1, Some(40)), ("b", 1, Some(60))]));
    // Who wants nothing at all gets nothing, and who is dead neither.
    let maint = Agent { mode: Some(AgentMode::Maint), ..Agent::default() };
    model.hear("web", "b", &maint, None, at(22));
    assert_eq!(shares(&model, 22), named(&[("a", 1, Some(40))]));
    for _ in 0..3 {
        model.observe("web", "a", &Err("refused".into()), at(23));
    }
    assert_eq!((shares(&model, 23), model.services["web"].is_last_resort()), (named(&[]), false));
}

#[test]
fn backups_come_before_those_at_their_red_lines() {
    let mut spec = with_agents(&[1, 1]).services["web"].as_config();
    spec.backends[1].backup = true;
    spec.fail = Fail::Open;
    let mut model = serving_of(spec);
    say(&mut model, "a", 0, 40, 20);
    assert_eq!(shares(&model, 20), named(&[("b", 100, None)]));
    say(&mut model, "b", 0, 20, 21);
    let serving = shares(&model, 21);
    assert_eq!(serving, named(&[("a", 1, Some(40)), ("b", 1, Some(20))]));
    assert!(!model.services["web"].fails_open(), "they are not dead");
}

#[test]
fn the_last_that_serves_at_its_red_line_is_not_taken_out_unasked() {
    let mut model = with_agents(&[1, 1]);
    say(&mut model, "a", 0, 40, 20);
    model.set("web", "b", &admin(Admin::Disabled), "uid 0", at(21)).unwrap();
    let refused = model.set("web", "a", &admin(Admin::Disabled), "uid 0", at(22));
    assert!(matches!(refused, Err(Rejection::Refused(_))), "{refused:?}");
}

#[test]
fn a_limit_is_the_least_of_those_that_there_are() {
    let check =
        |configured: Option<u32>, maxconn: Option<u32>, open: Option<u64>, expected: Option<(u32, LimitSource)>| {
            let mut spec = with_agents(&[1, 1]).services["web"].as_config();
            spec.backends[0].max_connections = configured;
            let mut model = serving_of(spec);
            if let Some(open) = open {
                say(&mut model, "a", 0, open, 20);
            }
            let said = Agent { max_connections: maxconn, percent: Some(25), ..Agent::default() };
            model.hear("web", "a", &said, None, at(21));
            assert_eq!(backend(&model, "a").limit(), expected);
            assert_eq!(plan(&model, 21)[0].max_connections, expected.map(|(most, _)| most));
        };
    check(None, None, None, None);
    check(Some(50), None, None, Some((50, LimitSource::Configured)));
    check(Some(50), Some(60), None, Some((50, LimitSource::Configured)));
    check(Some(50), Some(40), None, Some((40, LimitSource::Agent)));
    check(None, Some(40), Some(30), Some((30, LimitSource::Learned)));
    check(Some(20), Some(40), Some(30), Some((20, LimitSource::Configured)));
}

#[test]
fn an_agent_that_is_not_heard_counts_as_unknown() {
    let check = |percent: u16, expected: &[(&str, u16, Option<u32>)]| {
        let mut model = with_agents(&[1, 1]);
        say(&mut model, "a", percent, 20, 20);
        let before = shares(&model, 20);
        for second in [22, 24] {
            assert_eq!(told(&model.miss("web", "a", "refused", at(second))), [] as [&str; 0]);
            assert_eq!(shares(&model, second), before, "once is nothing");
        }
        let news = format!("a agent ready {percent}%->unknown, ready {percent}% (agent)");
        assert_eq!(told(&model.miss("web", "a", "refused", at(26))), [news]);
        assert_eq!(backend(&model, "a").agent.change.cause, "the agent is not heard: refused");
        assert_eq!(told(&model.miss("web", "a", "refused", at(28))), [] as [&str; 0]);
        assert_eq!(shares(&model, 28), named(expected));
        // Heard again, it is believed again.
        assert_eq!(say(&mut model, "a", percent, 20, 30).len(), 1);
        assert_eq!(shares(&model, 30), before);
    };
    check(100, &[("a", 50, None), ("b", 100, None)]);
    check(30, &[("a", 30, None), ("b", 100, None)]);
    check(0, &[("b", 100, None)]);

    // What it wanted holds.
    for said in [
        Agent { mode: Some(AgentMode::Drain), ..Agent::default() },
        Agent { mode: Some(AgentMode::Maint), ..Agent::default() },
        Agent { down: Some(true), ..Agent::default() },
    ] {
        let mut model = with_agents(&[1, 1]);
        model.hear("web", "a", &said, None, at(20));
        (0..4).for_each(|more| drop(model.miss("web", "a", "refused", at(22 + more))));
        assert_eq!(shares(&model, 30), named(&[("b", 100, None)]), "{said:?}");
    }
}

#[test]
fn a_detached_server_is_called_back_before_the_other_is_at_its_red_line() {
    let mut model = with_agents(&[1, 1]);
    model.set("web", "b", &admin(Admin::Disabled), "uid 0", at(20)).unwrap();
    assert_eq!(say(&mut model, "a", 50, 100, 21).len(), 1);
    let events = say(&mut model, "a", 45, 100, 22);
    assert!(events.contains(&"b rotation out->in (recall)".into()), "{events:?}");
    let cause = "called back: a is under pressure: the agent says ready 45%: memory; it had been disabled by uid 0";
    assert_eq!(standing(&model, "b").2, cause);
}

#[test]
fn what_was_heard_lasts_for_as_long_as_there_are_agents() {
    let mut model = with_agents(&[1, 1]);
    say(&mut model, "a", 0, 40, 20);
    let with = model.services["web"].as_config();
    let again = model.reload(std::slice::from_ref(&with), at(30));
    assert_eq!(shares(&again, 30), named(&[("b", 100, None)]));
    let without = config::Service { agent: None, ..with };
    let reloaded = model.reload(std::slice::from_ref(&without), at(30));
    assert_eq!(shares(&reloaded, 30), named(&[("a", 1, None), ("b", 1, None)]));
    let mut changed = model.clone();
    changed.set_service("web", &serde_json::from_str(r#"{"agent": null}"#).unwrap(), at(30)).unwrap();
    assert_eq!(shares(&changed, 30), named(&[("a", 1, None), ("b", 1, None)]));
    // After a restart nothing was heard yet.
    assert!(Model::new(&[without], &Overrides::default(), at(40)).services["web"].backends[0].hearing.last.is_none());
}
