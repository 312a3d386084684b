//! `lb config check`: whether `lb run` would take a file.

use std::path::PathBuf;

use clap::Subcommand;
use serde::Serialize;

use super::output::Output;
use crate::{
    api::types::SCHEMA_VERSION,
    config::{self, Config},
    interface,
};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Check a file and report every mistake in it.
    Check {
        /// The configuration.
        #[arg(long, value_name = "FILE", default_value = config::DEFAULT_PATH)]
        config: PathBuf,
        /// The configuration.
        #[arg(value_name = "FILE", conflicts_with = "config")]
        file: Option<PathBuf>,
    },
}

/// What `lb config check -o json` prints when all is well.
#[derive(Serialize)]
struct Checked {
    schema_version: u32,
    file: PathBuf,
    services: usize,
    backends: usize,
}

impl Command {
    pub(super) fn run(self, output: Output) -> anyhow::Result<()> {
        let Self::Check { config, file } = self;
        let config = Config::load(&file.unwrap_or(config))?;
        if let Err(error) = config.check_interfaces(&interface::names()?) {
            // The file may be for another machine.
            eprintln!("warning: {error}");
        }
        let backends = config.services.iter().map(|service| service.backends.len()).sum();
        let checked = Checked {
            schema_version: SCHEMA_VERSION,
            file: config.path().to_owned(),
            services: config.services.len(),
            backends,
        };
        output.print(&checked, |checked| {
            let Checked { file, services, backends, .. } = checked;
            format!("{}: ok, services: {services}, backends: {backends}", file.display())
        })
    }
}
