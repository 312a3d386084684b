//! `lb config`: the file, what the daemon made of it, and what differs.

use std::{fmt::Write as _, path::PathBuf};

use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::Value;

use super::output::Output;
use crate::{
    api::types::{ConfigDocument, DriftDocument, ReloadDocument, SCHEMA_VERSION},
    client::Client,
    config::{self, Config, document},
    interface,
};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Check a file and report every mistake in it.
    Check(File),
    /// Show a file with every default written out, or what the daemon runs with.
    Show {
        #[command(flatten)]
        file: File,
        /// What the daemon runs with, changes made at run time included.
        #[arg(long, conflicts_with_all = ["config", "file"])]
        running: bool,
    },
    /// Print the JSON schema of the file, for editors.
    #[command(
        after_help = "In an editor with a TOML language server, the first line of the file names it: #:schema ./lb.schema.json"
    )]
    Schema,
    /// Show what differs between the daemon's file and what it runs with, and why.
    Diff,
    /// Have the daemon read its file again: taken over as a whole, or, when anything in it is wrong, not at all.
    ///
    /// Connections stay with their backends. Changes under `[global]` take effect with the next start of the daemon.
    Reload {
        /// Drop what was changed at run time: what the file says holds, and nothing else.
        #[arg(long)]
        discard: bool,
    },
}

#[derive(Debug, Args)]
pub(super) struct File {
    /// The configuration.
    #[arg(long, value_name = "FILE", default_value = config::DEFAULT_PATH)]
    config: PathBuf,
    /// The configuration.
    #[arg(value_name = "FILE", conflicts_with = "config")]
    file: Option<PathBuf>,
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
    pub(super) async fn run(self, client: &Client, output: Output) -> anyhow::Result<()> {
        match self {
            Self::Check(file) => check(&file.load()?, output),
            Self::Show { running: true, .. } => {
                output.print(&client.configuration().await?, |shown| shown.toml.clone())
            }
            Self::Show { file, .. } => {
                let config = file.load()?;
                let shown = ConfigDocument {
                    schema_version: SCHEMA_VERSION,
                    file: config.path().to_owned(),
                    toml: document::toml(&config.global, &config.alarms, &config.services),
                    config: document::json(&config.global, &config.alarms, &config.services),
                };
                output.print(&shown, |shown| shown.toml.clone())
            }
            Self::Schema => output.say(document::SCHEMA),
            Self::Diff => output.print(&client.drift().await?, |drift| differences(drift, output)),
            Self::Reload { discard } => output.print(&client.reload(discard).await?, |done| reloaded(done, output)),
        }
    }
}

impl File {
    fn load(self) -> Result<Config, config::Error> {
        Config::load(&self.file.unwrap_or(self.config))
    }
}

fn check(config: &Config, output: Output) -> anyhow::Result<()> {
    if let Err(error) = config.check_interfaces(&interface::names()?) {
        // The file may be for another machine.
        eprintln!("warning: {error}");
    }
    for warning in config.warnings() {
        eprintln!("warning: {warning}");
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

fn differences(drift: &DriftDocument, output: Output) -> String {
    if drift.differences.is_empty() {
        return format!("what runs is what {} says", drift.file.display());
    }
    let mut table = output.table(&["KEY", "FILE", "RUNNING", "BECAUSE"], &[]);
    for drift in &drift.differences {
        table.add_row([&drift.key, &value(drift.file.as_ref()), &value(drift.running.as_ref()), &drift.because]);
    }
    table.trim_fmt()
}

fn reloaded(done: &ReloadDocument, output: Output) -> String {
    let mut text = format!("{} reloaded", done.file.display());
    if done.changes.is_empty() {
        text.push_str("; it changes nothing");
    }
    let mut table = output.table(&["KEY", "FROM", "TO", ""], &[]);
    let rows = [(&done.changes, ""), (&done.next_start, "takes effect with the next start of the daemon")];
    for (differences, note) in rows {
        for difference in differences {
            let (from, to) = (value(difference.from.as_ref()), value(difference.to.as_ref()));
            table.add_row([&difference.key, &from, &to, note]);
        }
    }
    if !table.is_empty() {
        let _ = write!(text, "\n\n{}", table.trim_fmt());
    }
    text
}

/// A word without its quotes; nothing as a dash.
fn value(value: Option<&String>) -> String {
    match value.map(|text| serde_json::from_str(text)) {
        Some(Ok(Value::String(word))) => word,
        Some(_) => value.cloned().unwrap_or_default(),
        None => "-".into(),
    }
}
