//! The maximum segment size that a SYN announces, kept within what gets through (RFC 9293, section 3.7.1).

use crate::{
    checksum::Change,
    header::{Byte, Checksum, Word},
    packet::Packet,
    rare::Stages,
    rewrite::TCP_CHECKSUM,
    tcp_option::{self, FIRST, TcpOption},
    wire::Be16,
};

const MAXIMUM_SEGMENT_SIZE: TcpOption = TcpOption { kind: 2, size: 4 };

/// Lowers the announced size of the segment whose header is at `l4` to `most`, checksum included. A segment without the
/// option, or with broken ones, stays as it is.
#[inline(always)]
pub fn clamp<P: Stages>(packet: &mut P, l4: usize, most: u16) -> Option<()> {
    let end = usize::from(packet.at::<Byte>(l4 + 12)?.0 >> 4) * 4;
    // With most systems it is the first.
    let TcpOption { kind, size } = MAXIMUM_SEGMENT_SIZE;
    let is_first = packet.at::<Word>(l4 + FIRST)?.get() >> 16 == u32::from(u16::from_be_bytes([kind, size]));
    let option = if is_first && FIRST + usize::from(size) <= end {
        FIRST
    } else {
        tcp_option::find(packet, l4, end, MAXIMUM_SEGMENT_SIZE)?
    };
    lower(packet, l4, option, most)
}

#[inline(always)]
fn lower<P: Packet>(packet: &mut P, l4: usize, option: usize, most: u16) -> Option<()> {
    let size = packet.at_mut::<Checksum>(l4 + option + 2)?;
    let announced = Be16::from_bytes(size.0);
    if announced.get() <= most {
        return None;
    }
    let most = Be16::new(most);
    size.0 = most.to_bytes();
    let check = packet.at_mut::<Checksum>(l4 + TCP_CHECKSUM)?;
    // At an odd offset its bytes stand in the other halves of two words, whose sum is that of the swapped word.
    let (old, new) = if option & 1 == 0 {
        (announced.raw(), most.raw())
    } else {
        (announced.raw().swap_bytes(), most.raw().swap_bytes())
    };
    check.0 = Change::default().word(old, new).apply(check.0);
    Some(())
}
