//! The maps in plain memory.

use core::sync::atomic::{AtomicU64, Ordering};
use std::{sync::Mutex, vec::Vec};

use crate::{
    flow::{ticks, timeouts},
    layout::{
        Backend, BackendCounters, Config, FlowSet, FragmentSlot, MAX_REACH, NatSlot, Ring, Service, ServiceState,
        VERSION, backend_flags,
    },
    nat,
    room::Limits,
    service,
    tables::Tables,
    verdict::DropReason,
    wire::{AddressWords, Be16},
};

/// The maps in plain memory, as one CPU sees them.
#[derive(Debug)]
pub struct HostTables {
    /// Sizes and secrets.
    pub config: Config,
    /// The service table.
    pub services: Vec<Service>,
    /// The backends.
    pub backends: Vec<Backend>,
    /// The ring space.
    pub rings: Vec<u32>,
    /// The flow table.
    pub flows: Vec<FlowSet>,
    /// The NAT table.
    pub nat: Vec<NatSlot>,
    /// The fragment table.
    pub fragments: Vec<FragmentSlot>,
    /// Open flows of backends.
    pub loads: Vec<AtomicU64>,
    /// When backends were last heard of.
    pub heard: Vec<AtomicU64>,
    /// How many flows backends may have; behind them, until when that holds.
    pub limits: Vec<AtomicU64>,
    /// MTUs learnt: backend and size, the latest last.
    pub learnt: Mutex<Vec<(u32, u16)>>,
    /// Of the layout's features.
    pub features: u32,
    /// This CPU's count of answers.
    pub answers: AtomicU64,
    /// The next random number.
    pub random: AtomicU64,
    /// This CPU's counters of backends.
    pub counters: Vec<BackendCounters>,
    /// This CPU's memory of services.
    pub states: Vec<ServiceState>,
    /// This CPU's drop counters.
    pub drops: Vec<AtomicU64>,
    /// Monotonic time.
    pub now_ns: u64,
}

/// A small configuration with fixed secrets, for tests.
#[must_use]
pub fn config() -> Config {
    Config {
        version: VERSION,
        service_mask: 15,
        near_mask: 15,
        flow_sets: 64,
        nat_shift: 11,
        backends: 16,
        rings: 256,
        cpus: 1,
        nat_port_base: 20_000,
        nat_port_count: 512,
        jiffy_ns: 4_000_000,
        first_jiffy: 0,
        timeouts: timeouts(ticks(7200), ticks(60)),
        fragment_mask: 63,
        flow_key: [0x9e37_79b9, 0x7f4a_7c15, 0xf39c_c060, 0x5ced_c834, 0x1082_276b, 0xf3a2_7251],
        tag_key: [0xf86c_6a11, 0xd0c1_8e95, 0x2767_f0b1, 0x53d2_7b7f, 0x0347_045b, 0x5bf1_827f],
        place_key: [0x0188_6f09, 0x2840_3002, 0xc1d6_4ba4, 0x0f33_5e36, 0xf06a_d7ae, 0x9717_877e],
    }
}

impl HostTables {
    /// Empty tables of the sizes that `config` says.
    #[must_use]
    pub fn new(config: Config) -> Self {
        fn many<T: Default>(count: u32) -> Vec<T> {
            core::iter::repeat_with(T::default).take(count as usize).collect()
        }
        Self {
            services: many(config.service_mask + 1),
            backends: many(config.backends),
            rings: many(config.rings),
            flows: many(config.flow_sets),
            nat: many(config.nat_slots()),
            fragments: many(config.fragment_mask + 1),
            loads: many(config.backends),
            heard: many(config.backends),
            limits: many(config.backends + 1),
            learnt: Mutex::default(),
            features: u32::MAX,
            answers: AtomicU64::new(0),
            random: AtomicU64::new(0),
            counters: many(config.backends),
            states: many(config.service_mask + 1),
            drops: many(DropReason::ALL.len() as u32),
            now_ns: 1 << 40,
            config,
        }
    }

    /// Puts a service at its home slot, or at the first free one behind it, and returns that.
    ///
    /// # Panics
    ///
    /// Where all slots within reach are taken.
    pub fn add_service(&mut self, service: Service) -> u32 {
        let home = service::home(&self.config, service.address, service.port, service.protocol);
        let slot = |step| (home + step) & self.config.service_mask;
        let step = (0..=u32::from(MAX_REACH))
            .find(|&step| self.services[slot(step) as usize].protocol == 0)
            .expect("a slot within reach is free");
        let slot = slot(step);
        let reach = self.services[slot as usize].reach;
        self.services[slot as usize] = Service { reach, ..service };
        let home = &mut self.services[home as usize];
        home.reach = home.reach.max(step as u8);
        slot
    }

