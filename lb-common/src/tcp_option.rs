//! The options of a TCP header (RFC 9293, section 3.1).

use network_types::tcp::TcpHdr;

use crate::{header::Byte, packet::Packet, rare::Stages};

/// Options before the one that is looked for; each but padding has at least two bytes.
const MAX_OPTIONS: usize = 12;

/// Where they begin.
pub const FIRST: usize = size_of::<TcpHdr>();

const END: u8 = 0;
const PADDING: u8 = 1;

/// What an option is, and how many bytes it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpOption {
    /// Its number.
    pub kind: u8,
    /// At least one, whatever it says.
    pub size: u8,
}

/// Where the option of a kind and size stands, from the start of the header at `l4`. The header has `end` bytes.
#[inline(always)]
pub fn find<P: Stages>(packet: &P, l4: usize, end: usize, wanted: TcpOption) -> Option<usize> {
    let mut at = FIRST;
    for _ in 0..MAX_OPTIONS {
        if at + usize::from(wanted.size) > end {
            return None;
        }
        match packet.tcp_option(l4 + at)? {
            option if option == wanted => return Some(at),
            TcpOption { kind: END, .. } => return None,
            TcpOption { size, .. } => at += usize::from(size),
        }
    }
    None
}

/// The option at an offset.
#[inline(always)]
pub fn at<P: Packet>(packet: &P, offset: usize) -> Option<TcpOption> {
    let kind = packet.at::<Byte>(offset)?.0;
    let size = if kind == PADDING { 1 } else { packet.at::<Byte>(offset + 1)?.0.max(2) };
    Some(TcpOption { kind, size })
}
