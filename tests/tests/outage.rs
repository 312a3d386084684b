//! The outage: web-02 is detached for a test and forgotten, the load grows, web-01 runs out of memory.

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use anyhow::Result;
use lab::{Lab, Layout, Replay, Scene, VIEWS, site::Failure, test};

const DAY: Duration = Duration::from_secs(12);

#[test]
fn without_lb_the_forgotten_server_costs_users_their_evening() {
    test(&Layout::default(), |lab| {
        let course = replay(Failure::OutOfMemory, DAY.mul_f64(0.15)).historical(lab, &mut tell)?;
        // One server carries two thirds of the evening, which is most of the day's requests.
        assert!(course.failed_share() > 0.1, "{course:?}");
        let (detached, trouble) = (course.detached.expect("it was detached"), course.first_trouble());
        assert!(trouble.is_some_and(|trouble| trouble > detached), "{trouble:?}, {detached:?}");
        // In the evening it had what it could get, and the other one next to nothing.
        let evening = &course.moments[course.moments.len() * 4 / 5];
        assert!(evening.memory[0] > 0.7 && evening.memory[1] < 0.1, "{evening:?}");
        assert_eq!(course.alarm, None);
        Ok(())
    });
}

#[test]
fn with_lb_the_forgotten_server_comes_back_before_it_is_missed() {
    test(&Layout::default(), |lab| with_lb(lab, Failure::OutOfMemory, DAY.mul_f64(0.15)));
}

#[test]
fn what_gets_slow_is_relieved_by_the_forgotten_server() {
    relieved(Failure::Slow);
}

#[test]
fn what_fails_every_other_time_is_relieved_by_the_forgotten_server() {
    relieved(Failure::Half);
}

#[test]
fn what_leaks_in_bursts_is_relieved_by_the_forgotten_server() {
    relieved(Failure::Bursts);
}

#[test]
fn visitors_who_keep_their_connections_are_not_left_with_who_fails_every_other_time() {
    test(&Layout::default(), |lab| {
        let day = Duration::from_secs(30);
        let half = Replay { day, clients: 120, keep_alive: true, ..replay(Failure::Half, 2 * day) };
        let course = half.with_lb(lab, &mut tell)?;
        println!("{} of {} failed", course.failed, course.sent);
        // A third of them with nobody to call web-02 back, and one in eight if web-01 only got no new ones.
        assert!(course.failed_share() <= 0.06, "{course:?}");
        Ok(())
    });
}

/// The detachment outlives the day: who does not want to lose users calls web-02 back.
fn relieved(failure: Failure) {
    test(&Layout::default(), |lab| {
        let day = Duration::from_secs(20);
        // Some fail before anybody can know: of many a small part.
        let course = Replay { day, clients: 120, ..replay(failure, 2 * day) }.with_lb(lab, &mut tell)?;
        println!("{failure}: {} of {} failed", course.failed, course.sent);
        assert!(course.sent > 2500, "{course:?}");
        assert!(course.failed_share() <= 0.01, "{course:?}");
        let alarm = course.alarm.expect("it was called back");
        let late = course.first_trouble().map_or(Duration::ZERO, |trouble| alarm.saturating_sub(trouble));
        assert!(late < Duration::from_secs(5), "{late:?}");
        Ok(())
    });
}

fn with_lb(lab: &Lab, failure: Failure, detached_for: Duration) -> Result<()> {
    let course = replay(failure, detached_for).with_lb(lab, &mut tell)?;
    println!("{failure}: {} of {} failed", course.failed, course.sent);
    assert!(course.sent > 500, "{course:?}");
    assert!(course.failed_share() <= 0.01, "{course:?}");
    let alarm = course.alarm_seconds();
    assert!(alarm.is_some_and(|seconds| (0.0..10.0).contains(&seconds)), "{alarm:?}");
    Ok(())
}

fn replay(failure: Failure, detached_for: Duration) -> Replay {
    Replay {
        site: env!("CARGO_BIN_EXE_movie-site").into(),
        failure,
        clients: 36,
        day: DAY,
        detached_for,
        views: VIEWS,
        keep_alive: false,
        retries: false,
        interrupted: Arc::new(AtomicBool::new(false)),
    }
}

/// Shown when the test fails.
fn tell(scene: &Scene) {
    println!("{scene:?}");
}
