//! What this runs on.

use std::fs;

use anyhow::{Context as _, Result};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Stays on one CPU: the last, where interrupts are fewest.
pub(crate) fn pin_to_last_cpu() -> Result<()> {
    let allowed = sched_getaffinity(None)?;
    let last = (0..CpuSet::MAX_CPU).rev().find(|cpu| allowed.is_set(*cpu)).context("no CPU is allowed")?;
    let mut cpu = CpuSet::new();
    cpu.set(last);
    Ok(sched_setaffinity(None, &cpu)?)
}

/// Processor and kernel, in words.
pub(crate) fn name() -> String {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = cpus.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let model = field("model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    let number = field("model\t").map_or(String::new(), |number| format!(" (model {number})"));
    let release = rustix::system::uname();
    format!("{model}{number}, Linux {}", release.release().to_string_lossy())
}
