use serde_json::json;

use super::*;
use crate::model::{
    AdminChange, Overrides,
    tests::{at, service, serving},
};

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        other => panic!("{other} is no object"),
    }
}

fn api() -> Map<String, Value> {
    object(json!({"listen": "203.0.113.11:443", "backend": [{"name": "x", "address": "10.0.0.9:443", "weight": 2}]}))
}

/// A restart with this file.
fn restarted(model: &Model, file: &[config::Service]) -> Model {
    Model::new(file, &model.overrides(), at(100))
}

#[test]
fn a_service_comes_changes_and_goes_and_all_of_it_survives_a_restart() {
    let file = [service(&[1, 1])];
    let mut model = serving(&[1, 1]);
    model.add_service("api", &api(), "uid 7", at(20)).unwrap();
    model.set_service("web", &object(json!({"algorithm": "maglev", "health": {"rise": 9}})), at(21)).unwrap();
    model.set_service("api", &object(json!({"health": {"type": "http", "path": "/up"}})), at(21)).unwrap();
    let again = restarted(&model, &file);
    assert_eq!(again.as_config(), model.as_config());
    assert_eq!(again.overrides(), model.overrides());
    let [api, web] = &again.as_config()[..] else { panic!("there are two") };
    assert_eq!((api.listen.port(), api.backends[0].weight), (443, 2));
    assert_eq!(api.health.probe, config::Probe::Http(config::HttpCheck { path: "/up".into(), ..Default::default() }));
    assert_eq!((web.algorithm, web.health.rise, web.health.fall), (crate::plan::Algorithm::Maglev, 9, 3));

    model.remove_service("api", true).unwrap();
    model.remove_service("web", true).unwrap();
    let again = restarted(&model, &file);
    assert!(again.services.is_empty());
    assert_eq!(again.overrides(), model.overrides());
}

#[test]
fn an_edit_of_the_file_wins_key_by_key() {
    let mut model = serving(&[1, 1]);
    model
        .set_service("web", &object(json!({"algorithm": "maglev", "health": {"rise": 9, "fall": 9}})), at(20))
        .unwrap();
    let mut edited = service(&[1, 1]);
    edited.health.rise = 5;
    let web = &restarted(&model, &[edited]).as_config()[0];
    assert_eq!((web.algorithm, web.health.rise, web.health.fall), (crate::plan::Algorithm::Maglev, 5, 9));

    let mut gone = serving(&[1, 1]);
    gone.remove_service("web", true).unwrap();
    assert_eq!(restarted(&gone, &[service(&[1, 2])]).services.len(), 1, "the file was edited since");

    let mut added = serving(&[1, 1]);
    added.add_service("api", &api(), "uid 7", at(20)).unwrap();
    let mut taken = service(&[1, 1]);
    taken.listen = "203.0.113.11:443".parse().unwrap();
    let again = restarted(&added, &[taken.clone()]);
    assert_eq!(again.services.keys().collect::<Vec<_>>(), ["web"], "its address is the file's by now");
    let mut written = service(&[1]);
    written.name = "api".into();
    assert_eq!(restarted(&added, &[written.clone()]).as_config(), [written]);
}

#[test]
fn a_removed_service_can_be_added_again() {
    let file = [service(&[1, 1])];
    let mut model = serving(&[1, 1]);
    model.remove_service("web", true).unwrap();
    model.add_service("web", &api(), "uid 7", at(20)).unwrap();
    let again = restarted(&model, &file);
    assert_eq!(again.as_config(), model.as_config());
    assert_eq!(again.services["web"].backends.len(), 1);
}

#[test]
fn what_makes_no_sense_is_rejected_and_changes_nothing() {
    let model = serving(&[1, 1]);
    let check = |edit: &dyn Fn(&mut Model) -> Result<(), Rejection>, says: &str| {
        let mut next = model.clone();
        let error = edit(&mut next).expect_err(says).to_string();
        assert!(error.contains(says), "{says:?}: {error}");
        assert_eq!(next.as_config(), model.as_config());
    };
    let set = |change: Value| move |model: &mut Model| model.set_service("web", &object(change.clone()), at(20));
    let add = |name: &'static str, change: Value| {
        move |model: &mut Model| {
            let mut settings = api();
            document::patch(&mut settings, &object(change.clone()));
            model.add_service(name, &settings, "uid 7", at(20))
        }
    };
    check(&set(json!({"algoritm": "maglev"})), "unknown key `algoritm`; did you mean `algorithm`?");
    check(&set(json!({"algorithm": "best"})), "unknown value `best`");
    check(&set(json!({"algorithm": 3})), "algorithm = 3: wanted string or table");
    check(&set(json!({"health": {"interval": "soon"}})), "interval = \"soon\": \"soon\" is not a duration");
    check(&set(json!({"health": {"path": "/x"}})), "only a check with type = \"http\"");
    check(&set(json!({"listen": "10.0.0.1:80"})), "is where the service itself listens");
    check(&set(json!({"listen": null})), "the key `listen` is missing");
    check(&set(json!({"backend": []})), "one by one");
    check(&add("web", json!({})), "there is a service web already");
    check(&add("a/b", json!({})), "a name consists of");
    check(&add("api", json!({"listen": "203.0.113.10:80"})), "service web listens on 203.0.113.10:80 already");
    check(&add("api", json!({"backend": [{"address": "nowhere"}]})), "is not IP:PORT");
    check(&|model| model.remove_service("web", false), "2 backends in rotation");
    check(&|model| model.remove_service("wbe", true), "there is no service \"wbe\"");
}

#[test]
fn health_is_learnt_anew_only_when_checks_begin_or_end() {
    let mut model = serving(&[1, 1]);
    model.set_service("web", &object(json!({"health": {"type": "http"}})), at(20)).unwrap();
    assert_eq!(model.services["web"].in_rotation(), 2);
    model.set_service("web", &object(json!({"health": {"type": "none"}})), at(20)).unwrap();
    assert_eq!(model.services["web"].in_rotation(), 2);
    model.set_service("web", &object(json!({"health": {"type": "tcp"}})), at(20)).unwrap();
    assert_eq!(model.services["web"].in_rotation(), 0);
}

#[test]
fn a_service_without_backends_keeps_its_settings() {
    let mut model = serving(&[1]);
    model.set_service("web", &object(json!({"algorithm": "maglev"})), at(20)).unwrap();
    model.set("web", "a", &AdminChange::default(), "uid 0", at(20)).unwrap();
    model.remove("web", "a", true).unwrap();
    let again = restarted(&model, &[service(&[1])]);
    assert_eq!(again.as_config(), model.as_config());
    assert_ne!(again.overrides(), Overrides::default());
}
