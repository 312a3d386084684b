//! Alarms reach whoever is to be told, once, with a signature, and so does their end; silences hold them back.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use lab::{Daemon, Family, Hook, Json, Lab, Layout, Nginx, Post, Service, configuration, eventually, test};
use ring::hmac;

const HOOK: &str = "127.0.0.1:9700";
const SECRET: &str = "a secret of the lab";
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn an_alarm_reaches_a_server_that_was_down_and_a_program_once_and_so_does_its_end() {
    test(&Layout::default(), |lab| {
        let mut servers = Nginx::start_all(lab)?;
        let mut daemon = Daemon::start_with(lab, &with_alarms(lab, "")?)?;
        // Nobody listens yet: the test says so, and waits for nobody.
        let tested = daemon.lb(&["alarm", "test"])?;
        assert!(tested.code == Some(1) && tested.stdout.contains("onnection refused"), "{tested:?}");
        assert_eq!(pages(lab)?, ["test lb"]);
        servers[1].stop()?;
        let failed = |list: &Json| {
            let courier = &list["couriers"][0];
            assert_eq!(courier["channel"], "webhook", "{list:#}");
            courier["failed"].as_u64() >= Some(1) && courier["pending"].as_u64() >= Some(2)
        };
        await_list(&daemon, "an attempt that failed", failed)?;

        let hook = Hook::start_in(lab.front(), HOOK.parse()?)?;
        hook.answer(503);
        eventually("a post that was refused", PATIENCE, || Ok((!hook.posts().is_empty()).then_some(())))?;
        hook.answer(200);
        let firing = ["firing redundancy-lost web", "firing backend-down web/web-02"];
        await_told(&hook, &firing)?;
        let post = hook.posts().pop().context("there are posts")?;
        assert_eq!(post.path, "/page?team=web");
        check_signature(&post)?;
        let one = hook.taken()?.remove(0);
        let told = (&one["schema_version"], &one["severity"], &one["repeated"]);
        assert_eq!(told, (&1.into(), &"critical".into(), &false.into()), "{one:#}");
        // One try after the other has the same id: whoever gets it twice knows.
        let first: Json = serde_json::from_slice(&hook.posts()[0].body)?;
        assert_eq!(first["id"], one["id"]);

        // What is known is told by everybody who is asked.
        let status = daemon.status()?;
        assert_eq!(status["alarms"][0]["alarm"], "redundancy-lost", "{status:#}");
        let table = daemon.lb(&["status"])?.stdout;
        assert!(table.contains("alarm redundancy-lost") && table.contains("1 of 2 backends can serve"), "{table}");

        // A restart pages nobody again.
        await_list(&daemon, "nothing that waits", |list| list["couriers"][0]["pending"] == 0)?;
        daemon.kill()?;
        daemon.start_again()?;
        servers[1].start()?;
        let all = [firing[0], firing[1], "resolved redundancy-lost web", "resolved backend-down web/web-02"];
        await_told(&hook, &all)?;
        await_list(&daemon, "quiet", |list| list["alarms"] == Json::from(Vec::<Json>::new()))?;
        assert_eq!(pages(lab)?[1..], ["firing web", "firing web/web-02", "resolved web", "resolved web/web-02"]);
        let events = daemon.lb(&["events", "-o", "json", "web/web-02"])?.stdout;
        let events: Json = serde_json::from_str(&events)?;
        let alarms = events["events"].as_array().context("there are events")?.iter();
        let alarms: Vec<_> = alarms.filter(|event| event["what"] == "alarm").map(|event| &event["to"]).collect();
        assert_eq!(alarms, ["firing", "resolved"]);
        let tested = daemon.lb(&["alarm", "test", HOOK.split(':').next().unwrap_or_default()])?;
        assert_eq!(tested.code, Some(0), "{tested:?}");
        Ok(())
    });
}

