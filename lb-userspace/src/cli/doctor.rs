//! `lb doctor`: what would stop this from working here.

use std::{fmt::Write as _, path::PathBuf};

use clap::Args;
use serde::Serialize;

use super::output::{Output, Tone};
use crate::{
    api::types::SCHEMA_VERSION,
    config::{self, Config},
    doctor::{Finding, Level, examine},
};

#[derive(Debug, Args)]
#[command(
    after_help = "Exit code 1 when something does not work like this. Nothing is changed, and no daemon is needed."
)]
pub(super) struct Doctor {
    /// The configuration whose needs are looked at.
    #[arg(long, value_name = "FILE", default_value = config::DEFAULT_PATH)]
    config: PathBuf,
}

/// What `lb doctor -o json` prints.
#[derive(Serialize)]
struct Findings {
    schema_version: u32,
    findings: Vec<Finding>,
}

impl Doctor {
    pub(super) fn run(self, output: Output) -> anyhow::Result<()> {
        let config = Config::load(&self.config)?;
        let document = Findings { schema_version: SCHEMA_VERSION, findings: examine(&config) };
        output.print(&document, |document| list(&document.findings, output))?;
        let problems = document.findings.iter().filter(|finding| finding.level == Level::Problem).count();
        anyhow::ensure!(problems == 0, "{problems} found that do not work like this");
        Ok(())
    }
}

fn list(findings: &[Finding], output: Output) -> String {
    let mut text = String::new();
    for Finding { level, subject, found, why, fix } in findings {
        let (mark, tone) = match level {
            Level::Ok => ("ok     ", Tone::Good),
            Level::Warning => ("warning", Tone::Warning),
            Level::Problem => ("problem", Tone::Bad),
        };
        let _ = writeln!(text, "{}  {subject}: {found}", output.paint(mark, tone));
        for (word, line) in [("why", why), ("fix", fix)] {
            if let Some(line) = line {
                let _ = writeln!(text, "         {word}: {line}");
            }
        }
    }
    text
}
