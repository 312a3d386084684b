use super::*;
use crate::model::{Change, What};

pub(super) fn event(second: i64, service: &str) -> Event {
    let change = Change::new(Timestamp::from_second(second).unwrap(), "uid 0", "drained by uid 0");
    let event = Event::of_daemon(What::Admin, "enabled", "draining", change);
    Event { service: Some(service.into()), backend: Some("web-01".into()), ..event }
}

fn numbers((events, _): (Vec<Entry>, u64)) -> Vec<u64> {
    events.iter().map(|entry| entry.seq).collect()
}

#[test]
fn the_log_goes_on_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let journal = Journal::open(directory.path()).unwrap();
    assert_eq!(journal.read(&Filter::default()), (Vec::new(), 0));
    journal.append(&[event(1, "web"), event(2, "web")]);
    let journal = Journal::open(directory.path()).unwrap();
    journal.append(&[event(3, "web")]);
    let (events, newest) = Journal::open(directory.path()).unwrap().read(&Filter::default());
    assert_eq!((numbers((events.clone(), 0)), newest), (vec![1, 2, 3], 3));
    assert_eq!(events[2].event, event(3, "web"));
}

#[test]
fn only_what_is_wanted_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let journal = Journal::open(directory.path()).unwrap();
    journal.append(&[event(10, "web"), event(20, "api"), event(30, "web")]);
    let check = |filter: Filter, expected: &[u64]| assert_eq!(numbers(journal.read(&filter)), expected, "{filter:?}");
    check(Filter { after: 1, ..Filter::default() }, &[2, 3]);
    check(Filter { since: Timestamp::from_second(20).ok(), ..Filter::default() }, &[2, 3]);
    check(Filter { service: Some("web".into()), ..Filter::default() }, &[1, 3]);
    check(Filter { service: Some("web".into()), backend: Some("web-02".into()), ..Filter::default() }, &[]);
    check(Filter { after: 99, ..Filter::default() }, &[]);
}

#[tokio::test]
async fn a_follower_wakes_up_for_what_it_wants() {
    let directory = tempfile::tempdir().unwrap();
    let journal = Journal::open(directory.path()).unwrap();
    let filter = Filter { service: Some("web".into()), ..Filter::default() };
    let writer = journal.clone();
    let (followed, ()) = tokio::join!(journal.next(&filter), async {
        writer.append(&[event(1, "api")]);
        tokio::task::yield_now().await;
        writer.append(&[event(2, "web")]);
    });
    assert_eq!(numbers(followed), [2]);
}

#[test]
fn memory_holds_only_so_many() {
    let directory = tempfile::tempdir().unwrap();
    let journal = Journal::open(directory.path()).unwrap();
    let many: Vec<Event> = (0..).map(|second| event(second, "web")).take(KEPT + 5).collect();
    journal.append(&many);
    let (events, newest) = journal.read(&Filter::default());
    assert_eq!((events.len(), events[0].seq, newest), (KEPT, 6, KEPT as u64 + 5));
}
