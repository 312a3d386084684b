//! The maps, as statics and as the pipeline's [`Tables`].
//!
//! All but one are arrays, mapped into the controller's memory (`BPF_F_MMAPABLE`), which sets their sizes when it creates them.
//! What grows with the number of CPUs is an array of rows; what does not is a [`Table`].
#![expect(unsafe_code, reason = "map values are reached by pointers")]

use core::sync::atomic::AtomicU64;

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE,
    helpers::{bpf_get_prandom_u32, bpf_get_smp_processor_id, bpf_jiffies64, bpf_ktime_get_ns, bpf_redirect},
    macros::map,
    maps::{Array, ProgramArray},
    programs::XdpContext,
};
use lb_common::{
    event::Event,
    flow::{FlowWord, Key, Ticks},
    layout::{
        Backend, BackendCounters, BackendInfo, Config, FlowSet, FragmentSlot, NatSlot, Ring, Service, ServiceInfo,
        ServiceState,
    },
    nat::{Place, Ports},
    parse::Flags,
    tables::Tables,
    verdict::DropReason,
    wire::AddressWords,
};

use crate::{atomic, event, opaque, table::Table};

/// Drop reasons that fit in one CPU's row of `DROPS`: two cache lines.
const DROP_ROW: u32 = 16;
const _: () = assert!(DropReason::ALL.len() <= DROP_ROW as usize);

#[unsafe(link_section = ".bss.SERVICES")]
static SERVICES: Table<Service> = Table::new();
#[unsafe(link_section = ".bss.BACKENDS")]
static BACKENDS: Table<Backend> = Table::new();
#[unsafe(link_section = ".bss.RINGS")]
static RINGS: Table<u64> = Table::new();
#[unsafe(link_section = ".bss.FLOWS")]
static FLOWS: Table<FlowSet> = Table::new();
#[unsafe(link_section = ".bss.NAT")]
static NAT: Table<NatSlot> = Table::new();
#[unsafe(link_section = ".bss.FRAGMENTS")]
static FRAGMENTS: Table<FragmentSlot> = Table::new();
/// Open flows of each backend.
#[unsafe(link_section = ".bss.LOADS")]
static LOADS: Table<AtomicU64> = Table::new();
/// When each backend was last heard of.
#[unsafe(link_section = ".bss.HEARD")]
static HEARD: Table<AtomicU64> = Table::new();
/// How many flows each backend may have; behind the last, until when that holds.
#[unsafe(link_section = ".bss.LIMITS")]
static LIMITS: Table<AtomicU64> = Table::new();
/// What each CPU sent of its own: a word a cache line.
#[map]
static ANSWERS: Array<[AtomicU64; 8]> = Array::pinned(1, BPF_F_MMAPABLE);
/// The rare path.
#[map]
static PROGRAMS: ProgramArray = ProgramArray::pinned(1, 0);
/// Rows of `Config::backends`, one a CPU.
#[map]
static COUNTERS: Array<BackendCounters> = Array::pinned(1, BPF_F_MMAPABLE);
/// Rows as long as the service table, one a CPU.
#[map]
static STATES: Array<ServiceState> = Array::pinned(1, BPF_F_MMAPABLE);
/// Rows of `DROP_ROW`, one a CPU.
#[map]
static DROPS: Array<AtomicU64> = Array::pinned(1, BPF_F_MMAPABLE);
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

/// Of `lb_common::layout::features`: those that the plan needs. A constant to the verifier, which removes the rest.
#[unsafe(no_mangle)]
static FEATURES: u32 = 0;

/// Goes on with the rare path. Returns only where there is none.
#[inline(always)]
pub(crate) fn take_rare_path(ctx: &XdpContext) {
    // SAFETY: the context is this program's.
    unsafe { PROGRAMS.tail_call(ctx, 0) };
}

/// Sends the frame out by an interface.
///
/// By its index: a device map would find the interface here, and the kernel does afterwards; frames are sent in bulk either way
/// (Linux, net/core/filter.c, `__xdp_do_redirect_frame`).
#[inline(always)]
pub(crate) fn redirect(ifindex: u32) -> u32 {
    // SAFETY: a helper with numbers for arguments.
    unsafe { bpf_redirect(ifindex, 0) as u32 }
}

