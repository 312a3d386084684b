//! Which backend a new flow gets.

use crate::{
    hash,
    layout::{Backend, MAX_BACKENDS, Ring, Service, algorithm},
    room,
    tables::Tables,
    verdict::DropReason,
    wire::{AddressWords, Be16},
};

/// In place of a backend to avoid: none.
pub const NOBODY: u32 = u32::MAX;

/// Of a [`stay`], beside the backend's index.
const STAY: u32 = 1 << 31;

/// Entries tried until one is not the backend to avoid.
const TRIES: u32 = 16;

/// Backends that the search for the one with the fewest flows looks at. A service with more looks at as many, from
/// another one on each time.
const WINDOW: u32 = 64;

/// Bits of a backend's index, of a place among those that are looked at, and of a score.
const INDEX_BITS: u32 = MAX_BACKENDS.trailing_zeros();
const WINDOW_BITS: u32 = WINDOW.trailing_zeros();
const SCORE_BITS: u32 = u64::BITS - 1 - WINDOW_BITS - INDEX_BITS;
const _: () = assert!(WINDOW == 1 << WINDOW_BITS);

/// A wish for a backend, in the place of one to avoid.
#[inline(always)]
pub const fn stay(index: u32) -> u32 {
    STAY | index
}

/// The backend of such a wish.
#[inline(always)]
pub const fn stays(wish: u32) -> Option<u32> {
    let index = wish ^ STAY;
    if index < MAX_BACKENDS { Some(index) } else { None }
}

/// The index of the backend for a flow from `source` and `source_port`. Not `avoid`, if the service has another.
#[inline(always)]
pub fn backend<T: Tables>(
    tables: &T,
    slot: u32,
    service: &Service,
    source: AddressWords,
    source_port: Be16,
    avoid: u32,
) -> Result<u32, DropReason> {
    let ring = Ring::from_word(service.ring);
    if ring.length == 0 {
        return Err(DropReason::NoBackend);
    }
    match service.algorithm {
        algorithm::LEAST_CONNECTIONS => fewest(tables, slot, ring, avoid),
        algorithm::RANDOM_TWO => two(tables, ring, avoid),
        _ => from(tables, ring, position(tables, slot, service, ring, point(service, source, source_port))?, avoid),
    }
}

/// The entry at a position, or [`another`] if that is to be avoided.
#[inline(always)]
fn from<T: Tables>(tables: &T, ring: Ring, position: u32, avoid: u32) -> Result<u32, DropReason> {
    let index = entry(tables, ring, position)?;
    if index == avoid { tables.another(ring, position, avoid) } else { Ok(index) }
}

