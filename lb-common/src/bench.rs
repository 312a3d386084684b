//! What the packet bench and its restoring program agree on.

use bytemuck::{Pod, Zeroable};

/// Words of headers that are restored: all that a program could have changed of an IPv6 TCP frame, whose checksum ends there.
pub const TEMPLATE_WORDS: usize = 9;

/// The frame to restore, and how flows differ from each other.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Template {
    /// The first bytes of the frame.
    pub words: [u64; TEMPLATE_WORDS],
    /// Length of the frame.
    pub length: u64,
    /// Flows less one; the number of flows is a power of two.
    pub turn_mask: u64,
    /// Packets sent so far.
    pub sent: u64,
    /// Packets that are timed together, less one; their number is a power of two.
    pub slice_mask: u64,
    /// When the first of them was sent, in nanoseconds.
    pub began_ns: u64,
    /// The least time that so many have taken.
    pub least_ns: u64,
    /// Where a flow's four bytes of address go: the high half of its key.
    pub address_at: u32,
    /// Where a flow's port goes: the low 16 bits of its key, in wire order.
    pub port_at: u32,
}
