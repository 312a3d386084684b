//! What the pipeline asks of the maps.

use core::sync::atomic::AtomicU64;

use crate::{
    layout::{Backend, BackendCounters, Config, FlowSet, NatSlot, Service, ServiceState},
    verdict::DropReason,
};

/// The maps, and the instructions on their words: the BPF target has no loads and stores of `core::sync::atomic`.
/// Look-ups return nothing for an index beyond the map's end.
pub trait Tables {
    /// Sizes and secrets.
    fn config(&self) -> &Config;
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
    /// This CPU's counters of a backend.
    fn counters(&self, backend: u32) -> Option<&BackendCounters>;
    /// This CPU's memory of a service.
    fn state(&self, service: u32) -> Option<&ServiceState>;
    /// This CPU's counter of a drop reason.
    fn drops(&self, reason: DropReason) -> Option<&AtomicU64>;
    /// Monotonic time in nanoseconds, to a few milliseconds.
    fn now_ns(&self) -> u64;
    /// What a word holds. Read once, and in the order of the program.
    fn load(&self, word: &AtomicU64) -> u64;
    /// Sets a word, at once and in the order of the program.
    fn store(&self, word: &AtomicU64, value: u64);
    /// Puts `new` in place of `current`, if that is what is there; returns what was there. A full barrier.
    fn compare_exchange(&self, word: &AtomicU64, current: u64, new: u64) -> u64;
}
