//! `lb`: the load balancer's daemon and command line.

use std::process::ExitCode;

use clap::Parser as _;
use lb_userspace::cli::{self, Cli};

fn main() -> ExitCode {
    cli::complete();
    match cli::run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => cli::fail(&error),
    }
}
