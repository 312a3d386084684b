//! What is printed while the day passes.

use std::time::Duration;

use lab::{Course, Moment, Replay, Scene};

pub(crate) fn introduce(replay: &Replay) {
    println!(
        "A movie site on web-01 and web-02, a day in {:.0} s, up to {} visitors at a time. One server can carry two thirds of \
         the evening.\nweb-02 is detached for {:.0} s, for a test, and nobody thinks of it again. A site that runs out of memory: \
         {}.",
        replay.day.as_secs_f64(),
        replay.clients,
        replay.detached_for.as_secs_f64(),
        replay.failure,
    );
}

pub(crate) fn title(words: &str) {
    println!("\n== {words}\n     time  requests   failed  memory of web-01, web-02");
}

pub(crate) fn scene(scene: &Scene) {
    match scene {
        Scene::Moment(moment) => line(moment),
        Scene::Event(at, words) => println!("{:7.1} s  {words}", at.as_secs_f64()),
    }
}

fn line(moment: &Moment) {
    let memory: Vec<_> = moment.memory.iter().map(|share| format!("{:4.0} %", 100.0 * share)).collect();
    println!(
        "{:7.1} s  {:8} {:6.1} %  {}",
        moment.at.as_secs_f64(),
        moment.sent,
        100.0 * moment.failed_share(),
        memory.join(" "),
    );
}

pub(crate) fn summarise(course: &Course) {
    println!("users saw {} of {} requests fail: {:.2} %", course.failed, course.sent, 100.0 * course.failed_share());
    for (reason, count) in &course.reasons {
        println!("  {count:5}  {reason}");
    }
    if let Some(at) = course.first_trouble() {
        println!("more than one in a hundred failed for the first time after {}", seconds(at));
    }
    match (course.alarm_seconds(), course.alarm) {
        (Some(after), _) if after >= 0.0 => println!("the alarm was received {after:.2} s after web-02's time was up"),
        (Some(before), _) => println!("the alarm was received {:.2} s before web-02's time was up", -before),
        (None, Some(at)) => println!("the alarm was received at {}; web-02's time was not up", seconds(at)),
        (None, None) => println!("nobody was told"),
    }
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}