/// The first entry, of those that follow from a position by hashing, that is not to be avoided: a Maglev ring is too regular for leaps of
/// one length. The one to be avoided where it is nearly alone.
#[inline(always)]
pub fn another<T: Tables>(tables: &T, ring: Ring, position: u32, avoid: u32) -> Result<u32, DropReason> {
    let mut hash = u64::from(position) + 0x9e37_79b9_7f4a_7c15;
    for _ in 0..TRIES {
        // A round of Pelle Evensen's rrmxmx: each try is another's hash.
        hash = (hash ^ hash >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
        hash = (hash ^ hash >> 29).wrapping_mul(0x9fb2_1c65_1e98_df25);
        let index = entry(tables, ring, hash::scale(hash, ring.length))?;
        if index != avoid {
            return Ok(index);
        }
    }
    Ok(avoid)
}

/// The next turn of this CPU. Over any window of as many turns as the ring is long each backend comes up as often as it
/// stands in the ring, which is its weight.
#[inline(always)]
fn next_turn<T: Tables>(tables: &T, slot: u32, ring: Ring) -> Result<u32, DropReason> {
    let cursor = &tables.state(slot).ok_or(DropReason::Internal)?.cursor;
    let turn = match tables.load(cursor) {
        turn if turn < u64::from(ring.length) => turn,
        _ => 0,
    };
    tables.store(cursor, turn + 1);
    Ok(turn as u32)
}

/// Where in a consistent ring the client's address lies, and its port if that is to matter, as a hash. The key is public, so
/// that front nodes with the same backends agree.
#[inline(always)]
pub fn point(service: &Service, source: AddressWords, source_port: Be16) -> u64 {
    let key = &hash::PUBLIC_KEY;
    let has_port = service.algorithm == algorithm::MAGLEV;
    let from = hash::nh(key, source, if has_port { source_port.raw().into() } else { 0 });
    let to = hash::nh(key, service.address, u32::from(service.port.raw()) << 16 | u32::from(service.protocol));
    from ^ to
}

/// The backend at a [`point`], or whose turn it is, for an algorithm that looks at nothing else.
#[inline(always)]
pub fn plain<T: Tables>(tables: &T, slot: u32, service: &Service, point: u64) -> Result<u32, DropReason> {
    let ring = Ring::from_word(service.ring);
    if ring.length == 0 {
        return Err(DropReason::NoBackend);
    }
    entry(tables, ring, position(tables, slot, service, ring, point)?)
}

/// Where in a ring that is: of a consistent one the [`point`] decides.
#[inline(always)]
fn position<T: Tables>(tables: &T, slot: u32, service: &Service, ring: Ring, point: u64) -> Result<u32, DropReason> {
    if is_consistent(service) { Ok(hash::scale(point, ring.length)) } else { next_turn(tables, slot, ring) }
}

/// The backend with the fewest open flows for its weight, each standing in the ring once; of several, which have none for instance, whose
/// turn it is.
///
/// The verifier follows every branch of every turn of the loop, unless two paths leave it with equal states; so there is one running
/// minimum of numbers that hold the score, the place and the index, and that another function says: of what it puts together here
/// itself it would know too much.
#[inline(always)]
fn fewest<T: Tables>(tables: &T, slot: u32, ring: Ring, avoid: u32) -> Result<u32, DropReason> {
    let start = next_turn(tables, slot, ring)?;
    let mut best = u64::MAX;
    for step in 0..WINDOW {
        if step >= ring.length {
            break;
        }
        best = best.min(tables.load_rank(ring, start, step, avoid));
    }
    if best == u64::MAX {
        return Err(DropReason::Internal);
    }
    Ok(best as u32 & (MAX_BACKENDS - 1))
}

/// How well the backend so many steps behind a position of a ring suits by its open flows, then by the steps, less being better; in the
/// lowest bits its index. Behind the end is the start.
#[inline(always)]
pub fn load_rank<T: Tables>(tables: &T, ring: Ring, start: u32, step: u32, avoid: u32) -> u64 {
    let Ok(index) = entry(tables, ring, (start + step) % ring.length.max(1)) else { return u64::MAX };
    let Ok(score) = score(tables, index) else { return u64::MAX };
    let score = score.min((1 << SCORE_BITS) - 1) << WINDOW_BITS | u64::from(step % WINDOW);
    u64::from(index == avoid) << 63 | score << INDEX_BITS | u64::from(index)
}

/// The better of two at random (Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001).
#[inline(always)]
fn two<T: Tables>(tables: &T, ring: Ring, avoid: u32) -> Result<u32, DropReason> {
    let pick = || from(tables, ring, hash::scale(u64::from(tables.random()) << 32, ring.length), avoid);
    let (one, other) = (pick()?, pick()?);
    Ok(if score(tables, other)? < score(tables, one)? { other } else { one })
}

/// Open flows with one more, in 4096ths of the weight: 43 bits.
#[inline(always)]
pub fn score<T: Tables>(tables: &T, index: u32) -> Result<u64, DropReason> {
    let load = tables.load(tables.load_of(index).ok_or(DropReason::Internal)?);
    let backend: &Backend = tables.backend(index).ok_or(DropReason::Internal)?;
    Ok((((load & 0x3fff_ffff) + 1) << 12) / u64::from(backend.weight.max(1)))
}

#[inline(always)]
fn entry<T: Tables>(tables: &T, ring: Ring, position: u32) -> Result<u32, DropReason> {
    tables.ring(ring.base.wrapping_add(position)).ok_or(DropReason::Internal)
}

/// Whether a flow could go to another backend.
#[inline(always)]
pub fn has_choice(service: &Service) -> bool {
    Ring::from_word(service.ring).length > 1
}

/// Whether a service's open flows are counted: its algorithm goes by them, or its backends may have only so many.
#[inline(always)]
pub fn counts_flows(service: &Service) -> bool {
    matches!(service.algorithm, algorithm::LEAST_CONNECTIONS | algorithm::RANDOM_TWO) || room::is_limited(service)
}

/// Whether a flow that is not known would be sent where it was before, had nothing changed.
#[inline(always)]
pub fn is_consistent(service: &Service) -> bool {
    matches!(service.algorithm, algorithm::MAGLEV | algorithm::SOURCE_HASH)
}
