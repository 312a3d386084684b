//! `cargo xtask bench WHAT`: measurements, a file per bench.

mod chart;
mod packet;
mod peers;

use anyhow::Result;
use clap::Subcommand;

#[derive(Subcommand)]
pub(crate) enum Bench {
    /// Nanoseconds per packet, beside floors that do next to nothing, and how they grow
    Packet(packet::Arguments),
    /// Requests in the lab, beside routing, nftables, HAProxy and nginx stream
    Peers(peers::Arguments),
}

pub(crate) fn bench(bench: &Bench) -> Result<()> {
    match bench {
        Bench::Packet(arguments) => packet::bench(arguments),
        Bench::Peers(arguments) => peers::peers(arguments),
    }
}
