//! `lb xdp`: where the program is attached, and how to be rid of it, which needs no daemon; and what it logs.

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};
use serde::Serialize;

use super::{
    Pins, block_on,
    output::{Output, word},
};
use crate::{
    api::types::SCHEMA_VERSION,
    client::Client,
    dataplane::{self, XdpMode},
};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show where the program is attached.
    Status {
        #[command(flatten)]
        pins: Pins,
    },
    /// Detach the program and remove everything pinned: balancing ends, connections through it break.
    Detach {
        #[command(flatten)]
        pins: Pins,
    },
    /// Have the daemon log each packet that is dropped, with the reason, until it is switched off or the daemon starts anew.
    Log {
        /// On or off.
        switch: Switch,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Switch {
    On,
    Off,
}

/// What `lb xdp status -o json` prints.
#[derive(Serialize)]
struct Attached {
    schema_version: u32,
    pin_dir: PathBuf,
    attachments: Vec<Attachment>,
}

#[derive(Serialize)]
struct Attachment {
    interface: String,
    mode: XdpMode,
}

/// What `lb xdp detach -o json` prints.
#[derive(Serialize)]
struct Detached {
    schema_version: u32,
    pin_dir: PathBuf,
    interfaces: Vec<String>,
}

impl Command {
    pub(super) fn run(self, client: &Client, output: Output) -> anyhow::Result<()> {
        match self {
            Self::Status { pins } => status(pins.directory(client)?, output),
            Self::Detach { pins } => detach(pins.directory(client)?, output),
            Self::Log { switch } => {
                let done = block_on(async { Ok(client.log_drops(matches!(switch, Switch::On)).await?) })?;
                output.print(&done, |done| {
                    let state = if done.drops { "in the log of the daemon" } else { "not logged" };
                    format!("dropped packets are {state}")
                })
            }
        }
    }
}

fn status(pin_dir: PathBuf, output: Output) -> anyhow::Result<()> {
    let attachments = dataplane::attachments(&pin_dir)?
        .into_iter()
        .map(|found| Attachment { interface: found.interface, mode: found.mode })
        .collect();
    let attached = Attached { schema_version: SCHEMA_VERSION, pin_dir, attachments };
    output.print(&attached, |attached| {
        let mut table = output.table(&["INTERFACE", "MODE"], &[]);
        for attachment in &attached.attachments {
            table.add_row([attachment.interface.clone(), word(attachment.mode)]);
        }
        table.trim_fmt()
    })
}

fn detach(pin_dir: PathBuf, output: Output) -> anyhow::Result<()> {
    let interfaces = dataplane::detach(&pin_dir)?;
    let detached = Detached { schema_version: SCHEMA_VERSION, pin_dir, interfaces };
    output.print(&detached, |detached| match detached.interfaces.as_slice() {
        [] => format!("removed {}; nothing was attached", detached.pin_dir.display()),
        interfaces => format!("detached from {}; removed {}", interfaces.join(", "), detached.pin_dir.display()),
    })
}
