//! The outage: web-02 is detached for a test and forgotten, the load grows, web-01 runs out of memory.

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use anyhow::Result;
use lab::{Lab, Layout, Replay, Scene, site::Failure, test};

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

fn with_lb(lab: &Lab, failure: Failure, detached_for: Duration) -> Result<()> {
    let course = replay(failure, detached_for).with_lb(lab, &mut tell)?;
    assert!(course.sent > 500, "{course:?}");
    assert!(course.failed_share() <= 0.01, "{course:?}");
    let alarm = course.alarm_seconds();
    assert!(alarm.is_some_and(|seconds| (0.0..10.0).contains(&seconds)), "{alarm:?}");
    Ok(())
}

fn replay(failure: Failure, detached_for: Duration) -> Replay {
    let site = env!("CARGO_BIN_EXE_movie-site").into();
    Replay { site, failure, clients: 36, day: DAY, detached_for, interrupted: Arc::new(AtomicBool::new(false)) }
}

/// Shown when the test fails.
fn tell(scene: &Scene) {
    println!("{scene:?}");
}
