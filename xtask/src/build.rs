//! `cargo xtask build`: `target/release/lb`, with the BPF object inside.

use std::process::Command;

use anyhow::Result;

use crate::{
    setup::{self, Purpose},
    shell::{cargo, run},
};

/// Builds the binary; installs the BPF toolchain first if it is missing.
pub(crate) fn build() -> Result<()> {
    setup::ensure(Purpose::Build)?;
    compile()?;
    println!("target/release/lb is ready");
    Ok(())
}

/// Builds the binary.
pub(crate) fn compile() -> Result<()> {
    run(&mut command())
}

/// What builds the binary.
pub(crate) fn command() -> Command {
    cargo(&["build", "--locked", "--release", "--package", "lb-userspace"])
}
