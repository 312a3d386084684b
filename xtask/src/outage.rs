//! `cargo xtask outage`: the outage that `lb` exists to prevent, as it was and with `lb`, side by side.

mod picture;
mod view;

use std::{
    path::PathBuf,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use anyhow::{Result, bail};
use lab::{Course, Lab, Layout, Replay, VIEWS, site::Failure};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    flag,
};

use crate::{
    build,
    setup::{self, Purpose},
    shell::{cargo, is_again, run, with_root, workspace},
};

/// The share of failed requests that users may see with `lb`.
const GOAL: f64 = 0.01;
/// Seconds from the end of the detachment's time until somebody must have received the alarm.
const ALARM_GOAL: f64 = 10.0;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// What the site does when it runs out of memory
    #[arg(long, value_enum, default_value_t)]
    failure: Failure,
    /// Visitors on the site at the same time, at the peak of the day
    #[arg(long, value_name = "N", default_value_t = 120, value_parser = clap::value_parser!(u32).range(6..=1000))]
    clients: u32,
    /// How many seconds the day takes, twice: without lb, and with it
    #[arg(long, value_name = "SECONDS", default_value_t = 40, value_parser = clap::value_parser!(u64).range(10..=3600))]
    day: u64,
    /// Seconds that web-02 is detached for; nobody puts it back [default: 15 % of the day]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    detached_for: Option<u64>,
    /// Pages that a visitor views
    #[arg(long, value_name = "N", default_value_t = VIEWS, value_parser = clap::value_parser!(u32).range(1..=100))]
    views: u32,
    /// Visitors keep their connection from page to page
    #[arg(long)]
    keep_alive: bool,
    /// Visitors who get no page ask for it once more
    #[arg(long)]
    retries: bool,
    /// Where the picture goes
    #[arg(long, value_name = "FILE", default_value = "target/outage.svg")]
    picture: PathBuf,
    /// End with one line of JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn outage(arguments: &Arguments) -> Result<()> {
    if !is_again() {
        setup::ensure(Purpose::Test)?;
        build::compile()?;
        run(&mut cargo(&["build", "--quiet", "--locked", "--package", "lb-tests", "--bin", "movie-site"]))?;
    }
    with_root(|| replay(arguments))
}

fn replay(arguments: &Arguments) -> Result<()> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        flag::register(signal, Arc::clone(&interrupted))?;
    }
    let day = Duration::from_secs(arguments.day);
    let replay = Replay {
        site: workspace().join("target/debug/movie-site"),
        failure: arguments.failure,
        clients: arguments.clients,
        day,
        detached_for: arguments.detached_for.map_or(day.mul_f64(0.15), Duration::from_secs),
        views: arguments.views,
        keep_alive: arguments.keep_alive,
        retries: arguments.retries,
        interrupted,
    };
    view::introduce(&replay);
    view::title("as it was: nginx, connections by turns");
    let before = replay.historical(&Lab::new(&Layout::default())?, &mut view::scene)?;
    view::summarise(&before);
    view::title("with lb");
    let with_lb = replay.with_lb(&Lab::new(&Layout::default())?, &mut view::scene)?;
    view::summarise(&with_lb);

    let file = workspace().join(&arguments.picture);
    picture::draw(&file, [("As it was: nginx, connections by turns", &before), ("With lb", &with_lb)])?;
    println!("picture: {}", arguments.picture.display());
    let missed = missed(&with_lb);
    if arguments.json {
        let alarm = with_lb.alarm_seconds().map_or("null".to_owned(), |seconds| rounded(seconds).to_string());
        println!(
            r#"{{"before":{{"failed_share":{}}},"lb":{{"failed_share":{},"alarm_s":{alarm}}}}}"#,
            rounded(before.failed_share()),
            rounded(with_lb.failed_share()),
        );
    }
    if missed.is_empty() {
        return Ok(());
    }
    bail!("this is not how it should be:\n  {}", missed.join("\n  "));
}

/// Goals that were not met.
fn missed(course: &Course) -> Vec<String> {
    let mut missed = Vec::new();
    if course.failed_share() > GOAL {
        missed.push(format!("users saw {:.2} % of their requests fail with lb", 100.0 * course.failed_share()));
    }
    match course.alarm_seconds() {
        _ if course.time_up.is_none() => {}
        Some(seconds) if seconds <= ALARM_GOAL => {}
        Some(seconds) => missed.push(format!("the alarm came {seconds:.1} s after the detachment's time was up")),
        None => missed.push("no alarm was received though the detachment's time was up".to_owned()),
    }
    missed
}

/// As many digits as mean something.
fn rounded(value: f64) -> f64 {
    (value * 10_000.0).round() / 10_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn course(failed: u64, time_up: Option<u64>, alarm: Option<u64>) -> Course {
        let seconds = |at: Option<u64>| at.map(Duration::from_secs);
        Course { sent: 1000, failed, time_up: seconds(time_up), alarm: seconds(alarm), ..Course::default() }
    }

    #[test]
    fn the_goals_are_a_share_of_failures_and_an_alarm_in_time() {
        for (course, expected) in [
            (course(10, Some(12), Some(13)), 0),
            (course(11, Some(12), Some(13)), 1),
            (course(0, Some(12), Some(23)), 1),
            (course(0, Some(12), None), 1),
            (course(0, Some(12), Some(5)), 0),
            (course(0, None, None), 0),
        ] {
            assert_eq!(missed(&course).len(), expected, "{course:?}");
        }
    }
}
