//! What packets tell of a backend: in the statistics and the metrics, without looking at the server.

use std::{
    net::{TcpListener, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result};
use lab::{Daemon, Family, Json, Lab, Layout, Nginx, Service, backend, run, test, unjudging};

/// Of a backend: repeated SYNs, refusals, handshakes, and responses of a class.
fn seen(stats: &Json, name: &str) -> Result<[u64; 4]> {
    let seen = &backend(stats, name)?["seen"];
    let number = |value: &Json| value.as_u64().with_context(|| format!("{name}: {seen:#}"));
    Ok([
        number(&seen["syn_retransmissions"])?,
        number(&seen["refused"])?,
        number(&seen["handshakes"]["count"])?,
        number(&seen["responses"]["5xx"])?,
    ])
}

fn unchecked(lab: &Lab) -> Service {
    let mut service = Service::web(lab, Family::V4);
    service.health.kind = "none";
    service
}

#[test]
fn responses_are_counted_by_class_and_handshakes_by_time() {
    test(&Layout::default(), |lab| {
        let servers = Nginx::start_all(lab)?;
        let daemon = Daemon::start(lab, &[unchecked(lab)])?;
        servers[0].fail(true)?;
        // Those of web-01 are no answers to this client, so the lab's own does not do.
        let url = Lab::VIP.url(Family::V4);
        for path in ["", "", "", "", "files/nothing"] {
            run(lab.client().node().command("curl").args(["-sS", "-o", "/dev/null", &format!("{url}{path}")]), "")?;
        }
        let stats = daemon.stats()?;
        let classes = |name: &str| -> Result<[u64; 3]> {
            let responses = &backend(&stats, name)?["seen"]["responses"];
            let number = |class: &str| responses[class].as_u64().with_context(|| format!("{responses}"));
            Ok([number("2xx")?, number("4xx")?, number("5xx")?])
        };
        let (first, second) = (classes("web-01")?, classes("web-02")?);
        assert_eq!((first[0], second[2], first[1] + second[1]), (0, 0, 1), "{stats:#}");
        assert_eq!(first.iter().chain(&second).sum::<u64>(), 5, "{stats:#}");
        for (name, total) in [("web-01", first.iter().sum::<u64>()), ("web-02", second.iter().sum())] {
            let seen = &backend(&stats, name)?["seen"];
            assert_eq!((&seen["handshakes"]["count"], &seen["requests"]), (&total.into(), &total.into()), "{stats:#}");
            assert!(seen["handshakes"]["median"].as_f64().is_some_and(|seconds| seconds < 0.5), "{stats:#}");
            assert_eq!((&seen["syn_retransmissions"], &seen["refused"]), (&0.into(), &0.into()), "{stats:#}");
        }
        let text = run(lab.front().command("curl").args(["-sS", "http://127.0.0.1:9633/metrics"]), "")?;
        let failed = text.lines().find(|line| line.starts_with("lb_http_responses_total{") && line.contains("5xx"));
        assert!(failed.is_some_and(|line| line.ends_with(&format!(" {}", first[2]))), "{text}");
        assert!(text.contains("lb_handshake_seconds_bucket{"), "{text}");
        Ok(())
    });
}

#[test]
fn a_closed_port_refuses_and_a_full_queue_leaves_syns_unanswered() {
    test(&Layout::default(), |lab| {
        let mut servers = Nginx::start_all(lab)?;
        // Otherwise who refuses half of the connections would soon get none.
        let daemon = Daemon::start_with(lab, &unjudging(lab, &[unchecked(lab)]))?;
        servers[0].stop()?;
        let tally = lab.client().curl(Lab::VIP.url(Family::V4), 8)?;
        assert_eq!(tally.total(), 8);
        let stats = daemon.stats()?;
        let [again, refused, handshakes, _] = seen(&stats, "web-01")?;
        assert!(refused > 0 && again == refused && handshakes == 0, "{stats:#}");
        assert_eq!(seen(&stats, "web-02")?, [0, 0, 8, 0], "{stats:#}");

        // A queue of one that nobody empties: the kernel drops what comes beyond.
        let address = lab.webs()[0].address(Family::V4, 80);
        let full = lab.webs()[0].enter(|| TcpListener::bind(address))?;
        rustix::net::listen(&full, 0)?;
        let _waiting: Vec<_> = (0..2)
            .filter_map(|_| lab.front().enter(|| TcpStream::connect_timeout(&address, Duration::from_millis(300))).ok())
            .collect();
        let before = seen(&daemon.stats()?, "web-01")?;
        assert_eq!(lab.client().curl(Lab::VIP.url(Family::V4), 4)?.of("web-02"), 4);
        let stats = daemon.stats()?;
        let [again, refused, handshakes, _] = seen(&stats, "web-01")?;
        assert!(again > before[0] && refused == before[1] && handshakes == before[2], "{before:?}, {stats:#}");
        Ok(())
    });
}

#[test]
fn with_direct_return_what_is_not_seen_is_not_there() {
    test(&Layout::default(), |lab| {
        let daemon = Daemon::start(lab, &[Service { forward: "l2", ..unchecked(lab) }])?;
        let seen = &backend(&daemon.stats()?, "web-01")?["seen"].clone();
        assert_eq!((&seen["syn_retransmissions"], &seen["reset_by_client"]), (&0.into(), &0.into()));
        for unseen in ["refused", "reset_by_backend", "requests", "responses", "handshakes"] {
            assert!(seen[unseen].is_null(), "{seen:#}");
        }
        Ok(())
    });
}
