//! What the pipeline asks of the maps.

use core::sync::atomic::AtomicU64;

use crate::{
    event::{self, Event},
    flow::{self, FlowWord, Ticks},
    layout::{Backend, BackendCounters, Config, FlowSet, FragmentSlot, NatSlot, Ring, Service, ServiceState},
    nat,
    parse::Flags,
    room, schedule, service,
    verdict::DropReason,
    wire::AddressWords,
};

/// The maps, and the instructions on their words: the BPF target has no loads and stores of `core::sync::atomic`.
/// Look-ups return nothing for an index beyond the map's end.
pub trait Tables: Sized {
    /// Sizes and secrets.
    fn config(&self) -> &Config;
    /// [`crate::layout::features`] that the plan needs.
    fn features(&self) -> u32;
    /// A slot of the service table.
    fn service(&self, slot: u32) -> Option<&Service>;
    /// A backend.
    fn backend(&self, index: u32) -> Option<&Backend>;
    /// An entry of the ring space: a backend's index.
    fn ring(&self, index: u32) -> Option<u32>;
    /// A set of the flow table.
    fn flow_set(&self, index: u32) -> Option<&FlowSet>;
    /// A slot of the NAT table.
    fn nat_slot(&self, index: u32) -> Option<&NatSlot>;
    /// A slot of the fragment table.
    fn fragment(&self, index: u32) -> Option<&FragmentSlot>;
    /// The number of a backend's open flows, kept where [`crate::schedule::counts_flows`] says so.
    fn load_of(&self, backend: u32) -> Option<&AtomicU64>;
    /// When a backend that answers its clients itself was last heard of: monotonic time in ticks ([`flow::TICK_SHIFT`]).
    fn heard_of(&self, backend: u32) -> Option<&AtomicU64>;
    /// How many flows a backend may have: [`crate::room::Limits`]. Behind the last backend, until when (in nanoseconds of
    /// [`now_ns`](Self::now_ns)) limits hold.
    fn limits_of(&self, backend: u32) -> Option<&AtomicU64>;
    /// This CPU's counters of a backend.
    fn counters(&self, backend: u32) -> Option<&BackendCounters>;
    /// This CPU's memory of a service.
    fn state(&self, service: u32) -> Option<&ServiceState>;
    /// This CPU's counter of a drop reason.
    fn drops(&self, reason: DropReason) -> Option<&AtomicU64>;
    /// This CPU's memory of how many packets of its own it has sent.
    fn answers(&self) -> Option<&AtomicU64>;
    /// A random number.
    fn random(&self) -> u32;
    /// Remembers the largest IP packet that gets to a backend.
    fn learn_mtu(&self, backend: u32, mtu: u16);
    /// Monotonic time in nanoseconds, to a few milliseconds.
    fn now_ns(&self) -> u64;
    /// The same as exactly as the clock has it, which costs more.
    fn clock_ns(&self) -> u64;
    /// What a word holds. Read once, and in the order of the program.
    fn load(&self, word: &AtomicU64) -> u64;
    /// Sets a word, at once and in the order of the program.
    fn store(&self, word: &AtomicU64, value: u64);
    /// Adds to a word that other CPUs write too, wrapping round.
    fn add(&self, word: &AtomicU64, value: u64);
    /// Puts `new` in place of `current`, if that is what is there; returns what was there. A full barrier.
    fn compare_exchange(&self, word: &AtomicU64, current: u64, new: u64) -> u64;

    /// [`service::behind`].
    #[inline(always)]
    fn service_behind(&self, home: u32, address: AddressWords, transport: u32) -> Option<u32> {
        service::behind(self, home, address, transport)
    }

    /// [`event::open`].
    #[inline(always)]
    fn open(&self, event: &Event, backend: u32, place: Option<nat::Place>) -> Result<FlowWord, DropReason> {
        event::open(self, event, backend, place)
    }

    /// [`event::begin`].
    #[inline(always)]
    fn begin(&self, event: &Event, before: FlowWord) -> Result<FlowWord, DropReason> {
        event::begin(self, event, before)
    }

    /// [`event::open_plainly`].
    #[inline(always)]
    fn open_plainly(&self, key: &flow::Key, service: u32, point: u64) -> Option<FlowWord> {
        event::open_plainly(self, key, service, point)
    }

    /// [`flow::find`], off the common path.
    #[inline(always)]
    fn find_flow(&self, key: &flow::Key) -> Option<FlowWord> {
        flow::find(self, key)
    }

    /// [`event::choose`].
    #[inline(always)]
    fn choose(&self, event: &Event, before: FlowWord) -> Result<u32, DropReason> {
        event::choose(self, event, before)
    }

    /// [`FlowWord::after_client`].
    #[inline(always)]
    fn after_client(&self, word: FlowWord, flags: Flags, now: Ticks) -> FlowWord {
        word.after_client(flags, now)
    }

    /// [`FlowWord::after_backend`].
    #[inline(always)]
    fn after_backend(&self, word: FlowWord, flags: Flags, now: Ticks) -> FlowWord {
        word.after_backend(flags, now)
    }

    /// [`flow::missed`].
    #[inline(always)]
    fn flow_missed(&self, set: u32, way: u32, now: Ticks) -> u32 {
        flow::missed(self, set, way, now)
    }

