//! A server that was taken out for a test is called back when the others cannot do without it.

use anyhow::{Result, ensure};
use lab::{Daemon, Family, Lab, Layout, Nginx, Service, backend, configuration, eventually, test};
use std::time::Duration;

/// A daemon with `web`, called back by this rule; none for the default.
fn start(lab: &Lab, recall: Option<&str>) -> Result<Daemon> {
    let text = configuration(lab, &[Service::web(lab, Family::V4)]);
    let key = recall.map(|rule| format!("recall = \"{rule}\"\n")).unwrap_or_default();
    Daemon::start_with(lab, &text.replacen("[service.web]\n", &format!("[service.web]\n{key}"), 1))
}

fn disable(daemon: &Daemon) -> Result<()> {
    let outcome = daemon.lb(&["backend", "disable", "web/web-02", "--for", "1h", "--reason", "kernel test"])?;
    ensure!(outcome.code == Some(0), "{outcome:?}");
    Ok(())
}

fn is_called_back(recall: Option<&str>) {
    test(&Layout::default(), |lab| {
        let mut servers = Nginx::start_all(lab)?;
        let daemon = start(lab, recall)?;
        disable(&daemon)?;
        servers[0].stop()?;
        let back = daemon.await_rotation("web-02", true)?;
        ensure!(back["admin"] == "enabled" && back["ended"]["value"] == "recalled", "{back:#}");
        let cause = back["cause"].as_str().unwrap_or_default();
        ensure!(cause.starts_with("called back: ") && cause.contains("web-01"), "{cause}");
        ensure!(cause.ends_with("it had been disabled by uid 0: kernel test"), "{cause}");
        let events = daemon.lb(&["events", "-o", "json"])?.stdout;
        ensure!(events.contains("\"actor\":\"recall\"") || events.contains("\"actor\": \"recall\""), "{events}");
        let url = Lab::VIP.url(Family::V4);
        daemon.await_rotation("web-01", false)?;
        let tally = lab.client().curl(&url, 50)?;
        ensure!((tally.of("web-02"), tally.failures.len()) == (50, 0), "{tally:?}");
        Ok(())
    });
}

#[test]
fn by_default_it_comes_back_when_the_other_fails() {
    is_called_back(None);
}

#[test]
fn the_last_to_go_calls_it_back() {
    is_called_back(Some("last"));
}

#[test]
fn a_restarted_daemon_remembers_that_it_was_called_back() {
    test(&Layout::default(), |lab| {
        let mut servers = Nginx::start_all(lab)?;
        let mut daemon = start(lab, None)?;
        disable(&daemon)?;
        servers[0].stop()?;
        daemon.await_rotation("web-02", true)?;
        daemon.kill()?;
        daemon.start_again()?;
        let status = daemon.status()?;
        ensure!(backend(&status, "web-02")?["admin"] == "enabled", "{status:#}");
        Ok(())
    });
}

#[test]
fn who_is_never_to_be_called_back_stays_out() {
    test(&Layout::default(), |lab| {
        let mut servers = Nginx::start_all(lab)?;
        let daemon = start(lab, Some("never"))?;
        disable(&daemon)?;
        servers[0].stop()?;
        eventually("a service that is down", Duration::from_secs(20), || {
            Ok((daemon.status()?["services"][0]["verdict"] == "down").then_some(()))
        })?;
        let status = daemon.status()?;
        let web = backend(&status, "web-02")?;
        ensure!(web["admin"] == "disabled" && web["health"] == "up", "{web:#}");
        // As the operator may still say.
        let outcome = daemon.lb(&["backend", "disable", "web/web-02", "--recall", "last"])?;
        ensure!(outcome.code == Some(0), "{outcome:?}");
        ensure!(backend(&daemon.status()?, "web-02")?["detachment"]["recall"] == "last", "it is on record");
        Ok(())
    });
}
