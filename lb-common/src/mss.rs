//! The maximum segment size that a SYN announces, kept within what gets through (RFC 9293, section 3.7.1).

use network_types::tcp::TcpHdr;

use crate::{
    checksum::Change,
    header::{Byte, Checksum},
    packet::Packet,
    rewrite::TCP_CHECKSUM,
    wire::Be16,
};

/// Options before the one that is looked for; each but padding has at least two bytes.
pub(crate) const MAX_OPTIONS: usize = 12;

/// Lowers the announced size of the segment whose header is at `l4` to `most`, checksum included. A segment without the
/// option, or with broken ones, stays as it is.
#[inline(always)]
pub fn clamp<P: Packet>(packet: &mut P, l4: usize, most: u16) -> Option<()> {
    let end = usize::from(packet.at::<Byte>(l4 + 12)?.0 >> 4) * 4;
    let mut option = size_of::<TcpHdr>();
    for _ in 0..MAX_OPTIONS {
        if option + 4 > end {
            return None;
        }
        match packet.at::<Byte>(l4 + option)?.0 {
            0 => return None,
            1 => option += 1,
            2 => return lower(packet, l4, option, most),
            _ => option += usize::from(packet.at::<Byte>(l4 + option + 1)?.0).max(2),
        }
    }
    None
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
