//! The maps of one instance, opened from their pins and mapped into memory.

use std::{
    path::{Path, PathBuf},
    sync::atomic::Ordering,
};

use aya::maps::MapData;
use lb_common::{
    flow::FlowWord,
    layout::{
        self, BACKEND_COUNTERS, Backend, BackendCounters, BackendInfo, Config, FlowSet, FragmentSlot, NatSlot, Ring,
        Service, ServiceInfo, ServiceState, VERSION, backend_flags,
    },
};
use rustix::time::{ClockId, clock_gettime};

use super::{
    Error, address,
    learnt::is_learnt,
    ops::Op,
    region::{Region, zero},
    table,
};

/// Words of one CPU's row of drop counters; as in lb-ebpf.
pub(super) const DROP_ROW: u32 = 16;

/// The name of the map that says what the others look like.
pub(super) const META: &str = "META";

/// Every map that is pinned, in the order in which they are removed.
pub(super) const PINNED: [&str; 17] = [
    "SERVICES",
    "BACKENDS",
    "RINGS",
    "FLOWS",
    "NAT",
    "FRAGMENTS",
    "LOADS",
    "HEARD",
    "LIMITS",
    "ANSWERS",
    "PROGRAMS",
    "COUNTERS",
    "STATES",
    "DROPS",
    "SERVICE_INFO",
    "BACKEND_INFO",
    META,
];

/// What earlier layouts had pinned beside them.
pub(super) const FORMER: [&str; 1] = ["DEVICES"];

