//! `lb decap`: makes a machine a backend of services that forward by `ipip` or `gue`.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::output::{Output, word};
use crate::{
    api::types::SCHEMA_VERSION,
    dataplane::{XdpMode, decap},
};

const DEFAULT_PIN_DIR: &str = "/sys/fs/bpf/lb-decap";

/// Attach the program that takes outer headers off, on a backend of services that forward by ipip or gue.
///
/// It stays attached, with no process running, until it is detached or the machine starts anew. The virtual address must
/// be on this machine (`ip address add 203.0.113.10/32 dev lo`), and nobody else may be told so: `sysctl
/// net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2`.
#[derive(Debug, Args)]
pub(super) struct Decap {
    /// Where packets of the balancer arrive.
    #[arg(long, value_name = "IF")]
    interface: String,
    /// Detach instead.
    #[arg(long)]
    detach: bool,
    /// Run in the network stack instead of the driver: slower, and works on every interface.
    #[arg(long, conflicts_with = "detach")]
    generic: bool,
    /// Where the link is pinned.
    #[arg(long, value_name = "DIR", default_value = DEFAULT_PIN_DIR)]
    pin_dir: PathBuf,
}

/// What `lb decap -o json` prints.
#[derive(Serialize)]
struct Done {
    schema_version: u32,
    interface: String,
    attached: bool,
    mode: Option<XdpMode>,
}

impl Decap {
    pub(super) fn run(self, output: Output) -> anyhow::Result<()> {
        let interface = self.interface;
        let mode = if self.detach {
            decap::detach(&self.pin_dir, &interface)?;
            None
        } else {
            let mode = if self.generic { XdpMode::Generic } else { XdpMode::Auto };
            Some(decap::attach(&self.pin_dir, &interface, mode)?.mode)
        };
        let done = Done { schema_version: SCHEMA_VERSION, interface, attached: mode.is_some(), mode };
        output.print(&done, |done| match done.mode {
            Some(mode) => format!("{}: decapsulates in {} mode", done.interface, word(mode)),
            None => format!("{}: decapsulates no more", done.interface),
        })
    }
}
