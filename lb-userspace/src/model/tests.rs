use proptest::prelude::*;

use super::*;
use crate::config::{HealthCheck, Probe};

pub(super) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

/// A service "web" with backends "a", "b", ... of these weights.
pub(super) fn service(weights: &[u16]) -> config::Service {
    config::Service {
        health: HealthCheck { jitter: 0, ..HealthCheck::default() },
        backends: weights.iter().enumerate().map(|(index, weight)| entry_of(index, *weight)).collect(),
        ..config::Service::new("web", "203.0.113.10:80".parse().unwrap())
    }
}

pub(super) fn entry_of(index: usize, weight: u16) -> config::Backend {
    let name = char::from(b'a' + u8::try_from(index).unwrap()).to_string();
    config::Backend::new(name, address(index), weight)
}

fn address(index: usize) -> SocketAddr {
    format!("10.0.0.{}:80", index + 1).parse().unwrap()
}

pub(super) fn hop() -> NextHop {
    NextHop { ifindex: 2, source: "10.0.0.254".parse().unwrap(), source_mac: [2; 6], mac: [4; 6], mtu: 1500 }
}

pub(super) fn routes(model: &Model) -> HashMap<IpAddr, Result<NextHop, String>> {
    model.addresses().into_iter().map(|address| (address, Ok(hop()))).collect()
}

/// Every backend of the file up and resolved at second 10.
pub(super) fn serving(weights: &[u16]) -> Model {
    serving_of(service(weights))
}

/// The same of another service.
pub(super) fn serving_of(service: config::Service) -> Model {
    let weights: Vec<u16> = service.backends.iter().map(|backend| backend.weight).collect();
    let mut model = Model::new(&[service], &Overrides::default(), at(0));
    model.resolve(&routes(&model), at(10));
    for index in 0..weights.len() {
        let name = entry_of(index, 1).name;
        model.observe("web", &name, &Ok("connected".into()), at(10));
    }
    model
}

pub(super) fn backend<'a>(model: &'a Model, name: &str) -> &'a Backend {
    model.services["web"].backends.iter().find(|backend| backend.name == name).unwrap()
}

pub(super) fn admin(admin: Admin) -> AdminChange {
    AdminChange { admin: Some(admin), ..AdminChange::default() }
}

pub(super) fn weight(weight: u16) -> AdminChange {
    AdminChange { weight: Some(weight), ..AdminChange::default() }
}

pub(super) fn standing(model: &Model, name: &str) -> (bool, i64, String) {
    let standing = model.services["web"].standing(backend(model, name));
    (standing.in_rotation, standing.change.at.as_second(), standing.change.cause)
}

