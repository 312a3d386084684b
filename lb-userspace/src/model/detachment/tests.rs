use std::collections::BTreeSet;

use super::*;
use crate::model::{
    AdminChange, Model, Overrides,
    tests::{admin, at, backend, service, serving, serving_of, standing, told, weight},
};

fn until(second: i64, value: Admin) -> AdminChange {
    AdminChange { until: Some(at(second)), reason: Some("kernel".into()), ..admin(value) }
}

fn disable(model: &mut Model, wish: &AdminChange, second: i64) {
    model.set("web", "a", wish, "uid 7", at(second)).unwrap();
}

/// When the detachment of "a" ends.
fn end_of(model: &Model) -> i64 {
    backend(model, "a").detachment.as_ref().unwrap().until.as_second()
}

#[test]
fn a_detachment_ends_by_itself_also_after_a_restart() {
    let mut model = serving(&[1, 1]);
    disable(&mut model, &until(50, Admin::Draining), 20);
    assert_eq!(standing(&model, "a"), (false, 20, "drained by uid 7: kernel".into()));
    let mut model = Model::new(&[service(&[1, 1])], &model.overrides(), at(30));
    assert_eq!(model.tick(at(49)), []);
    let events = model.tick(at(50));
    assert_eq!(told(&events), ["a admin draining->enabled (timer)"]);
    assert_eq!(events[0].cause, "returned, as its time was up: drained by uid 7: kernel");
    assert_eq!(backend(&model, "a").ended.as_ref().unwrap().value, Ending::TimeUp);
    assert_eq!(model.overrides(), Overrides::default());
    assert_eq!(model.tick(at(51)), []);
}

#[test]
fn a_detachment_without_a_word_lasts_as_long_as_the_configuration_says() {
    let check = |of_service: Option<u64>, of_daemon: u64, expected: i64| {
        let mut spec = service(&[1, 1]);
        spec.detached_for = of_service.map(Duration::from_secs);
        let mut model = serving_of(spec).with_detached_for(Duration::from_secs(of_daemon));
        disable(&mut model, &admin(Admin::Disabled), 20);
        assert_eq!(end_of(&model), expected);
        model = model.reload(&[service(&[1, 1])], at(30));
        assert_eq!(end_of(&model), expected, "as it was when it began");
    };
    check(None, 3600, 3620);
    check(None, 60, 80);
    check(Some(5), 60, 25);
}

#[test]
fn the_last_word_says_for_how_long_and_the_first_since_when() {
    let mut model = serving(&[1, 1]);
    disable(&mut model, &until(50, Admin::Draining), 20);
    let before = model.clone();
    disable(&mut model, &AdminChange { until: Some(at(90)), ..admin(Admin::Draining) }, 40);
    let change = Change::new(at(40), "uid 7", "longer");
    assert_eq!(
        told(&before.changes_to(&model, &change)),
        ["a detachment until 1970-01-01T00:00:50Z->until 1970-01-01T00:01:30Z (uid 7)"]
    );
    assert_eq!(standing(&model, "a"), (false, 20, "drained by uid 7: kernel".into()));
    disable(&mut model, &AdminChange { reason: Some("disk".into()), ..until(70, Admin::Disabled) }, 60);
    assert_eq!(standing(&model, "a"), (false, 20, "disabled by uid 7: disk".into()));
    assert_eq!((end_of(&model), model.tick(at(69)).len()), (70, 0));
    disable(&mut model, &admin(Admin::Enabled), 69);
    assert_eq!((standing(&model, "a").0, model.tick(at(80))), (true, vec![]));
}

#[test]
fn a_time_is_in_the_future_and_near_enough_to_be_one() {
    let mut model = serving(&[1, 1]);
    let (month, longest) = (30 * 86_400, LONGEST_DETACHMENT.as_secs() as i64);
    assert_eq!(month, longest);
    for wish in [
        until(19, Admin::Draining),
        until(20, Admin::Disabled),
        until(50, Admin::Enabled),
        until(20 + month + 61, Admin::Disabled),
        AdminChange { until: Some(at(50)), ..weight(2) },
        AdminChange { recall: Some(Recall::Never), ..admin(Admin::Enabled) },
    ] {
        assert!(matches!(model.set("web", "a", &wish, "uid 0", at(20)), Err(Rejection::Invalid(_))), "{wish:?}");
    }
    disable(&mut model, &until(20 + month, Admin::Disabled), 20);
}

#[test]
fn who_is_to_be_missed_stays_out_until_somebody_acts() {
    let mut spec = service(&[1, 1]);
    spec.after_detachment = AfterDetachment::Alarm;
    let mut model = serving_of(spec.clone());
    disable(&mut model, &until(50, Admin::Disabled), 20);
    let events = model.tick(at(55));
    assert_eq!(told(&events), ["a detachment until 1970-01-01T00:00:50Z->overdue (timer)"]);
    assert_eq!(events[0].cause, "time is up, and it stays out until somebody acts: disabled by uid 7: kernel");
    assert_eq!((model.tick(at(56)), standing(&model, "a").0), (vec![], false));
    // That is known after a restart, and not told again.
    let mut model = Model::new(&[spec.clone()], &model.overrides(), at(60));
    assert_eq!((model.tick(at(61)), backend(&model, "a").detachment.as_ref().unwrap().overdue), (vec![], true));
    let mut extended = model.clone();
    disable(&mut extended, &until(90, Admin::Disabled), 62);
    assert!(!backend(&extended, "a").detachment.as_ref().unwrap().overdue);
    // The file says otherwise by now.
    spec.after_detachment = AfterDetachment::Return;
    let mut model = model.reload(&[spec], at(70));
    assert_eq!(told(&model.tick(at(71))), ["a admin disabled->enabled (timer)"]);
}

#[test]
fn who_is_not_well_when_its_time_is_up_returns_when_it_is() {
    let mut model = serving(&[1, 1]);
    disable(&mut model, &until(50, Admin::Disabled), 20);
    for second in 30..33 {
        model.observe("web", "a", &Err("refused".into()), at(second));
    }
    assert_eq!(told(&model.tick(at(50))), ["a admin disabled->enabled (timer)"]);
    assert_eq!(standing(&model, "a"), (false, 32, "refused".into()));
    let events: Vec<_> = (60..62).flat_map(|second| model.observe("web", "a", &Ok("ok".into()), at(second))).collect();
    assert_eq!(
        told(&events),
        [
            "a health down->up (health check)",
            "a rotation out->in (health check)",
            "web verdict degraded->ok (health check)"
        ]
    );
}

#[test]
fn who_returns_grows_to_its_share() {
    let mut spec = service(&[1, 1]);
    spec.slow_start = Some(Duration::from_secs(100));
    let mut model = serving_of(spec);
    disable(&mut model, &until(50, Admin::Disabled), 20);
    model.start_at_once();
    model.tick(at(50));
    assert_eq!(model.services["web"].share(backend(&model, "a"), at(60)), 0.1);
}

#[test]
fn a_detachment_that_was_kept_without_an_end_gets_one() {
    let mut overrides = {
        let mut model = serving(&[1, 1]);
        disable(&mut model, &until(50, Admin::Disabled), 20);
        model.overrides()
    };
    let kept = overrides.services.get_mut("web").unwrap().get_mut("a").unwrap();
    kept.detachment = None;
    let model = Model::new(&[service(&[1, 1])], &overrides, at(30));
    assert_eq!(end_of(&model), 20 + 3600);
    assert_eq!(backend(&model, "a").detachment.as_ref().unwrap().accepted, BTreeSet::new());
}
