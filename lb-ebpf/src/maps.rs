//! The maps, as statics and as the pipeline's [`Tables`].
//!
//! All tables are arrays: the verifier turns their look-ups into a bounds check and an addition. They are mapped into the
//! controller's memory (`BPF_F_MMAPABLE`). The controller sets their sizes when it creates them.
#![expect(unsafe_code, reason = "map values are reached by pointers")]

use core::{arch::asm, sync::atomic::AtomicU64};

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, xdp_action},
    helpers::{bpf_get_smp_processor_id, bpf_ktime_get_coarse_ns},
    macros::map,
    maps::{Array, DevMapHash},
};
use lb_common::{
    layout::{Backend, BackendCounters, BackendInfo, Config, FlowSet, NatSlot, Service, ServiceInfo, ServiceState},
    tables::Tables,
    verdict::DropReason,
};

use crate::atomic;

/// Drop reasons that fit in one CPU's row of `DROPS`: two cache lines.
const DROP_ROW: u32 = 16;
const _: () = assert!(DropReason::ALL.len() <= DROP_ROW as usize);

#[map]
static SERVICES: Array<Service> = Array::pinned(1, BPF_F_MMAPABLE);
#[map]
static BACKENDS: Array<Backend> = Array::pinned(1, BPF_F_MMAPABLE);
#[map]
static RINGS: Array<u64> = Array::pinned(1, BPF_F_MMAPABLE);
#[map]
static FLOWS: Array<FlowSet> = Array::pinned(1, BPF_F_MMAPABLE);
#[map]
static NAT: Array<NatSlot> = Array::pinned(1, BPF_F_MMAPABLE);
/// Rows of `Config::backends`, one a CPU.
#[map]
static COUNTERS: Array<BackendCounters> = Array::pinned(1, BPF_F_MMAPABLE);
/// Rows as long as the service table, one a CPU.
#[map]
static STATES: Array<ServiceState> = Array::pinned(1, BPF_F_MMAPABLE);
/// Rows of `DROP_ROW`, one a CPU.
#[map]
static DROPS: Array<AtomicU64> = Array::pinned(1, BPF_F_MMAPABLE);
/// The interfaces that packets may leave by: by index, to itself.
#[map]
static DEVICES: DevMapHash = DevMapHash::pinned(1, 0);
/// For people and for the next controller; no packet's business.
#[map]
static META: Array<Config> = Array::pinned(1, BPF_F_MMAPABLE);
#[map]
static SERVICE_INFO: Array<ServiceInfo> = Array::pinned(1, BPF_F_MMAPABLE);
#[map]
static BACKEND_INFO: Array<BackendInfo> = Array::pinned(1, BPF_F_MMAPABLE);

/// Sizes and secrets. The controller fills it before the program is loaded; the kernel freezes it, and the verifier
/// takes its values for constants.
#[unsafe(no_mangle)]
static CONFIG: Config = unsafe { core::mem::zeroed() };

/// Sends the frame out by an interface.
#[inline(always)]
pub(crate) fn redirect(ifindex: u32) -> u32 {
    DEVICES.redirect(ifindex, u64::from(xdp_action::XDP_ABORTED)).unwrap_or(xdp_action::XDP_ABORTED)
}

/// Keeps the compiler from taking a static's initial value for its value.
#[inline(always)]
fn opaque<T>(value: &'static T) -> &'static T {
    let mut pointer = core::ptr::from_ref(value);
    // SAFETY: no instruction; the pointer comes out as it went in.
    unsafe {
        asm!("/* {0} */", inout(reg) pointer, options(pure, nomem, nostack));
        &*pointer
    }
}

/// The maps of this program.
pub(crate) struct Maps;

impl Tables for Maps {
    #[inline(always)]
    fn config(&self) -> &Config {
        opaque(&CONFIG)
    }

    #[inline(always)]
    fn service(&self, slot: u32) -> Option<&Service> {
        SERVICES.get(slot)
    }

    #[inline(always)]
    fn backend(&self, index: u32) -> Option<&Backend> {
        BACKENDS.get(index)
    }

    #[inline(always)]
    fn ring(&self, index: u32) -> Option<u32> {
        let pair = RINGS.get(index >> 1)?;
        Some((pair >> ((index & 1) * 32)) as u32)
    }

    #[inline(always)]
    fn flow_set(&self, index: u32) -> Option<&FlowSet> {
        FLOWS.get(index)
    }

    #[inline(always)]
    fn nat_slot(&self, index: u32) -> Option<&NatSlot> {
        NAT.get(index)
    }

    #[inline(always)]
    fn counters(&self, backend: u32) -> Option<&BackendCounters> {
        COUNTERS.get(cpu() * self.config().backends + backend)
    }

    #[inline(always)]
    fn state(&self, service: u32) -> Option<&ServiceState> {
        STATES.get(cpu() * (self.config().service_mask + 1) + service)
    }

    #[inline(always)]
    fn drops(&self, reason: DropReason) -> Option<&AtomicU64> {
        DROPS.get(cpu() * DROP_ROW + reason as u32)
    }

    #[inline(always)]
    fn now_ns(&self) -> u64 {
        // SAFETY: a helper without arguments.
        unsafe { bpf_ktime_get_coarse_ns() }
    }

    #[inline(always)]
    fn load(&self, word: &AtomicU64) -> u64 {
        atomic::load(word)
    }

    #[inline(always)]
    fn store(&self, word: &AtomicU64, value: u64) {
        atomic::store(word, value);
    }

    #[inline(always)]
    fn compare_exchange(&self, word: &AtomicU64, current: u64, new: u64) -> u64 {
        atomic::compare_exchange(word, current, new)
    }
}

#[inline(always)]
fn cpu() -> u32 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_get_smp_processor_id() }
}
