//! `lb flow`: what is under way through this node, straight from the pinned maps.

use std::{
    io::{self, IsTerminal as _},
    path::Path,
    str::FromStr,
};

use clap::Subcommand;
use serde::Serialize;

use super::{
    Pins,
    backend::agrees,
    completion,
    error::{NotFound, Refused},
    output::{Output, word},
};
use crate::{
    api::types::SCHEMA_VERSION,
    client::Client,
    dataplane::{Flow, Flows, Selection},
};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List flows: client, backend, state, and how long they have been idle.
    ///
    /// The client of a flow over IPv6 with direct return (l2, ipip, gue) is not stored: it is shown as a dash, null in JSON.
    List {
        /// Of a service, or of one of its backends.
        #[arg(value_name = "SERVICE[/BACKEND]", add = completion::backends())]
        of: Option<Subject>,
        #[command(flatten)]
        pins: Pins,
    },
    /// Count flows.
    Count {
        /// Of a service, or of one of its backends.
        #[arg(value_name = "SERVICE[/BACKEND]", add = completion::backends())]
        of: Option<Subject>,
        #[command(flatten)]
        pins: Pins,
    },
    /// End all flows of a service or backend: their connections are reset.
    ///
    /// With maglev or source-hash and direct return, a connection goes on with the backend that its hash names.
    Flush {
        /// The service, or one of its backends.
        #[arg(value_name = "SERVICE[/BACKEND]", add = completion::backends())]
        of: Subject,
        /// Do it without asking.
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        pins: Pins,
    },
}

/// SERVICE or SERVICE/BACKEND.
#[derive(Clone, Debug)]
pub(super) struct Subject {
    service: String,
    backend: Option<String>,
}

/// What `lb flow list -o json` prints.
#[derive(Serialize)]
struct Listed {
    schema_version: u32,
    flows: Vec<Flow>,
}

/// What `lb flow count -o json` prints.
#[derive(Serialize)]
struct Counted {
    schema_version: u32,
    flows: usize,
}

/// What `lb flow flush -o json` prints.
#[derive(Serialize)]
struct Flushed {
    schema_version: u32,
    flushed: usize,
}

impl FromStr for Subject {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (service, backend) = match text.split_once('/') {
            Some((service, backend)) => (service, Some(backend)),
            None => (text, None),
        };
        if service.is_empty() || backend == Some("") {
            return Err("a service is named NAME, a backend SERVICE/NAME".into());
        }
        Ok(Self { service: service.into(), backend: backend.map(Into::into) })
    }
}

impl Command {
    pub(super) fn run(self, client: &Client, output: Output) -> anyhow::Result<()> {
        match self {
            Self::List { of, pins } => {
                let (flows, of) = open(&pins.directory(client)?, of, false)?;
                let listed = Listed { schema_version: SCHEMA_VERSION, flows: flows.list(&of) };
                output.print(&listed, |listed| table(&listed.flows, output))
            }
            Self::Count { of, pins } => {
                let (flows, of) = open(&pins.directory(client)?, of, false)?;
                let counted = Counted { schema_version: SCHEMA_VERSION, flows: flows.list(&of).len() };
                output.print(&counted, |counted| counted.flows.to_string())
            }
            Self::Flush { of, yes, pins } => {
                let name = of.backend.as_ref().map_or(of.service.clone(), |one| format!("{}/{one}", of.service));
                let (flows, of) = open(&pins.directory(client)?, Some(of), true)?;
                if !yes {
                    agreed(&name, flows.list(&of).len())?;
                }
                let flushed = Flushed { schema_version: SCHEMA_VERSION, flushed: flows.flush(&of) };
                output.print(&flushed, |flushed| format!("{name}: {} flows ended", flushed.flushed))
            }
        }
    }
}

fn open(pin_dir: &Path, of: Option<Subject>, writable: bool) -> anyhow::Result<(Flows, Selection)> {
    let flows = Flows::open(pin_dir, writable)?;
    let of = of.map_or_else(Selection::default, |of| Selection { service: Some(of.service), backend: of.backend });
    if flows.knows(&of) {
        return Ok((flows, of));
    }
    let service = of.service.unwrap_or_default();
    let message = of.backend.map_or_else(
        || format!("there is no service {service}; `lb stats` lists them"),
        |backend| format!("there is no backend {backend} in service {service}; `lb stats` lists them"),
    );
    Err(NotFound(message).into())
}

/// An error unless somebody is there to agree, knowing how much it ends.
fn agreed(name: &str, count: usize) -> anyhow::Result<()> {
    let impact = format!("this ends {count} flows of {name}: their connections are reset");
    let there = io::stdin().is_terminal() && io::stderr().is_terminal();
    if there && agrees(&impact)? {
        return Ok(());
    }
    let rest = if there { "" } else { "; --yes insists" };
    Err(Refused(format!("{impact}. Nothing was changed{rest}")).into())
}

fn table(flows: &[Flow], output: Output) -> String {
    let mut table = output.table(&["CLIENT", "SERVICE", "BACKEND", "STATE", "IDLE", "NAT PORT"], &[4, 5]);
    let dash = || "-".to_owned();
    for flow in flows {
        table.add_row([
            flow.client.map_or_else(dash, |client| client.to_string()),
            flow.service.clone(),
            flow.backend.clone(),
            word(flow.state),
            format!("{}s", flow.idle_seconds),
            flow.nat_port.map_or_else(dash, |port| port.to_string()),
        ]);
    }
    table.trim_fmt()
}
