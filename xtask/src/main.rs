//! `cargo xtask COMMAND`: everything one does with this repository, a file per command.

mod bench;
mod build;
mod dist;
mod kernels;
mod outage;
mod run;
mod setup;
mod shell;
mod test;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "xtask", bin_name = "cargo xtask", about = "Setup, build, run and test of lb", max_term_width = 120)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install what is missing: the BPF toolchain and the tools of the lab
    Setup,
    /// Build target/release/lb
    Build(build::Arguments),
    /// Show it at work in network namespaces, or run it on this machine's interface with --config
    Run(run::Arguments),
    /// Replay the outage that lb exists to prevent: as it was, and with lb
    Outage(outage::Arguments),
    /// Measure
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Run every check and every test
    Test,
    /// Build the Debian package into target/debian
    Dist,
    /// Have the package go through its life under systemd on the kernels of Debian's releases, in virtual machines
    Kernels(kernels::Arguments),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Setup => setup::setup(),
        Command::Build(arguments) => build::build(&arguments),
        Command::Run(arguments) => run::run(&arguments),
        Command::Outage(arguments) => outage::outage(&arguments),
        Command::Bench(bench) => bench::bench(&bench),
        Command::Test => test::test(),
        Command::Dist => dist::dist(),
        Command::Kernels(arguments) => kernels::kernels(&arguments),
    };
    finish(result)
}

fn finish(result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