#[test]
fn a_backend_is_in_rotation_when_every_cause_agrees() {
    type Step = fn(&mut Model);
    let down: Step = |model| {
        for _ in 0..3 {
            model.observe("web", "a", &Err("connection refused".into()), at(20));
        }
    };
    let drain: Step = |model| {
        let wish = AdminChange { reason: Some("kernel".into()), ..admin(Admin::Draining) };
        model.set("web", "a", &wish, "uid 0", at(30)).unwrap();
    };
    let idle: Step = |model| model.set("web", "a", &weight(0), "uid 0", at(35)).unwrap();
    let lost: Step = |model| {
        let gone = HashMap::from([(address(0).ip(), Err("no route to 10.0.0.1".into()))]);
        model.resolve(&gone, at(40));
    };
    let enable: Step = |model| model.set("web", "a", &admin(Admin::Enabled), "uid 0", at(50)).unwrap();
    let up: Step = |model| {
        for _ in 0..2 {
            model.observe("web", "a", &Ok("connected".into()), at(60));
        }
    };
    let check = |steps: &[Step], expected: (bool, i64, &str)| {
        let mut model = serving(&[1, 1]);
        steps.iter().for_each(|step| step(&mut model));
        let (in_rotation, since, cause) = standing(&model, "a");
        assert_eq!((in_rotation, since, cause.as_str()), expected);
        assert_eq!(model.plan(at(100)).services[0].backends[0].in_rotation, in_rotation);
    };
    check(&[], (true, 10, "connected"));
    check(&[down], (false, 20, "connection refused"));
    check(&[drain], (false, 30, "drained by uid 0: kernel"));
    check(&[idle], (false, 35, "weight 0 (weight set by uid 0)"));
    check(&[lost], (false, 40, "no route to 10.0.0.1"));
    check(&[drain, enable], (true, 50, "enabled by uid 0"));
    check(&[down, up], (true, 60, "connected"));
    // The cause to undo first.
    check(&[down, drain, idle, lost], (false, 30, "drained by uid 0: kernel"));
    check(&[down, lost], (false, 40, "no route to 10.0.0.1"));
    check(&[down, drain, enable], (false, 20, "connection refused"));
    // Another share or another way is no news.
    let heavier: Step = |model| model.set("web", "a", &weight(9), "uid 0", at(70)).unwrap();
    let moved: Step = |model| {
        let way = NextHop { mac: [9; 6], ..hop() };
        model.resolve(&HashMap::from([(address(0).ip(), Ok(way))]), at(80));
    };
    let found: Step = |model| drop(model.resolve(&routes(model), at(90)));
    check(&[heavier, moved], (true, 10, "connected"));
    check(&[idle, heavier], (true, 70, "weight set by uid 0"));
    check(&[lost, found], (true, 90, "route and neighbour resolved"));
}

/// "a health up->down (uid 0)": what happened, in short.
pub(super) fn told(events: &[Event]) -> Vec<String> {
    let told = |event: &Event| {
        let subject = event.backend.as_deref().or(event.service.as_deref()).unwrap_or("lb");
        format!("{subject} {} {}->{} ({})", event.what.word(), event.from, event.to, event.actor)
    };
    events.iter().map(told).collect()
}

#[test]
fn a_change_is_told_once_with_its_causes_before_its_effects() {
    let mut model = serving(&[1, 1]);
    let failed = Err("HTTP 500".into());
    assert_eq!(model.observe("web", "a", &failed, at(20)), []);
    assert_eq!(model.observe("web", "a", &failed, at(22)), []);
    let events = model.observe("web", "a", &failed, at(24));
    assert_eq!(
        told(&events),
        [
            "a health up->down (health check)",
            "a rotation in->out (health check)",
            "web verdict ok->degraded (health check)"
        ]
    );
    assert!(events.iter().all(|event| event.at == at(24)));
    assert_eq!(events[1].cause, "HTTP 500");
    assert_eq!(events[2].cause, "a: HTTP 500; 1 of 2 serve");
    assert_eq!(model.observe("web", "a", &failed, at(26)), []);
    assert_eq!(model.observe("web", "nobody", &failed, at(26)), []);
}

#[test]
fn every_edit_leaves_its_events() {
    type Edit = fn(&mut Model) -> Result<(), Rejection>;
    let check = |edit: Edit, expected: &[&str]| {
        let model = serving(&[1, 1]);
        let mut next = model.clone();
        edit(&mut next).unwrap();
        let change = Change::new(at(20), "uid 7", "edited");
        assert_eq!(told(&model.changes_to(&next, &change)), expected);
        assert_eq!(told(&next.changes_to(&next, &change)), [""; 0]);
    };
    check(
        |model| model.set("web", "a", &admin(Admin::Draining), "uid 7", at(20)),
        &["a admin enabled->draining (uid 7)", "a rotation in->out (uid 7)", "web verdict ok->degraded (uid 7)"],
    );
    check(|model| model.set("web", "a", &weight(3), "uid 7", at(20)), &["a weight 1->3 (uid 7)"]);
    check(
        |model| model.set("web", "a", &weight(0), "uid 7", at(20)),
        &["a weight 1->0 (uid 7)", "a rotation in->out (uid 7)", "web verdict ok->degraded (uid 7)"],
    );
    check(|model| model.remove("web", "a", false), &["a backend present->absent (uid 7)"]);
    check(
        |model| model.add("web", entry_of(2, 1), "uid 7", at(20)),
        &["c backend absent->present (uid 7)", "web verdict ok->degraded (uid 7)"],
    );
    check(
        |model| {
            *model = model.reload(&[], at(20));
            Ok(())
        },
        &["web service present->absent (uid 7)"],
    );
}

