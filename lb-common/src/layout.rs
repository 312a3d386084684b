//! The values of the maps: the interface between the controller and the packet path.
//!
//! Every map is an array that both sides address by index, and that the controller maps into its memory. Configuration
//! is written 64 bits at a time, so a reader sees each aligned word whole; what a packet changes is atomic.
//! Two sides built from different versions of this file must not meet: [`VERSION`] goes up with any change of it.

use core::sync::atomic::AtomicU64;

use bytemuck::{Pod, Zeroable};

use crate::{
    flow::Timeouts,
    hash,
    wire::{AddressWords, Be16},
};

/// Version of this layout, kept in the map `META`.
pub const VERSION: u32 = 7;

/// Bytes for a name, the terminating zero included.
pub const NAME_SIZE: usize = 64;

/// Flows in one [`FlowSet`].
pub const WAYS: usize = 4;

/// Services whose home slot is taken by another stand at most this many slots behind it: 10,000 at as many addresses, which have an
/// entry each, leave some 18 behind.
pub const MAX_REACH: u8 = 24;

/// Backend indexes are 20 bits of a [`crate::flow::FlowWord`].
pub const MAX_BACKENDS: u32 = 1 << 20;

/// Service slots are 16 bits of a flow key.
pub const MAX_SERVICES: u32 = 1 << 16;

/// Sizes and secrets, fixed when the maps are created. The program reads it as constants (`.rodata`), the controller
/// keeps it in the map `META` so that the next program gets the same.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Config {
    /// [`VERSION`].
    pub version: u32,
    /// Slots of the service table less one; the number of slots is a power of two.
    pub service_mask: u32,
    /// Sets at the start of the flow table that are filled first, less one; their number is a power of two.
    pub near_mask: u32,
    /// Sets of the flow table.
    pub flow_sets: u32,
    /// The NAT table has three times two to the power of this slots; that power is at least `nat_port_count`.
    pub nat_shift: u32,
    /// Backends that fit; rows of the counters for one CPU.
    pub backends: u32,
    /// Entries of the ring space, two to a word of the map.
    pub rings: u32,
    /// CPUs that counters have rows for.
    pub cpus: u32,
    /// The first source port for NAT.
    pub nat_port_base: u16,
    /// Source ports for NAT, from the first on.
    pub nat_port_count: u16,
    /// Nanoseconds of a jiffy.
    pub jiffy_ns: u32,
    /// The jiffy at which the monotonic clock was zero.
    pub first_jiffy: u32,
    /// When flows are forgotten.
    pub timeouts: Timeouts,
    /// Slots of the fragment table less one; the number of slots is a power of two.
    pub fragment_mask: u32,
    /// Key of the hash that picks a flow's sets.
    pub flow_key: hash::Key,
    /// Key of the hash that stands for an IPv6 address in a flow's key.
    pub tag_key: hash::Key,
    /// Key of the hash that places backends in the NAT table and services in theirs.
    pub place_key: hash::Key,
}

impl Config {
    /// Monotonic nanoseconds at a jiffy.
    #[inline(always)]
    pub const fn ns_at(&self, jiffy: u64) -> u64 {
        jiffy.wrapping_sub(self.first_jiffy as u64).wrapping_mul(self.jiffy_ns as u64)
    }

    /// Sets of the flow table behind those that are filled first.
    #[inline(always)]
    pub const fn far_sets(&self) -> u32 {
        self.flow_sets - self.near_mask - 1
    }

    /// Slots of the NAT table.
    #[inline(always)]
    pub const fn nat_slots(&self) -> u32 {
        3 << self.nat_shift
    }
}

/// A slot of the service table; its index is the service's number.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Service {
    /// The virtual address.
    pub address: AddressWords,
    /// The virtual port.
    pub port: Be16,
    /// IP protocol number; [`VIRTUAL_ADDRESS`] in the entry that every virtual address has once, with port 0; 0 in a slot
    /// without a service.
    pub protocol: u8,
    /// 4 or 6.
    pub family: u8,
    /// How many slots behind this one a service with this home may stand. Belongs to the slot, not to its service.
    pub reach: u8,
    /// [`algorithm`].
    pub algorithm: u8,
    /// [`forward`].
    pub forward: u8,
    /// Zero.
    pub reserved: u8,
    /// Where its backends stand in the ring space: [`Ring`] in one word, so that it changes at once.
    pub ring: u64,
    /// Where to look for a backend with room, if any has a limit: another [`Ring`], in which those that `ring` has stand
    /// once each, and backups behind them.
    pub spare: u64,
    /// How many of those are no backups.
    pub spare_own: u64,
    /// Zero.
    pub unused: [u64; 2],
}

