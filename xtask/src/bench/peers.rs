//! `cargo xtask bench peers`: `lb` beside what one would use in its place, in turns, in the lab.
//!
//! Client, front node and servers share the cores of one machine, so figures tell only when they are compared with others
//! of the same run. In every round each contender gets a new lab, and the order rotates. What a contender is
//! compared with is always of its own round.

mod figures;
mod goals;
mod report;

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use lab::{
    Lab, machine,
    peers::{Contender, LAYOUT, Load, Processor, Road},
};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    flag,
};

use self::figures::{Figures, Hold, Sample, Slice};
use super::chart;
use crate::{
    build,
    setup::{self, Purpose},
    shell::{is_again, with_root, workspace},
};

/// Connections at a time.
const CONNECTIONS: u32 = 64;

const SECOND: Duration = Duration::from_secs(1);

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// One round of 3 s, and new connections for 5 s: whether it works, rather than figures
    #[arg(long)]
    quick: bool,
    /// Where the picture goes
    #[arg(long, value_name = "FILE", default_value = "target/bench-peers.svg")]
    picture: PathBuf,
    /// End with one line of JSON
    #[arg(long)]
    json: bool,
}

/// How much is measured.
struct Extent {
    rounds: usize,
    /// For each kind of load.
    slice: Duration,
    hold: Duration,
}

pub(crate) fn peers(arguments: &Arguments) -> Result<()> {
    if !is_again() {
        setup::ensure(Purpose::Bench)?;
        build::compile()?;
    }
    with_root(|| compare(arguments))
}

fn compare(arguments: &Arguments) -> Result<()> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        flag::register(signal, Arc::clone(&interrupted))?;
    }
    let extent = if arguments.quick {
        Extent { rounds: 1, slice: 3 * SECOND, hold: 5 * SECOND }
    } else {
        Extent { rounds: 5, slice: 4 * SECOND, hold: 30 * SECOND }
    };
    let machine = machine()?;
    println!(
        "{machine}, which the client, the front node and the servers share\n\
         {CONNECTIONS} connections at a time; {} rounds, {} s for each kind of load; then new connections for {} s",
        extent.rounds,
        extent.slice.as_secs(),
        extent.hold.as_secs(),
    );
    let figures = measure(&extent, &interrupted)?;
    report::summarise(&figures);
    chart::draw(&workspace().join(&arguments.picture), &report::panels(&figures))?;
    println!("\nthe picture is {}", arguments.picture.display());
    if arguments.json {
        println!("{}", report::json(&figures, &machine, extent.rounds));
    }
    Ok(())
}

fn measure(extent: &Extent, interrupted: &AtomicBool) -> Result<Figures> {
    let mut figures = Figures::default();
    let began = Instant::now();
    let mut order = Contender::ALL;
    for round in 1..=extent.rounds {
        for contender in order {
            let lab = Lab::new(&LAYOUT)?;
            let road = Road::new(&lab, contender)?;
            road.drive(Load::Kept, CONNECTIONS, SECOND)?;
            let sample = Sample {
                kept: drive(&road, Load::Kept, extent.slice)?,
                paced: drive(&road, Load::Paced, extent.slice)?,
                new: drive(&road, Load::New, extent.slice)?,
            };
            if interrupted.load(Ordering::Relaxed) {
                bail!("interrupted");
            }
            report::sample(began.elapsed(), round, contender, &sample);
            figures.add(contender, sample);
        }
        order.rotate_left(1);
    }
    for contender in Contender::ALL {
        let lab = Lab::new(&LAYOUT)?;
        let (run, rates) = Road::new(&lab, contender)?.hold(CONNECTIONS, extent.hold)?;
        if interrupted.load(Ordering::Relaxed) {
            bail!("interrupted");
        }
        let hold = Hold { rates, errors: run.errors };
        report::hold(began.elapsed(), contender, &hold);
        figures.held(contender, hold);
    }
    Ok(figures)
}

/// A slice, and what it cost.
fn drive(road: &Road<'_>, load: Load, duration: Duration) -> Result<Slice> {
    let before = Processor::now()?;
    let report = road.drive(load, CONNECTIONS, duration)?;
    Ok(Slice::of(&report, before.busy()?))
}
