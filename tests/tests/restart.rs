//! Forwarding does not depend on the daemon being there.

use std::time::Duration;

use anyhow::Result;
use lab::{Daemon, Family, Lab, Layout, Load, Nginx, Service, eventually, test};

#[test]
fn a_killed_daemon_loses_no_connection_and_its_successor_no_request() {
    test(&Layout::default(), |lab| check(lab, Daemon::kill));
}

#[test]
fn a_stopped_daemon_loses_no_connection_and_its_successor_no_request() {
    test(&Layout::default(), |lab| {
        check(lab, |daemon| {
            let status = daemon.stop()?;
            assert!(status.success(), "SIGTERM ends the daemon with {status}");
            Ok(())
        })
    });
}

fn check(lab: &Lab, end: impl FnOnce(&mut Daemon) -> Result<()>) -> Result<()> {
    let _servers = Nginx::start_all(lab)?;
    let mut daemon = Daemon::start(lab, &[Service::web(lab, Family::V4)])?;
    let (client, vip) = (lab.client(), Lab::VIP.socket(Family::V4));
    let mut open = (0..20).map(|_| client.connect(vip)).collect::<Result<Vec<_>>>()?;
    let owners = open.iter_mut().map(|connection| Ok(connection.get()?.body)).collect::<Result<Vec<_>>>()?;
    let load = client.load(vip, 8);
    await_requests(&load, 500)?;

    end(&mut daemon)?;
    let at_end = load.progress().tally.total();
    await_requests(&load, at_end + 1000)?;
    for (connection, owner) in open.iter_mut().zip(&owners) {
        assert_eq!(&connection.get()?.body, owner);
    }
    assert_eq!(daemon.lb(&["status"])?.code, Some(6));
    let without_daemon = connections_total(&daemon)?;
    assert!(without_daemon >= at_end + 1000);

    daemon.start_again()?;
    let at_start = load.progress().tally.total();
    await_requests(&load, at_start + 1000)?;
    for (connection, owner) in open.iter_mut().zip(&owners) {
        assert_eq!(&connection.get()?.body, owner);
    }
    let progress = load.stop();
    assert!(progress.failures.is_empty(), "{:?}", progress.failures);
    let status = daemon.status()?;
    assert_eq!(status["services"][0]["in_rotation"], 2, "{status:#}");
    assert_eq!(connections_total(&daemon)?, progress.tally.total() + 20);
    Ok(())
}

fn await_requests(load: &Load, count: u64) -> Result<()> {
    eventually(&format!("{count} answers"), Duration::from_secs(30), || {
        Ok((load.progress().tally.total() >= count).then_some(()))
    })
}

fn connections_total(daemon: &Daemon) -> Result<u64> {
    Ok(daemon.stats()?["services"][0]["connections_total"].as_u64().expect("a number"))
}
