//! `cargo xtask setup`: installs what is missing, after saying so. Quick when nothing is.

mod bpf;
pub(crate) mod packages;

use std::{fs, process::Command};

use anyhow::Result;

use crate::shell::{as_root, run, show};

/// What is about to be done, each with what the ones before it need.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Purpose {
    /// Compile.
    Build,
    /// Make a lab.
    Lab,
    /// Run the tests.
    Test,
    /// Compare with others.
    Bench,
}

/// The command: installs everything.
pub(crate) fn setup() -> Result<()> {
    ensure(Purpose::Bench)?;
    println!("everything is there: try `cargo xtask run` and `cargo xtask test`");
    Ok(())
}

/// Installs what is missing for a purpose.
pub(crate) fn ensure(purpose: Purpose) -> Result<()> {
    packages::ensure(purpose)?;
    bpf::ensure()?;
    if purpose >= Purpose::Lab {
        mount_bpffs()?;
    }
    Ok(())
}

/// Pins need a BPF file system; systemd mounts it, containers and small systems may not.
fn mount_bpffs() -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    if mounts.lines().any(|line| line.split(' ').nth(2) == Some("bpf")) {
        return Ok(());
    }
    announced(&mut as_root("mount", &["-t", "bpf", "bpf", "/sys/fs/bpf"])?)
}

/// Says what is run, and runs it.
fn announced(command: &mut Command) -> Result<()> {
    println!("setup: {}", show(command));
    run(command)
}
