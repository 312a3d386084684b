//! A configuration as a document: every key that the file has, defaults written out, and back again.
//!
//! This is what `lb config show` prints, what `lb config diff` compares, and how changes of services at run time are
//! kept. Reading what was written gives the same configuration.

use std::{collections::BTreeMap, path::Path, time::Duration};

use serde::Serialize;
use serde_json::{Map, Value};

use super::{
    AfterDetachment, AgentCheck, Alarms, Backend, Fail, Global, HealthCheck, Passive, Probe, Problem, Recall, Service,
    alarm, check, raw,
};

/// The JSON schema of the file (draft 2020-12).
pub const SCHEMA: &str = include_str!("schema.json");

#[derive(Serialize)]
struct Document<'a> {
    global: &'a Global,
    alarm_rules: alarm::RulesDocument,
    alarm: Vec<alarm::TargetDocument<'a>>,
    service: BTreeMap<&'a str, ServiceDocument<'a>>,
}

#[derive(Serialize)]
struct ServiceDocument<'a> {
    listen: String,
    protocol: crate::plan::Protocol,
    algorithm: crate::plan::Algorithm,
    forward: crate::plan::Forward,
    min_healthy: usize,
    fail: Fail,
    #[serde(skip_serializing_if = "Option::is_none")]
    slow_start: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detached_for: Option<String>,
    after_detachment: AfterDetachment,
    recall: Recall,
    health: HealthDocument<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent: Option<AgentDocument<'a>>,
    passive: &'a Passive,
    backend: Vec<BackendDocument<'a>>,
}

#[derive(Serialize)]
struct HealthDocument<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expect: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ca_file: Option<&'a Path>,
    #[serde(skip_serializing_if = "Option::is_none")]
    insecure_skip_verify: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    send: Option<&'a str>,
    interval: String,
    timeout: String,
    rise: u32,
    fall: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fast_interval: Option<String>,
    jitter: u8,
}

#[derive(Serialize)]
struct AgentDocument<'a> {
    port: u16,
    interval: String,
    timeout: String,
    send: &'a str,
}

#[derive(Serialize)]
struct BackendDocument<'a> {
    name: &'a str,
    address: String,
    weight: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    health_port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent_port: Option<u16>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    backup: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_connections: Option<u32>,
}

/// The file, as TOML.
pub fn toml(global: &Global, alarms: &Alarms, services: &[Service]) -> String {
    toml::to_string(&document(global, alarms, services)).expect("there is no value that TOML lacks")
}

/// The file, as JSON.
pub fn json(global: &Global, alarms: &Alarms, services: &[Service]) -> Value {
    serde_json::to_value(document(global, alarms, services)).expect("paths were read from text")
}

/// Every value by its key, a backend under its name: "service.web.backend.web-01.weight".
pub fn flat(global: &Global, alarms: &Alarms, services: &[Service]) -> BTreeMap<String, String> {
    let mut values = BTreeMap::new();
    flatten(String::new(), &json(global, alarms, services), &mut values);
    values
}

/// What can be said of a service apart from its backends.
pub fn settings(service: &Service) -> Map<String, Value> {
    let mut document = whole(service);
    document.remove("backend");
    document
}

/// All that can be said of a service.
pub fn whole(service: &Service) -> Map<String, Value> {
    match serde_json::to_value(service_document(service)) {
        Ok(Value::Object(document)) => document,
        _ => unreachable!("a struct is an object"),
    }
}

/// Reads a service that was not written into the file: settings and backends. It may be without backends.
///
/// # Errors
/// With every mistake, a line each.
pub fn service(name: &str, document: &Map<String, Value>) -> Result<Service, String> {
    let file = Map::from_iter([(
        "service".to_owned(),
        Value::from(Map::from_iter([(name.to_owned(), document.clone().into())])),
    )]);
    let text = toml::to_string(&file).map_err(|error| format!("service {name}: {error}"))?;
    let told = |problem: &Problem| {
        let line = text[..text.floor_char_boundary(problem.span.start)].matches('\n').count();
        format!("{}: {}", text.lines().nth(line).unwrap_or_default(), problem.message)
    };
    let raw = raw::parse_services(&text).map_err(|problem| told(&problem))?;
    let mut services =
        check::run_time(raw.service).map_err(|problems| problems.iter().map(told).collect::<Vec<_>>().join("\n"))?;
    Ok(services.remove(0))
}

/// Puts a change on top of a document: what it names is replaced, `null` restores the default (RFC 7396).
pub fn patch(document: &mut Map<String, Value>, change: &Map<String, Value>) {
    for (key, value) in change {
        match (document.get_mut(key), value) {
            (_, Value::Null) => drop(document.remove(key)),
            (Some(Value::Object(inner)), Value::Object(change)) => patch(inner, change),
            _ => drop(document.insert(key.clone(), value.clone())),
        }
    }
}