/// [`Service::protocol`] of the entry that says that an address is a virtual one.
pub const VIRTUAL_ADDRESS: u8 = 255;

/// Values of [`Service::algorithm`].
pub mod algorithm {
    /// By turns.
    pub const ROUND_ROBIN: u8 = 0;
    /// Consistent hashing of the 5-tuple.
    pub const MAGLEV: u8 = 1;
    /// Consistent hashing of the client's address.
    pub const SOURCE_HASH: u8 = 2;
    /// The one with the fewest open flows for its weight.
    pub const LEAST_CONNECTIONS: u8 = 3;
    /// The better of two at random.
    pub const RANDOM_TWO: u8 = 4;
}

/// Values of [`Service::forward`].
pub mod forward {
    /// Source and destination rewritten.
    pub const NAT: u8 = 0;
    /// Destination rewritten; the front node is the backends' gateway.
    pub const DNAT: u8 = 1;
    /// MAC addresses rewritten; direct return.
    pub const L2: u8 = 2;
    /// IP in IP; direct return.
    pub const IPIP: u8 = 3;
    /// Generic UDP encapsulation; direct return.
    pub const GUE: u8 = 4;
}

/// A segment of the ring space, whose words hold two backend indexes each: indexes in the order, or in the slots, that the algorithm wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ring {
    /// Index of the first entry.
    pub base: u32,
    /// Entries; none when no backend takes new flows.
    pub length: u32,
}

impl Ring {
    /// From [`Service::ring`].
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        Self { base: word as u32, length: (word >> 32) as u32 }
    }

    /// For [`Service::ring`].
    #[inline(always)]
    pub const fn to_word(self) -> u64 {
        (self.length as u64) << 32 | self.base as u64
    }
}

/// Everything that a forwarded packet needs to know of its backend, in one cache line.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Backend {
    /// Its address.
    pub address: AddressWords,
    /// Source address of packets to it.
    pub source: AddressWords,
    /// Where packets to it leave.
    pub path: Path,
    /// Its port.
    pub port: Be16,
    /// [`backend_flags`].
    pub flags: u16,
    /// Where its NAT slots begin: [`crate::nat::base`].
    pub nat_base: u32,
    /// The slot of its service.
    pub service: u32,
    /// The largest IP packet that gets to it; 0 where that is not known.
    pub mtu: u16,
    /// Its weight.
    pub weight: u16,
}

impl Backend {
    /// Whether it takes new flows.
    #[inline(always)]
    pub const fn takes_flows(&self) -> bool {
        const ALL: u16 = backend_flags::PRESENT | backend_flags::IN_ROTATION;
        self.flags & (ALL | backend_flags::GIVEN_UP) == ALL
    }

    /// Whether it exists and is not given up.
    #[inline(always)]
    pub const fn serves(&self) -> bool {
        self.flags & (backend_flags::PRESENT | backend_flags::GIVEN_UP) == backend_flags::PRESENT
    }
}

/// Bits of [`Backend::flags`].
pub mod backend_flags {
    /// It exists: its flows are served.
    pub const PRESENT: u16 = 1;
    /// Its health checks passed when last written.
    pub const HEALTHY: u16 = 2;
    /// It takes new flows.
    pub const IN_ROTATION: u16 = 4;
    /// Its address is an IPv6 address.
    pub const IPV6: u16 = 8;
    /// It is out of rotation for its own fault while others are well: what its clients ask for next is refused.
    pub const GIVEN_UP: u16 = 16;
}

/// Flows that share a cache line.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct FlowSet {
    /// In no order.
    pub ways: [FlowSlot; WAYS],
}

