//! `cargo xtask dist`: the Debian package, with manual, completions, schema and unit.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result};

use crate::{
    build,
    setup::{self, Purpose},
    shell::{cargo, run, workspace},
};

const CARGO_DEB: &str = "3.8.0";

const COMPLETIONS: &[(&str, &str)] = &[("bash", "lb.bash"), ("zsh", "_lb"), ("fish", "lb.fish")];

/// Builds the package into target/debian.
pub(crate) fn dist() -> Result<()> {
    setup::ensure(Purpose::Build)?;
    build::compile()?;
    let cargo_deb = workspace().join("target/tools/bin/cargo-deb");
    if !cargo_deb.exists() {
        println!("dist: cargo-deb is missing; installing it under target/tools");
        run(&mut cargo(&["install", "cargo-deb", "--version", CARGO_DEB, "--locked", "--root", "target/tools"]))?;
    }
    let dist = workspace().join("target/dist");
    let completions = dist.join("completions");
    fs::create_dir_all(&completions).with_context(|| format!("cannot create {}", completions.display()))?;
    run(lb().arg("man").arg("--dir").arg(dist.join("man")))?;
    for (shell, file) in COMPLETIONS {
        write(&completions.join(file), lb().args(["completion", shell]))?;
    }
    write(&dist.join("lb.schema.json"), lb().args(["config", "schema"]))?;
    let mut package = Command::new(cargo_deb);
    package.current_dir(workspace()).args(["--package", "lb-userspace", "--no-build", "--locked"]);
    run(&mut package)
}

/// The binary that was built: it writes its own manual.
fn lb() -> Command {
    Command::new(workspace().join("target/release/lb"))
}

fn write(path: &Path, command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("cannot start {command:?}"))?;
    anyhow::ensure!(output.status.success(), "{command:?} failed: {}", output.status);
    fs::write(path, output.stdout).with_context(|| format!("cannot write {}", path.display()))
}
