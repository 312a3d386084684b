//! The movie site of the outage as a program: see [`lab::site`].

use std::process::ExitCode;

use clap::Parser;
use lab::site::{Options, serve};

fn main() -> ExitCode {
    match serve(&Options::parse()) {
        Ok(never) => match never {},
        Err(error) => {
            eprintln!("movie-site: {error:#}");
            ExitCode::FAILURE
        }
    }
}