#[test]
fn a_backend_that_stays_down_shows_why_it_is_down_today() {
    let mut model = serving(&[1, 1]);
    for (second, seen) in [(20, "refused"), (22, "refused"), (24, "refused"), (26, "no answer")] {
        model.observe("web", "a", &Err(seen.into()), at(second));
    }
    assert_eq!(standing(&model, "a"), (false, 24, "no answer".into()));
}

#[test]
fn who_is_at_fault_is_given_up_while_others_are_well() {
    let fails = |model: &mut Model, name: &str| {
        for _ in 0..3 {
            model.observe("web", name, &Err("HTTP 500".into()), at(20));
        }
    };
    let given_up = |model: &Model| -> Vec<String> {
        let backends = &model.plan(at(30)).services[0].backends;
        backends.iter().filter(|backend| backend.given_up).map(|backend| backend.name.clone()).collect()
    };
    let mut model = serving(&[1, 1, 1]);
    model.set("web", "b", &admin(Admin::Disabled), "uid 0", at(15)).unwrap();
    assert_eq!(given_up(&model), Vec::<String>::new());
    fails(&mut model, "a");
    assert_eq!(given_up(&model), ["a"]);
    fails(&mut model, "c");
    // The detached one is called back.
    assert_eq!(given_up(&model), ["a", "c"]);
    fails(&mut model, "b");
    assert_eq!(given_up(&model), Vec::<String>::new(), "nobody else would answer");
}

#[test]
fn nobody_is_given_up_while_the_checks_of_the_others_begin_to_fail_as_well() {
    let mut model = serving(&[1, 1]);
    let check = |model: &mut Model, name: &str, passes: bool| {
        let result = if passes { Ok("HTTP 200".to_owned()) } else { Err("no answer".to_owned()) };
        drop(model.observe("web", name, &result, at(20)));
    };
    let given_up = |model: &Model| model.plan(at(30)).services[0].backends[0].given_up;
    for name in ["a", "b", "a", "b", "a"] {
        check(&mut model, name, false);
    }
    assert_eq!(backend(&model, "a").health.health(), Health::Down);
    assert_eq!((given_up(&model), model.is_growing()), (false, true));
    check(&mut model, "b", true);
    assert_eq!((given_up(&model), model.is_growing()), (true, false));
}

#[test]
fn where_nobody_works_one_check_that_passes_is_enough() {
    let passed = Ok("HTTP 200".to_owned());
    let fail = |model: &mut Model, name: &str| drop(model.observe("web", name, &Err("HTTP 500".into()), at(20)));
    let mut model = serving(&[1, 1]);
    (0..3).for_each(|_| fail(&mut model, "a"));
    model.observe("web", "a", &passed, at(20));
    assert_eq!(backend(&model, "a").health.health(), Health::Down, "the other serves");
    ["a", "b", "b", "b"].into_iter().for_each(|name| fail(&mut model, name));
    model.observe("web", "a", &passed, at(30));
    assert_eq!(backend(&model, "a").health.health(), Health::Up);
}

#[test]
fn a_backend_without_checks_is_up_from_the_start() {
    let mut spec = service(&[1]);
    spec.health.probe = Probe::None;
    let mut model = Model::new(&[spec], &Overrides::default(), at(0));
    assert_eq!(model.services["web"].in_rotation(), 0, "no route yet");
    model.resolve(&routes(&model), at(1));
    assert_eq!(model.services["web"].in_rotation(), 1);
    model.adopt("web", "a", address(0), false, at(2));
    assert_eq!(model.services["web"].in_rotation(), 1, "nothing would ever put it back");
}

