//! `cargo xtask run`: the demonstration in the lab, or the daemon on this machine.

mod demo;
mod story;
mod view;

use std::{os::unix::process::CommandExt, path::PathBuf, time::Duration};

use anyhow::{Context, Result};

use crate::{
    build,
    setup::{self, Purpose},
    shell::{as_root, is_again, with_root, workspace},
};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// End the demonstration after this time, e.g. 10s (default where standard output is no terminal)
    #[arg(long = "for", value_name = "TIME", value_parser = seconds, conflicts_with_all = ["config", "daemon"])]
    duration: Option<Duration>,
    /// Run the daemon on this machine with this configuration
    #[arg(long, value_name = "FILE", conflicts_with = "daemon")]
    config: Option<PathBuf>,
    /// Run the daemon on this machine with these arguments of `lb run`
    #[arg(last = true, value_name = "LB RUN ARGUMENTS")]
    daemon: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let on_this_machine = arguments.config.is_some() || !arguments.daemon.is_empty();
    let purpose = if on_this_machine { Purpose::Build } else { Purpose::Lab };
    if !is_again() {
        setup::ensure(purpose)?;
        build::compile()?;
    }
    if on_this_machine { daemon(arguments) } else { with_root(|| demo::demo(arguments.duration)) }
}

/// Becomes `lb run`, so that signals and the exit code are its own.
fn daemon(arguments: &Arguments) -> Result<()> {
    let config = arguments.config.as_ref().map(|path| path.to_string_lossy().into_owned());
    let mut words = vec!["run"];
    words.extend(config.iter().flat_map(|config| ["--config", config]));
    words.extend(arguments.daemon.iter().map(String::as_str));
    let lb = workspace().join("target/release/lb");
    Err(as_root(&lb, &words)?.exec()).with_context(|| format!("cannot start {}", lb.display()))
}

/// `10s`, `2m`, or `10` for seconds.
fn seconds(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.strip_suffix('m') {
        Some(number) => (number, 60),
        None => (text.strip_suffix('s').unwrap_or(text), 1),
    };
    let number: u64 = number.parse().map_err(|_| "give it in seconds or minutes: 10s, 2m".to_owned())?;
    match Duration::from_secs(number * unit) {
        time if time < demo::SHORTEST => Err(format!("the demonstration takes {:?} at least", demo::SHORTEST)),
        time => Ok(time),
    }
}
