//! The flow table: which backend an established flow belongs to.
//!
//! Set-associative: a flow may stand in either of two sets of four, each one cache line. The second is looked at only
//! where the first is full. A slot is a 64-bit tag, which for IPv4 is the flow itself (client address, client port,
//! service) and for IPv6 its service and 48 bits of a secret hash, and a [`FlowWord`] that says everything else and
//! changes atomically. Nothing is ever deleted: what is too old is free.
//!
//! To write: swing the word to `Claimed`, set the tag, set the word. To read: tag, word, tag again.

use crate::{
    hash,
    layout::{Config, FlowSet, FlowSlot, MAX_BACKENDS},
    parse::Flags,
    tables::Tables,
    verdict::DropReason,
    wire::{AddressWords, Be16},
};

/// A point of time: units of 2^29 ns (0.54 s), modulo 2^24 (104 days).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticks(u32);

/// Nanoseconds of a tick, as a shift.
pub const TICK_SHIFT: u32 = 29;
const TICK_MASK: u32 = 0xff_ffff;

impl Ticks {
    /// From monotonic nanoseconds.
    #[inline(always)]
    pub const fn from_ns(ns: u64) -> Self {
        Self((ns >> TICK_SHIFT) as u32 & TICK_MASK)
    }

    /// Of its number.
    #[inline(always)]
    pub const fn of(number: u32) -> Self {
        Self(number & TICK_MASK)
    }

    /// Its number, 24 bits.
    #[inline(always)]
    pub const fn number(self) -> u32 {
        self.0
    }

    /// Ticks from `earlier` to here.
    #[inline(always)]
    pub const fn since(self, earlier: Self) -> u32 {
        self.0.wrapping_sub(earlier.0) & TICK_MASK
    }
}

/// Ticks in a number of seconds, rounded up.
pub const fn ticks(seconds: u32) -> u32 {
    let ticks = ((seconds as u64 * 1_000_000_000) >> TICK_SHIFT) + 1;
    if ticks > TICK_MASK as u64 / 2 { TICK_MASK / 2 } else { ticks as u32 }
}

/// Idle times after which a flow is forgotten. An established one has [`Config::established_ticks`].
const OPENING_TICKS: u32 = ticks(5);
const HALF_CLOSED_TICKS: u32 = ticks(120);
const CLOSED_TICKS: u32 = ticks(30);

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nobody's.
    Free,
    /// Being written.
    Claimed,
    /// The client sent a SYN.
    Opening,
    /// The client acknowledged.
    Established,
    /// The client sent a FIN.
    ClientClosed,
    /// The backend sent a FIN.
    BackendClosed,
    /// Both did, or either sent a RST.
    Closed,
    /// The backend answered the SYN.
    Answered,
    /// UDP: there is nothing to be opened.
    Datagram,
}

impl State {
    /// Of its number, of which only the four lowest bits count.
    #[inline(always)]
    pub const fn from_bits(bits: u32) -> Self {
        match bits & 0xf {
            0 => Self::Free,
            1 => Self::Claimed,
            2 => Self::Opening,
            3 => Self::Established,
            4 => Self::ClientClosed,
            5 => Self::BackendClosed,
            7 => Self::Answered,
            8 => Self::Datagram,
            _ => Self::Closed,
        }
    }
}

/// A flow in 64 bits: backend (20), source port towards it in wire order (16), state (4), last seen (24).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowWord(pub u64);

impl FlowWord {
    const PORT: u32 = 20;
    const STATE: u32 = 36;
    const SEEN: u32 = 40;

    /// Of its parts.
    #[inline(always)]
    pub const fn new(backend: u32, port: Be16, state: State, seen: Ticks) -> Self {
        Self(
            backend as u64
                | (port.raw() as u64) << Self::PORT
                | (state as u64) << Self::STATE
                | (seen.0 as u64) << Self::SEEN,
        )
    }

    /// Nobody's, but not the zero of a slot that never was anybody's: [`find`] goes by the difference.
    pub const fn forgotten() -> Self {
        Self::new(0, Be16::from_raw(0), State::Free, Ticks(1))
    }

    /// The backend's index.
    #[inline(always)]
    pub const fn backend(self) -> u32 {
        (self.0 & (MAX_BACKENDS as u64 - 1)) as u32
    }

    /// The source port towards the backend.
    #[inline(always)]
    pub const fn port(self) -> Be16 {
        Be16::from_raw((self.0 >> Self::PORT) as u16)
    }

    /// How far it has come.
    #[inline(always)]
    pub const fn state(self) -> State {
        State::from_bits((self.0 >> Self::STATE) as u32)
    }

    /// When its last packet came, to a tick.
    #[inline(always)]
    pub const fn seen(self) -> Ticks {
        Ticks((self.0 >> Self::SEEN) as u32)
    }

    /// Whether it is a flow that has not been idle for too long.
    #[inline(always)]
    pub const fn is_live(self, now: Ticks, config: &Config) -> bool {
        let timeout = match self.state() {
            State::Free | State::Claimed => return false,
            State::Opening | State::Answered => OPENING_TICKS,
            State::Established => config.established_ticks,
            State::Datagram => config.datagram_ticks,
            State::ClientClosed | State::BackendClosed => HALF_CLOSED_TICKS,
            State::Closed => CLOSED_TICKS,
        };
        now.since(self.seen()) <= timeout
    }

