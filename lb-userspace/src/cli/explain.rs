//! `lb explain`: which backend a flow has or would get, and why.

use std::net::SocketAddr;

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::{
    Pins,
    error::{NotFound, Usage},
    output::{Output, word},
};
use crate::{
    api::types::SCHEMA_VERSION,
    client::Client,
    dataplane::{self, Explanation, FlowState, Outcome},
    plan::{Algorithm, Protocol},
};

#[derive(Debug, Args)]
#[command(
    after_help = "The packet path itself answers, on a copy of the maps: nothing is changed, and no daemon is needed."
)]
pub(super) struct Explain {
    /// The client's address and port.
    #[arg(value_name = "SRC:PORT", value_parser = end)]
    source: SocketAddr,
    /// The service's address and port.
    #[arg(value_name = "DST:PORT", value_parser = end)]
    destination: SocketAddr,
    /// The transport protocol.
    #[arg(long, value_enum, default_value_t)]
    protocol: Transport,
    #[command(flatten)]
    pins: Pins,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Transport {
    #[default]
    Tcp,
    Udp,
}

/// What `lb explain -o json` prints.
#[derive(Serialize)]
struct Explained {
    schema_version: u32,
    service: String,
    algorithm: Algorithm,
    /// Whether the flow exists.
    exists: bool,
    backend: Option<String>,
    state: Option<FlowState>,
    idle_seconds: Option<u64>,
    /// Why it would not be forwarded, as the counters of `lb stats` name it.
    drop: Option<&'static str>,
    text: String,
}

/// An end of a connection, or what one looks like.
fn end(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "write an address and a port, as in 192.0.2.1:40000 or [2001:db8::1]:40000".into())
}

impl Explain {
    pub(super) fn run(self, client: &Client, output: Output) -> anyhow::Result<()> {
        let Self { source, destination, .. } = self;
        if source.is_ipv4() != destination.is_ipv4() {
            let families = "are of different families: no packet goes from one to the other";
            return Err(Usage(format!("{source} and {destination} {families}")).into());
        }
        let protocol = match self.protocol {
            Transport::Tcp => Protocol::Tcp,
            Transport::Udp => Protocol::Udp,
        };
        let Some(found) = dataplane::explain(&self.pins.directory(client)?, source, destination, protocol)? else {
            let protocol = word(protocol);
            let message = format!("no service listens on {destination} ({protocol}); such packets go to the kernel");
            return Err(NotFound(message).into());
        };
        output.print(&document(found), |explained| explained.text.clone())
    }
}

fn document(found: Explanation) -> Explained {
    let text = text(&found);
    let Explanation { service, algorithm, outcome } = found;
    let (backend, state, idle_seconds, drop) = match outcome {
        Outcome::Has { backend, state, idle_seconds } => (Some(backend), Some(state), Some(idle_seconds), None),
        Outcome::WouldGet { backend, .. } => (Some(backend), None, None, None),
        Outcome::Nothing { reason } => (None, None, None, Some(reason)),
    };
    let (schema_version, exists) = (SCHEMA_VERSION, state.is_some());
    Explained { schema_version, service, algorithm, exists, backend, state, idle_seconds, drop, text }
}

fn text(found: &Explanation) -> String {
    let service = &found.service;
    match &found.outcome {
        Outcome::Has { backend, state, idle_seconds } => {
            format!("{} with {service}/{backend}, last packet {idle_seconds} s ago", word(state))
        }
        Outcome::WouldGet { backend, healthy } => {
            let why = match found.algorithm {
                Algorithm::RoundRobin => "next turn on CPU 0, each CPU has its own; not kept",
                Algorithm::Maglev => "by the hash of the client's address and port",
                Algorithm::SourceHash => "by the hash of the client's address",
                Algorithm::LeastConnections => "fewest open connections for its weight at this moment; not kept",
                Algorithm::RandomTwo => "the better of two drawn at random; the next draw may differ",
            };
            let open = if *healthy { "" } else { "; its checks fail, as do all others: the service fails open" };
            format!("would get {service}/{backend}: {}, {why}{open}", word(found.algorithm))
        }
        Outcome::Nothing { reason } => {
            let why = match *reason {
                "no_backend" => {
                    "no backend of it is in rotation, so a TCP connection is refused (RST) and a UDP packet dropped; \
                     `lb status` says why, and fail = \"open\" would send it to a backend all the same"
                }
                "nat_ports_exhausted" => "no source port towards its backend is free",
                "flow_table_full" => "the flow table has no room for it; `lb stats` shows how full it is",
                other => other,
            };
            format!("{service} would not forward it: {why}")
        }
    }
}
