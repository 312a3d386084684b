use std::{
    collections::BTreeSet,
    io::Write as _,
    process::{Command, Stdio},
    time::Duration,
};

use super::*;
use crate::{
    alarm::{Kind, Severity},
    dataplane::{BackendCounters, Counters, DropCount, ServiceCounters, Sight, Usage, XdpMode},
    model::{Agent, Model, Overrides},
    status,
};

const FILE: &str = r#"
global.interfaces = ["eth0"]
[service.web]
listen = "203.0.113.10:80"
agent = {}
backend = [{ name = "web-01", address = "10.0.0.11:80" }, { name = "web-02", address = "10.0.0.12:80" }]
"#;

/// A service that had more backends once.
pub(crate) fn scrape() -> Scrape {
    let config = crate::config::Config::parse("lb.toml".as_ref(), FILE).unwrap();
    let at = Timestamp::from_second(1_700_000_000).unwrap();
    let mut model = Model::new(&config.services, &Overrides::default(), at);
    let at_red_line =
        Agent { percent: Some(0), memory: Some(3), words: "ready 0% # <full>".into(), ..Agent::default() };
    model.hear("web", "web-01", &at_red_line, Some(40), at);
    let counters =
        |connections| Counters { connections, packets_in: 10, bytes_in: 1000, packets_out: 20, bytes_out: 2000 };
    let sight = |begun| {
        let handshakes = std::array::from_fn(|bucket| if bucket == 3 { begun } else { 0 });
        let responses = [0, begun, 0, 1, 2];
        Sight {
            packets: 0,
            bytes: 0,
            packets_out: 0,
            bytes_out: 0,
            begun,
            opened: begun,
            repeated: 3,
            refused: 4,
            reset: 5,
            aborted: 6,
            handshakes,
            handshake_ns: 7_000_000,
            requests: begun + 4,
            responses,
        }
    };
    let backend = |name: &str, address: &str, connections| BackendCounters {
        name: name.into(),
        address: address.parse().unwrap(),
        in_rotation: true,
        connections: 3,
        nat_ports: 3,
        totals: counters(connections),
        sight: sight(connections),
    };
    let mut totals = counters(100);
    totals += Counters { packets_in: 10, bytes_in: 1000, packets_out: 20, bytes_out: 2000, connections: 0 };
    let mut removed = sight(100);
    removed += Sight { begun: 0, ..sight(0) };
    let service = &config.services[0];
    let snapshot = Snapshot {
        services: vec![ServiceCounters {
            name: "web".into(),
            listen: service.listen,
            protocol: service.protocol,
            algorithm: service.algorithm,
            forward: service.forward,
            totals,
            sight: removed,
            backends: vec![backend("web-01", "10.0.0.11:80", 40), backend("web-02", "10.0.0.12:80", 2)],
        }],
        drops: vec![DropCount { reason: "no_backend", packets: 5 }],
        flows: Usage { used: 6, capacity: 128 },
        nat: Usage { used: 6, capacity: 65536 },
        nat_ports_per_backend: 31744,
    };
    let mut tallies = Tallies::new(at);
    let key = std::sync::Arc::new(("web".to_owned(), "web-01".to_owned()));
    tallies.check(&key, true, Duration::from_millis(3));
    tallies.check(&key, false, Duration::from_secs(1));
    tallies.pass(&model, at + Duration::from_secs(7));
    let alarm = AlarmStatus {
        alarm: Kind::RedundancyLost,
        severity: Severity::Critical,
        service: Some("web".into()),
        backend: None,
        summary: "a <b> & \"c\"".into(),
        since: at,
        firing_since: at,
        silenced_until: None,
    };
    let overview = Overview {
        services: status::of(&model, &snapshot, at),
        checks: ChecksStatus { running: 2, heartbeat: Some(at), overdue: 0, restarted: 0 },
        tallies,
        interfaces: vec!["eth0".into(), "eth1".into()],
        alarms: vec![alarm],
        silences: Vec::new(),
        couriers: vec![("page exec".into(), Tally { delivered: 2, ..Tally::default() })],
        maps_current: true,
        at,
    };
    let attachments = vec![Attachment { interface: "eth0".into(), mode: XdpMode::Native, adopted: false }];
    Scrape { snapshot, attachments, overview }
}

