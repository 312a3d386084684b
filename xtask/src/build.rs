//! `cargo xtask build`: `target/release/lb`, with the BPF object inside.

use std::{fs, process::Command};

use anyhow::{Context, Result};
use clap::Args;

use crate::{
    setup::{self, Purpose},
    shell::{cargo, run, workspace},
};

#[derive(Args)]
pub(crate) struct Arguments {
    /// Build what the tests upgrade to instead: target/rebuilt/lb, not optimized, with other XDP programs
    #[arg(long)]
    rebuilt: bool,
}

/// Builds the binary; installs the BPF toolchain first if it is missing.
pub(crate) fn build(arguments: &Arguments) -> Result<()> {
    setup::ensure(Purpose::Build)?;
    if arguments.rebuilt {
        run(&mut rebuilt_command())?;
        return keep_rebuilt();
    }
    compile()?;
    println!("target/release/lb is ready");
    Ok(())
}

/// What builds the binary that the tests upgrade to. It shares its dependencies with the unit tests.
pub(crate) fn rebuilt_command() -> Command {
    cargo(&["build", "--locked", "--package", "lb-userspace", "--features", "rebuilt"])
}

/// Puts it where no other build replaces it.
pub(crate) fn keep_rebuilt() -> Result<()> {
    let (built, kept) = (workspace().join("target/debug/lb"), workspace().join("target/rebuilt"));
    let lb = kept.join("lb");
    fs::create_dir_all(&kept)
        .and_then(|()| fs::copy(built, &lb))
        .map(drop)
        .with_context(|| format!("cannot make {}", lb.display()))
}

/// Builds the binary.
pub(crate) fn compile() -> Result<()> {
    run(&mut command())
}

/// What builds the binary.
pub(crate) fn command() -> Command {
    cargo(&["build", "--locked", "--release", "--package", "lb-userspace"])
}
