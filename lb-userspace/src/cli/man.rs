//! `lb man`: the manual, from the same definition as `--help`.

use std::{fs, path::PathBuf};

use anyhow::Context as _;
use clap::{Args, CommandFactory as _};
use clap_mangen::Man;

use super::{Cli, output::Output};

#[derive(Debug, Args)]
#[command(after_help = "Example: lb man | man -l -")]
pub(super) struct Manual {
    /// Write the page of every command into this directory, rather than that of lb to standard output.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl Manual {
    pub(super) fn run(self, output: Output) -> anyhow::Result<()> {
        let command = Cli::command().disable_help_subcommand(true);
        if let Some(dir) = self.dir {
            fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
            return clap_mangen::generate_to(command, &dir)
                .with_context(|| format!("cannot write to {}", dir.display()));
        }
        let mut page = Vec::new();
        Man::new(command).render(&mut page)?;
        output.say(&String::from_utf8_lossy(&page))
    }
}