    /// [`flow::move_away`].
    #[inline(always)]
    fn flow_move(&self, set: u32, way: u32, now: Ticks) -> bool {
        flow::move_away(self, set, way, now)
    }

    /// [`flow::forget`].
    #[inline(always)]
    fn flow_forget(&self, set: u32, way: u32, now: Ticks) -> bool {
        flow::forget(self, set, way, now)
    }

    /// [`nat::forget`].
    #[inline(always)]
    fn nat_forget(&self, slot: u32, now: Ticks) -> bool {
        nat::forget(self, slot, now)
    }

    /// [`nat::pick`].
    #[inline(always)]
    fn nat_pick(&self, client: &Event, backend: u32) -> Option<nat::Place> {
        nat::pick(self, client, backend)
    }

    /// [`nat::pick_dnat`].
    #[inline(always)]
    fn dnat_pick(&self, client: &Event, backend: u32) -> Option<nat::Place> {
        nat::pick_dnat(self, client, backend)
    }

    /// [`nat::find_dnat`].
    #[inline(always)]
    fn dnat_find(&self, client: &Event, flow: FlowWord, row: u32) -> Option<u32> {
        nat::find_dnat(self, client, flow, row)
    }

    /// [`nat::missed`].
    #[inline(always)]
    fn nat_missed(&self, client: &Event, fresh: FlowWord, ports: nat::Ports, probe: u32) -> u32 {
        nat::missed(self, client, fresh, ports, probe)
    }

    /// [`nat::rank`].
    #[inline(always)]
    fn nat_rank(&self, slot: u32, client: &Event, fresh: FlowWord) -> u32 {
        nat::rank(self, slot, client, fresh)
    }

    /// [`event::make_room`].
    #[inline(always)]
    fn flow_make_room(&self, event: &Event) -> bool {
        event::make_room(self, event)
    }

    /// [`nat::make_room`].
    #[inline(always)]
    fn nat_make_room(&self, client: &Event, backend: u32) -> bool {
        nat::make_room(self, client, backend)
    }

    /// [`nat::suits`].
    #[inline(always)]
    fn nat_suits(&self, client: &Event, fresh: FlowWord, ports: nat::Ports, probe: u32) -> bool {
        nat::suits(self, client, fresh, ports, probe)
    }

    /// [`room::take`].
    #[inline(always)]
    fn take(&self, service: u32, choice: u32, avoid: u32) -> Result<u32, DropReason> {
        room::take(self, service, choice, avoid)
    }

    /// [`room::find`].
    #[inline(always)]
    fn find_room(&self, service: u32, avoid: u32) -> Result<u32, DropReason> {
        room::find(self, service, avoid)
    }

    /// [`room::rank`].
    #[inline(always)]
    fn rank(&self, entry: u32, avoid: u32, backup: bool) -> u64 {
        room::rank(self, entry, avoid, backup)
    }

    /// [`schedule::load_rank`].
    #[inline(always)]
    fn load_rank(&self, ring: Ring, start: u32, step: u32, avoid: u32) -> u64 {
        schedule::load_rank(self, ring, start, step, avoid)
    }

    /// [`schedule::another`].
    #[inline(always)]
    fn another(&self, ring: Ring, position: u32, avoid: u32) -> Result<u32, DropReason> {
        schedule::another(self, ring, position, avoid)
    }

    /// [`event::is_ours`].
    #[inline(always)]
    fn is_ours(&self, event: &Event) -> bool {
        event::is_ours(self, event)
    }

    /// [`event::was_heard`].
    #[inline(always)]
    fn was_heard(&self, flow: FlowWord) -> bool {
        event::was_heard(self, flow)
    }

    /// [`event::hear`].
    #[inline(always)]
    fn hear(&self, before: FlowWord, after: FlowWord) {
        event::hear(self, before, after);
    }

    /// [`event::wish`].
    #[inline(always)]
    fn wish(&self, before: FlowWord) -> u32 {
        event::wish(self, before)
    }

    /// [`event::advance`].
    #[inline(always)]
    fn advance(&self, event: &Event) -> bool {
        event::advance(self, event)
    }

    /// [`event::answer`].
    #[inline(always)]
    fn answer(&self, slot: u32, family: u8, flags: Flags) -> bool {
        event::answer(self, slot, family, flags)
    }

    /// Adds to a counter of this CPU, which nobody else writes.
    #[inline(always)]
    fn count(&self, counter: &AtomicU64, value: u64) {
        self.store(counter, self.load(counter).wrapping_add(value));
    }

    /// Counts a packet from a client to a backend; the counters, for what else there is to count.
    #[inline(always)]
    fn count_in(&self, backend: u32, bytes: u64) -> Option<&BackendCounters> {
        let counters = self.counters(backend)?;
        self.count(&counters.packets_in, 1);
        self.count(&counters.bytes_in, bytes);
        Some(counters)
    }

    /// The same of one from a backend to a client.
    #[inline(always)]
    fn count_out(&self, backend: u32, bytes: u64) -> Option<&BackendCounters> {
        let counters = self.counters(backend)?;
        self.count(&counters.packets_out, 1);
        self.count(&counters.bytes_out, bytes);
        Some(counters)
    }
}