#[test]
fn every_value_is_where_its_name_says() {
    let text = scrape().openmetrics();
    for line in [
        "# TYPE lb_connections counter",
        r#"lb_connections_total{service="web",backend="web-01",address="10.0.0.11:80"} 40"#,
        r#"lb_connections_total{service="web",backend="(removed)",address=""} 58"#,
        r#"lb_packets_total{service="web",backend="web-01",address="10.0.0.11:80",direction="out"} 20"#,
        r#"lb_bytes_total{service="web",backend="web-02",address="10.0.0.12:80",direction="in"} 1000"#,
        r#"lb_drops_total{reason="no_backend"} 5"#,
        r#"lb_backend_in_rotation{service="web",backend="web-01"} 0"#,
        r#"lb_backend_ejections_total{service="web",backend="web-01"} 0"#,
        r#"lb_backend_in_trouble{service="web",backend="web-02"} 0"#,
        r#"lb_backend_out_of_rotation_seconds_total{service="web",backend="web-01",cause="unreachable"} 7.0"#,
        r#"lb_backend_health{service="web",backend="web-01",state="unknown"} 1"#,
        r#"lb_backend_agent_percent{service="web",backend="web-01"} 0"#,
        r#"lb_backend_agent_known{service="web",backend="web-01"} 1"#,
        r#"lb_backend_agent_known{service="web",backend="web-02"} 0"#,
        r#"lb_backend_agent_heard_timestamp_seconds{service="web",backend="web-01"} 1700000000"#,
        r#"lb_backend_agent_memory_available_ratios{service="web",backend="web-01"} 0.03"#,
        r#"lb_backend_max_connections{service="web",backend="web-01"} 40"#,
        r#"lb_backend_share_ratios{service="web",backend="web-01"} 0.0"#,
        r#"lb_health_checks_total{service="web",backend="web-01",result="failed"} 1"#,
        "# TYPE lb_health_check_duration_seconds histogram",
        r#"lb_health_check_duration_seconds_bucket{le="0.005",service="web",backend="web-01"} 1"#,
        r#"lb_health_check_duration_seconds_bucket{le="+Inf",service="web",backend="web-01"} 2"#,
        r#"lb_health_check_duration_seconds_count{service="web",backend="web-01"} 2"#,
        r#"lb_service_verdict{service="web",verdict="down"} 1"#,
        r#"lb_map_entries{map="flows"} 6"#,
        r#"lb_map_capacity{map="nat"} 65536"#,
        r#"lb_xdp_attached{interface="eth0",mode="native"} 1"#,
        r#"lb_xdp_attached{interface="eth1",mode="none"} 0"#,
        "lb_config_last_reload_successful 1",
        "lb_config_last_reload_success_timestamp_seconds 1700000000",
        concat!("lb_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
        r#"lb_alarm_firing{alarm="redundancy-lost",service="web",backend="",severity="critical",silenced="false"} 1"#,
        r#"lb_alarm_deliveries_total{to="page exec",result="delivered"} 2"#,
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    assert!(text.ends_with("# EOF\n"));
}

#[test]
fn no_sample_stands_there_twice() {
    let text = scrape().classic();
    let mut seen = BTreeSet::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let sample = line.rsplit_once(' ').unwrap().0;
        assert!(seen.insert(sample), "{sample} stands there twice");
    }
}

/// Names, units and help as conventions want them, by the tool that knows them.
#[test]
fn promtool_has_no_complaint() {
    let Ok(mut promtool) =
        Command::new("promtool").args(["check", "metrics"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn()
    else {
        assert!(std::env::var_os("CI").is_none(), "promtool is missing: `cargo xtask setup` installs it");
        eprintln!("skipped promtool_has_no_complaint: there is no promtool; `cargo xtask setup` installs it");
        return;
    };
    promtool.stdin.take().unwrap().write_all(scrape().classic().as_bytes()).unwrap();
    let said = promtool.wait_with_output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    assert_eq!(String::from_utf8_lossy(&said.stderr), "");
}

/// What the files that ship ask for.
#[test]
fn every_metric_in_rules_and_dashboard_is_exported() {
    let text = scrape().classic();
    let exported: BTreeSet<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let rules = include_str!("../../monitoring/lb.rules.yml");
    let expressions = rules.lines().filter(|line| !line.trim_start().starts_with(['#', '-']) && !line.contains("`lb"));
    let dashboard = include_str!("../../monitoring/lb.dashboard.json");
    let asked =
        dashboard.lines().filter(|line| ["expr", "query"].iter().any(|key| line.contains(&format!("\"{key}\":"))));
    let mut found = 0;
    for line in expressions.chain(asked) {
        let words = line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        for name in words.filter(|word| word.starts_with("lb_") || word.starts_with("process_")) {
            let family = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
            let known = exported.contains(name) || family.is_some_and(|family| exported.contains(family));
            assert!(known, "{name} is not exported: {line}");
            found += 1;
        }
    }
    assert!(found > 60, "{found}");
}