#[test]
fn health_is_taken_over_for_the_same_server_only() {
    let check = |name: &str, address: SocketAddr, healthy: bool, expected: Health| {
        let mut model = Model::new(&[service(&[1])], &Overrides::default(), at(0));
        model.adopt("web", name, address, healthy, at(1));
        assert_eq!(backend(&model, "a").health.health(), expected);
    };
    check("a", address(0), true, Health::Up);
    check("a", address(0), false, Health::Down);
    check("a", address(1), true, Health::Unknown);
    check("b", address(0), true, Health::Unknown);
}

#[test]
fn the_last_backend_in_rotation_leaves_only_by_force() {
    let force = |change: AdminChange| AdminChange { force: true, ..change };
    let check = |model: &Model, wish: &AdminChange, refused: bool| {
        let done = model.clone().set("web", "a", wish, "uid 0", at(30));
        assert_eq!(matches!(done, Err(Rejection::Refused(_))), refused, "{wish:?}: {done:?}");
    };
    let two = serving(&[1, 1]);
    let mut last = two.clone();
    last.set("web", "b", &admin(Admin::Disabled), "uid 0", at(20)).unwrap();
    for wish in [admin(Admin::Draining), admin(Admin::Disabled), weight(0)] {
        check(&two, &wish, false);
        check(&last, &wish, true);
        check(&last, &force(wish), false);
    }
    check(&last, &weight(5), false);
    check(&last, &admin(Admin::Enabled), false);
    assert!(matches!(last.clone().remove("web", "a", false), Err(Rejection::Refused(_))));
    assert_eq!(last.clone().remove("web", "a", true), Ok(()));
    assert_eq!(last.clone().remove("web", "b", false), Ok(()), "it is out of rotation anyway");
    let Err(Rejection::Refused(message)) = last.set("web", "a", &admin(Admin::Draining), "uid 0", at(30)) else {
        panic!("it is refused");
    };
    assert_eq!(
        message,
        "web/a is the last backend in rotation of service web: draining it would leave none, and every new connection \
         to 203.0.113.10:80 would fail; out of rotation already: b (disabled by uid 0)"
    );
}

#[test]
fn what_is_unknown_taken_or_unfit_is_rejected() {
    let rejected = |result: Result<(), Rejection>| match result.expect_err("it is rejected") {
        Rejection::NotFound(message) => format!("not found: {message}"),
        Rejection::Refused(message) => format!("refused: {message}"),
        Rejection::Invalid(message) | Rejection::Config(message) => format!("invalid: {message}"),
        Rejection::Conflict(message) => format!("conflict: {message}"),
    };
    let mut model = serving(&[1, 1]);
    let mut add = |service: &str, name: &str, address: &str| {
        let new = config::Backend::new(name, address.parse().unwrap(), 1);
        rejected(model.add(service, new, "uid 0", at(20)))
    };
    assert_eq!(add("wbe", "c", "10.0.0.3:80"), "not found: there is no service \"wbe\"; the services are web");
    assert_eq!(add("web", "a", "10.0.0.3:80"), "conflict: service web has a at 10.0.0.1:80 already");
    assert_eq!(add("web", "c", "10.0.0.1:80"), "conflict: service web has a at 10.0.0.1:80 already");
    assert!(add("web", "a b", "10.0.0.3:80").starts_with("invalid: a name consists of"));
    assert!(add("web", "c", "[2001:db8::3]:80").starts_with("invalid: the service listens on IPv4"));
    assert!(add("web", "c", "203.0.113.10:80").starts_with("invalid: 203.0.113.10:80 is where the service"));
    let mut set = |backend: &str, weight: u16| {
        let wish = AdminChange { weight: Some(weight), ..AdminChange::default() };
        rejected(model.set("web", backend, &wish, "uid 0", at(20)))
    };
    assert_eq!(set("c", 1), "not found: service web has no backend \"c\"; the backends are a, b");
    assert_eq!(set("a", 257), "invalid: a weight is between 0 and 256, not 257");
    for reason in ["\x1b[2J".to_owned(), "two\nlines".to_owned(), "x".repeat(257)] {
        let wish = AdminChange { reason: Some(reason), ..admin(Admin::Draining) };
        assert!(matches!(model.set("web", "a", &wish, "uid 0", at(20)), Err(Rejection::Invalid(_))));
    }
    assert!(matches!(entry(None, "web-01:80", 1), Err(Rejection::Invalid(_))));
    assert_eq!(entry(None, "10.0.0.3:80", 1).unwrap().name, "10.0.0.3:80");
}

