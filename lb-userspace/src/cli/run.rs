//! `lb run`: the daemon.

use std::{
    io::{self, IsTerminal as _},
    path::PathBuf,
};

use anyhow::Context as _;
use clap::Args;
use tracing_subscriber::EnvFilter;

use crate::{config, daemon, privileges};

#[derive(Debug, Args)]
pub(super) struct Run {
    /// The configuration.
    #[arg(long, value_name = "FILE", default_value = config::DEFAULT_PATH)]
    config: PathBuf,
}

impl Run {
    pub(super) fn run(self) -> anyhow::Result<()> {
        log();
        // Before there is a second thread, which would keep what it was born with.
        privileges::reduce().context("cannot give up what is not needed")?;
        tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(daemon::run(&self.config))?;
        Ok(())
    }
}

/// To standard error, as much as `RUST_LOG` wants. systemd's journal knows the time already.
pub(super) fn log() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let colored = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_target(false);
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        log.with_ansi(false).without_time().init();
    } else {
        log.with_ansi(colored).init();
    }
}
