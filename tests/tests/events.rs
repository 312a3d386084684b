//! What changed is on record: when, why and by whom, also after the daemon was killed.

use std::{
    io::{BufRead, BufReader},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, Result};
use lab::{Daemon, Family, Json, Layout, Nginx, Service, eventually, lb_binary, test};

#[test]
fn changes_are_on_record_with_cause_and_actor_over_a_kill() {
    test(&Layout::default(), |lab| {
        let mut servers = Nginx::start_all(lab)?;
        let mut daemon = Daemon::start(lab, &[Service::web(lab, Family::V4)])?;
        let drained = daemon.lb(&["backend", "drain", "web/web-01", "--reason", "new kernel", "--for", "2s"])?;
        assert_eq!(drained.code, Some(0), "{drained:?}");
        daemon.await_rotation("web-01", true)?;
        servers[1].stop()?;
        daemon.await_rotation("web-02", false)?;
        let before = events(&daemon, &["web"])?;
        let told: Vec<_> = before.iter().map(told).collect();
        let expected = [
            "web-01 admin enabled->draining by uid 0",
            "web-01 rotation in->out by uid 0",
            "web-01 admin draining->enabled by timer",
            "web-01 rotation out->in by timer",
            "web-02 health up->down by health check",
            "web-02 rotation in->out by health check",
        ];
        let mut rest = told.iter();
        for event in expected {
            assert!(rest.any(|told| told == event), "no {event:?}, or out of order, in {told:#?}");
        }
        let drain = before.iter().find(|event| event["to"] == "draining").context("it was drained")?;
        assert!(drain["cause"].as_str().is_some_and(|cause| cause.ends_with("new kernel")), "{drain}");

        daemon.kill()?;
        let config = daemon.config().display().to_string();
        assert_eq!(events(&daemon, &["web", "--config", &config])?, before);
        assert_eq!(daemon.lb(&["events"])?.code, Some(6));
        assert_eq!(daemon.lb(&["events", "--state-dir", "/nonexistent"])?.code, Some(3));
        daemon.start_again()?;
        let after = events(&daemon, &["web"])?;
        assert_eq!(after[..before.len()], before[..]);
        assert_eq!(events(&daemon, &["web/web-03"])?, [Json::Null; 0]);
        assert_eq!(events(&daemon, &["--since", "2199-01-01T00:00:00Z"])?, [Json::Null; 0]);
        let started = events(&daemon, &[])?.iter().filter(|event| event["what"] == "daemon").count();
        assert_eq!(started, 2, "{after:#?}");
        Ok(())
    });
}

#[test]
fn a_follower_sees_what_happens_before_and_after_a_restart() {
    test(&Layout::default(), |lab| {
        let _servers = Nginx::start_all(lab)?;
        let mut daemon = Daemon::start(lab, &[Service::web(lab, Family::V4)])?;
        let mut command = lab.front().command(lb_binary()?);
        command.args(["events", "--follow", "-o", "json", "web/web-01"]).env("LB_SOCKET", daemon.socket());
        let mut follower = command.stdout(Stdio::piped()).spawn()?;
        let mut lines = BufReader::new(follower.stdout.take().context("it is piped")?).lines();
        let mut await_line = |wanted: &str| -> Result<()> {
            for line in lines.by_ref() {
                if told(&serde_json::from_str(&line?)?) == wanted {
                    return Ok(());
                }
            }
            anyhow::bail!("no {wanted:?}")
        };
        let seen = (|| {
            assert_eq!(daemon.lb(&["backend", "disable", "web/web-01"])?.code, Some(0));
            await_line("web-01 admin enabled->disabled by uid 0")?;
            daemon.stop()?;
            daemon.start_again()?;
            assert_eq!(daemon.lb(&["backend", "enable", "web/web-01"])?.code, Some(0));
            await_line("web-01 admin disabled->enabled by uid 0")
        })();
        follower.kill()?;
        follower.wait()?;
        seen
    });
}

fn events(daemon: &Daemon, arguments: &[&str]) -> Result<Vec<Json>> {
    // The log is written by the time a change is answered; those of the checks come on their own.
    let outcome = eventually("lb events", Duration::from_secs(5), || {
        let outcome = daemon.lb(&[&["events", "-o", "json"], arguments].concat())?;
        Ok((outcome.code == Some(0)).then_some(outcome))
    })?;
    let document: Json = serde_json::from_str(&outcome.stdout)?;
    Ok(document["events"].as_array().context("there are events")?.clone())
}

fn told(event: &Json) -> String {
    let text = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
    let [backend, what, from, to, actor] = ["backend", "what", "from", "to", "actor"].map(text);
    format!("{backend} {what} {from}->{to} by {actor}")
}
