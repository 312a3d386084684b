//! What is exported is what happened, it never goes back, and conventions hold.

use std::{
    fs,
    net::SocketAddr,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use lab::{Daemon, Family, Lab, Layout, Nginx, Service, configuration, eventually, run, test};

const HTTP: &str = "127.0.0.1:9633";

#[test]
fn counters_say_what_was_forwarded_and_never_go_back() {
    test(&Layout::default(), |lab| {
        let mut servers = Nginx::start_all(lab)?;
        let mut daemon = Daemon::start(lab, &[Service::web(lab, Family::V4)])?;
        let url = Lab::VIP.url(Family::V4);
        let tally = lab.client().curl(&url, 40)?;
        assert_eq!(tally.total(), 40);
        let text = metrics(lab)?;
        assert_eq!(sum(&text, "lb_connections_total", &[]), 40.0, "{text}");
        let of = |name| sum(&text, "lb_connections_total", &[("backend", name)]);
        assert_eq!([of("web-01"), of("web-02")], [tally.of("web-01") as f64, tally.of("web-02") as f64]);
        for (name, labels, least) in [
            ("lb_packets_total", [("direction", "in"), ("service", "web")], 40.0),
            ("lb_bytes_total", [("direction", "out"), ("service", "web")], 4000.0),
            ("lb_health_checks_total", [("result", "passed"), ("backend", "web-02")], 1.0),
            ("lb_health_check_duration_seconds_count", [("backend", "web-01"), ("service", "web")], 1.0),
            ("lb_xdp_attached", [("interface", "eth0"), ("mode", "native")], 1.0),
            ("lb_backend_in_rotation", [("backend", "web-01"), ("service", "web")], 1.0),
        ] {
            assert!(sum(&text, name, &labels) >= least, "{name}{labels:?} in\n{text}");
        }

        servers[0].stop()?;
        daemon.await_rotation("web-01", false)?;
        let out = [("backend", "web-01"), ("cause", "down")];
        eventually("time out of rotation", Duration::from_secs(10), || {
            Ok((sum(&metrics(lab)?, "lb_backend_out_of_rotation_seconds_total", &out) > 0.5).then_some(()))
        })?;
        assert_eq!(sum(&metrics(lab)?, "lb_backend_in_rotation", &[("backend", "web-01")]), 0.0);

        // Neither a restart nor the end of a backend takes anything away.
        daemon.kill()?;
        daemon.start_again()?;
        assert_eq!(sum(&metrics(lab)?, "lb_connections_total", &[]), 40.0);
        assert_eq!(daemon.lb(&["backend", "remove", "web/web-01"])?.code, Some(0));
        let text = metrics(lab)?;
        assert_eq!(sum(&text, "lb_connections_total", &[]), 40.0, "{text}");
        let removed = sum(&text, "lb_connections_total", &[("backend", "(removed)")]);
        assert_eq!(removed, tally.of("web-01") as f64);
        Ok(())
    });
}

#[test]
fn the_formats_are_those_that_are_asked_for() {
    test(&Layout::default(), |lab| {
        let _servers = Nginx::start_all(lab)?;
        let _daemon = Daemon::start(lab, &[Service::web(lab, Family::V4)])?;
        let get = |accept: &str| {
            let mut curl = lab.front().command("curl");
            curl.args(["-sS", "-i", "-H", &format!("Accept: {accept}"), &format!("http://{HTTP}/metrics")]);
            run(&mut curl, "")
        };
        let openmetrics = get("application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5")?;
        let kind = "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8";
        assert!(openmetrics.contains(kind) && openmetrics.ends_with("# EOF\n"), "{openmetrics}");
        let classic = get("*/*")?;
        assert!(classic.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{classic}");
        let (_, body) = classic.split_once("\r\n\r\n").context("there is a body")?;
        let said = run(Command::new("promtool").args(["check", "metrics"]).stdin(Stdio::piped()), body)?;
        assert_eq!(said, "");
        Ok(())
    });
}

#[test]
fn a_page_and_two_answers_say_how_it_is() {
    test(&Layout::default(), |lab| {
        let mut servers = Nginx::start_all(lab)?;
        let daemon = Daemon::start(lab, &[Service::web(lab, Family::V4)])?;
        assert_eq!(get(lab, "/healthz")?, "200 ok\n");
        assert_eq!(get(lab, "/readyz")?, "200 ready\n");
        assert!(get(lab, "/nothing")?.starts_with("404 "));
        servers[1].stop()?;
        daemon.await_rotation("web-02", false)?;
        let page = eventually("an alarm on the page", Duration::from_secs(20), || {
            let page = get(lab, "/")?;
            Ok(page.contains("redundancy-lost").then_some(page))
        })?;
        assert!(page.contains("degraded") && page.contains("connection refused"), "{page}");
        // What is out comes first.
        let place = |name: &str| page.find(&format!("<td>{name}<td>")).with_context(|| format!("{name} in {page}"));
        assert!(place("web-02")? < place("web-01")?, "{page}");
        Ok(())
    });
}

#[test]
fn an_address_that_is_taken_stops_the_start_and_off_does_without() {
    test(&Layout::default(), |lab| {
        let _servers = Nginx::start_all(lab)?;
        let address: SocketAddr = HTTP.parse()?;
        let _taken = lab.front().enter(|| std::net::TcpListener::bind(address))?;
        let text = configuration(lab, &[Service::web(lab, Family::V4)]);
        let error = format!("{:#}", Daemon::start_with(lab, &text).unwrap_err());
        let told = "cannot listen on 127.0.0.1:9633 for /metrics";
        assert!(error.contains(told) && error.contains("\"off\""), "{error}");
        assert!(!lab.pin_dir().join("META").exists(), "nothing stays pinned");
        let daemon = Daemon::start_with(lab, &text.replace("[global]", "[global]\nhttp = \"off\""))?;
        assert_eq!(daemon.status()?["services"][0]["verdict"], "ok");
        fs::write(daemon.config(), text.replace("[global]", "[global]\nhttp = \"localhost\""))?;
        let refused = daemon.lb(&["config", "reload"])?;
        assert!(refused.code == Some(1) && refused.stderr.contains("is not IP:PORT"), "{refused:?}");
        Ok(())
    });
}

fn metrics(lab: &Lab) -> Result<String> {
    let text = get(lab, "/metrics")?;
    Ok(text.strip_prefix("200 ").context("there are metrics")?.to_owned())
}

/// Status and body.
fn get(lab: &Lab, path: &str) -> Result<String> {
    let mut curl = lab.front().command("curl");
    curl.args(["-sS", "-w", "\n%{http_code}", &format!("http://{HTTP}{path}")]);
    let text = run(&mut curl, "")?;
    let (body, status) = text.rsplit_once('\n').context("curl says the status")?;
    ensure!(!status.is_empty(), "{text}");
    Ok(format!("{status} {body}"))
}

/// The sum of all samples of a name that have these labels.
fn sum(text: &str, name: &str, labels: &[(&str, &str)]) -> f64 {
    let samples = text.lines().filter(|line| {
        let found = line.split(['{', ' ']).next() == Some(name);
        found && labels.iter().all(|(key, value)| line.contains(&format!("{key}=\"{value}\"")))
    });
    samples.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}
