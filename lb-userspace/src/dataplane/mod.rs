//! The maps and programs in the kernel: the only module that knows aya.
//!
//! Everything is pinned, so that it outlives the daemon. [`Dataplane`] is the one writer, held by a lock on the pin
//! directory; anybody may read the counters beside it.

mod address;
#[cfg(feature = "bench")]
pub mod bench;
mod clock;
pub mod decap;
mod dry_run;
mod error;
mod explain;
mod flows;
mod host;
mod learnt;
mod link;
mod loads;
mod maps;
mod ops;
mod packet_log;
mod placement;
mod program;
mod region;
mod ring;
mod sight;
mod sizing;
mod snapshot;
mod space;
mod table;

use std::{
    fs::File,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Instant,
};

use aya::Ebpf;
use lb_common::layout::{self, Backend, backend_flags};
use rustix::{
    fs::{FlockOperation, flock},
    thread::{MembarrierCommand, membarrier},
};
use serde::{Deserialize, Serialize};

pub use self::{
    dry_run::{Action, DryRun},
    error::Error,
    explain::{Explanation, Outcome, explain},
    flows::{Flow, FlowState, Flows, Selection},
    sight::{BackendSight, HANDSHAKE_BUCKETS, Looked, Sight},
    snapshot::{BackendCounters, Counters, Drop as DropCount, ServiceCounters, Snapshot, Usage},
};
use self::{
    learnt::{Learnt, is_learnt},
    loads::Loads,
    maps::Maps,
    ops::Op,
    packet_log::PacketLog,
    placement::{Full, Placement},
    program::Variant,
};
use crate::plan::{Forward, Plan};