#[test]
fn what_is_silenced_is_told_when_the_silence_ends_and_shown_meanwhile() {
    test(&Layout::default(), |lab| {
        let mut servers = Nginx::start_all(lab)?;
        let mut daemon = Daemon::start_with(lab, &with_alarms(lab, "")?)?;
        let hook = Hook::start_in(lab.front(), HOOK.parse()?)?;
        let silence = |daemon: &Daemon, scope: &str, period: &str| {
            daemon.lb(&["alarm", "silence", scope, "--for", period, "--reason", "new disk"])
        };
        for (scope, code) in [("wbe", 3), ("web/web-09", 3), ("web", 0)] {
            let silenced = silence(&daemon, scope, "1h")?;
            assert_eq!(silenced.code, Some(code), "{silenced:?}");
        }
        servers[1].stop()?;
        let silenced = |list: &Json| {
            let alarms = list["alarms"].as_array().map_or(&[][..], Vec::as_slice);
            alarms.len() == 2 && alarms.iter().all(|alarm| alarm["silenced_until"].is_string())
        };
        await_list(&daemon, "two silenced alarms", silenced)?;
        daemon.stop()?;
        daemon.start_again()?;
        let list = await_list(&daemon, "two silenced alarms after a restart", silenced)?;
        assert_eq!(
            (&list["silences"][0]["scope"], &list["silences"][0]["reason"]),
            (&"web".into(), &"new disk".into())
        );
        let table = daemon.lb(&["status"])?.stdout;
        assert!(table.contains("alarms of web are silenced for") && table.contains("new disk"), "{table}");
        // The log has it all the same.
        let log = fs::read_to_string(lab.dir().join("lb.log"))?;
        assert!(log.contains("redundancy-lost"), "{log}");
        assert_eq!(told(&hook)?, [""; 0]);
        assert_eq!(silence(&daemon, "web", "0s")?.code, Some(0));
        await_told(&hook, &["firing redundancy-lost web", "firing backend-down web/web-02"])
    });
}

#[test]
fn a_detachment_that_was_forgotten_is_told_at_once_and_a_planned_one_is_not() {
    test(&Layout::default(), |lab| {
        let _servers = Nginx::start_all(lab)?;
        let daemon = Daemon::start_with(lab, &with_alarms(lab, "")?)?;
        let hook = Hook::start_in(lab.front(), HOOK.parse()?)?;
        let detached = daemon.lb(&["backend", "disable", "web/web-02", "--for", "4s", "--reason", "kernel test"])?;
        assert_eq!(detached.code, Some(0), "{detached:?}");
        let up = Instant::now() + Duration::from_secs(4);
        await_told(&hook, &["firing out-of-rotation web/web-02"])?;
        assert!(Instant::now() > up - Duration::from_secs(1), "while its time ran nobody was told");
        let late = Instant::now().saturating_duration_since(up);
        println!("told {late:?} after the time was up");
        assert!(late < Duration::from_secs(10), "it took {late:?}");
        await_told(&hook, &["firing out-of-rotation web/web-02", "resolved out-of-rotation web/web-02"])?;
        assert!(hook.taken()?[0]["summary"].as_str().is_some_and(|summary| summary.contains("forgotten")));
        Ok(())
    });
}

#[test]
fn a_reload_that_fails_is_an_alarm_and_takes_nobody_off_the_list() {
    test(&Layout::default(), |lab| {
        let _servers = Nginx::start_all(lab)?;
        let good = with_alarms(lab, "on = [\"reload-failed\"]")?;
        let daemon = Daemon::start_with(lab, &good)?;
        let hook = Hook::start_in(lab.front(), HOOK.parse()?)?;
        for (from, to, says) in [
            ("reload-failed", "reload-fails", "did you mean `reload-failed`?"),
            ("/page.sh", "/missing.sh", "cannot be run"),
        ] {
            fs::write(daemon.config(), good.replace(from, to))?;
            let reloaded = daemon.lb(&["config", "reload"])?;
            assert!(reloaded.code == Some(1) && reloaded.stderr.contains(says), "{reloaded:?}");
        }
        await_told(&hook, &["firing reload-failed lb"])?;
        fs::write(daemon.config(), &good)?;
        assert_eq!(daemon.lb(&["config", "reload"])?.code, Some(0));
        await_told(&hook, &["firing reload-failed lb", "resolved reload-failed lb"])
    });
}

