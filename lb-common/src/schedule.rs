//! Which backend a new flow gets.

use crate::{
    hash,
    layout::{Ring, Service, algorithm},
    tables::Tables,
    verdict::DropReason,
    wire::{AddressWords, Be16},
};

/// The index of the backend for a flow from `source` and `source_port` to the service.
#[inline(always)]
pub fn backend<T: Tables>(
    tables: &T,
    slot: u32,
    service: &Service,
    source: AddressWords,
    source_port: Be16,
) -> Result<u32, DropReason> {
    let ring = Ring::from_word(service.ring);
    if ring.length == 0 {
        return Err(DropReason::NoBackend);
    }
    let turn = match service.algorithm {
        algorithm::MAGLEV => consistent(service, ring, source, source_port),
        _ => by_turns(tables, slot, ring)?,
    };
    tables.ring(ring.base.wrapping_add(turn)).ok_or(DropReason::Internal)
}

/// The next turn of this CPU. Over any window of as many turns as the ring is long each backend comes up as often as it
/// stands in the ring, which is its weight.
#[inline(always)]
fn by_turns<T: Tables>(tables: &T, slot: u32, ring: Ring) -> Result<u32, DropReason> {
    let cursor = &tables.state(slot).ok_or(DropReason::Internal)?.cursor;
    let turn = match tables.load(cursor) {
        turn if turn < u64::from(ring.length) => turn,
        _ => 0,
    };
    tables.store(cursor, turn + 1);
    Ok(turn as u32)
}

/// The Maglev slot of the 5-tuple. The key is public, so that front nodes with the same backends agree.
#[inline(always)]
fn consistent(service: &Service, ring: Ring, source: AddressWords, source_port: Be16) -> u32 {
    let key = &hash::PUBLIC_KEY;
    let from = hash::nh(key, source, u32::from(source_port.raw()));
    let to = hash::nh(key, service.address, u32::from(service.port.raw()) << 16 | u32::from(service.protocol));
    hash::scale(from ^ to, ring.length)
}
