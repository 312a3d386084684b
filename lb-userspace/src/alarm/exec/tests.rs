use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf, time::Instant};

use jiff::Timestamp;

use super::*;
use crate::alarm::{Kind, Severity, Status, Subject};

fn notice() -> Notice {
    let at = Timestamp::from_second(1_700_000_000).unwrap();
    Notice {
        status: Status::Firing,
        subject: Subject::of_backend(Kind::BackendDown, "web", "web-01"),
        severity: Severity::Warning,
        summary: "a $(summary) with 'quotes'".into(),
        since: at,
        at,
        repeated: false,
    }
}

fn script(directory: &tempfile::TempDir, text: &str) -> PathBuf {
    let path = directory.path().join("page");
    fs::write(&path, format!("#!/bin/sh\ncd {}\n{text}\n", directory.path().display())).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[tokio::test]
async fn a_program_gets_the_alarm_by_its_environment_and_as_json() {
    let directory = tempfile::tempdir().unwrap();
    let page =
        script(&directory, r#"printf '%s|%s|%s' "$LB_ALARM" "$LB_BACKEND" "$LB_SUMMARY" > environment; cat > input"#);
    run(&page, Duration::from_secs(10), 7, &notice()).await.unwrap();
    let read = |name: &str| fs::read_to_string(directory.path().join(name)).unwrap();
    assert_eq!(read("environment"), "backend-down|web-01|a $(summary) with 'quotes'");
    let input: serde_json::Value = serde_json::from_str(&read("input")).unwrap();
    assert_eq!((&input["alarm"], &input["status"]), (&"backend-down".into(), &"firing".into()), "{input}");
    assert!(input["id"].as_str().unwrap().ends_with("-7"), "{input}");
}

#[tokio::test]
async fn a_program_that_fails_or_is_missing_is_an_error_with_its_words() {
    let directory = tempfile::tempdir().unwrap();
    let page = script(&directory, "echo no pager >&2; exit 3");
    let failure = run(&page, Duration::from_secs(10), 1, &notice()).await.unwrap_err();
    assert!(failure.again && failure.reason == "exit status: 3: no pager", "{failure:?}");
    let failure = run(&directory.path().join("none"), Duration::from_secs(10), 1, &notice()).await.unwrap_err();
    assert!(failure.reason.contains("cannot start"), "{failure:?}");
}

#[tokio::test]
async fn a_program_that_takes_too_long_is_killed_with_what_it_started() {
    let directory = tempfile::tempdir().unwrap();
    let page = script(&directory, "sleep 1000 & echo $! > child; wait");
    let started = Instant::now();
    let failure = run(&page, Duration::from_millis(500), 1, &notice()).await.unwrap_err();
    assert!(failure.reason.contains("not done within 500ms, killed"), "{failure:?}");
    assert!(started.elapsed() < Duration::from_secs(100));
    let child = fs::read_to_string(directory.path().join("child")).unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    // Whoever is its parent by then takes it off the list.
    while is_running(child.trim()) {
        assert!(Instant::now() < deadline, "{child} still runs");
        time::sleep(Duration::from_millis(10)).await;
    }
}

fn is_running(pid: &str) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}
