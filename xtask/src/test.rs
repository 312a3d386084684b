//! `cargo xtask test`: every check and every test.

use std::{env, process::Command, time::Instant};

use anyhow::{Result, bail};

use crate::{
    build,
    setup::{self, Purpose},
    shell::{cargo, find, start_as_root, step},
};

/// What the host's compiler compiles: all but the BPF program, which lb-userspace's build script compiles. The same
/// choice in every step, so that no step compiles what another has compiled.
const HOST: &[&str] = &["--locked", "--workspace", "--exclude", "lb-ebpf"];

/// Everything that has to hold, from the cheapest to the dearest.
pub(crate) fn test() -> Result<()> {
    let started = Instant::now();
    setup::ensure(Purpose::Test)?;
    step("format", &mut cargo(&["fmt", "--all", "--check"]))?;
    step("clippy", cargo(&["clippy"]).args(HOST).args(["--all-targets", "--", "--deny", "warnings"]))?;
    let doc = &mut cargo(&["doc", "--no-deps", "--document-private-items"]);
    step("documentation", doc.args(HOST).env("RUSTDOCFLAGS", "--deny warnings"))?;
    step("unit tests", cargo(&["test"]).args(HOST).args(["--lib", "--bins"]))?;
    step("examples", cargo(&["test"]).args(HOST).arg("--doc"))?;
    step("release build", &mut build::command())?;
    step("package", &mut cargo(&["xtask", "dist"]))?;
    step("build to upgrade to", &mut cargo(&["xtask", "build", "--rebuilt"]))?;
    if has_root()? {
        step("demonstration", &mut cargo(&["xtask", "run", "--for", "10s"]))?;
        step("end-to-end tests", &mut end_to_end()?)?;
    }
    println!("all passed in {:.0} s", started.elapsed().as_secs_f64());
    Ok(())
}

/// Whether what needs root can be run. Without it only CI fails.
fn has_root() -> Result<bool> {
    let has = lab::is_root() || find("sudo").is_some();
    if !has && env::var_os("CI").is_some() {
        bail!("the demonstration and the end-to-end tests need root, and there is no sudo");
    } else if !has {
        println!("the demonstration and the end-to-end tests are skipped: they need root, and there is no sudo");
    }
    Ok(has)
}

/// The tests in the lab, as root.
fn end_to_end() -> Result<Command> {
    let mut tests = cargo(&["test", "--no-fail-fast"]);
    tests.args(HOST).args(["--test", "*"]).env("LB_LAB", "required");
    start_as_root(&mut tests)?;
    Ok(tests)
}
