//! A server whose answers are bad gets less and then nothing, whatever its checks say, and has it back once it is well.

use std::{net::SocketAddr, thread, time::Duration};

use anyhow::{Result, ensure};
use lab::{Daemon, Family, Json, Lab, Layout, Nginx, Service, backend, configuration, eventually, test};

const PATIENCE: Duration = Duration::from_secs(30);

/// Checks pass whatever happens: what is found is found in the traffic.
fn start(lab: &Lab) -> Result<Daemon> {
    let mut service = Service::web(lab, Family::V4);
    service.health.kind = "none";
    let passive = "\n[service.web.passive]\nwindow = \"4s\"\neject_for = \"5s\"\n";
    Daemon::start_with(lab, &(configuration(lab, &[service]) + passive))
}

/// Visits the site until the status of a server is as it should be.
fn visit_until(lab: &Lab, daemon: &Daemon, name: &str, what: &str, is: impl Fn(&Json) -> bool) -> Result<Json> {
    eventually(&format!("{name} {what}"), PATIENCE, || {
        lab.client().curl(Lab::VIP.url(Family::V4), 20)?;
        let backend = backend(&daemon.status()?, name)?.clone();
        Ok(is(&backend).then_some(backend))
    })
}

fn await_alarm(daemon: &Daemon, kind: &str, name: &str) -> Result<Json> {
    eventually(&format!("the alarm {kind} of {name}"), PATIENCE, || {
        let status = daemon.status()?;
        let alarms = status["alarms"].as_array().cloned().unwrap_or_default();
        Ok(alarms.into_iter().find(|alarm| alarm["alarm"] == kind && alarm["backend"] == name))
    })
}

#[test]
fn who_answers_500_is_ejected_and_returns_when_it_is_well() {
    test(&Layout::default(), |lab| {
        let servers = Nginx::start_all(lab)?;
        let daemon = start(lab)?;
        visit_until(lab, &daemon, "web-01", "is seen", |_| true)?;
        servers[0].fail(true)?;
        // For a second, for two, and then, as nothing of it works still, for long enough to look at it.
        let cause = |backend: &Json| backend["cause"].as_str().unwrap_or_default().to_owned();
        let for_long = |backend: &Json| cause(backend).starts_with("ejected for 4s: ");
        let out = visit_until(lab, &daemon, "web-01", "is ejected", for_long)?;
        ensure!(out["passive"] == "ejected" && cause(&out).contains(" were 5xx, of the others' 0 %"), "{out:#}");
        ensure!(out["in_rotation"] == false && out["health"] == "up" && out["ejected_until"].is_string(), "{out:#}");
        let tally = lab.client().curl(Lab::VIP.url(Family::V4), 20)?;
        ensure!((tally.of("web-02"), tally.failures.len()) == (20, 0), "{tally:?}");
        let alarm = await_alarm(&daemon, "ejected", "web-01")?;
        ensure!(alarm["summary"].as_str().is_some_and(|summary| summary.contains("were 5xx")), "{alarm:#}");

        servers[0].fail(false)?;
        let well = |backend: &Json| backend["in_rotation"] == true && backend["share"].is_null();
        let back = visit_until(lab, &daemon, "web-01", "has its share back", well)?;
        ensure!(
            back["passive"] == "ok" && back["ejected_until"].is_null() && back["ejections_total"].as_u64() >= Some(3),
            "{back:#}"
        );
        Ok(())
    });
}

#[test]
fn who_accepts_and_says_nothing_is_ejected_though_nobody_can_read_what_others_say() {
    test(&Layout::default(), |lab| {
        let servers = Nginx::start_all(lab)?;
        let mut service = Service::web(lab, Family::V4);
        service.health.kind = "tcp";
        let https = |address: &mut SocketAddr| address.set_port(443);
        https(&mut service.listen);
        service.backends.iter_mut().for_each(|(_, address, _)| https(address));
        let url = format!("https://{}/", service.listen);
        let daemon = Daemon::start(lab, &[service])?;
        let tally = lab.client().curl(&url, 60)?;
        ensure!(tally.failures.is_empty(), "{tally:?}");

        servers[0].freeze(true)?;
        let out = eventually("web-01 is ejected", PATIENCE, || {
            // As many at a time as do not wait for each other.
            thread::scope(|scope| (0..8).for_each(|_| drop(scope.spawn(|| lab.client().curl(&url, 2)))));
            let backend = backend(&daemon.status()?, "web-01")?.clone();
            Ok((backend["passive"] == "ejected").then_some(backend))
        })?;
        ensure!(out["cause"].as_str().is_some_and(|cause| cause.contains(" had no response")), "{out:#}");
        ensure!(out["health"] == "up", "its check passes: {out:#}");
        let tally = lab.client().curl(&url, 20)?;
        ensure!((tally.of("web-02"), tally.failures.len()) == (20, 0), "{tally:?}");
        Ok(())
    });
}

#[test]
fn nobody_is_ejected_where_all_fail_and_somebody_is_told() {
    test(&Layout::default(), |lab| {
        let servers = Nginx::start_all(lab)?;
        servers.iter().try_for_each(|server| server.fail(true))?;
        let daemon = start(lab)?;
        let told = |backend: &Json| backend["complaint"].as_str().is_some_and(|why| why.contains("100 % of"));
        for name in ["web-01", "web-02"] {
            let backend = visit_until(lab, &daemon, name, "is complained of", told)?;
            ensure!(backend["in_rotation"] == true && backend["passive"] == "ok", "{backend:#}");
        }
        for name in ["web-01", "web-02"] {
            eventually(&format!("the alarm failing of {name}"), PATIENCE, || {
                lab.client().curl(Lab::VIP.url(Family::V4), 20)?;
                let alarms = daemon.lb(&["alarm", "list"])?.stdout;
                Ok((alarms.contains("failing") && alarms.contains(&format!("web/{name}"))).then_some(()))
            })?;
        }
        let status = daemon.status()?;
        ensure!(status["services"][0]["in_rotation"] == 2, "{status:#}");
        Ok(())
    });
}

#[test]
fn a_server_out_for_a_test_is_called_back_when_the_other_answers_500() {
    test(&Layout::default(), |lab| {
        let servers = Nginx::start_all(lab)?;
        let daemon = start(lab)?;
        visit_until(lab, &daemon, "web-01", "is seen", |_| true)?;
        let outcome = daemon.lb(&["backend", "disable", "web/web-02", "--for", "1h", "--reason", "kernel test"])?;
        ensure!(outcome.code == Some(0), "{outcome:?}");
        servers[0].fail(true)?;
        let back = visit_until(lab, &daemon, "web-02", "is called back", |backend| backend["in_rotation"] == true)?;
        let cause = back["cause"].as_str().unwrap_or_default();
        ensure!(
            cause.starts_with("called back: web-01 is under pressure: ") && cause.contains(" were 5xx"),
            "{back:#}"
        );
        visit_until(lab, &daemon, "web-01", "is ejected", |backend| backend["passive"] == "ejected")?;
        let tally = lab.client().curl(Lab::VIP.url(Family::V4), 20)?;
        ensure!((tally.of("web-02"), tally.failures.len()) == (20, 0), "{tally:?}");
        Ok(())
    });
}