/// How many values each map has that is no table: see [`table`].
pub(super) fn entries(config: &Config) -> [(&'static str, u32); 8] {
    let services = config.service_mask + 1;
    [
        ("ANSWERS", config.cpus),
        ("PROGRAMS", 1),
        ("COUNTERS", config.backends * config.cpus),
        ("STATES", services * config.cpus),
        ("DROPS", DROP_ROW * config.cpus),
        ("SERVICE_INFO", services),
        ("BACKEND_INFO", config.backends),
        (META, 1),
    ]
}

/// The maps in memory.
#[derive(Debug)]
pub(super) struct Maps {
    pub(super) config: Config,
    pub(super) services: Region<Service>,
    pub(super) backends: Region<Backend>,
    pub(super) rings: Region<u64>,
    pub(super) flows: Region<FlowSet>,
    pub(super) nat: Region<NatSlot>,
    pub(super) fragments: Region<FragmentSlot>,
    pub(super) loads: Region<u64>,
    pub(super) heard: Region<u64>,
    pub(super) limits: Region<u64>,
    pub(super) counters: Region<BackendCounters>,
    pub(super) states: Region<ServiceState>,
    pub(super) drops: Region<u64>,
    pub(super) service_info: Region<ServiceInfo>,
    pub(super) backend_info: Region<BackendInfo>,
}

/// The configuration that pinned maps were made with; none where there are no pins.
pub(super) fn pinned_config(pin_dir: &Path) -> Result<Option<Config>, Error> {
    let path = pin_dir.join(META);
    if !path.exists() {
        return Ok(None);
    }
    let meta = open(&path)?;
    let size = meta.info().map_err(|source| Error::Map { path: path.clone(), source })?.value_size();
    let region: Region<u64> = map(&meta, &path, size / 8, false)?;
    let version = region.row(0)[0].load(Ordering::Relaxed) as u32;
    if version != VERSION || size as usize != size_of::<Config>() {
        return Err(Error::Layout { pin_dir: pin_dir.into(), found: version, ours: VERSION });
    }
    Ok(Some(map::<Config>(&meta, &path, 1, false)?.read(0)))
}

/// Says in the map `META` what the others look like.
pub(super) fn write_meta(pin_dir: &Path, config: &Config) -> Result<(), Error> {
    let path = pin_dir.join(META);
    let meta: Region<Config> = map(&open(&path)?, &path, 1, true)?;
    meta.write(0, config);
    Ok(())
}

impl Maps {
    /// Maps the maps pinned in a directory.
    pub(super) fn open(pin_dir: &Path, config: Config, writable: bool) -> Result<Self, Error> {
        let tables = table::all(&config).into_iter().map(|table| (table.name, table.entries));
        let sizes: Vec<(&str, u32)> = tables.chain(entries(&config)).collect();
        let entries = |name: &str| sizes.iter().find(|(map, _)| *map == name).map_or(0, |(_, entries)| *entries);
        macro_rules! region {
            ($name:literal) => {{
                let path = pin_dir.join($name);
                map(&open(&path)?, &path, entries($name), writable)?
            }};
        }
        Ok(Self {
            services: region!("SERVICES"),
            backends: region!("BACKENDS"),
            rings: region!("RINGS"),
            flows: region!("FLOWS"),
            nat: region!("NAT"),
            fragments: region!("FRAGMENTS"),
            loads: region!("LOADS"),
            heard: region!("HEARD"),
            limits: region!("LIMITS"),
            counters: region!("COUNTERS"),
            states: region!("STATES"),
            drops: region!("DROPS"),
            service_info: region!("SERVICE_INFO"),
            backend_info: region!("BACKEND_INFO"),
            config,
        })
    }

    /// Services, slots with a reach included.
    pub(super) fn services(&self) -> Vec<(u32, Service)> {
        (0..self.services.len())
            .map(|slot| (slot, self.services.read(slot)))
            .filter(|(_, service)| service.protocol != 0 || service.reach != 0)
            .collect()
    }

    /// Backends that exist, flows or not.
    pub(super) fn backends(&self) -> Vec<(u32, Backend)> {
        (0..self.backends.len()).filter_map(|index| Some((index, self.backend(index)?))).collect()
    }

    /// The backend at an index, if one exists there.
    pub(super) fn backend(&self, index: u32) -> Option<Backend> {
        Some(self.backends.read(index)).filter(|backend| backend.port.raw() != 0)
    }

    /// Carries out an operation; how many values it changed.
    pub(super) fn carry_out(&self, op: &Op) -> usize {
        match op {
            Op::SetBackend { index, value, limits, name, fresh } => {
                if *fresh {
                    self.zero_counters(*index);
                }
                let info = BackendInfo { name: address::name_bytes(name) };
                let current = self.backends.read(*index);
                let mtu = if !*fresh && is_learnt(&current, value) { current.mtu } else { value.mtu };
                let written = self.backends.write(*index, &Backend { mtu, ..*value });
                let limits = self.limits.write(*index, &limits.to_word());
                usize::from(self.backend_info.write(*index, &info) | written | limits)
            }
            Op::SetRing { ring, entries } => self.set_ring(*ring, entries),
            Op::SetService { slot, value, name } => {
                let before = self.service_info.read(*slot);
                let fresh = self.services.read(*slot).protocol == 0;
                let retired = if fresh { [0; BACKEND_COUNTERS] } else { before.retired };
                let info = ServiceInfo { name: address::name_bytes(name), retired };
                let value = Service { reach: value.reach.max(self.services.read(*slot).reach), ..*value };
                usize::from(self.service_info.write(*slot, &info) | self.services.write(*slot, &value))
            }
            Op::SetReach { slot, reach } => {
                let value = Service { reach: *reach, ..self.services.read(*slot) };
                usize::from(self.services.write(*slot, &value))
            }
            Op::ClearService { slot, reach } => {
                let value = Service { reach: *reach, ..Default::default() };
                usize::from(self.services.write(*slot, &value))
            }
            Op::ClearBackend { index, service } => {
                let info = self.service_info.read(*service);
                let mut retired = info.retired;
                for (sum, counter) in retired.iter_mut().zip(self.counters(*index)) {
                    *sum += counter;
                }
                self.service_info.write(*service, &ServiceInfo { retired, ..info });
                usize::from(self.backends.write(*index, &zero()))
            }
        }
    }

    /// A backend's counters over all CPUs, in the order of [`BackendCounters`].
    pub(super) fn counters(&self, index: u32) -> [u64; BACKEND_COUNTERS] {
        let mut sums = [0; BACKEND_COUNTERS];
        for cpu in 0..self.config.cpus {
            for (sum, word) in sums.iter_mut().zip(self.counters.row(cpu * self.config.backends + index)) {
                *sum += word.load(Ordering::Relaxed);
            }
        }
        sums
    }

    fn zero_counters(&self, index: u32) {
        self.loads.write(index, &0);
        self.heard.write(index, &0);
        for cpu in 0..self.config.cpus {
            for word in self.counters.row(cpu * self.config.backends + index) {
                word.store(0, Ordering::Relaxed);
            }
        }
    }

    fn set_ring(&self, ring: Ring, entries: &[u32]) -> usize {
        let words = self.rings.words();
        let mut changed = 0;
        for (position, &entry) in (ring.base..).zip(entries) {
            let word = &words[position as usize / 2];
            let shift = position % 2 * 32;
            let old = word.load(Ordering::Relaxed);
            let new = old & !(0xffff_ffff << shift) | u64::from(entry) << shift;
            if old != new {
                word.store(new, Ordering::Release);
                changed = 1;
            }
        }
        changed
    }

    /// Forgets the flows of backends that do not exist, so that their indexes may be given again. A slot that was once
    /// in use is never the word zero again: `lb_common::flow::find` relies on that.
    pub(super) fn forget_flows_of_the_gone(&self) {
        let present: Vec<bool> = (0..self.backends.len())
            .map(|index| self.backends.read(index).flags & backend_flags::PRESENT != 0)
            .collect();
        let forgotten = FlowWord::forgotten().0;
        for word in self.flow_words().chain(self.nat_words()) {
            let old = word.load(Ordering::Relaxed);
            if old != 0 && !present.get(FlowWord(old).backend() as usize).copied().unwrap_or(false) {
                // Somebody else was faster where it fails: then it is a flow of a backend that exists.
                let _ = word.compare_exchange(old, forgotten, Ordering::AcqRel, Ordering::Relaxed);
            }
        }
    }

    /// The words of the flow table's slots.
    pub(super) fn flow_words(&self) -> impl Iterator<Item = &std::sync::atomic::AtomicU64> {
        const WORDS: usize = size_of::<layout::FlowSlot>() / 8;
        const OFFSET: usize = std::mem::offset_of!(layout::FlowSlot, word) / 8;
        self.flows.words().iter().skip(OFFSET).step_by(WORDS)
    }

    /// The words of the NAT table's slots.
    pub(super) fn nat_words(&self) -> impl Iterator<Item = &std::sync::atomic::AtomicU64> {
        const WORDS: usize = size_of::<NatSlot>() / 8;
        const OFFSET: usize = std::mem::offset_of!(NatSlot, word) / 8;
        self.nat.words().iter().skip(OFFSET).step_by(WORDS)
    }
}

/// The time of the packet path, to a jiffy ([`super::clock`]).
pub(super) fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::MonotonicCoarse);
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

fn open(path: &PathBuf) -> Result<MapData, Error> {
    MapData::from_pin(path).map_err(|source| Error::Map { path: path.clone(), source })
}

/// Maps a pinned map of `entries` values into memory.
#[cfg(feature = "bench")]
pub(super) fn map_pinned<T>(path: &PathBuf, entries: u32, writable: bool) -> Result<Region<T>, Error> {
    map(&open(path)?, path, entries, writable)
}

fn map<T>(map: &MapData, path: &Path, entries: u32, writable: bool) -> Result<Region<T>, Error> {
    use std::os::fd::AsFd;
    Region::new(map.fd().as_fd(), entries, writable)
        .map_err(|source| Error::System { what: format!("cannot map {} into memory", path.display()), source })
}
