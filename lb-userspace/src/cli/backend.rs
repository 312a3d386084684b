//! `lb backend`: the servers of a service, one by one.

use std::{
    io::{self, IsTerminal as _, Write as _},
    str::FromStr,
    time::{Duration, Instant},
};

use clap::{ArgGroup, Args, Subcommand, builder::RangedI64ValueParser};
use jiff::Timestamp;
use serde::Serialize;
use tokio::time;

use super::{completion, error::TimedOut, output::Output, status::backends as table};
use crate::{
    api::types::{BackendDocument, BackendPatch, BackendsDocument, ErrorCode, NewBackend, SCHEMA_VERSION},
    client::{self, Client},
    config::Recall,
    model::Admin,
    plan::MAX_WEIGHT,
};

/// How often a drain looks whether it is done.
const POLL: Duration = Duration::from_millis(250);

/// Until then a wait needs no words.
const FIRST_PROGRESS: Duration = Duration::from_secs(1);
/// How often it gets some where they stay.
const PROGRESS: Duration = Duration::from_secs(5);

/// Why, and for how long, a backend is to be out of rotation.
#[derive(Debug, Args)]
pub(super) struct Absence {
    /// Why, for whoever looks at the status.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// For how long, say 30m: it returns by itself then, as `after_detachment` says. Given again, it starts anew
    /// [default: `detached_for` of the configuration, 1h].
    #[arg(long = "for", value_name = "DURATION", value_parser = humantime::parse_duration)]
    period: Option<Duration>,
    /// When to call it back before that [default: `recall` of the configuration, pressure].
    #[arg(long, value_enum)]
    recall: Option<Recall>,
    #[command(flatten)]
    consent: Consent,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List the backends of a service, or of all.
    List {
        /// The service.
        #[arg(add = completion::services())]
        service: Option<String>,
    },
    /// Show one backend.
    Show {
        /// The backend.
        #[arg(add = completion::backends())]
        backend: Name,
    },
    /// Add a backend. It takes connections once its check passes.
    Add {
        /// The new backend.
        backend: Name,
        /// Where it listens.
        #[arg(long, value_name = "IP:PORT")]
        address: String,
        /// Share of new connections, up to 256; 0 takes none.
        #[arg(long, default_value_t = 1, value_parser = weight())]
        weight: u16,
        /// Where its check connects, when not where those of the other backends do.
        #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
        health_port: Option<u16>,
        /// Where its agent is asked, when not where those of the other backends are.
        #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
        agent_port: Option<u16>,
        /// Have it serve only while no other does.
        #[arg(long)]
        backup: bool,
        /// With so many open connections it gets no new one.
        #[arg(long, value_name = "N")]
        max_connections: Option<u32>,
    },
    /// Remove a backend at once; what it serves is cut off (see drain).
    Remove {
        /// The backend.
        #[arg(add = completion::backends())]
        backend: Name,
        #[command(flatten)]
        consent: Consent,
    },
    /// Change the weight of a backend, or how many connections it may have.
    #[command(group = ArgGroup::new("setting").required(true).multiple(true))]
    Set {
        /// The backend.
        #[arg(add = completion::backends())]
        backend: Name,
        /// Share of new connections, up to 256; 0 takes none.
        #[arg(long, value_parser = weight(), group = "setting")]
        weight: Option<u16>,
        /// With so many open connections it gets no new one; 0 for no limit.
        #[arg(long, value_name = "N", group = "setting")]
        max_connections: Option<u32>,
        #[command(flatten)]
        consent: Consent,
    },
    /// Give a backend no new connections, and wait for those that it has if you like.
    Drain {
        /// The backend.
        #[arg(add = completion::backends())]
        backend: Name,
        /// Return when it has no connection left.
        #[arg(long)]
        wait: bool,
        /// How long to wait.
        #[arg(long, value_name = "DURATION", requires = "wait", default_value = "5m", value_parser = humantime::parse_duration)]
        timeout: Duration,
        #[command(flatten)]
        absence: Absence,
    },
    /// Have a backend serve again.
    Enable {
        /// The backend.
        #[arg(add = completion::backends())]
        backend: Name,
    },
    /// Give a backend no new connections for a while: those that it has go on, as with drain.
    Disable {
        /// The backend.
        #[arg(add = completion::backends())]
        backend: Name,
        #[command(flatten)]
        absence: Absence,
    },
}

