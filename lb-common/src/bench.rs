//! What the packet bench and its restoring program agree on.

use bytemuck::{Pod, Zeroable};

/// Words of headers that are restored: all that a program could have changed of an IPv6 TCP frame.
pub const TEMPLATE_WORDS: usize = 8;

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
    /// The flow whose turn it was.
    pub turn: u64,
    /// Where a flow's four bytes of address go: the high half of its key.
    pub address_at: u32,
    /// Where a flow's port goes: the low 16 bits of its key, in wire order.
    pub port_at: u32,
}
