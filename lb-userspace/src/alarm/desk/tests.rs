use std::time::Duration;

use super::*;
use crate::alarm::{BackendFacts, ServiceFacts};

/// Who is told over a port where nobody listens, every second again.
fn config(keys: &str) -> Alarms {
    let text = format!(
        "[global]\ninterfaces = [\"eth0\"]\n[[alarm]]\nname = \"night\"\nwebhook = \"http://127.0.0.1:1/\"\nrepeat = \"1s\"\n{keys}\n\
         [service.web]\nlisten = \"203.0.113.10:80\"\nbackend = [{{ address = \"10.0.0.11:80\" }}]"
    );
    crate::config::Config::parse("lb.toml".as_ref(), &text).unwrap().alarms
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + second).unwrap()
}

fn reload_failed() -> Facts {
    Facts { reload_failed: Some("no".into()), ..Facts::default() }
}

/// A service with so many backends that the traffic says are bad.
fn ejected(backends: usize) -> Facts {
    let backend = |number: usize| BackendFacts {
        name: format!("web-{number}"),
        in_rotation: true,
        stands_by: false,
        since: at(0),
        cause: "HTTP 500".into(),
        detached: false,
        until: None,
        returned: None,
        recalled: None,
        down: false,
        unreachable: false,
        ejected: true,
        failing: None,
        failed: None,
    };
    let backends = (0..backends).map(backend).collect();
    let web = ServiceFacts { name: "web".into(), min_healthy: 1, backends };
    Facts { services: vec![web], ..Facts::default() }
}

fn pending(desk: &Desk) -> Vec<(String, usize, u64)> {
    desk.ways().map(|(name, _, tally)| (name.to_owned(), tally.pending, tally.lost)).collect()
}

fn one(pending: usize, lost: u64) -> Vec<(String, usize, u64)> {
    vec![("night webhook".to_owned(), pending, lost)]
}

#[tokio::test]
async fn what_is_not_delivered_waits_over_reloads_and_restarts_but_is_not_heaped_up() {
    let directory = tempfile::tempdir().unwrap();
    let (attempts, _keep) = mpsc::channel(64);
    let open = |config: &Alarms| Desk::open(directory.path(), config, attempts.clone()).unwrap();
    let mut desk = open(&config(""));
    let events = desk.look(&reload_failed(), at(0));
    assert_eq!(events.iter().map(|event| event.to.as_str()).collect::<Vec<_>>(), ["firing"]);
    // Nine repeats, and the first has not arrived yet.
    (1..10).for_each(|second| assert_eq!(desk.look(&reload_failed(), at(second)), []));
    assert_eq!(pending(&desk), one(1, 0));
    desk.configure(&config("timeout = \"3s\""));
    assert_eq!(pending(&desk), one(1, 0));
    drop(desk);
    let mut desk = open(&config(""));
    assert_eq!((pending(&desk), desk.firing().count()), (one(1, 0), 1));
    // Its end is told after its beginning.
    desk.look(&Facts::default(), at(20));
    let events = desk.look(&Facts::default(), at(40));
    assert_eq!(events.iter().map(|event| event.to.as_str()).collect::<Vec<_>>(), ["resolved"]);
    assert_eq!(pending(&desk), one(2, 0));
    drop(desk);
    // Whoever is no more in the configuration is told no more.
    let desk = open(&Alarms::default());
    assert_eq!(pending(&desk), []);
}

#[tokio::test]
async fn of_more_than_a_queue_holds_the_oldest_are_lost_and_counted() {
    let directory = tempfile::tempdir().unwrap();
    let (attempts, _keep) = mpsc::channel(64);
    let mut desk = Desk::open(directory.path(), &config(""), attempts).unwrap();
    desk.look(&ejected(QUEUE + 40), at(0));
    assert_eq!(pending(&desk), one(QUEUE, 40));
}

#[tokio::test]
async fn an_attempt_is_noted_and_the_next_follows() {
    let directory = tempfile::tempdir().unwrap();
    let (attempts, mut made) = mpsc::channel(64);
    let mut desk = Desk::open(directory.path(), &config(""), attempts).unwrap();
    desk.look(&ejected(3), at(0));
    let attempt = tokio::time::timeout(Duration::from_secs(20), made.recv()).await.unwrap().unwrap();
    assert!(!attempt.last && attempt.result.is_err(), "{attempt:?}");
    desk.note(attempt.clone());
    assert_eq!(pending(&desk), one(3, 0));
    // Of another notice: of one that was there before a reload, say.
    desk.note(Attempt { id: attempt.id + 1, last: true, ..attempt.clone() });
    assert_eq!(pending(&desk), one(3, 0));
    desk.note(Attempt { result: Ok(()), last: true, ..attempt });
    let (_, _, tally) = desk.ways().next().unwrap();
    assert_eq!(tally, Tally { delivered: 1, failed: 1, lost: 0, pending: 2, error: None });
}

#[test]
fn whoever_cannot_be_told_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing");
    for (keys, says) in [
        (format!("secret_file = \"{}\"", missing.display()), "cannot read the secret"),
        (format!("exec = \"{}\"", missing.display()), "cannot be run"),
    ] {
        let error = check(&config(&keys)).unwrap_err();
        assert!(error.starts_with("alarm night cannot work: ") && error.contains(says), "{error}");
    }
    assert_eq!(check(&config("secret = \"s\"\nexec = \"/bin/sh\"")), Ok(()));
}
