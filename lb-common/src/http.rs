//! The class of an HTTP/1.x response, where a segment begins with one (RFC 9112, section 4).
//!
//! Segments are not put together: a response counts where its status line is at the start of a segment, which is where servers
//! put it, except when they answer pipelined requests. A segment in the midst of a body that happens to begin like a status line
//! counts too. What is encrypted never looks like one.

use core::mem::offset_of;

use network_types::tcp::TcpHdr;

use crate::{
    header::{Byte, StatusLine},
    ip::L3,
    packet::Packet,
};

/// "HTTP/1." as it lies in memory; the minor version follows.
const VERSION: u64 = u64::from_ne_bytes(*b"HTTP/1.\0");
const VERSION_MASK: u64 = u64::from_ne_bytes([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0]);

/// The class of the response with which a segment begins: from 0 for 1xx to 4 for 5xx. Its TCP header is at `l4`, in an IP
/// packet of so many bytes.
#[inline(always)]
pub fn class<P: Packet>(packet: &P, l4: usize, length: u16) -> Option<usize> {
    let header = usize::from(packet.at::<Byte>(l4 + offset_of!(TcpHdr, _bitfield_1))?.0 >> 4) * 4;
    let payload = l4 + header;
    let line = packet.at::<StatusLine>(payload)?;
    if u64::from_ne_bytes(line.version) & VERSION_MASK != VERSION || line.space != b' ' {
        return None;
    }
    // As wide as the index that it becomes: of a narrower one the verifier would not know that it was compared.
    let class = usize::from(line.class).wrapping_sub(usize::from(b'1'));
    let is_within = payload + size_of::<StatusLine>() <= L3 + usize::from(length);
    (class < 5 && is_within && header >= size_of::<TcpHdr>()).then_some(class)
}
