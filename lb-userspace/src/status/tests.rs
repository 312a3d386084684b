use super::*;
use crate::model::Verdict;
use crate::{
    dataplane::{Counters, Sight},
    model::{Overrides, Rejection},
    plan::NextHop,
};

const FILE: &str = r#"
global.interfaces = ["eth0"]
[service.web]
listen = "203.0.113.10:80"
backend = [{ name = "web-01", address = "10.0.0.11:80" }, { name = "web-02", address = "10.0.0.12:80" }]
"#;

/// The service of [`FILE`], the first `serving` backends in rotation.
fn model(serving: usize) -> Model {
    let config = crate::config::Config::parse("lb.toml".as_ref(), FILE).unwrap();
    let mut model = Model::new(&config.services, &Overrides::default(), Timestamp::UNIX_EPOCH);
    let hop = NextHop { ifindex: 2, source: "10.0.0.1".parse().unwrap(), source_mac: [2; 6], mac: [4; 6], mtu: 1500 };
    let routes = model.addresses().into_iter().map(|address| (address, Ok(hop))).collect();
    model.resolve(&routes, Timestamp::UNIX_EPOCH);
    let later: Timestamp = "2026-02-26T14:11:00.123456Z".parse().unwrap();
    for index in 0..2 {
        let result = if index < serving { Ok("HTTP 200".into()) } else { Err("HTTP 500".into()) };
        model.observe("web", ["web-01", "web-02"][index], &result, later);
    }
    model
}

#[test]
fn the_verdict_counts_backends_in_rotation() {
    for (serving, verdict) in [(2, Verdict::Ok), (1, Verdict::Degraded), (0, Verdict::Down)] {
        let status = of(&model(serving), &Snapshot::default(), Timestamp::UNIX_EPOCH).remove(0);
        assert_eq!((status.verdict, status.in_rotation, status.total), (verdict, serving, 2));
    }
}

#[test]
fn a_service_without_backends_is_down() -> Result<(), Rejection> {
    let mut model = model(2);
    model.remove("web", "web-01", true)?;
    model.remove("web", "web-02", true)?;
    let status = of(&model, &Snapshot::default(), Timestamp::UNIX_EPOCH).remove(0);
    assert_eq!((status.verdict, status.total), (Verdict::Down, 0));
    Ok(())
}

#[test]
fn the_json_is_as_documented() {
    let counters = |name: &str, address: &str| BackendCounters {
        name: name.into(),
        address: address.parse().unwrap(),
        in_rotation: true,
        nat_ports: 0,
        connections: 12,
        totals: Counters { connections: 3456, packets_in: 1, bytes_in: 10, packets_out: 2, bytes_out: 20 },
        sight: Sight::default(),
    };
    let mut snapshot = Snapshot::default();
    snapshot.services.push(crate::dataplane::ServiceCounters {
        name: "web".into(),
        listen: "203.0.113.10:80".parse().unwrap(),
        protocol: Default::default(),
        algorithm: Default::default(),
        forward: Default::default(),
        totals: Counters::default(),
        sight: Sight::default(),
        // The second is another server of that name: its counters are not web-02's.
        backends: vec![counters("web-01", "10.0.0.11:80"), counters("web-02", "10.0.0.99:80")],
    });
    let found = serde_json::to_value(of(&model(1), &snapshot, Timestamp::UNIX_EPOCH)).unwrap();
    let expected = serde_json::json!([{
        "name": "web", "listen": "203.0.113.10:80", "protocol": "tcp", "algorithm": "round-robin", "forward": "nat",
        "verdict": "degraded", "in_rotation": 1, "total": 2,
        "min_healthy": 1, "fail": "closed", "fails_open": false,
        "backends": [{
            "name": "web-01", "address": "10.0.0.11:80", "in_rotation": true, "admin": "enabled", "health": "up",
            "passive": "ok", "weight": 1, "since": "2026-02-26T14:11:00Z", "cause": "HTTP 200",
            "connections": 12, "connections_total": 3456, "packets_total": 3, "bytes_total": 30,
        }, {
            "name": "web-02", "address": "10.0.0.12:80", "in_rotation": false, "admin": "enabled", "health": "down",
            "passive": "ok", "weight": 1, "since": "2026-02-26T14:11:00Z", "cause": "HTTP 500",
            "connections": 0, "connections_total": 0, "packets_total": 0, "bytes_total": 0,
        }],
    }]);
    assert_eq!(found, expected);
}