/// Carries a change from one document over to another: what differs between `before` and `after` becomes so in
/// `document`, except where that has been edited since `before`.
pub fn carry(before: &Map<String, Value>, after: &Map<String, Value>, document: &mut Map<String, Value>) {
    let keys: Vec<&String> = before.keys().chain(after.keys().filter(|key| !before.contains_key(*key))).collect();
    for key in keys {
        let (was, is) = (before.get(key), after.get(key));
        let edited = document.get(key) != was;
        match (was, is, document.get_mut(key)) {
            (Some(Value::Object(was)), Some(Value::Object(is)), Some(Value::Object(now))) => carry(was, is, now),
            (_, Some(is), _) if !edited => drop(document.insert(key.clone(), is.clone())),
            (_, None, _) if !edited => drop(document.remove(key)),
            _ => {}
        }
    }
}

fn document<'a>(global: &'a Global, alarms: &'a Alarms, services: &'a [Service]) -> Document<'a> {
    Document {
        global,
        alarm_rules: (&alarms.rules).into(),
        alarm: alarms.targets.iter().map(alarm::TargetDocument::from).collect(),
        service: services.iter().map(|service| (service.name.as_str(), service_document(service))).collect(),
    }
}

fn service_document(service: &Service) -> ServiceDocument<'_> {
    ServiceDocument {
        listen: service.listen.to_string(),
        protocol: service.protocol,
        algorithm: service.algorithm,
        forward: service.forward,
        min_healthy: service.min_healthy,
        fail: service.fail,
        slow_start: service.slow_start.map(duration),
        detached_for: service.detached_for.map(duration),
        after_detachment: service.after_detachment,
        recall: service.recall,
        health: health_document(&service.health),
        agent: service.agent.as_ref().map(agent_document),
        passive: &service.passive,
        backend: service.backends.iter().map(backend_document).collect(),
    }
}

fn agent_document(agent: &AgentCheck) -> AgentDocument<'_> {
    let AgentCheck { port, interval, timeout, send } = agent;
    AgentDocument { port: *port, interval: duration(*interval), timeout: duration(*timeout), send }
}

fn health_document(check: &HealthCheck) -> HealthDocument<'_> {
    let (http, tls) = match &check.probe {
        Probe::Http(http) => (Some(http), None),
        Probe::Https(http, tls) => (Some(http), Some(tls)),
        Probe::None | Probe::Tcp | Probe::Udp { .. } | Probe::Agent { .. } => (None, None),
    };
    let (send, body) = match &check.probe {
        Probe::Udp { send, body } => (Some(send.as_str()), body.as_deref()),
        Probe::Agent { send } => (Some(send.as_str()), None),
        _ => (None, http.and_then(|http| http.body.as_deref())),
    };
    HealthDocument {
        kind: check.probe.word(),
        path: http.map(|http| http.path.as_str()),
        expect: http.map(|http| http.expect.to_string()),
        host: http.and_then(|http| http.host.as_deref()),
        body,
        server_name: tls.and_then(|tls| tls.server_name.as_deref()),
        ca_file: tls.and_then(|tls| tls.ca_file.as_deref()),
        insecure_skip_verify: tls.map(|tls| tls.insecure_skip_verify),
        send,
        interval: duration(check.interval),
        timeout: duration(check.timeout),
        rise: check.rise,
        fall: check.fall,
        port: check.port,
        fast_interval: check.fast_interval.map(duration),
        jitter: check.jitter,
    }
}

fn backend_document(backend: &Backend) -> BackendDocument<'_> {
    let Backend { name, address, weight, health_port, agent_port, backup, max_connections } = backend;
    BackendDocument {
        name,
        address: address.to_string(),
        weight: *weight,
        health_port: *health_port,
        agent_port: *agent_port,
        backup: *backup,
        max_connections: *max_connections,
    }
}

fn duration(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

/// As the file writes it.
pub(super) fn serialize_duration<S: serde::Serializer>(period: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&duration(*period))
}

