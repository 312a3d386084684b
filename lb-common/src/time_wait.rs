//! What a backend remembers of a connection that it closed first: TIME-WAIT (RFC 9293, section 3.6.1).
//!
//! For a minute it takes a SYN from the same address and port only where its timestamp is newer than the last one of the
//! old connection, or without timestamps its sequence number higher (RFC 6191, section 2). A client that comes again by its
//! own port sees to that. Two clients that get the same port of the front node, one after the other, do not: each has
//! clocks of its own (RFC 6528, section 3; RFC 7323, section 5.4). So a slot keeps the [`Mark`] of its last flow, and goes
//! to a client whose SYN the backend will take.

use crate::{
    flow::ticks,
    header::{Byte, Word},
    ip::L3,
    parse::Flags,
    rare::Stages,
    tcp_option::{self, TcpOption},
};

/// How long a backend remembers: Linux' TCP_TIMEWAIT_LEN.
pub const TICKS: u32 = ticks(60);

/// What a SYN or FIN says of its sender's clocks: the sequence number behind it in the low half, its timestamp in the high one, or
/// zero there if it has none. Of other segments what they acknowledge: nothing else is asked of either, and the stack has no room for both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark(pub u64);

impl Mark {
    /// Left by a flow of which the backend remembers nothing.
    pub const NONE: Self = Self(0);

    /// Whether a backend that remembers this takes a SYN with that.
    #[inline(always)]
    pub const fn admits(self, syn: Self) -> bool {
        let (old, new) = ((self.0 >> 32) as u32, (syn.0 >> 32) as u32);
        if old == 0 || new == 0 { is_after(syn.0 as u32, self.0 as u32) } else { is_after(new, old) }
    }
}

/// Serial number arithmetic (RFC 1982).
const fn is_after(a: u32, b: u32) -> bool {
    a != b && a.wrapping_sub(b) >> 31 == 0
}

/// The mark of the segment whose header is at `l4`, in an IP packet of so many bytes.
#[inline(always)]
pub fn mark<P: Stages>(packet: &P, l4: usize, length: u16) -> Option<Mark> {
    const TIMESTAMPS: TcpOption = TcpOption { kind: 8, size: 10 };
    let header = usize::from(packet.at::<Byte>(l4 + 12)?.0 >> 4) * 4;
    let flags = Flags(packet.at::<Byte>(l4 + 13)?.0);
    if !(flags.syn() || flags.fin()) {
        return Some(Mark(packet.at::<Word>(l4 + 8)?.get().into()));
    }
    let payload = (L3 + usize::from(length)).wrapping_sub(l4 + header) as u32;
    let sequence = packet.at::<Word>(l4 + 4)?.get().wrapping_add(payload).wrapping_add(u32::from(flags.fin()));
    let timestamp = match tcp_option::find(packet, l4, header, TIMESTAMPS) {
        Some(option) => packet.at::<Word>(l4 + option + 2)?.get(),
        None => 0,
    };
    Some(Mark(u64::from(timestamp) << 32 | u64::from(sequence)))
}