/// Where and how the data plane lives.
#[derive(Clone, Debug)]
pub struct Options {
    /// The interfaces to attach to.
    pub interfaces: Vec<String>,
    /// How to attach.
    pub xdp_mode: XdpMode,
    /// The directory under a bpffs for pins.
    pub pin_dir: PathBuf,
    /// Flows that the tables are made for.
    pub flows: u32,
    /// Services configured; the capacity leaves room beyond.
    pub services: u32,
    /// Backends configured; the capacity leaves room beyond.
    pub backends: u32,
    /// Whether one of the interfaces is one end of a veth pair. What goes back by such a one is redirected to it: the kernel
    /// lets frames of `XDP_TX` lie until the other end, unless that has an XDP program too, happens to be woken (`veth_xdp_flush`).
    pub veth: bool,
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

/// How many flows a backend has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Load {
    /// Its service.
    pub service: String,
    /// Its name.
    pub backend: String,
    /// Flows open.
    pub open: u64,
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

/// Owns the maps and the program.
#[derive(Debug)]
pub struct Dataplane {
    options: Options,
    maps: Maps,
    placement: Placement,
    loads: Loads,
    adopted: Vec<Adopted>,
    ebpf: Ebpf,
    variant: Variant,
    packet_log: Option<PacketLog>,
    learnt: Learnt,
    /// Whether [`attach`](Self::attach) has been called.
    attached: bool,
    /// Whether what is pinned stays when this goes.
    keep: bool,
    _lock: File,
}

impl Dataplane {
    /// Opens or creates the pinned maps and loads the program; attaches nothing.
    ///
    /// # Errors
    ///
    /// Where the pin directory cannot be used, is used by another daemon or holds maps of another layout, or the kernel
    /// refuses the maps or the program.
    pub fn open(options: &Options) -> Result<Self, Error> {
        let pin_dir = options.pin_dir.as_path();
        error::check_bpffs(pin_dir)?;
        link::create_dir(pin_dir)?;
        let lock = lock(pin_dir)?;
        let pinned = maps::pinned_config(pin_dir)?;
        let fresh = pinned.is_none();
        let features = if options.veth { layout::features::REDIRECT_BACK } else { 0 };
        let variant = Variant { features, ..Variant::default() };
        let opened = pinned
            .map_or_else(|| sizing::config(options, possible_cpus()?), |config| Ok(sizing::adopt(config)))
            .and_then(|config| Ok((program::load(pin_dir, &config, variant)?, config)))
            .and_then(|(ebpf, config)| {
                maps::write_meta(pin_dir, &config)?;
                Ok((ebpf, Maps::open(pin_dir, config, true)?))
            });
        let (ebpf, maps) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                if fresh {
                    discard(pin_dir);
                }
                return Err(error);
            }
        };
        let adopted = adopted(&maps);
        let placement = Placement::adopt(maps.config, maps.services(), maps.backends());
        if !fresh {
            maps.forget_flows_of_the_gone();
        }
        let keep = !link::pinned(pin_dir)?.is_empty();
        Ok(Self {
            options: options.clone(),
            maps,
            placement,
            loads: Loads::default(),
            adopted,
            ebpf,
            variant,
            packet_log: None,
            learnt: Learnt::default(),
            attached: false,
            keep,
            _lock: lock,
        })
    }

    /// What the pinned maps held when they were opened; nothing on a fresh start.
    pub fn adopted(&self) -> Vec<Adopted> {
        self.adopted.clone()
    }

    /// Makes the maps say what the plan says; returns the entries written. After an error the maps are as before.
    ///
    /// # Errors
    ///
    /// Where a table is full.
    pub fn apply(&mut self, plan: &Plan) -> Result<usize, Error> {
        let features = self.variant.features | features(plan);
        if features != self.variant.features {
            self.replace_program(Variant { features, ..self.variant })?;
        }
        let counted = self.placement.counted().clone();
        let ops = match self.placement.change(plan) {
            Ok(ops) => ops,
            Err(_) => {
                self.reclaim()?;
                self.placement.change(plan).map_err(|full| self.full(full))?
            }
        };
        let written = ops.iter().map(|op| self.maps.carry_out(op)).sum();
        if !self.placement.counted().is_subset(&counted) {
            self.loads.begin(&self.maps);
        }
        if self.placement.has_limits() {
            loads::hold_limits(&self.maps);
        }
        Ok(written)
    }

    /// Attaches to every interface, or replaces the program on links that are there; detaches from others.
    ///
    /// # Errors
    ///
    /// Where an interface does not exist, or does not take the program.
    pub fn attach(&mut self) -> Result<Vec<Attachment>, Error> {
        let pin_dir = self.options.pin_dir.clone();
        let program = program::program(&mut self.ebpf)?;
        let attachments = self
            .options
            .interfaces
            .iter()
            .map(|interface| link::attach(program, &pin_dir, interface, self.options.xdp_mode))
            .collect::<Result<Vec<_>, Error>>()?;
        link::detach_others(&pin_dir, &self.options.interfaces)?;
        self.attached = true;
        self.keep = true;
        Ok(attachments)
    }

    /// Repairs what differs from the last plan applied; returns the foreign entries.
    pub fn reconcile(&mut self) -> usize {
        let expected = self.placement.expected();
        self.forget_learnt(&expected);
        let mut foreign: usize = expected.iter().map(|op| self.maps.carry_out(op)).sum();
        let services = self.placement.service_slots();
        for (slot, service) in self.maps.services() {
            if service.protocol != 0 && !services.contains(&slot) {
                foreign += self.maps.carry_out(&Op::ClearService { slot, reach: service.reach });
            }
        }
        let backends = self.placement.backend_indexes();
        for (index, _) in self.maps.backends() {
            if !backends.contains(&index) {
                self.maps.backends.write(index, &region::zero());
                foreign += 1;
            }
        }
        if !self.placement.counted().is_empty() {
            self.loads.correct(&self.maps);
        }
        foreign
    }

    /// Gives backends whose narrower MTU was learnt too long ago the one of their link back.
    fn forget_learnt(&mut self, expected: &[Op]) {
        let now = Instant::now();
        for op in expected {
            let Op::SetBackend { index, value, .. } = op else { continue };
            let current = self.maps.backends.read(*index);
            if self.learnt.is_stale(*index, is_learnt(&current, value), now) {
                self.maps.backends.write(*index, &Backend { mtu: value.mtu, ..current });
            }
        }
    }

    /// Keeps limits in force: once a second or so. Returns the open flows of the backends of services with limits.
    pub fn keep_limits(&mut self) -> Vec<Load> {
        if !self.placement.has_limits() {
            return Vec::new();
        }
        self.loads.correct(&self.maps);
        loads::hold_limits(&self.maps);
        self.placement
            .limited()
            .map(|(service, backend, index)| Load {
                service: service.to_owned(),
                backend: backend.to_owned(),
                open: self.maps.loads.read(index).cast_signed().max(0).cast_unsigned(),
            })
            .collect()
    }

    /// Switches the log of dropped packets on or off, by putting a program compiled for it in the place of the running one:
    /// when it is off, the instructions for it are not there. Call it within a Tokio runtime.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses the program.
    pub fn log_drops(&mut self, on: bool) -> Result<(), Error> {
        if on == self.variant.log_drops {
            return Ok(());
        }
        self.replace_program(Variant { log_drops: on, ..self.variant })
    }

    /// Puts another variant of the program in the place of the running one.
    fn replace_program(&mut self, variant: Variant) -> Result<(), Error> {
        let mut ebpf = program::load(&self.options.pin_dir, &self.maps.config, variant)?;
        let packet_log = if variant.log_drops { Some(PacketLog::start(&mut ebpf)?) } else { None };
        let before = std::mem::replace(&mut self.ebpf, ebpf);
        if self.attached
            && let Err(error) = self.attach()
        {
            self.ebpf = before;
            return Err(error);
        }
        self.variant = variant;
        self.packet_log = packet_log;
        Ok(())
    }

    /// Every counter now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        snapshot::take(&self.maps)
    }

    /// What packets tell of each backend that something has happened to since it was last looked at. Cheap: no look at any flow.
    pub fn news(&self, looked: &mut Looked) -> Vec<BackendSight> {
        sight::news(&self.maps, self.placement.backends_end(), looked)
    }

    /// Makes places that were given up free, once no packet under way and no flow refers to them.
    fn reclaim(&mut self) -> Result<(), Error> {
        // Waits for an RCU grace period, in which every program that could have read the old maps has ended.
        membarrier(MembarrierCommand::Global)
            .map_err(|errno| Error::System { what: "membarrier failed".into(), source: errno.into() })?;
        self.maps.forget_flows_of_the_gone();
        self.placement.reclaim();
        Ok(())
    }

    fn full(&self, full: Full) -> Error {
        let config = &self.maps.config;
        let (what, capacity) = match full {
            Full::Services => ("services", config.service_mask + 1),
            Full::Backends => ("backends", config.backends),
            Full::Rings => ("ring entries", config.rings),
        };
        Error::Full { what, capacity }
    }
}