/// One direction of a flow: whose it is, and where it goes.
#[repr(C)]
#[derive(Debug, Default)]
pub struct FlowSlot {
    /// [`crate::flow::Key::tag`].
    pub tag: AtomicU64,
    /// [`crate::flow::FlowWord`].
    pub word: AtomicU64,
}

/// A source port towards a backend, and the client that it stands for, in one cache line.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct NatSlot {
    /// [`crate::flow::FlowWord`]: the backend, the port, the state.
    pub word: AtomicU64,
    /// The client's address: two halves of its [`AddressWords`].
    pub client: [AtomicU64; 2],
    /// The client's port in wire order in the low 16 bits, the service's slot in the next 16.
    pub port_service: AtomicU64,
    /// Where packets to the client leave: [`Path`] in two words.
    pub path: [AtomicU64; 2],
    /// When the client's first SYN came, in nanoseconds; from the backend's answer to what the client acknowledges of it, what that is to be
    /// ([`crate::nat::expect`]); then zero. Zero in a UDP flow as well.
    pub opened: AtomicU64,
    /// [`crate::time_wait::Mark`] of a flow that the backend closed first.
    pub left: AtomicU64,
}

/// How packets leave towards a neighbour: destination and source MAC address, twelve bytes as in the frame, and in the
/// last four the index of the interface.
pub type Path = [u64; 2];

/// The ports of a datagram whose fragments are under way: only the first of them has them.
#[repr(C)]
#[derive(Debug, Default)]
pub struct FragmentSlot {
    /// Hash of addresses, protocol and identification; see [`crate::fragment`].
    pub tag: AtomicU64,
    /// [`crate::fragment::Note`].
    pub note: AtomicU64,
}

/// Parts of the program that are only there when the plan needs them: bits of a constant of the program.
pub mod features {
    /// A service forwards by DNAT.
    pub const DNAT: u32 = 1;
    /// What goes back by the interface that it came in by is redirected to it: for veth.
    pub const REDIRECT_BACK: u32 = 2;
}

/// What one CPU did for one backend, and saw of it. What packets of established flows count is in the first cache line, and so
/// are the commonest responses.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct BackendCounters {
    /// Packets from clients.
    pub packets_in: AtomicU64,
    /// Their bytes, Ethernet header included.
    pub bytes_in: AtomicU64,
    /// Packets to clients.
    pub packets_out: AtomicU64,
    /// Their bytes, Ethernet header included.
    pub bytes_out: AtomicU64,
    /// HTTP requests, where responses come back this way.
    pub requests: AtomicU64,
    /// HTTP responses by class, from 1xx.
    pub responses: [AtomicU64; 5],
    /// Flows scheduled.
    pub connections: AtomicU64,
    /// SYNs that came again while it had not answered.
    pub repeated: AtomicU64,
    /// RSTs in answer to a SYN.
    pub refused: AtomicU64,
    /// Its RSTs in established flows.
    pub reset: AtomicU64,
    /// RSTs of clients in established flows.
    pub aborted: AtomicU64,
    /// Nanoseconds from SYN to SYN-ACK, summed up.
    pub handshake_ns: AtomicU64,
    /// Flows whose SYN-ACK the client has acknowledged.
    pub opened: AtomicU64,
    /// How often that took how long.
    pub handshakes: [AtomicU64; HANDSHAKE_BUCKETS],
}

/// Words of [`BackendCounters`].
pub const BACKEND_COUNTERS: usize = size_of::<BackendCounters>() / 8;

/// Buckets of [`BackendCounters::handshakes`].
pub const HANDSHAKE_BUCKETS: usize = 15;

/// What one CPU remembers of one service.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct ServiceState {
    /// The next turn of the round-robin.
    pub cursor: AtomicU64,
    /// Zero.
    pub unused: [AtomicU64; 7],
}

/// For people: names, and what removed backends had counted.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct ServiceInfo {
    /// Terminated by a zero.
    pub name: [u8; NAME_SIZE],
    /// The sums of removed backends, in the order of [`BackendCounters`].
    pub retired: [u64; BACKEND_COUNTERS],
}

/// For people: the name of a backend.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct BackendInfo {
    /// Terminated by a zero.
    pub name: [u8; NAME_SIZE],
}
