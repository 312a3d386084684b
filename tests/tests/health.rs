//! A web server that fails is out of rotation after `fall` probes and back after `rise`, however it fails.

use std::time::{Duration, Instant};

use anyhow::Result;
use lab::{Daemon, Family, Health, Lab, Layout, Nginx, Service, backend, test};

#[test]
fn a_stopped_server_fails_no_request_once_it_is_out_of_rotation() {
    test(&Layout::default(), |lab| check(lab, Family::V4, Health::default(), |nginx| nginx.stop(), Nginx::start));
}

#[test]
fn a_stopped_server_is_noticed_over_ipv6_by_tcp_probes() {
    let health = Health { kind: "tcp", ..Health::default() };
    test(&Layout::default(), |lab| check(lab, Family::V6, health, |nginx| nginx.stop(), Nginx::start));
}

#[test]
fn a_server_that_answers_500_is_out_of_rotation_just_the_same() {
    test(&Layout::default(), |lab| {
        check(lab, Family::V4, Health::default(), |nginx| nginx.fail(true), |nginx| nginx.fail(false))
    });
}

#[test]
fn a_server_that_is_silent_is_out_of_rotation_just_the_same() {
    test(&Layout::default(), |lab| {
        check(lab, Family::V4, Health::default(), |nginx| nginx.freeze(true), |nginx| nginx.freeze(false))
    });
}

fn check(
    lab: &Lab,
    family: Family,
    health: Health,
    fail: impl FnOnce(&mut Nginx) -> Result<()>,
    recover: impl FnOnce(&mut Nginx) -> Result<()>,
) -> Result<()> {
    let mut servers = Nginx::start_all(lab)?;
    let Health { interval, timeout, rise, fall, .. } = health;
    let daemon = Daemon::start(lab, &[Service { health, ..Service::web(lab, family) }])?;
    let url = Lab::VIP.url(family);
    assert_eq!(daemon.status()?["services"][0]["verdict"], "ok");

    let failed = Instant::now();
    fail(&mut servers[0])?;
    let down = daemon.await_rotation("web-01", false)?;
    assert_soon(failed, fall * (interval + timeout));
    assert_eq!((&down["health"], &down["admin"]), (&"down".into(), &"enabled".into()), "{down:#}");
    assert_eq!(daemon.status()?["services"][0]["verdict"], "degraded");

    let before = connections(&daemon)?;
    let tally = lab.client().curl(&url, 500)?;
    assert_eq!((tally.of("web-02"), tally.failures.len()), (500, 0), "{tally:?}");
    let after = connections(&daemon)?;
    assert_eq!([after[0] - before[0], after[1] - before[1]], [0, 500]);

    let recovered = Instant::now();
    recover(&mut servers[0])?;
    daemon.await_rotation("web-01", true)?;
    assert_soon(recovered, rise * (interval + timeout));
    let tally = lab.client().curl(&url, 100)?;
    assert!(tally.failures.is_empty(), "{tally:?}");
    let tolerance = 2 * std::thread::available_parallelism()?.get() as u64;
    assert!(tally.of("web-01").abs_diff(50) <= tolerance, "{tally:?}");
    assert_eq!(daemon.status()?["services"][0]["verdict"], "ok");
    Ok(())
}

/// Two seconds more than it may take, for a machine that does other things as well.
fn assert_soon(since: Instant, patience: Duration) {
    let elapsed = since.elapsed();
    assert!(elapsed < patience + Duration::from_secs(2), "it took {elapsed:?}, more than {patience:?}");
}

fn connections(daemon: &Daemon) -> Result<[u64; 2]> {
    let stats = daemon.stats()?;
    let of = |name| Ok::<_, anyhow::Error>(backend(&stats, name)?["connections_total"].as_u64().expect("a number"));
    Ok([of("web-01")?, of("web-02")?])
}
