//! Nanoseconds per packet: the balancer beside floors that do next to nothing, in turns, on one CPU.
//!
//! What counts is the ratio of a case to its floor: nanoseconds are the machine's. A figure stands only where the program's
//! own counters say that every packet was forwarded, and where what comes out after a thousand packets is, byte for byte,
//! what came out at first.

mod cases;
mod harness;
mod report;
mod scale;
mod site;
mod traffic;

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use lab::{Lab, Layout};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::harness::Extent;

#[derive(Parser)]
#[command(about = "Nanoseconds per packet, beside floors that do next to nothing", max_term_width = 120)]
struct Arguments {
    /// Only cases whose "group: name" contains this, and the floors
    #[arg(long, value_name = "SUBSTRING")]
    only: Option<String>,
    /// Fewer packets and rounds, and none of the cases that take long to prepare
    #[arg(long)]
    quick: bool,
    /// Where the report goes, as JSON
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// What `cargo bench` says to every bench
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let mut cases = cases::all();
    cases.retain(|case| case.is_wanted(arguments.only.as_deref(), arguments.quick));
    let wants_scale = arguments.only.as_deref().is_none_or(|only| "scale: ".contains(only)) && !arguments.quick;
    if let Some(only) = &arguments.only
        && !wants_scale
        && !cases.iter().any(|case| case.is_named(only))
    {
        let quick = if arguments.quick { ", or it takes too long for --quick" } else { "" };
        bail!("there is no case whose \"group: name\" contains {only:?}{quick}; without --only all are measured");
    }
    let extent = if arguments.quick { Extent::QUICK } else { Extent::FULL };
    let machine = lab::machine()?;
    pin_to_last_cpu()?;
    let lab = Lab::new(&Layout::default())?;
    let results = lab.front().enter(|| harness::measure(&lab, cases, extent))?;
    let scale = if wants_scale { lab.front().enter(|| scale::measure(&lab, extent.rounds))? } else { Vec::new() };
    let report = report::Report::new(machine, &results, &scale);
    print!("{report}");
    if let Some(file) = &arguments.report {
        std::fs::write(file, report.json()).with_context(|| format!("cannot write {}", file.display()))?;
    }
    report.refuse_flawed()
}

/// Stays on one CPU: the last, where interrupts are fewest.
fn pin_to_last_cpu() -> Result<()> {
    let allowed = sched_getaffinity(None)?;
    let last = (0..CpuSet::MAX_CPU).rev().find(|cpu| allowed.is_set(*cpu)).context("no CPU is allowed")?;
    let mut cpu = CpuSet::new();
    cpu.set(last);
    Ok(sched_setaffinity(None, &cpu)?)
}