    /// Whether its slot may be taken: nobody's, or idle for too long.
    #[inline(always)]
    pub const fn is_free(self, now: Ticks, config: &Config) -> bool {
        !self.is_live(now, config) && (self.0 >> Self::STATE & 0xf) != State::Claimed as u64
    }

    /// Whether its slot may be taken when there is no free one. That of an established connection may not: a flood of SYNs
    /// only pushes out other SYNs.
    #[inline(always)]
    pub const fn yields(self) -> bool {
        matches!(self.state(), State::Opening | State::Answered | State::Closed | State::Datagram)
    }

    /// After a packet from the client.
    #[inline(always)]
    pub const fn after_client(self, flags: Flags, now: Ticks) -> Self {
        let state = match self.state() {
            _ if flags.rst() => State::Closed,
            State::Datagram => State::Datagram,
            State::BackendClosed if flags.fin() => State::Closed,
            State::Opening | State::Answered | State::Established if flags.fin() => State::ClientClosed,
            State::Opening | State::Answered if !flags.syn() => State::Established,
            state => state,
        };
        Self::new(self.backend(), self.port(), state, now)
    }

    /// After a packet from the backend.
    #[inline(always)]
    pub const fn after_backend(self, flags: Flags, now: Ticks) -> Self {
        let state = match self.state() {
            _ if flags.rst() => State::Closed,
            State::Datagram => State::Datagram,
            State::ClientClosed if flags.fin() => State::Closed,
            State::Opening | State::Answered | State::Established if flags.fin() => State::BackendClosed,
            State::Opening if flags.syn() => State::Answered,
            state => state,
        };
        Self::new(self.backend(), self.port(), state, now)
    }
}

/// What identifies a flow from a client.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Compared with a slot's.
    pub tag: u64,
    hash: u64,
}

impl Key {
    /// Of the client's address and port, and the service.
    #[inline(always)]
    pub fn new(config: &Config, family: u8, client: AddressWords, port: Be16, service: u32) -> Self {
        let rest = u32::from(port.raw()) << 16 | service;
        let tag = if family == 4 {
            client[0] << 32 | u64::from(rest)
        } else {
            hash::nh(&config.tag_key, client, rest) & !0xffff | u64::from(service)
        };
        Self { tag, hash: hash::nh(&config.flow_key, client, rest) }
    }

    /// Indexes of the two sets where the flow may stand.
    #[inline(always)]
    pub fn sets(&self, config: &Config) -> [u32; 2] {
        [(self.hash >> 32) as u32 & config.flow_mask, self.hash as u32 & config.flow_mask]
    }
}

/// The flow's word; the flow may be dead.
///
/// Not its slot: pointers to eight different slots would be eight different states to the verifier, and each would go
/// through all that follows.
#[inline(always)]
pub fn find<T: Tables>(tables: &T, key: &Key) -> Option<FlowWord> {
    locate(tables, key).map(|(_, word)| word)
}

/// The flow's slot and word.
#[inline(always)]
pub fn locate<'t, T: Tables>(tables: &'t T, key: &Key) -> Option<(&'t FlowSlot, FlowWord)> {
    let [first, second] = key.sets(tables.config());
    let set = tables.flow_set(first)?;
    if let Some(found) = locate_in(tables, set, key.tag) {
        return Some(found);
    }
    if set.ways.iter().any(|slot| tables.load(&slot.word) == 0) {
        return None;
    }
    locate_in(tables, tables.flow_set(second)?, key.tag)
}

#[inline(always)]
fn locate_in<'t, T: Tables>(tables: &T, set: &'t FlowSet, tag: u64) -> Option<(&'t FlowSlot, FlowWord)> {
    for slot in &set.ways {
        if tables.load(&slot.tag) == tag {
            let word = FlowWord(tables.load(&slot.word));
            if !matches!(word.state(), State::Free | State::Claimed) && tables.load(&slot.tag) == tag {
                return Some((slot, word));
            }
        }
    }
    None
}

/// Puts a flow that [`find`] does not find into a free slot, or else into that of one that yields.
#[inline(always)]
pub fn insert<T: Tables>(tables: &T, key: &Key, word: FlowWord) -> Result<(), DropReason> {
    let config = tables.config();
    let [first, second] = key.sets(config);
    let first = tables.flow_set(first).ok_or(DropReason::Internal)?;
    let second = tables.flow_set(second).ok_or(DropReason::Internal)?;
    let now = word.seen();
    let free = |old: FlowWord| old.is_free(now, config);
    if insert_in(tables, first, key.tag, word, free)
        || insert_in(tables, second, key.tag, word, free)
        || insert_in(tables, first, key.tag, word, FlowWord::yields)
        || insert_in(tables, second, key.tag, word, FlowWord::yields)
    {
        Ok(())
    } else {
        Err(DropReason::FlowTableFull)
    }
}

#[inline(always)]
fn insert_in<T: Tables>(
    tables: &T,
    set: &FlowSet,
    tag: u64,
    word: FlowWord,
    may_go: impl Fn(FlowWord) -> bool,
) -> bool {
    for slot in &set.ways {
        let old = FlowWord(tables.load(&slot.word));
        let claim = FlowWord::new(0, Be16::from_raw(0), State::Claimed, word.seen());
        if may_go(old) && tables.compare_exchange(&slot.word, old.0, claim.0) == old.0 {
            tables.store(&slot.tag, tag);
            tables.store(&slot.word, word.0);
            return true;
        }
    }
    false
}