#[derive(Clone, Copy, Debug, Args)]
pub(super) struct Consent {
    /// Do it even when the service is left with no backend in rotation.
    #[arg(long)]
    yes: bool,
}

/// What a weight may be.
fn weight() -> RangedI64ValueParser<u16> {
    clap::value_parser!(u16).range(..=i64::from(MAX_WEIGHT))
}

/// SERVICE/BACKEND.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) service: String,
    pub(super) backend: String,
}

impl FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('/') {
            Some((service, backend)) if !service.is_empty() && !backend.is_empty() => {
                Ok(Self { service: service.into(), backend: backend.into() })
            }
            _ => Err("write SERVICE/BACKEND, e.g. web/web-01".into()),
        }
    }
}

impl Command {
    pub(super) async fn run(self, client: &Client, output: Output) -> anyhow::Result<()> {
        match self {
            Self::List { service } => list(client, output, service).await,
            Self::Show { backend: Name { service, backend } } => {
                show(output, &client.backend(&service, &backend).await?)
            }
            Self::Add {
                backend: Name { service, backend },
                address,
                weight,
                health_port,
                agent_port,
                backup,
                max_connections,
            } => {
                let (name, weight) = (Some(backend), Some(weight));
                let new = NewBackend { name, address, weight, health_port, agent_port, backup, max_connections };
                show(output, &client.add(&service, &new).await?)
            }
            Self::Remove { backend: Name { service, backend }, consent } => {
                let left = confirmed(consent, |force| client.remove(&service, &backend, force)).await?;
                output.print(&left, |left| table(&left.backends, output))
            }
            Self::Set { backend, weight, max_connections, consent } => {
                let patch = BackendPatch { weight, max_connections, ..BackendPatch::default() };
                change(client, output, &backend, &patch, consent).await
            }
            Self::Drain { backend, wait, timeout, absence } => {
                let (patch, consent) = absence.of(Admin::Draining)?;
                if !wait {
                    return change(client, output, &backend, &patch, consent).await;
                }
                patched(client, &backend, &patch, consent).await?;
                show(output, &drained(client, &backend, timeout).await?)
            }
            Self::Enable { backend } => {
                let patch = BackendPatch { admin: Some(Admin::Enabled), ..BackendPatch::default() };
                change(client, output, &backend, &patch, Consent { yes: false }).await
            }
            Self::Disable { backend, absence } => {
                let (patch, consent) = absence.of(Admin::Disabled)?;
                change(client, output, &backend, &patch, consent).await
            }
        }
    }
}

impl Absence {
    /// The change that takes a backend out of rotation, and whether it is insisted on.
    fn of(self, admin: Admin) -> anyhow::Result<(BackendPatch, Consent)> {
        let Self { reason, period, recall, consent } = self;
        let until = period.map(|period| Timestamp::now().checked_add(period)).transpose()?;
        Ok((BackendPatch { admin: Some(admin), until, recall, reason, ..BackendPatch::default() }, consent))
    }
}

/// The backends of every service: what `lb backend list -o json` prints without a service.
#[derive(Serialize)]
struct AllBackends {
    schema_version: u32,
    services: Vec<BackendsDocument>,
}

async fn list(client: &Client, output: Output, service: Option<String>) -> anyhow::Result<()> {
    if let Some(service) = service {
        return output.print(&client.backends(&service).await?, |found| table(&found.backends, output));
    }
    let services = client.status(None).await?.services.into_iter().map(|service| BackendsDocument {
        schema_version: SCHEMA_VERSION,
        service: service.name,
        backends: service.backends,
    });
    let all = AllBackends { schema_version: SCHEMA_VERSION, services: services.collect() };
    output.print(&all, |all| {
        let shown = all.services.iter().map(|one| format!("{}\n{}\n", one.service, table(&one.backends, output)));
        shown.collect::<Vec<_>>().join("\n")
    })
}

