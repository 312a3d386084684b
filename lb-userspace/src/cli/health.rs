//! `lb health`: how backends are checked.

use clap::Subcommand;
use jiff::Timestamp;

use super::{
    backend::{self, Name},
    completion,
    output::{Output, Tone, cell, word},
    status::ago,
};
use crate::{
    api::types::{BackendHealth, BackendPatch, HealthDocument, SCHEMA_VERSION},
    client::Client,
    health::Health,
};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List the checks: of what kind, how often, what the last one saw.
    List {
        /// Only those of this service.
        #[arg(add = completion::services())]
        service: Option<String>,
    },
    /// Check a backend once and say what was seen. It counts for nothing; exit code 1 when it fails.
    Run {
        /// The backend.
        #[arg(add = completion::backends())]
        backend: Name,
    },
    /// Stop checking a backend: its health stays what it is, also over a restart, until it is resumed.
    Pause {
        /// The backend.
        #[arg(add = completion::backends())]
        backend: Name,
        /// Why, for whoever looks at the status.
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Check a backend again.
    Resume {
        /// The backend.
        #[arg(add = completion::backends())]
        backend: Name,
    },
}

impl Command {
    pub(super) async fn run(self, client: &Client, output: Output) -> anyhow::Result<()> {
        match self {
            Self::List { service } => {
                if let Some(service) = &service {
                    // For the answer to a name that does not exist.
                    client.backends(service).await?;
                }
                let HealthDocument { mut backends, .. } = client.health().await?;
                backends.retain(|backend| service.as_ref().is_none_or(|service| *service == backend.service));
                let document = HealthDocument { schema_version: SCHEMA_VERSION, backends };
                output.print(&document, |document| table(&document.backends, output))
            }
            Self::Run { backend: Name { service, backend } } => {
                let document = client.check(&service, &backend).await?;
                if output.is_json() || document.checked.passed {
                    output.print(&document, |document| document.checked.seen.clone())?;
                }
                anyhow::ensure!(document.checked.passed, "{}", document.checked.seen);
                Ok(())
            }
            Self::Pause { backend, reason } => set(client, output, &backend, true, reason).await,
            Self::Resume { backend } => set(client, output, &backend, false, None).await,
        }
    }
}

async fn set(
    client: &Client,
    output: Output,
    Name { service, backend }: &Name,
    paused: bool,
    reason: Option<String>,
) -> anyhow::Result<()> {
    let patch = BackendPatch { paused: Some(paused), reason, ..BackendPatch::default() };
    backend::show(output, &client.change(service, backend, &patch).await?)
}

fn table(backends: &[BackendHealth], output: Output) -> String {
    let mut table = output.table(&["BACKEND", "CHECK", "EVERY", "HEALTH", "TURNING", "LAST", "SEEN"], &[]);
    let now = Timestamp::now();
    for one in backends {
        let tone = match one.health {
            Health::Up => Tone::Good,
            Health::Unknown => Tone::Warning,
            Health::Down => Tone::Bad,
        };
        let turning = if one.contrary == 0 { String::new() } else { format!("{}/{}", one.contrary, one.needed) };
        let (last, seen) = match (&one.paused, &one.last) {
            (Some(paused), _) => (ago(paused.at, now), paused.cause.clone()),
            (None, Some(last)) => (ago(last.at, now), last.seen.clone()),
            (None, None) => (String::new(), String::new()),
        };
        let every = if one.check == "none" { String::new() } else { format!("{}s", one.interval_seconds) };
        table.add_row(vec![
            format!("{}/{}", one.service, one.backend).into(),
            (&one.check).into(),
            if one.paused.is_some() { cell("paused", Tone::Warning) } else { every.into() },
            cell(word(one.health), tone),
            turning.into(),
            last.into(),
            seen.into(),
        ]);
    }
    table.trim_fmt()
}
