//! A RST in answer to a segment that cannot be served, so that its sender knows at once (RFC 9293, section 3.5.2).

use core::mem::offset_of;

use network_types::{bitfield::BitfieldU16, tcp::TcpHdr};

use crate::{
    checksum::fold,
    ip::{BEST_EFFORT, Ip, L3, TCP},
    packet::Packet,
    parse::Datagram,
    rewrite,
    verdict::{DropReason, Verdict},
    wire::{Address, Be16},
};

/// Turns a segment into the answer to it; none where it cannot be: a RST is not answered, and one behind options is not
/// worth the effort.
#[inline(always)]
pub fn answer<I: Ip, P: Packet>(packet: &mut P, datagram: &Datagram<I>) -> Option<Verdict> {
    let l4 = L3 + size_of::<I>();
    if datagram.protocol != TCP || datagram.flags.rst() || datagram.l4 != l4 {
        return None;
    }
    let header = *packet.at::<TcpHdr>(l4)?;
    let ip = packet.at::<I>(L3)?;
    let payload = ip.total_length().wrapping_sub(size_of::<I>() as u16);
    let offset = packet.at::<crate::header::Byte>(l4 + offset_of!(TcpHdr, _bitfield_1))?.0 >> 4;
    let length = u32::from(payload.saturating_sub(u16::from(offset) * 4))
        + u32::from(datagram.flags.syn())
        + u32::from(datagram.flags.fin());
    let (seq, ack, flags) = if datagram.flags.ack() {
        (header.ack_seq, [0; 4], 0x04)
    } else {
        ([0; 4], u32::from_be_bytes(header.seq).wrapping_add(length).to_be_bytes(), 0x14)
    };
    let excess = packet.len() as i64 - (l4 + size_of::<TcpHdr>()) as i64;
    if excess > 0 && !packet.adjust_tail(-(excess as i32)) {
        return None;
    }
    let mut reset = TcpHdr {
        source: datagram.destination_port.to_bytes(),
        dest: datagram.source_port.to_bytes(),
        seq,
        ack_seq: ack,
        _bitfield_align_1: [],
        _bitfield_1: BitfieldU16::new([5 << 4, flags]),
        window: [0; 2],
        check: [0; 2],
        urg_ptr: [0; 2],
    };
    let sum = datagram.source.sum()
        + datagram.destination.sum()
        + u64::from(u16::from(TCP).to_be())
        + u64::from(Be16::new(size_of::<TcpHdr>() as u16).raw())
        + u64::from(u16::from_ne_bytes(reset.source))
        + u64::from(u16::from_ne_bytes(reset.dest))
        + u64::from(u32::from_ne_bytes(seq))
        + u64::from(u32::from_ne_bytes(ack))
        + u64::from(u16::from_ne_bytes([5 << 4, flags]));
    reset.check = (!fold(sum)).to_ne_bytes();
    *packet.at_mut::<TcpHdr>(l4)? = reset;
    let ip = packet.at_mut::<I>(L3)?;
    ip.start(datagram.destination, datagram.source, BEST_EFFORT, size_of::<TcpHdr>() as u16, TCP);
    let path = rewrite::return_path(packet)?;
    rewrite::leave(packet, path).ok()
}

/// Whether a segment that was dropped for a reason is answered.
#[inline(always)]
pub fn deserves(reason: DropReason) -> bool {
    matches!(reason, DropReason::NoFlow | DropReason::NoBackend | DropReason::BackendFull)
}
