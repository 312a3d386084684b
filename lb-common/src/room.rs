//! Room: which backend a new flow gets where backends may have only so many.
//!
//! Only new flows of services with a limit come here. A place is taken by compare-and-exchange before the flow is made, so
//! that CPUs do not exceed a limit together. Flows that end without a word are taken off the counts by the controller;
//! where it has not said so for a while, counts are only ever too high, and limits do not hold.

use crate::{
    hash,
    layout::{MAX_BACKENDS, Ring, Service},
    schedule,
    tables::Tables,
    verdict::DropReason,
};

/// Backends in rotation that are looked at for room, from a random one on.
const WINDOW: u32 = 48;
/// Backups that are looked at, from the first on.
const BACKUPS: u32 = 16;
/// How often a place is tried for that other CPUs take meanwhile.
const ROUNDS: u32 = 8;

/// Bits of a rank's parts: how full a backend is, and which it is.
const SCORE_BITS: u32 = 40;
const INDEX_BITS: u32 = MAX_BACKENDS.trailing_zeros();

/// How many flows a backend may have, as in a word of `LIMITS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// With so many it gets another only where no backend has fewer than its own number.
    pub comfortable: u32,
    /// With so many it gets no other.
    pub most: u32,
}

impl Limits {
    /// None.
    pub const NONE: Self = Self { comfortable: u32::MAX, most: u32::MAX };

    /// From a word; that of a map never written is none.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        if word == 0 {
            return Self::NONE;
        }
        Self { comfortable: (word >> 32) as u32, most: word as u32 }
    }

    /// In a word.
    #[inline(always)]
    pub const fn to_word(self) -> u64 {
        (self.comfortable as u64) << 32 | self.most as u64
    }
}

/// Whether any backend of a service has a limit.
#[inline(always)]
pub fn is_limited(service: &Service) -> bool {
    service.spare != 0
}

/// Takes a place for a new flow: at the backend that the algorithm chose, or at another with room, a backup if need be. It
/// may be `avoid`, where nobody else has any: then no place is taken.
#[inline(always)]
pub fn take<T: Tables>(tables: &T, slot: u32, choice: u32, avoid: u32) -> Result<u32, DropReason> {
    let until = tables.limits_of(tables.config().backends).ok_or(DropReason::Internal)?;
    if tables.now_ns() > tables.load(until) {
        if choice != avoid {
            tables.add(tables.load_of(choice).ok_or(DropReason::Internal)?, 1);
        }
        return Ok(choice);
    }
    let mut index = choice;
    for round in 0..ROUNDS {
        if round != 0 || choice == avoid || fullness(tables, choice)? != COMFORTABLE {
            index = tables.find_room(slot, avoid)?;
        }
        if index == avoid || occupy(tables, index)? {
            return Ok(index);
        }
    }
    // So many others want it at this moment that one more makes no difference.
    tables.add(tables.load_of(index).ok_or(DropReason::Internal)?, 1);
    Ok(index)
}

/// Gives a place back that no flow came to use.
#[inline(always)]
pub fn give<T: Tables>(tables: &T, backend: u32) {
    if let Some(load) = tables.load_of(backend) {
        tables.add(load, u64::MAX);
    }
}

/// One open flow more, unless the backend is full or another CPU was faster.
#[inline(always)]
fn occupy<T: Tables>(tables: &T, index: u32) -> Result<bool, DropReason> {
    let load = tables.load_of(index).ok_or(DropReason::Internal)?;
    let open = tables.load(load);
    let limits = Limits::from_word(tables.load(tables.limits_of(index).ok_or(DropReason::Internal)?));
    Ok((open as i64) < i64::from(limits.most) && tables.compare_exchange(load, open, open.wrapping_add(1)) == open)
}

const COMFORTABLE: u64 = 0;
const UNCOMFORTABLE: u64 = 2;
const LAST: u64 = 6;
const FULL: u64 = 7;

/// How full a backend is.
#[inline(always)]
fn fullness<T: Tables>(tables: &T, index: u32) -> Result<u64, DropReason> {
    // Less than none is none: the count is corrected while it changes.
    let open = tables.load(tables.load_of(index).ok_or(DropReason::Internal)?) as i64;
    let limits = Limits::from_word(tables.load(tables.limits_of(index).ok_or(DropReason::Internal)?));
    Ok(match () {
        () if open < i64::from(limits.comfortable) => COMFORTABLE,
        () if open < i64::from(limits.most) => UNCOMFORTABLE,
        () => FULL,
    })
}

/// A backend with room: of those in rotation, then of the backups, then one that is not comfortable with it; of several
/// the one with the fewest flows for its weight. `avoid` only where there is no other.
///
/// One running minimum, as in `schedule::fewest`, of what another function says: the verifier follows every branch of every
/// turn of the loop, unless two paths leave it with equal states.
#[inline(always)]
pub fn find<T: Tables>(tables: &T, slot: u32, avoid: u32) -> Result<u32, DropReason> {
    let service = tables.service(slot).ok_or(DropReason::Internal)?;
    let spare = Ring::from_word(service.spare);
    let own = service.spare_own as u32;
    let start = hash::scale(u64::from(tables.random()) << 32, own);
    let mut best = u64::MAX;
    for step in 0..WINDOW {
        if step >= own {
            break;
        }
        let position = (start + step) % own.max(1);
        best = best.min(tables.rank(spare.base.wrapping_add(position), avoid, false));
    }
    for step in 0..BACKUPS {
        if own + step >= spare.length {
            break;
        }
        best = best.min(tables.rank(spare.base.wrapping_add(own + step), avoid, true));
    }
    if best >> (SCORE_BITS + INDEX_BITS) >= FULL {
        return Err(DropReason::BackendFull);
    }
    Ok(best as u32 & (MAX_BACKENDS - 1))
}

/// How well the backend of an entry of the ring space suits, less being better, with its index.
#[inline(always)]
pub fn rank<T: Tables>(tables: &T, entry: u32, avoid: u32, backup: bool) -> u64 {
    let Some(index) = tables.ring(entry) else { return u64::MAX };
    let (Ok(fullness), Ok(score)) = (fullness(tables, index), schedule::score(tables, index)) else { return u64::MAX };
    // What is asked for again has its place already.
    let class = if index == avoid { LAST } else { fullness | u64::from(backup) };
    class << (SCORE_BITS + INDEX_BITS) | score.min((1 << SCORE_BITS) - 1) << INDEX_BITS | u64::from(index)
}