fn flatten(key: String, value: &Value, values: &mut BTreeMap<String, String>) {
    let below = |name: &str| if key.is_empty() { name.to_owned() } else { format!("{key}.{name}") };
    match value {
        Value::Object(map) => map.iter().for_each(|(name, value)| flatten(below(name), value, values)),
        Value::Array(items) if items.iter().any(Value::is_object) => {
            for item in items {
                let name = item.get("name").and_then(Value::as_str).unwrap_or_default();
                let mut item = item.clone();
                item.as_object_mut().map(|map| map.remove("name"));
                flatten(below(name), &item, values);
            }
        }
        value => drop(values.insert(key, value.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        match value {
            Value::Object(map) => map,
            other => panic!("{other} is no object"),
        }
    }

    /// The keys or words that serde expects where it finds "?".
    fn expected(text: &str) -> Vec<String> {
        let message = toml::from_str::<raw::File>(text).err().expect("there is no such key").message().to_owned();
        let mut found: Vec<String> = message.split('`').skip(3).step_by(2).map(str::to_owned).collect();
        found.sort();
        found
    }

    #[test]
    fn the_schema_has_the_keys_and_words_of_the_file() {
        let schema: Value = serde_json::from_str(SCHEMA).unwrap();
        let keys = |pointer: &str| -> Vec<String> {
            let found = schema.pointer(pointer).unwrap_or_else(|| panic!("{pointer}"));
            let mut found: Vec<String> = match found {
                Value::Object(map) => map.keys().cloned().collect(),
                Value::Array(list) => list.iter().map(|word| word.as_str().unwrap().to_owned()).collect(),
                other => panic!("{other}"),
            };
            found.sort();
            found
        };
        let service = "global.interfaces = []\n[service.a]\nlisten = \"\"\n";
        for (text, pointer) in [
            ("\"?\" = 1".to_owned(), "/properties"),
            ("[global]\n\"?\" = 1".into(), "/properties/global/properties"),
            ("[alarm_rules]\n\"?\" = 1".into(), "/properties/alarm_rules/properties"),
            ("[[alarm]]\n\"?\" = 1".into(), "/$defs/alarm/properties"),
            ("[[alarm]]\non = [\"?\"]".into(), "/$defs/alarm/properties/on/items/enum"),
            (format!("{service}\"?\" = 1"), "/$defs/service/properties"),
            (format!("{service}health.\"?\" = 1"), "/$defs/health/properties"),
            (format!("{service}agent.\"?\" = 1"), "/$defs/agent/properties"),
            (format!("{service}passive.\"?\" = 1"), "/$defs/passive/properties"),
            (format!("{service}backend = [{{ \"?\" = 1 }}]"), "/$defs/backend/properties"),
            (format!("{service}health.type = \"?\""), "/$defs/health/properties/type/enum"),
            (format!("{service}algorithm = \"?\""), "/$defs/service/properties/algorithm/enum"),
            (format!("{service}forward = \"?\""), "/$defs/service/properties/forward/enum"),
            (format!("{service}protocol = \"?\""), "/$defs/service/properties/protocol/enum"),
            (format!("{service}fail = \"?\""), "/$defs/service/properties/fail/enum"),
            (format!("{service}recall = \"?\""), "/$defs/service/properties/recall/enum"),
            (format!("{service}after_detachment = \"?\""), "/$defs/service/properties/after_detachment/enum"),
            ("global.interfaces = []\nglobal.xdp_mode = \"?\"".into(), "/properties/global/properties/xdp_mode/enum"),
        ] {
            // serde names a single choice without "one of", but in the same quotes.
            assert_eq!(expected(&text), keys(pointer), "config/schema.json at {pointer} is to follow the file: {text}");
        }
    }

    #[test]
    fn a_change_replaces_what_it_names() {
        let check = |change: Value, expected: Value| {
            let mut document = object(json!({"a": 1, "health": {"rise": 2, "path": "/x"}}));
            patch(&mut document, &object(change));
            assert_eq!(Value::from(document), expected);
        };
        check(json!({}), json!({"a": 1, "health": {"rise": 2, "path": "/x"}}));
        check(json!({"a": 2, "b": 3}), json!({"a": 2, "b": 3, "health": {"rise": 2, "path": "/x"}}));
        check(json!({"health": {"rise": 5, "path": null}}), json!({"a": 1, "health": {"rise": 5}}));
        check(json!({"health": {"rise": 5}}), json!({"a": 1, "health": {"rise": 5, "path": "/x"}}));
    }

    #[test]
    fn a_change_is_carried_over_except_where_the_file_was_edited() {
        let before = object(json!({"a": 1, "b": 1, "c": {"x": 1, "y": 1}, "gone": 1}));
        let after = object(json!({"a": 2, "b": 1, "c": {"x": 1, "y": 2}, "new": 1}));
        let check = |file: Value, expected: Value| {
            let mut document = object(file);
            carry(&before, &after, &mut document);
            assert_eq!(Value::from(document), expected);
        };
        check(Value::from(before.clone()), Value::from(after.clone()));
        check(
            json!({"a": 9, "b": 1, "c": {"x": 1, "y": 1}, "gone": 1}),
            json!({"a": 9, "b": 1, "c": {"x": 1, "y": 2}, "new": 1}),
        );
        check(
            json!({"a": 1, "b": 9, "c": {"x": 9, "y": 9}, "gone": 9, "new": 9}),
            json!({"a": 2, "b": 9, "c": {"x": 9, "y": 9}, "gone": 9, "new": 9}),
        );
    }
}