#[test]
fn a_new_backend_serves_once_it_is_checked_and_resolved() {
    let mut model = serving(&[1]);
    model.add("web", entry_of(1, 2), "uid 7", at(20)).unwrap();
    assert_eq!(standing(&model, "b"), (false, 20, "no route looked up yet".into()));
    model.resolve(&routes(&model), at(21));
    assert_eq!(standing(&model, "b"), (false, 20, "not checked yet".into()));
    model.observe("web", "b", &Ok("connected".into()), at(22));
    assert_eq!(standing(&model, "b"), (true, 22, "connected".into()));
}

/// A restart: the model of this file with the overrides of that model.
fn restarted(model: &Model, weights: &[u16]) -> Vec<(String, u16, Admin)> {
    let restarted = Model::new(&[service(weights)], &model.overrides(), at(100));
    let backends = restarted.services["web"].backends.iter();
    backends.map(|backend| (backend.name.clone(), backend.weight.value, backend.admin.value)).collect()
}

#[test]
fn run_time_changes_survive_a_restart_and_an_edit_of_the_file_wins() {
    use Admin::{Draining, Enabled};
    let changed = |change: fn(&mut Model) -> Result<(), Rejection>| {
        let mut model = serving(&[1, 1]);
        change(&mut model).unwrap();
        model
    };
    let drained = changed(|model| model.set("web", "a", &admin(Draining), "uid 0", at(20)));
    let weighted = changed(|model| model.set("web", "a", &weight(7), "uid 0", at(20)));
    let removed = changed(|model| model.remove("web", "a", false));
    let added = changed(|model| model.add("web", entry_of(2, 4), "uid 0", at(20)));
    let check = |model: &Model, weights: &[u16], expected: &[(&str, u16, Admin)]| {
        let expected: Vec<_> =
            expected.iter().map(|(name, weight, admin)| (name.to_string(), *weight, *admin)).collect();
        assert_eq!(restarted(model, weights), expected);
    };
    // The same file.
    check(&drained, &[1, 1], &[("a", 1, Draining), ("b", 1, Enabled)]);
    check(&weighted, &[1, 1], &[("a", 7, Enabled), ("b", 1, Enabled)]);
    check(&removed, &[1, 1], &[("b", 1, Enabled)]);
    check(&added, &[1, 1], &[("a", 1, Enabled), ("b", 1, Enabled), ("c", 4, Enabled)]);
    // The weight of "a" edited in the file: an operator's drain is not a matter of the file.
    check(&drained, &[2, 1], &[("a", 2, Draining), ("b", 1, Enabled)]);
    check(&weighted, &[2, 1], &[("a", 2, Enabled), ("b", 1, Enabled)]);
    check(&removed, &[2, 1], &[("a", 2, Enabled), ("b", 1, Enabled)]);
    // "c" written into the file.
    check(&added, &[1, 1, 1], &[("a", 1, Enabled), ("b", 1, Enabled), ("c", 1, Enabled)]);
}