/// Keeps the compiler from taking a static's initial value for its value.
#[inline(always)]
fn opaque<T>(value: &'static T) -> &'static T {
    let pointer = opaque::opaque(core::ptr::from_ref(value).addr()) as *const T;
    // SAFETY: the address of a static.
    unsafe { &*pointer }
}

/// The maps of this program.
pub(crate) struct Maps;

impl Tables for Maps {
    #[inline(always)]
    fn config(&self) -> &Config {
        opaque(&CONFIG)
    }

    #[inline(always)]
    fn features(&self) -> u32 {
        *opaque(&FEATURES)
    }

    #[inline(always)]
    fn service(&self, slot: u32) -> Option<&Service> {
        SERVICES.get(slot, self.config().service_mask + 1)
    }

    #[inline(always)]
    fn backend(&self, index: u32) -> Option<&Backend> {
        BACKENDS.get(index, self.config().backends)
    }

    #[inline(always)]
    fn ring(&self, index: u32) -> Option<u32> {
        let pair = RINGS.get(index >> 1, self.config().rings / 2)?;
        Some((pair >> ((index & 1) * 32)) as u32)
    }

    #[inline(always)]
    fn flow_set(&self, index: u32) -> Option<&FlowSet> {
        FLOWS.get(index, self.config().flow_sets)
    }

    #[inline(always)]
    fn nat_slot(&self, index: u32) -> Option<&NatSlot> {
        NAT.get(index, self.config().nat_slots())
    }

    #[inline(always)]
    fn fragment(&self, index: u32) -> Option<&FragmentSlot> {
        FRAGMENTS.get(index, self.config().fragment_mask + 1)
    }

    #[inline(always)]
    fn load_of(&self, backend: u32) -> Option<&AtomicU64> {
        LOADS.get(backend, self.config().backends)
    }

    #[inline(always)]
    fn heard_of(&self, backend: u32) -> Option<&AtomicU64> {
        HEARD.get(backend, self.config().backends)
    }

    #[inline(always)]
    fn limits_of(&self, backend: u32) -> Option<&AtomicU64> {
        LIMITS.get(backend, self.config().backends + 1)
    }

    #[inline(always)]
    fn answers(&self) -> Option<&AtomicU64> {
        ANSWERS.get(cpu()).map(|[word, ..]| word)
    }

    #[inline(always)]
    fn random(&self) -> u32 {
        // SAFETY: a helper without arguments.
        unsafe { bpf_get_prandom_u32() }
    }

    #[inline(always)]
    fn learn_mtu(&self, backend: u32, mtu: u16) {
        if let Some(backend) = BACKENDS.pointer(backend, self.config().backends) {
            // SAFETY: a value of the map; the field is written at once.
            unsafe { (&raw mut (*backend).mtu).write_volatile(mtu) };
        }
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
        // Of the clocks the one that is read without a call: the verifier makes a load of this helper (Linux,
        // kernel/bpf/verifier.c, `do_misc_fixups`).
        // SAFETY: a helper without arguments.
        self.config().ns_at(unsafe { bpf_jiffies64() })
    }

    #[inline(always)]
    fn clock_ns(&self) -> u64 {
        // SAFETY: a helper without arguments.
        unsafe { bpf_ktime_get_ns() }
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
    fn add(&self, word: &AtomicU64, value: u64) {
        atomic::add(word, value);
    }

    #[inline(always)]
    fn service_behind(&self, home: u32, [a, b]: AddressWords, transport: u32) -> Option<u32> {
        event::decode_index(event::service_behind(home, transport, a, b)).ok()
    }

    #[inline(always)]
    fn open(&self, event: &Event, backend: u32, place: Option<Place>) -> Result<FlowWord, DropReason> {
        event::decode(event::flow_open(event, backend, event::encode_place(place)))
    }

    #[inline(always)]
    fn begin(&self, event: &Event, before: FlowWord) -> Result<FlowWord, DropReason> {
        event::decode(event::flow_begin(event, before.0))
    }

    #[inline(always)]
    fn open_plainly(&self, key: &Key, service: u32, point: u64) -> Option<FlowWord> {
        let (tag, hash) = key.parts();
        event::decode(event::flow_open_plainly(tag, hash, service, point)).ok()
    }

    #[inline(always)]
    fn find_flow(&self, key: &Key) -> Option<FlowWord> {
        let (tag, hash) = key.parts();
        event::decode(event::flow_find(tag, hash)).ok()
    }

    #[inline(always)]
    fn choose(&self, event: &Event, before: FlowWord) -> Result<u32, DropReason> {
        event::decode_index(event::flow_choose(event, before.0))
    }

    #[inline(always)]
    fn after_client(&self, word: FlowWord, flags: Flags, now: Ticks) -> FlowWord {
        FlowWord(event::flow_after_client(word.0, flags.0.into(), now.number()))
    }

    #[inline(always)]
    fn after_backend(&self, word: FlowWord, flags: Flags, now: Ticks) -> FlowWord {
        FlowWord(event::flow_after_backend(word.0, flags.0.into(), now.number()))
    }

    #[inline(always)]
    fn flow_missed(&self, set: u32, way: u32, now: Ticks) -> u32 {
        event::flow_missed(set, way, now.number()) as u32
    }

    #[inline(always)]
    fn flow_move(&self, set: u32, way: u32, now: Ticks) -> bool {
        event::flow_move(set, way, now.number()) != 0
    }

    #[inline(always)]
    fn flow_forget(&self, set: u32, way: u32, now: Ticks) -> bool {
        event::flow_forget(set, way, now.number()) != 0
    }

    #[inline(always)]
    fn nat_forget(&self, slot: u32, now: Ticks) -> bool {
        event::nat_forget(slot, now.number()) != 0
    }

    #[inline(always)]
    fn flow_make_room(&self, event: &Event) -> bool {
        event::flow_make_room(event) != 0
    }

    #[inline(always)]
    fn nat_make_room(&self, client: &Event, backend: u32) -> bool {
        event::nat_make_room(client, backend) != 0
    }

    #[inline(always)]
    fn nat_suits(&self, client: &Event, fresh: FlowWord, ports: Ports, probe: u32) -> bool {
        event::nat_suits(client, fresh.0, ports.to_word(), probe) != 0
    }

    #[inline(always)]
    fn nat_pick(&self, client: &Event, backend: u32) -> Option<Place> {
        event::decode_place(event::nat_pick(client, backend))
    }

    #[inline(always)]
    fn dnat_pick(&self, client: &Event, backend: u32) -> Option<Place> {
        event::decode_place(event::dnat_pick(client, backend))
    }

    #[inline(always)]
    fn dnat_find(&self, client: &Event, flow: FlowWord, row: u32) -> Option<u32> {
        event::decode_index(event::dnat_find(client, flow.0, row)).ok()
    }

    #[inline(always)]
    fn nat_missed(&self, client: &Event, fresh: FlowWord, ports: Ports, probe: u32) -> u32 {
        event::nat_missed(client, fresh.0, ports.to_word(), probe) as u32
    }

    #[inline(always)]
    fn nat_rank(&self, slot: u32, client: &Event, fresh: FlowWord) -> u32 {
        event::nat_rank(slot, client, fresh.0) as u32
    }

    #[inline(always)]
    fn take(&self, service: u32, choice: u32, avoid: u32) -> Result<u32, DropReason> {
        event::decode_index(event::flow_take(service, choice, avoid))
    }

    #[inline(always)]
    fn find_room(&self, service: u32, avoid: u32) -> Result<u32, DropReason> {
        event::decode_index(event::flow_room(service, avoid))
    }

    #[inline(always)]
    fn rank(&self, entry: u32, avoid: u32, backup: bool) -> u64 {
        event::flow_rank(entry, avoid, backup.into())
    }

    #[inline(always)]
    fn load_rank(&self, ring: Ring, start: u32, step: u32, avoid: u32) -> u64 {
        event::flow_load_rank(ring.to_word(), start, step, avoid)
    }

    #[inline(always)]
    fn another(&self, ring: Ring, position: u32, avoid: u32) -> Result<u32, DropReason> {
        event::decode_index(event::flow_another(ring.to_word(), position, avoid))
    }

    #[inline(always)]
    fn is_ours(&self, event: &Event) -> bool {
        event::flow_is_ours(event) != 0
    }

    #[inline(always)]
    fn was_heard(&self, flow: FlowWord) -> bool {
        event::flow_was_heard(flow.0) != 0
    }

    #[inline(always)]
    fn hear(&self, before: FlowWord, after: FlowWord) {
        event::flow_hear(before.0, after.0);
    }

    #[inline(always)]
    fn wish(&self, before: FlowWord) -> u32 {
        event::flow_wish(before.0) as u32
    }

    #[inline(always)]
    fn advance(&self, event: &Event) -> bool {
        event::flow_advance(event) != 0
    }

    #[inline(always)]
    fn answer(&self, slot: u32, family: u8, flags: Flags) -> bool {
        event::flow_answer(slot, family.into(), flags.0.into()) != 0
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
