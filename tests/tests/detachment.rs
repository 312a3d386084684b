//! A backend that is taken out comes back: by itself, or because somebody is told until he acts.

use std::{process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};
use lab::{Daemon, Family, Json, Lab, Layout, Nginx, Service, backend, configuration, eventually, test};

/// The configuration of `web` with more keys.
fn with(lab: &Lab, keys: &str) -> String {
    configuration(lab, &[Service::web(lab, Family::V4)]).replacen(
        "[service.web]\n",
        &format!("[service.web]\n{keys}\n"),
        1,
    )
}

fn detach(daemon: &Daemon, arguments: &[&str]) -> Result<()> {
    let outcome = daemon.lb(&[&["backend"], arguments].concat())?;
    ensure!(outcome.code == Some(0), "{arguments:?}: {outcome:?}");
    Ok(())
}

/// The line of a backend in the table of `lb status`, and whether it is the first.
fn line(daemon: &Daemon, name: &str) -> Result<(String, bool)> {
    let table = daemon.lb(&["status", "web"])?.stdout;
    let backends: Vec<&str> = table.lines().filter(|line| line.starts_with("  web-")).collect();
    let place = backends.iter().position(|line| line.trim_start().starts_with(name)).context(table.clone())?;
    Ok((backends[place].to_owned(), place == 0))
}

/// What happened to the admin state of a backend: to what, by whom, why.
fn story(daemon: &Daemon, name: &str) -> Result<Vec<(String, String, String)>> {
    let outcome = daemon.lb(&["events", "-o", "json"])?;
    let events: Json = serde_json::from_str(&outcome.stdout)?;
    let events = events["events"].as_array().context("there are events")?.clone();
    let text = |event: &Json, key: &str| event[key].as_str().unwrap_or_default().to_owned();
    let of_admin =
        |event: &&Json| event["backend"] == name && (event["what"] == "admin" || event["what"] == "detachment");
    Ok(events
        .iter()
        .filter(of_admin)
        .map(|event| (text(event, "to"), text(event, "actor"), text(event, "cause")))
        .collect())
}

#[test]
fn a_backend_that_is_healthy_and_out_says_so_and_returns() {
    test(&Layout::default(), |lab| {
        let _servers = Nginx::start_all(lab)?;
        let daemon = Daemon::start(lab, &[Service::web(lab, Family::V4)])?;
        detach(&daemon, &["disable", "web/web-02", "--for", "6s", "--reason", "kernel test"])?;
        let (told, first) = line(&daemon, "web-02")?;
        ensure!(first, "{told}");
        for words in ["healthy, out of rotation for ", "disabled by uid 0: kernel test", "returns in "] {
            ensure!(told.contains(words), "{words:?} in {told}");
        }
        let status = daemon.status()?;
        let web = backend(&status, "web-02")?;
        let detachment = &web["detachment"];
        ensure!(web["health"] == "up" && web["admin"] == "disabled", "{web:#}");
        ensure!(detachment["actor"] == "uid 0" && detachment["reason"] == "kernel test", "{web:#}");
        ensure!(detachment["until"] == web["until"] && detachment["overdue"] == false, "{web:#}");
        ensure!(
            status["services"][0]["backends"][0]["name"] == "web-01",
            "programs get the order of the configuration"
        );
        let tally = lab.client().curl(Lab::VIP.url(Family::V4), 50)?;
        ensure!((tally.of("web-01"), tally.failures.len()) == (50, 0), "{tally:?}");

        let back = daemon.await_rotation("web-02", true)?;
        ensure!(back["admin"] == "enabled" && back["detachment"].is_null(), "{back:#}");
        ensure!(back["ended"]["value"] == "time-up" && back["ended"]["actor"] == "timer", "{back:#}");
        let story = story(&daemon, "web-02")?;
        let (to, actor, cause) = story.last().context("there is a story")?;
        ensure!((to.as_str(), actor.as_str()) == ("enabled", "timer"), "{story:?}");
        ensure!(cause == "returned, as its time was up: disabled by uid 0: kernel test", "{story:?}");
        let tally = lab.client().curl(Lab::VIP.url(Family::V4), 50)?;
        ensure!((tally.of("web-02"), tally.failures.len()) == (25, 0), "{tally:?}");
        Ok(())
    });
}

#[test]
fn time_passes_for_a_detachment_while_the_daemon_is_down() {
    test(&Layout::default(), |lab| {
        let _servers = Nginx::start_all(lab)?;
        let mut daemon = Daemon::start_with(lab, &with(lab, "detached_for = \"4s\""))?;
        detach(&daemon, &["drain", "web/web-01"])?;
        detach(&daemon, &["disable", "web/web-02", "--for", "1h", "--yes"])?;
        let until = backend(&daemon.status()?, "web-02")?["until"].clone();
        let end = backend(&daemon.status()?, "web-01")?["until"].as_str().context("it ends")?.to_owned();
        daemon.stop()?;
        // The end of web-01's time, by the clock on the wall.
        eventually("the time to be up", Duration::from_secs(20), || {
            let outcome = lab::run(Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%SZ"]), "")?;
            Ok((outcome.trim() > end.as_str()).then_some(()))
        })?;
        daemon.start_again()?;
        daemon.await_rotation("web-01", true)?;
        let status = daemon.status()?;
        let web = backend(&status, "web-02")?;
        ensure!(web["until"] == until && web["admin"] == "disabled", "{web:#}");
        Ok(())
    });
}

#[test]
fn who_is_to_be_missed_stays_out_and_says_so_until_somebody_acts() {
    test(&Layout::default(), |lab| {
        let _servers = Nginx::start_all(lab)?;
        let daemon = Daemon::start_with(lab, &with(lab, "after_detachment = \"alarm\""))?;
        detach(&daemon, &["disable", "web/web-02", "--for", "1s", "--reason", "kernel test"])?;
        eventually("its time to be up", Duration::from_secs(20), || {
            let status = daemon.status()?;
            Ok((backend(&status, "web-02")?["detachment"]["overdue"] == true).then_some(()))
        })?;
        let (told, first) = line(&daemon, "web-02")?;
        ensure!(first && told.contains("its time was up") && told.contains("until somebody acts"), "{told}");
        let overdue = story(&daemon, "web-02")?.pop().context("there is a story")?;
        ensure!((overdue.0.as_str(), overdue.1.as_str()) == ("overdue", "timer"), "{overdue:?}");
        ensure!(overdue.2.ends_with("disabled by uid 0: kernel test"), "{overdue:?}");

        detach(&daemon, &["disable", "web/web-02", "--for", "1h"])?;
        let status = daemon.status()?;
        ensure!(backend(&status, "web-02")?["detachment"]["overdue"] == false, "{status:#}");
        detach(&daemon, &["enable", "web/web-02"])?;
        daemon.await_rotation("web-02", true)?;
        Ok(())
    });
}

#[test]
fn a_detachment_that_would_never_end_is_refused() {
    test(&Layout::default(), |lab| {
        let _servers = Nginx::start_all(lab)?;
        let daemon = Daemon::start(lab, &[Service::web(lab, Family::V4)])?;
        let refused = daemon.lb(&["backend", "disable", "web/web-02", "--for", "1year"])?;
        ensure!(refused.code == Some(2) && refused.stderr.contains("at most 30days"), "{refused:?}");
        detach(&daemon, &["disable", "web/web-02"])?;
        let (told, _) = line(&daemon, "web-02")?;
        ensure!(told.contains("returns in 59m") || told.contains("returns in 1h"), "an hour is the default: {told}");
        Ok(())
    });
}
