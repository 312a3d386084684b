//! The demonstration: real connections over real web servers through the real program, while one of the servers fails
//! and comes back.

use std::{
    io::IsTerminal,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use lab::{Daemon, Family, Health, Json, Lab, Layout, Progress, Server, Service, backend};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    flag,
};

use super::{
    story::{SERVERS, Stage, Story},
    view::View,
};

/// Room for a failure, its detection, the recovery, and balance before and after.
pub(crate) const SHORTEST: Duration = Duration::from_secs(5);

const WHEN_PIPED: Duration = Duration::from_secs(10);

/// An endless demonstration has the pace of one this long.
const UNHURRIED: Duration = Duration::from_secs(20);

const CLIENTS: usize = 4;

const TICK: Duration = Duration::from_millis(50);

pub(crate) fn demo(duration: Option<Duration>) -> Result<()> {
    let duration = duration.or_else(|| (!std::io::stdout().is_terminal()).then_some(WHEN_PIPED));
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        flag::register(signal, Arc::clone(&interrupted))?;
    }
    let lab = Lab::new(&Layout::default())?;
    let mut servers = lab.webs().iter().map(Server::start_in).collect::<Result<Vec<_>>>()?;
    let health = Health { fall: 2, ..Health::default() };
    let daemon = Daemon::start(&lab, &[Service { health, ..Service::web(&lab, Family::V4) }])?;
    let mut view = View::new();
    view.introduce(&lab, &daemon);

    let load = lab.client().load(Lab::VIP.socket(Family::V4), CLIENTS);
    let mut story = Story::begin(&load.progress());
    let started = Instant::now();
    let over = || interrupted.load(Ordering::Relaxed) || duration.is_some_and(|duration| started.elapsed() >= duration);
    while !over() {
        thread::sleep(TICK);
        let status = daemon.status()?;
        let victim = backend(&status, SERVERS[0])?;
        let progress = load.progress();
        let next = next_stage(&story, victim, duration);
        if let Some(next) = next {
            // The server first: a stage begins with what it is named after.
            story.enter(next, &progress);
            match next {
                Stage::Failing => servers[0].stop(),
                Stage::Recovering => servers[0].start()?,
                Stage::Without | Stage::Balanced => {}
            }
            view.event(started.elapsed(), next, victim["cause"].as_str().unwrap_or_default());
        }
        view.draw(&status, &progress, started.elapsed(), unexplained(&story, &progress).count());
    }
    let progress = load.stop();
    story.end(&progress);
    view.summarise(&story, &progress, started.elapsed());
    let mut objections = objections(&story, &progress, &daemon)?;
    if !(story.is_complete() || interrupted.load(Ordering::Relaxed)) {
        objections.push("web-01 did not come back into rotation".to_owned());
    }
    if !objections.is_empty() {
        bail!("this is not how it should be:\n  {}\n{}", objections.join("\n  "), lab.logs());
    }
    Ok(())
}

/// The stage that follows, when its time has come.
fn next_stage(story: &Story, victim: &Json, duration: Option<Duration>) -> Option<Stage> {
    let in_rotation = victim["in_rotation"] == true;
    // It lost its share when connections were refused, and has it again once its first answers are good.
    let has_its_share = in_rotation && victim["share"].is_null();
    let once = duration.is_some();
    let duration = duration.unwrap_or(UNHURRIED);
    match story.stage() {
        Stage::Balanced if once && story.has_failed() => None,
        Stage::Balanced => (story.elapsed() > duration.mul_f64(0.3)).then_some(Stage::Failing),
        Stage::Failing => (!in_rotation).then_some(Stage::Without),
        Stage::Without => (story.elapsed() > duration.mul_f64(0.2)).then_some(Stage::Recovering),
        Stage::Recovering => has_its_share.then_some(Stage::Balanced),
    }
}

fn unexplained<'a>(story: &'a Story, progress: &'a Progress) -> impl Iterator<Item = &'a lab::Failure> {
    progress.failures.iter().filter(|failure| !story.explains(failure))
}

/// What speaks against "requests were balanced without an error", by the clients' count and by that of the kernel.
fn objections(story: &Story, progress: &Progress, daemon: &Daemon) -> Result<Vec<String>> {
    let mut objections = story.objections(CLIENTS as u64);
    let mut errors = unexplained(story, progress);
    if let Some(first) = errors.next() {
        objections.push(format!("{} requests failed without reason, the first one: {}", 1 + errors.count(), first.why));
    }
    let stats = daemon.stats()?;
    for server in SERVERS {
        let (seen, counted) = (progress.tally.of(server), &backend(&stats, server)?["connections_total"]);
        if counted.as_u64().is_none_or(|counted| counted < seen) {
            objections.push(format!("{server} answered {seen} requests, of which the kernel counted {counted}"));
        }
    }
    Ok(objections)
}