/// A service, and two who are told: a server that is not there yet, and a program.
fn with_alarms(lab: &Lab, keys: &str) -> Result<String> {
    let page = page(lab);
    let script = format!(
        "#!/bin/sh\nif [ -n \"$LB_BACKEND\" ]; then of=$LB_SERVICE/$LB_BACKEND; else of=${{LB_SERVICE:-lb}}; fi\n\
         grep -q '\"status\":\"'$LB_STATUS'\"' && echo \"$LB_STATUS $of\" >> {}/pages\n",
        lab.dir().display()
    );
    fs::write(&page, script)?;
    fs::set_permissions(&page, fs::Permissions::from_mode(0o755))?;
    let secret = lab.dir().join("secret");
    fs::write(&secret, format!("{SECRET}\n"))?;
    let service = configuration(lab, &[Service::web(lab, Family::V4)]);
    let (page, secret) = (page.display(), secret.display());
    Ok(format!(
        "{service}\n[alarm_rules]\nresolve_after = \"1s\"\n\n[[alarm]]\nwebhook = \"http://{HOOK}/page?team=web\"\n\
         secret_file = \"{secret}\"\n{keys}\n\n[[alarm]]\nexec = \"{page}\"\n"
    ))
}

fn page(lab: &Lab) -> PathBuf {
    lab.dir().join("page.sh")
}

/// What the program was told.
fn pages(lab: &Lab) -> Result<Vec<String>> {
    Ok(fs::read_to_string(lab.dir().join("pages"))?.lines().map(str::to_owned).collect())
}

/// What the server took: "firing redundancy-lost web".
fn told(hook: &Hook) -> Result<Vec<String>> {
    let words = |post: Json| {
        let text = |key: &str| post[key].as_str().unwrap_or_default().to_owned();
        let whom = match (text("service").as_str(), text("backend").as_str()) {
            ("", _) => "lb".to_owned(),
            (service, "") => service.to_owned(),
            (service, backend) => format!("{service}/{backend}"),
        };
        format!("{} {} {whom}", text("status"), text("alarm"))
    };
    Ok(hook.taken()?.into_iter().map(words).collect())
}

/// Waits until the server has been told this, and nothing else.
fn await_told(hook: &Hook, expected: &[&str]) -> Result<()> {
    let found = eventually(&format!("{expected:?}"), PATIENCE, || {
        let told = told(hook)?;
        ensure!(told.len() <= expected.len(), "{told:?} and not {expected:?}");
        Ok((told.len() == expected.len()).then_some(told))
    });
    assert_eq!(found.with_context(|| format!("told were {:?}", told(hook)))?, expected);
    Ok(())
}

fn await_list(daemon: &Daemon, what: &str, condition: impl Fn(&Json) -> bool) -> Result<Json> {
    eventually(what, PATIENCE, || {
        let list = daemon.lb(&["alarm", "list", "-o", "json"])?;
        ensure!(list.code == Some(0), "{list:?}");
        let list: Json = serde_json::from_str(&list.stdout)?;
        Ok(condition(&list).then_some(list))
    })
}

/// As whoever gets it would: HMAC-SHA256 of the time, a full stop and the body.
fn check_signature(post: &Post) -> Result<()> {
    let signature = post.signature.as_deref().context("it is signed")?;
    let (time, signature) = signature.strip_prefix("t=").and_then(|rest| rest.split_once(",v1=")).context("t=,v1=")?;
    let bytes: Vec<u8> = (0..signature.len() / 2)
        .map(|place| u8::from_str_radix(&signature[2 * place..2 * place + 2], 16))
        .collect::<Result<_, _>>()?;
    let signed = [time.as_bytes(), b".", &post.body].concat();
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    ensure!(hmac::verify(&key, &signed, &bytes).is_ok(), "the signature of {post:?} is not that of its body");
    ensure!(hmac::verify(&key, &[&signed[..], b"!"].concat(), &bytes).is_err(), "it is that of anything");
    Ok(())
}