impl Drop for Dataplane {
    fn drop(&mut self) {
        if !self.keep {
            discard(&self.options.pin_dir);
        }
    }
}

/// Every counter now, straight from the pins.
///
/// # Errors
///
/// Where nothing is pinned there, or by another layout.
pub fn read(pin_dir: &Path) -> Result<Snapshot, Error> {
    let config = maps::pinned_config(pin_dir)?.ok_or_else(|| nothing(pin_dir))?;
    Ok(snapshot::take(&Maps::open(pin_dir, config, false)?))
}

/// Detaches and removes every pin; returns the interfaces.
///
/// # Errors
///
/// Where nothing is pinned there, or a daemon is running.
pub fn detach(pin_dir: &Path) -> Result<Vec<String>, Error> {
    if !pin_dir.join(maps::META).exists() {
        return Err(nothing(pin_dir));
    }
    error::check_bpffs(pin_dir)?;
    let _lock = lock(pin_dir).map_err(|error| match error {
        Error::Locked { pin_dir } => Error::InUse { pin_dir },
        error => error,
    })?;
    program::remove_all(pin_dir)
}

/// Where the program is attached.
///
/// # Errors
///
/// Where nothing is pinned there.
pub fn attachments(pin_dir: &Path) -> Result<Vec<Attachment>, Error> {
    if !pin_dir.join(maps::META).exists() {
        return Err(nothing(pin_dir));
    }
    Ok(link::pinned(pin_dir)?.into_iter().map(|(attachment, _)| attachment).collect())
}

fn nothing(pin_dir: &Path) -> Error {
    Error::NothingPinned { pin_dir: pin_dir.into() }
}

/// Holds the pin directory against other daemons for as long as the file lives, however the process ends.
fn lock(pin_dir: &Path) -> Result<File, Error> {
    let opened = File::open(pin_dir)
        .map_err(|source| Error::System { what: format!("cannot open {}", pin_dir.display()), source })?;
    flock(&opened, FlockOperation::NonBlockingLockExclusive).map_err(|_| Error::Locked { pin_dir: pin_dir.into() })?;
    Ok(opened)
}

/// Takes back what was pinned in vain. What cannot be removed is said, and stays.
fn discard(pin_dir: &Path) {
    if let Err(error) = program::remove_all(pin_dir) {
        tracing::warn!("{error}");
    }
}

/// The parts of the program that a plan needs.
fn features(plan: &Plan) -> u32 {
    let dnat = plan.services.iter().any(|service| service.forward == Forward::Dnat);
    if dnat { layout::features::DNAT } else { 0 }
}

fn adopted(maps: &Maps) -> Vec<Adopted> {
    let services: std::collections::BTreeMap<_, _> = maps.services().into_iter().collect();
    let backends = maps.backends().into_iter();
    backends
        .filter_map(|(index, backend)| {
            services.get(&backend.service)?;
            Some(Adopted {
                service: address::name(&maps.service_info.read(backend.service).name),
                backend: address::name(&maps.backend_info.read(index).name),
                address: address::of_backend(&backend),
                healthy: backend.flags & backend_flags::HEALTHY != 0,
            })
        })
        .collect()
}

fn possible_cpus() -> Result<u32, Error> {
    let cpus =
        aya::util::nr_cpus().map_err(|(path, source)| Error::System { what: format!("cannot read {path}"), source })?;
    Ok(u32::try_from(cpus).unwrap_or(u32::MAX))
}
