//! Requests and responses of HTTP/1.x, where a segment begins with one (RFC 9112, sections 3 and 4).
//!
//! Segments are not put together: what counts is a request or status line at the start of a segment, which is where clients and servers
//! put it, except when they pipeline. A segment in the midst of a body that happens to begin like one counts too, and so does a request
//! that is sent again. What is encrypted never looks like one.

use core::mem::offset_of;

use network_types::tcp::TcpHdr;

use crate::{
    header::{Byte, Method, StatusLine},
    ip::L3,
    packet::Packet,
};

/// "HTTP/1." as it lies in memory; the minor version follows.
const VERSION: u64 = u64::from_ne_bytes(*b"HTTP/1.\0");
const VERSION_MASK: u64 = u64::from_ne_bytes([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0]);

/// Whether a segment begins with a request. Its TCP header is at `l4`, in an IP packet of so many bytes.
#[inline(always)]
pub fn is_request<P: Packet>(packet: &P, l4: usize, length: u16) -> bool {
    let Some(payload) = payload(packet, l4) else { return false };
    let Some(method) = packet.at::<Method>(payload) else { return false };
    is_method(u32::from_ne_bytes(method.0)) && payload + size_of::<Method>() <= L3 + usize::from(length)
}

/// Whether a request begins so: with one of the methods of RFC 9110 that have a target, or PATCH (RFC 5789).
#[inline(always)]
const fn is_method(start: u32) -> bool {
    const fn word(start: &[u8; 4]) -> u32 {
        u32::from_ne_bytes(*start)
    }
    const GET: u32 = word(b"GET ");
    const POST: u32 = word(b"POST");
    const HEAD: u32 = word(b"HEAD");
    const PUT: u32 = word(b"PUT ");
    const DELETE: u32 = word(b"DELE");
    const OPTIONS: u32 = word(b"OPTI");
    const PATCH: u32 = word(b"PATC");
    matches!(start, GET | POST | HEAD | PUT | DELETE | OPTIONS | PATCH)
}

/// Where what a segment carries begins.
#[inline(always)]
fn payload<P: Packet>(packet: &P, l4: usize) -> Option<usize> {
    let header = usize::from(packet.at::<Byte>(l4 + offset_of!(TcpHdr, _bitfield_1))?.0 >> 4) * 4;
    (header >= size_of::<TcpHdr>()).then_some(l4 + header)
}

/// The class of the response with which a segment begins: from 0 for 1xx to 4 for 5xx. Its TCP header is at `l4`, in an IP
/// packet of so many bytes.
#[inline(always)]
pub fn class<P: Packet>(packet: &P, l4: usize, length: u16) -> Option<usize> {
    let payload = payload(packet, l4)?;
    let line = packet.at::<StatusLine>(payload)?;
    if u64::from_ne_bytes(line.version) & VERSION_MASK != VERSION || line.space != b' ' {
        return None;
    }
    // As wide as the index that it becomes: of a narrower one the verifier would not know that it was compared.
    let class = usize::from(line.class).wrapping_sub(usize::from(b'1'));
    let is_within = payload + size_of::<StatusLine>() <= L3 + usize::from(length);
    (class < 5 && is_within).then_some(class)
}