#[test]
fn another_server_under_an_old_name_starts_enabled() {
    let mut model = serving(&[1, 1]);
    model.set("web", "a", &admin(Admin::Disabled), "uid 0", at(20)).unwrap();
    let mut spec = service(&[1, 1]);
    spec.backends[0].address = "10.0.0.99:80".parse().unwrap();
    let next = Model::new(&[spec], &model.overrides(), at(100));
    assert_eq!(backend(&next, "a").admin.value, Admin::Enabled);
}

#[test]
fn a_reload_keeps_what_is_known_of_backends_that_stay() {
    let mut model = serving(&[1, 1]);
    model.set("web", "a", &admin(Admin::Draining), "uid 0", at(20)).unwrap();
    let next = model.reload(&[service(&[1, 3, 1])], at(100));
    assert_eq!(standing(&next, "a"), (false, 20, "drained by uid 0".into()));
    assert_eq!(standing(&next, "b"), (true, 10, "connected".into()));
    assert_eq!(backend(&next, "b").weight.value, 3);
    assert_eq!(backend(&next, "c").health.health(), Health::Unknown);
    assert!(next.reload(&[], at(101)).services.is_empty());
}

#[derive(Clone, Debug)]
enum Edit {
    Add(usize, u16),
    Remove(usize),
    Set(usize, AdminChange),
}

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let admins = prop::option::of(prop::sample::select(vec![Admin::Enabled, Admin::Draining, Admin::Disabled]));
    let change = (admins, prop::option::of(0u16..=256)).prop_map(|(admin, weight)| AdminChange {
        admin,
        weight,
        force: true,
        ..AdminChange::default()
    });
    let edit = prop_oneof![
        (0usize..6, 0u16..=256).prop_map(|(index, weight)| Edit::Add(index, weight)),
        (0usize..6).prop_map(Edit::Remove),
        (0usize..6, change).prop_map(|(index, change)| Edit::Set(index, change)),
    ];
    prop::collection::vec(edit, 0..12)
}

proptest! {
    /// The difference between model and file, put on top of the file, is the model again; also by way of JSON.
    #[test]
    fn overrides_and_file_make_the_model(edits in edits()) {
        let file = [service(&[1, 2, 3])];
        let mut model = Model::new(&file, &Overrides::default(), at(0));
        for edit in edits {
            // What is rejected changes nothing, which is also worth a try.
            let _ = match edit {
                Edit::Add(index, weight) => model.add("web", entry_of(index, weight), "uid 0", at(1)),
                Edit::Remove(index) => model.remove("web", &entry_of(index, 0).name, true),
                Edit::Set(index, change) => model.set("web", &entry_of(index, 0).name, &change, "uid 0", at(1)),
            };
        }
        let overrides = model.overrides();
        let json = serde_json::to_string(&overrides).unwrap();
        prop_assert_eq!(&serde_json::from_str::<Overrides>(&json).unwrap(), &overrides);
        let again = Model::new(&file, &overrides, at(2));
        prop_assert_eq!(&again.overrides(), &overrides);
        let essence = |model: &Model| {
            let mut backends: Vec<_> = model.services["web"].backends.iter()
                .map(|backend| (backend.name.clone(), backend.address, backend.weight.value, backend.admin.value))
                .collect();
            backends.sort_by(|a, b| a.0.cmp(&b.0));
            backends
        };
        prop_assert_eq!(essence(&again), essence(&model));
    }

    /// Without force no edit takes the last backend out of rotation.
    #[test]
    fn no_unforced_edit_empties_a_service(edits in edits()) {
        let mut model = serving(&[1, 2, 3]);
        for edit in edits {
            let _ = match edit {
                Edit::Add(index, weight) => model.add("web", entry_of(index, weight), "uid 0", at(11)),
                Edit::Remove(index) => model.remove("web", &entry_of(index, 0).name, false),
                Edit::Set(index, change) => {
                    let change = AdminChange { force: false, ..change };
                    model.set("web", &entry_of(index, 0).name, &change, "uid 0", at(11))
                }
            };
            prop_assert!(model.services["web"].in_rotation() > 0);
        }
    }
}
