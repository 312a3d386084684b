//! `lb stats`: counters straight from the pinned maps.

mod document;

use std::{fmt::Write as _, path::Path, thread, time::Duration, time::Instant};

use clap::Args;

use self::document::{RatesDocument, StatsDocument};
use super::{Pins, output::Output};
use crate::{
    client::Client,
    dataplane::{self, Snapshot},
};

/// Between the two looks that a rate is made of.
const WINDOW: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
pub(super) struct Stats {
    /// Show what happens per second instead of sums, measured over a second.
    #[arg(long)]
    rate: bool,
    #[command(flatten)]
    pins: Pins,
}

impl Stats {
    pub(super) fn run(self, client: &Client, output: Output) -> anyhow::Result<()> {
        let pin_dir = self.pins.directory(client)?;
        if self.rate {
            return output.print(&rates(&pin_dir)?, |rates| rate_table(rates, output));
        }
        let document = StatsDocument::from(&dataplane::read(&pin_dir)?);
        output.print(&document, |document| sum_table(document, output))
    }
}

fn rates(pin_dir: &Path) -> Result<RatesDocument, dataplane::Error> {
    let started = Instant::now();
    let before: Snapshot = dataplane::read(pin_dir)?;
    thread::sleep(WINDOW);
    let after = dataplane::read(pin_dir)?;
    Ok(RatesDocument::between(&before, &after, started.elapsed()))
}

fn sum_table(document: &StatsDocument, output: Output) -> String {
    let header = ["SERVICE", "BACKEND", "CONNS", "TOTAL", "PACKETS IN", "BYTES IN", "PACKETS OUT", "BYTES OUT"];
    let mut table = output.table(&header, &[2, 3, 4, 5, 6, 7]);
    for service in &document.services {
        let row = |name: &str, backend: &str, connections: u64, sums: &document::Sums| {
            vec![
                name.to_owned(),
                backend.to_owned(),
                connections.to_string(),
                sums.connections_total.to_string(),
                sums.packets_in.to_string(),
                sums.bytes_in.to_string(),
                sums.packets_out.to_string(),
                sums.bytes_out.to_string(),
            ]
        };
        table.add_row(row(&service.name, "", service.connections, &service.sums));
        for backend in &service.backends {
            table.add_row(row("", &backend.name, backend.connections, &backend.sums));
        }
    }
    let mut text = format!("{}\n\n", table.trim_fmt());
    if document.services.iter().any(|service| service.seen.syn_retransmissions.is_some()) {
        let _ = writeln!(text, "{}\n", seen_table(document, output));
    }
    let (flows, nat) = (document.flows, document.nat_ports);
    let _ = writeln!(text, "flows: {} of {}, NAT ports: {} of {}", flows.used, flows.capacity, nat.used, nat.capacity);
    for (reason, packets) in document.drops.iter().filter(|(_, packets)| **packets > 0) {
        let _ = writeln!(text, "dropped, {}: {packets} packets", reason.replace('_', " "));
    }
    text
}

/// What packets tell of the backends: a dash where they do not come by here.
fn seen_table(document: &StatsDocument, output: Output) -> String {
    let header = [
        "SERVICE",
        "BACKEND",
        "HANDSHAKES",
        "MEDIAN",
        "P99",
        "SYN AGAIN",
        "REFUSED",
        "RESET",
        "ABORTED",
        "REQUESTS",
        "2XX",
        "3XX",
        "4XX",
        "5XX",
    ];
    let mut table = output.table(&header, &[2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]);
    let dash = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    let number = |value: Option<u64>| dash(value.map(|value| value.to_string()));
    let below = |seconds: f64| format!("<{:.1?}", Duration::from_secs_f64(seconds));
    let row = |service: &str, backend: &str, seen: &document::Seen| {
        let handshakes = seen.handshakes.as_ref();
        let class = |class: &str| number(seen.responses.as_ref().and_then(|classes| classes.get(class).copied()));
        vec![
            service.to_owned(),
            backend.to_owned(),
            number(handshakes.map(|handshakes| handshakes.count)),
            dash(handshakes.and_then(|handshakes| handshakes.median).map(below)),
            dash(handshakes.and_then(|handshakes| handshakes.p99).map(below)),
            number(seen.syn_retransmissions),
            number(seen.refused),
            number(seen.reset_by_backend),
            number(seen.reset_by_client),
            number(seen.requests),
            class("2xx"),
            class("3xx"),
            class("4xx"),
            class("5xx"),
        ]
    };
    for service in document.services.iter().filter(|service| service.seen.syn_retransmissions.is_some()) {
        table.add_row(row(&service.name, "", &service.seen));
        for backend in &service.backends {
            table.add_row(row("", &backend.name, &backend.seen));
        }
    }
    table.trim_fmt()
}

fn rate_table(document: &RatesDocument, output: Output) -> String {
    let header = ["SERVICE", "BACKEND", "CONNS/S", "PACKETS IN/S", "BYTES IN/S", "PACKETS OUT/S", "BYTES OUT/S"];
    let mut table = output.table(&header, &[2, 3, 4, 5, 6]);
    for service in &document.services {
        let row = |name: &str, backend: &str, rates: &document::Rates| {
            let numbers = [
                rates.connections_per_second,
                rates.packets_in_per_second,
                rates.bytes_in_per_second,
                rates.packets_out_per_second,
                rates.bytes_out_per_second,
            ];
            let names = [name.to_owned(), backend.to_owned()];
            names.into_iter().chain(numbers.map(|number| format!("{number:.0}"))).collect::<Vec<_>>()
        };
        table.add_row(row(&service.name, "", &service.rates));
        for backend in &service.backends {
            table.add_row(row("", &backend.name, &backend.rates));
        }
    }
    table.trim_fmt()
}
