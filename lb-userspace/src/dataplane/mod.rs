//! The maps and programs in the kernel: the only module that knows aya.
#![expect(dead_code, unused_variables, clippy::missing_errors_doc, clippy::todo, clippy::unused_self, clippy::unnecessary_wraps, reason = "signatures first")]

use std::{net::SocketAddr, path::{Path, PathBuf}};

use serde::{Deserialize, Serialize};

use crate::plan::{Algorithm, Forward, Plan, Protocol};

/// Where and how the data plane lives.
#[derive(Clone, Debug)]
pub struct Options {
    /// The interfaces to attach to.
    pub interfaces: Vec<String>,
    /// How to attach.
    pub xdp_mode: XdpMode,
    /// The directory under a bpffs for pins.
    pub pin_dir: PathBuf,
    /// Capacity of the flow table.
    pub flows: u32,
    /// Services configured; the capacity leaves room beyond.
    pub services: u32,
    /// Backends configured; the capacity leaves room beyond.
    pub backends: u32,
}

/// Where in the receive path the program runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum XdpMode {
    /// Native where the driver has it, generic otherwise.
    #[default]
    Auto,
    /// In the driver.
    Native,
    /// In the network stack, on any interface.
    Generic,
}

/// A backend found in the pinned maps.
#[derive(Clone, Debug)]
pub struct Adopted {
    /// Its service.
    pub service: String,
    /// Its name.
    pub backend: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// Whether its health checks passed when the maps were last written.
    pub healthy: bool,
}

/// The program on an interface.
#[derive(Clone, Debug, Serialize)]
pub struct Attachment {
    /// The interface.
    pub interface: String,
    /// Native or generic.
    pub mode: XdpMode,
    /// Whether the link was there already and its program was replaced.
    pub adopted: bool,
}

/// Every counter at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// By service name.
    pub services: Vec<ServiceCounters>,
    /// Packets dropped, by reason.
    pub drops: Vec<Drop>,
    /// Packets left to the kernel.
    pub passed: u64,
    /// Flow table entries.
    pub flows: Usage,
    /// NAT port table entries.
    pub nat: Usage,
}

/// Packets dropped for one reason.
#[derive(Clone, Copy, Debug)]
pub struct Drop {
    /// In snake case.
    pub reason: &'static str,
    /// How many.
    pub packets: u64,
}

/// How full a table is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Entries in use.
    pub used: u64,
    /// Entries that fit.
    pub capacity: u64,
}

/// What a service forwarded.
#[derive(Clone, Debug)]
pub struct ServiceCounters {
    /// Its name.
    pub name: String,
    /// Its virtual address.
    pub listen: SocketAddr,
    /// Its protocol.
    pub protocol: Protocol,
    /// Its algorithm.
    pub algorithm: Algorithm,
    /// Its forwarding mode.
    pub forward: Forward,
    /// Since the maps were created, removed backends included.
    pub totals: Counters,
    /// In index order.
    pub backends: Vec<BackendCounters>,
}

/// What a backend was sent and sent back.
#[derive(Clone, Debug)]
pub struct BackendCounters {
    /// Its name.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// Whether it takes new flows.
    pub in_rotation: bool,
    /// Flows open at this moment.
    pub connections: u64,
    /// Since it was added.
    pub totals: Counters,
}

/// Monotonic sums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Flows ever scheduled.
    pub connections: u64,
    /// Packets from clients.
    pub packets_in: u64,
    /// Bytes from clients, Ethernet headers included.
    pub bytes_in: u64,
    /// Packets from backends.
    pub packets_out: u64,
    /// Bytes from backends.
    pub bytes_out: u64,
}

/// What can go wrong between here and the kernel.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is nothing to read or detach.
    #[error("nothing is pinned in {}: no `lb run` has attached with this pin directory", .pin_dir.display())]
    NothingPinned {
        /// Where it was looked for.
        pin_dir: PathBuf,
    },
}

/// Owns the maps and the program.
#[derive(Debug)]
pub struct Dataplane;

impl Dataplane {
    /// Opens or creates the pinned maps and loads the program; attaches nothing.
    pub fn open(options: &Options) -> Result<Self, Error> { todo!() }
    /// What the pinned maps held when they were opened.
    pub fn adopted(&self) -> Vec<Adopted> { todo!() }
    /// Makes the maps say what the plan says; returns the entries written.
    pub fn apply(&mut self, plan: &Plan) -> Result<usize, Error> { todo!() }
    /// Attaches, or replaces the program on adopted links.
    pub fn attach(&mut self) -> Result<Vec<Attachment>, Error> { todo!() }
    /// Repairs what differs from the last plan applied; returns the foreign entries.
    pub fn reconcile(&mut self) -> Result<usize, Error> { todo!() }
    /// Every counter now.
    pub fn snapshot(&self) -> Result<Snapshot, Error> { todo!() }
}

/// Every counter now, straight from the pins.
pub fn read(pin_dir: &Path) -> Result<Snapshot, Error> { todo!() }
/// Detaches and removes every pin; returns the interfaces.
pub fn detach(pin_dir: &Path) -> Result<Vec<String>, Error> { todo!() }
/// Where the program is attached.
pub fn attachments(pin_dir: &Path) -> Result<Vec<Attachment>, Error> { todo!() }
