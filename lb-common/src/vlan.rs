//! 802.1Q and 802.1ad tags: taken off before the rest of the path, put back after it, as they were.

use crate::{
    header::{MacPair, VlanTag},
    packet::Packet,
    wire::Be16,
};

/// Ethernet type of an 802.1Q tag.
pub const DOT1Q: Be16 = Be16::new(0x8100);
/// Ethernet type of an 802.1ad tag.
pub const DOT1AD: Be16 = Be16::new(0x88a8);

const TAG: i32 = size_of::<VlanTag>() as i32;

/// Up to two tags.
///
/// Not an enum: LLVM would keep registers for the tags of a variant that has none, and the verifier wants every register
/// written before it is read ("!read_ok").
#[derive(Clone, Copy, Debug)]
pub struct Tags {
    outer: VlanTag,
    inner: VlanTag,
    /// Their bytes: none, one tag's, or two tags'.
    length: i32,
}

/// Takes the tags off; none where the frame ends within them.
#[inline(always)]
pub fn strip<P: Packet>(packet: &mut P) -> Option<Tags> {
    let none = VlanTag { tpid: [0; 2], tci: [0; 2] };
    let outer = *packet.at::<VlanTag>(12)?;
    if !is_tag(outer) {
        return Some(Tags { outer: none, inner: none, length: 0 });
    }
    let inner = *packet.at::<VlanTag>(16)?;
    let tags =
        if is_tag(inner) { Tags { outer, inner, length: 2 * TAG } } else { Tags { outer, inner: none, length: TAG } };
    let macs = *packet.at::<MacPair>(0)?;
    if !packet.adjust_head(tags.length) {
        return None;
    }
    *packet.at_mut::<MacPair>(0)? = macs;
    Some(tags)
}

/// Puts them back; none where that fails.
#[inline(always)]
pub fn restore<P: Packet>(packet: &mut P, tags: Tags) -> Option<()> {
    if tags.length == 0 {
        return Some(());
    }
    let macs = *packet.at::<MacPair>(0)?;
    if !packet.adjust_head(-tags.length) {
        return None;
    }
    *packet.at_mut::<MacPair>(0)? = macs;
    *packet.at_mut::<VlanTag>(12)? = tags.outer;
    if tags.length > TAG {
        *packet.at_mut::<VlanTag>(16)? = tags.inner;
    }
    Some(())
}

#[inline(always)]
fn is_tag(tag: VlanTag) -> bool {
    let tpid = Be16::from_bytes(tag.tpid);
    tpid == DOT1Q || tpid == DOT1AD
}