    /// Puts a backend at an index; its NAT base is computed, and it is present.
    pub fn add_backend(&mut self, index: u32, backend: Backend) {
        let nat_base = nat::base(&self.config, backend.address, backend.port);
        let flags = backend.flags | backend_flags::PRESENT | backend_flags::IN_ROTATION;
        self.backends[index as usize] = Backend { nat_base, flags, ..backend };
    }

    /// Writes a ring at `base` and makes it a service's.
    pub fn set_ring(&mut self, service: u32, base: u32, entries: &[u32]) {
        self.rings[base as usize..][..entries.len()].copy_from_slice(entries);
        self.services[service as usize].ring = Ring { base, length: entries.len() as u32 }.to_word();
    }

    /// Lets backends have so many flows, and new ones of a service look for room among `own` and `backups`, which are
    /// written at `base`.
    pub fn limit(&mut self, service: u32, base: u32, own: &[u32], backups: &[u32], limits: &[(u32, Limits)]) {
        let spare = [own, backups].concat();
        self.rings[base as usize..][..spare.len()].copy_from_slice(&spare);
        let service = &mut self.services[service as usize];
        service.spare = Ring { base, length: spare.len() as u32 }.to_word();
        service.spare_own = own.len() as u64;
        for (backend, limits) in limits {
            self.limits[*backend as usize] = AtomicU64::new(limits.to_word());
        }
        self.limits[self.config.backends as usize] = AtomicU64::new(u64::MAX);
    }

    /// The slot of a service, as the packet path finds it.
    #[must_use]
    pub fn find_service(&self, address: AddressWords, port: Be16, protocol: u8, family: u8) -> Option<u32> {
        service::find(self, address, port, protocol, family).map(|(slot, _)| slot)
    }

    /// Writes the MTUs that were learnt to their backends, as the kernel does at once.
    pub fn apply_learnt(&mut self) {
        if let Ok(mut learnt) = self.learnt.lock() {
            for (backend, mtu) in learnt.drain(..) {
                if let Some(backend) = self.backends.get_mut(backend as usize) {
                    backend.mtu = mtu;
                }
            }
        }
    }

    /// How often a reason was counted.
    #[must_use]
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops[reason as usize].load(Ordering::Relaxed)
    }
}

impl Tables for HostTables {
    fn config(&self) -> &Config {
        &self.config
    }

    fn features(&self) -> u32 {
        self.features
    }

    fn service(&self, slot: u32) -> Option<&Service> {
        self.services.get(slot as usize)
    }

    fn backend(&self, index: u32) -> Option<&Backend> {
        self.backends.get(index as usize)
    }

    fn ring(&self, index: u32) -> Option<u32> {
        self.rings.get(index as usize).copied()
    }

    fn flow_set(&self, index: u32) -> Option<&FlowSet> {
        self.flows.get(index as usize)
    }

    fn nat_slot(&self, index: u32) -> Option<&NatSlot> {
        self.nat.get(index as usize)
    }

    fn fragment(&self, index: u32) -> Option<&FragmentSlot> {
        self.fragments.get(index as usize)
    }

    fn load_of(&self, backend: u32) -> Option<&AtomicU64> {
        self.loads.get(backend as usize)
    }

    fn heard_of(&self, backend: u32) -> Option<&AtomicU64> {
        self.heard.get(backend as usize)
    }

    fn limits_of(&self, backend: u32) -> Option<&AtomicU64> {
        self.limits.get(backend as usize)
    }

    fn answers(&self) -> Option<&AtomicU64> {
        Some(&self.answers)
    }

    fn random(&self) -> u32 {
        // Weyl sequence, mixed: enough to pick from.
        let weyl = self.random.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::SeqCst);
        ((weyl ^ weyl >> 29).wrapping_mul(0xff51_afd7_ed55_8ccd) >> 32) as u32
    }

    fn learn_mtu(&self, backend: u32, mtu: u16) {
        if let Ok(mut learnt) = self.learnt.lock() {
            learnt.push((backend, mtu));
        }
    }

    fn counters(&self, backend: u32) -> Option<&BackendCounters> {
        self.counters.get(backend as usize)
    }

    fn state(&self, service: u32) -> Option<&ServiceState> {
        self.states.get(service as usize)
    }

    fn drops(&self, reason: DropReason) -> Option<&AtomicU64> {
        self.drops.get(reason as usize)
    }

    fn now_ns(&self) -> u64 {
        self.now_ns
    }

    fn clock_ns(&self) -> u64 {
        self.now_ns
    }

    fn load(&self, word: &AtomicU64) -> u64 {
        word.load(Ordering::SeqCst)
    }

    fn store(&self, word: &AtomicU64, value: u64) {
        word.store(value, Ordering::SeqCst);
    }

    fn add(&self, word: &AtomicU64, value: u64) {
        word.fetch_add(value, Ordering::SeqCst);
    }

    fn compare_exchange(&self, word: &AtomicU64, current: u64, new: u64) -> u64 {
        word.compare_exchange(current, new, Ordering::SeqCst, Ordering::SeqCst).unwrap_or_else(|found| found)
    }
}