pub(super) fn show(output: Output, document: &BackendDocument) -> anyhow::Result<()> {
    output.print(document, |document| {
        format!("{}\n{}", document.service, table(std::slice::from_ref(&document.backend), output))
    })
}

async fn change(
    client: &Client,
    output: Output,
    name: &Name,
    patch: &BackendPatch,
    consent: Consent,
) -> anyhow::Result<()> {
    show(output, &patched(client, name, patch, consent).await?)
}

async fn patched(
    client: &Client,
    name: &Name,
    patch: &BackendPatch,
    consent: Consent,
) -> anyhow::Result<BackendDocument> {
    confirmed(consent, async |force| {
        let patch = BackendPatch { force, ..patch.clone() };
        client.change(&name.service, &name.backend, &patch).await
    })
    .await
}

/// Does it; when the daemon refuses and somebody is there to answer, asks and does it all the same.
pub(super) async fn confirmed<T>(
    consent: Consent,
    request: impl AsyncFn(bool) -> Result<T, client::Error>,
) -> anyhow::Result<T> {
    match request(consent.yes).await {
        Err(client::Error::Answered(mut refused)) if refused.code == ErrorCode::Refused => {
            let there = io::stdin().is_terminal() && io::stderr().is_terminal();
            if there && agrees(&refused.message)? {
                return Ok(request(true).await?);
            }
            refused.message.push_str(if there {
                ". Nothing was changed"
            } else {
                ". Nothing was changed; --yes insists"
            });
            Err(client::Error::Answered(refused).into())
        }
        done => Ok(done?),
    }
}

pub(super) fn agrees(impact: &str) -> io::Result<bool> {
    eprint!("{impact}.\nDo it all the same? [y/N] ");
    io::stderr().flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}

/// Waits until the backend has no connection left, and tells how many there are.
async fn drained(client: &Client, name: &Name, timeout: Duration) -> anyhow::Result<BackendDocument> {
    let started = Instant::now();
    let mut progress = Progress::new(started);
    loop {
        let document = client.backend(&name.service, &name.backend).await?;
        let left = document.backend.connections;
        if left == 0 {
            progress.end();
            return Ok(document);
        }
        if started.elapsed() >= timeout {
            progress.end();
            let waited = humantime::format_duration(timeout);
            let (service, backend) = (&name.service, &name.backend);
            let message =
                format!("{service}/{backend} still has {left} connections after {waited}; it goes on draining");
            return Err(TimedOut(message).into());
        }
        progress.tell(name, left);
        time::sleep(POLL.min(timeout.saturating_sub(started.elapsed()))).await;
    }
}

/// What is left, on standard error: a line that changes on a terminal, elsewhere a line now and then.
struct Progress {
    started: Instant,
    terminal: bool,
    next: Instant,
    shown: bool,
}

impl Progress {
    fn new(started: Instant) -> Self {
        Self { started, terminal: io::stderr().is_terminal(), next: started + FIRST_PROGRESS, shown: false }
    }

    fn tell(&mut self, Name { service, backend }: &Name, left: u64) {
        if Instant::now() < self.next {
            return;
        }
        let waited = self.started.elapsed().as_secs();
        let text = format!("{service}/{backend}: {left} connections left after {waited}s");
        if self.terminal {
            // Over what is there: to the start of the line, and clear the rest of it.
            eprint!("\r{text}\x1b[K");
            let _ = io::stderr().flush();
        } else {
            eprintln!("{text}");
            self.next += PROGRESS;
        }
        self.shown = true;
    }

    fn end(&self) {
        if self.terminal && self.shown {
            eprintln!();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_is_named_with_its_service() {
        for (text, expected) in [
            ("web/web-01", Some(("web", "web-01"))),
            ("web/[2001:db8::11]:80", Some(("web", "[2001:db8::11]:80"))),
            ("web", None),
            ("/web-01", None),
            ("web/", None),
        ] {
            let name = Name::from_str(text).ok();
            let name = name.as_ref().map(|name| (name.service.as_str(), name.backend.as_str()));
            assert_eq!(name, expected, "{text}");
        }
    }
}
