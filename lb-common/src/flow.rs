//! The flow table: which backend an established flow belongs to.
//!
//! Set-associative: a flow may stand in any of three sets of four, each one cache line, and the next is looked at only
//! where the one before is full. The first is of a part of the table that is small, so that as long as there are no more flows than
//! fit there, what packets read is in the processor's cache and in its TLB. Of the two others each follows from the other and
//! the slot's tag, so a flow can be moved to make room for another (partial-key cuckoo hashing: Fan, Andersen, Kaminsky,
//! Mitzenmacher, "Cuckoo Filter", CoNEXT 2014). A slot is a 64-bit tag, which for IPv4 is the flow itself (client address, client port,
//! service) and for IPv6 its service and 48 bits of a secret hash, and a [`FlowWord`] that says everything else and
//! changes atomically. Nothing is ever deleted: what is too old is free.
//!
//! To write: swing the word to `Claimed`, set the tag, set the word. To read: tag, word, tag again.

use core::sync::atomic::AtomicU64;

use crate::{
    hash,
    layout::{Config, FlowSet, FlowSlot, MAX_BACKENDS, WAYS},
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

/// How many ticks a flow may be idle before it is forgotten, by its [`State`]'s number.
pub type Timeouts = [u32; 16];

/// Of the two that one may choose, in ticks.
pub const fn timeouts(established: u32, datagram: u32) -> Timeouts {
    let mut timeouts = [ticks(30); 16];
    timeouts[State::Free as usize] = 0;
    timeouts[State::Claimed as usize] = u32::MAX;
    timeouts[State::Opening as usize] = ticks(5);
    timeouts[State::Repeated as usize] = ticks(5);
    timeouts[State::Answered as usize] = ticks(5);
    timeouts[State::Established as usize] = established;
    timeouts[State::ClientClosed as usize] = ticks(120);
    timeouts[State::BackendClosed as usize] = ticks(120);
    timeouts[State::Datagram as usize] = datagram;
    timeouts[State::Tentative as usize] = established;
    timeouts[State::TentativeClosed as usize] = ticks(120);
    timeouts
}

/// How much flows are missed, by their [`State`]'s number, four bits each: closed ones least, then UDP, then those that are not
/// established, then those of which only the client says so; the others may not go.
const MISSED: u64 = {
    let mut missed = 0x1111_1111_1111_1111;
    let states = [
        (State::Claimed, NEVER),
        (State::Opening, 3),
        (State::Repeated, 3),
        (State::Answered, 3),
        (State::Established, NEVER),
        (State::ClientClosed, NEVER),
        (State::BackendClosed, NEVER),
        (State::Datagram, 2),
        (State::Tentative, 4),
        (State::TentativeClosed, 3),
    ];
    let mut i = 0;
    while i < states.len() {
        let (state, rank) = states[i];
        let shift = state as u32 * 4;
        missed = missed & !(0xf << shift) | (rank as u64) << shift;
        i += 1;
    }
    missed
};

/// Of what may not go.
const NEVER: u32 = 0xf;

/// A closed flow's last packets are over after this.
pub(crate) const SETTLED_TICKS: u32 = 2;

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nobody's.
    Free,
    /// Being written.
    Claimed,
    /// The client sent a SYN.
    Opening,
    /// The backend answered and the client acknowledged; or it was tentative, and its client went on.
    Established,
    /// The client sent a FIN.
    ClientClosed,
    /// The backend sent a FIN.
    BackendClosed,
    /// Both did, or the backend sent a RST.
    Closed,
    /// The backend answered the SYN.
    Answered,
    /// UDP: there is nothing to be opened.
    Datagram,
    /// Established as far as its client says, whom nobody else confirms: with direct return the backend is not heard. Who only pretends to be
    /// a client sends a packet or two; so it is as good as established when its client is seen again in a later tick.
    Tentative,
    /// While it was tentative, the client sent a FIN.
    TentativeClosed,
    /// The client sent a RST, which the backend may not have believed (RFC 5961, section 3): closed, unless the client goes on.
    Reset,
    /// The client sent its SYN again, to the same backend, as that was heard of since: with direct return. The next goes elsewhere.
    Repeated,
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
            9 => Self::Tentative,
            10 => Self::TentativeClosed,
            11 => Self::Reset,
            12 => Self::Repeated,
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

    /// Of no flow.
    pub const NOBODYS: Self = Self(0);

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

    /// The same by another port.
    #[inline(always)]
    pub const fn with_port(self, port: Be16) -> Self {
        Self(self.0 & !(0xffff << Self::PORT) | (port.raw() as u64) << Self::PORT)
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
        !self.is_free(now, config) && (self.0 >> Self::STATE & 0xf) != State::Claimed as u64
    }

    /// Whether packets that neither begin nor end anything leave it as it is: it is live, and was last seen in this tick.
    #[inline(always)]
    pub const fn is_steady(self, now: Ticks) -> bool {
        const STEADY: u32 = 1 << State::Established as u32
            | 1 << State::ClientClosed as u32
            | 1 << State::BackendClosed as u32
            | 1 << State::Closed as u32
            | 1 << State::Datagram as u32
            | 1 << State::Tentative as u32
            | 1 << State::TentativeClosed as u32;
        self.seen().0 == now.0 && STEADY >> (self.0 >> Self::STATE & 0xf) & 1 != 0
    }

    /// Whether its slot may be taken: nobody's, or idle for too long.
    #[inline(always)]
    pub const fn is_free(self, now: Ticks, config: &Config) -> bool {
        now.since(self.seen()) >= self.timeout(config)
    }

    /// Whether another flow may have its slot: it is free, or was closed so long ago that its last packets have come.
    #[inline(always)]
    pub const fn is_over(self, now: Ticks, config: &Config) -> bool {
        let idle = now.since(self.seen()) as i64;
        let closed = 1 << State::Closed as u32 >> (self.0 >> Self::STATE & 0xf) & 1_i64;
        // As in `missed`, without a branch: negative where it has been idle for that long.
        let free = self.timeout(config) as i64 - 1 - idle;
        let settled = SETTLED_TICKS as i64 - 1 - idle;
        free | settled & -closed < 0
    }

    /// In ticks.
    #[inline(always)]
    const fn timeout(self, config: &Config) -> u32 {
        config.timeouts[(self.0 >> Self::STATE) as usize & 0xf]
    }

    /// How much it would be missed if its slot were taken. What is free goes first, then closed connections, UDP, connections that are not
    /// established, tentative ones, and of each what has not been seen for longest. A flood of SYNs only pushes out other SYNs, and one of
    /// ACKs what is as tentative: see [`may_go`].
    ///
    /// Computed without a branch: the verifier would follow each for every slot that is looked at.
    #[inline(always)]
    pub const fn missed(self, now: Ticks, config: &Config) -> u32 {
        let idle = now.since(self.seen());
        let live = (idle as i64 - self.timeout(config) as i64) >> 63;
        let rank = (MISSED >> ((self.0 >> Self::STATE & 0xf) * 4)) as u32 & 0xf;
        (rank << 24 | (TICK_MASK - idle)) & live as u32
    }

    /// Whether nobody but its client is heard: its packets keep their source port.
    ///
    /// With DNAT, where they do as well, that is the client's own. A client that has port 0 is believed less than others.
    #[inline(always)]
    const fn is_direct(self) -> bool {
        self.port().raw() == 0
    }

    /// After a packet from the client.
    #[inline(always)]
    pub const fn after_client(self, flags: Flags, now: Ticks) -> Self {
        // No host takes a segment of a connection that acknowledges nothing, or a SYN (RFC 9293, section 3.10.7.4).
        let goes_on = flags.ack() && !flags.syn();
        let again = self.seen().0 != now.0;
        let state = match self.state() {
            state @ (State::Closed | State::Datagram) => state,
            // Who has not heard the backend is no client of it.
            State::Opening if !self.is_direct() => State::Opening,
            _ if flags.rst() => State::Reset,
            State::Opening if flags.opens() && again => State::Repeated,
            state if !goes_on => state,
            State::Opening | State::Repeated | State::Reset if self.is_direct() => tentative(flags.fin()),
            State::Tentative if !again => tentative(flags.fin()),
            State::TentativeClosed if again => State::ClientClosed,
            State::BackendClosed if flags.fin() => State::Closed,
            State::Answered | State::Established | State::Tentative | State::Reset if flags.fin() => {
                State::ClientClosed
            }
            State::Answered | State::Tentative | State::Reset => State::Established,
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
            State::ClientClosed | State::TentativeClosed if flags.fin() => State::Closed,
            State::Opening | State::Repeated | State::Answered | State::Established | State::Tentative
                if flags.fin() =>
            {
                State::BackendClosed
            }
            State::Opening | State::Repeated if flags.syn() => State::Answered,
            // It knows a connection of these ports, and challenges the SYN (RFC 5961, section 4).
            State::Opening | State::Repeated if flags.ack() => State::Established,
            state => state,
        };
        Self::new(self.backend(), self.port(), state, now)
    }
}

#[inline(always)]
const fn tentative(fin: bool) -> State {
    if fin { State::TentativeClosed } else { State::Tentative }
}

/// Takes a flow's word a step on, though another CPU may do that at the same time: both ends of a connection may close it at once. What
/// the word was before; none where it has become another flow's, or changes without an end.
#[inline(always)]
pub(crate) fn step<T: Tables>(
    tables: &T,
    word: &AtomicU64,
    mut before: FlowWord,
    after: impl Fn(FlowWord) -> FlowWord,
) -> Option<FlowWord> {
    const ROUNDS: u32 = 3;
    for _ in 0..ROUNDS {
        let found = FlowWord(tables.compare_exchange(word, before.0, after(before).0));
        if found == before {
            return Some(before);
        }
        if (found.backend(), found.port()) != (before.backend(), before.port()) {
            return None;
        }
        before = found;
    }
    None
}

/// Whether what is [`missed`](FlowWord::missed) so much may go at all.
#[inline(always)]
pub const fn may_go(missed: u32) -> bool {
    missed >> 24 < NEVER
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

    /// Tag and hash.
    #[inline(always)]
    pub const fn parts(&self) -> (u64, u64) {
        (self.tag, self.hash)
    }

    /// Back from [`parts`](Self::parts).
    #[inline(always)]
    pub const fn of_parts(tag: u64, hash: u64) -> Self {
        Self { tag, hash }
    }

    /// Indexes of the sets where the flow may stand: one of those near by, then two of the others.
    #[inline(always)]
    pub fn sets(&self, config: &Config) -> [u32; SETS] {
        let [one, other] = self.far(config);
        [self.near(config), one, other]
    }

    #[inline(always)]
    fn near(&self, config: &Config) -> u32 {
        (self.hash >> 32) as u32 & config.near_mask
    }

    #[inline(always)]
    fn far(&self, config: &Config) -> [u32; 2] {
        let far = config.near_mask + 1 + hash::scale(self.hash << 32, config.far_sets());
        [far, other(config, far, self.tag)]
    }
}

/// Sets where a flow may stand.
pub const SETS: usize = 3;

/// The other one of the two sets far off where the flow of a tag may stand.
#[inline(always)]
fn other(config: &Config, set: u32, tag: u64) -> u32 {
    let sum = hash::scale(hash::word(&config.tag_key, tag), config.far_sets());
    let place = set.wrapping_sub(config.near_mask + 1);
    let wrapped = if place > sum { config.far_sets() } else { 0 };
    config.near_mask + 1 + sum.wrapping_add(wrapped).wrapping_sub(place)
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
    let config = tables.config();
    let near = tables.flow_set(key.near(config))?;
    let found = locate_in(tables, near, key.tag);
    if found.is_some() || !was_full(tables, near) {
        return found;
    }
    let [one, other] = key.far(config);
    let far = tables.flow_set(one)?;
    let found = locate_in(tables, far, key.tag);
    if found.is_some() || !was_full(tables, far) {
        return found;
    }
    locate_in(tables, tables.flow_set(other)?, key.tag)
}

/// Whether a set was full once: what was never full has no flow elsewhere.
#[inline(always)]
fn was_full<T: Tables>(tables: &T, set: &FlowSet) -> bool {
    set.ways.iter().all(|slot| tables.load(&slot.word) != 0)
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

/// Puts a flow that [`find`] does not find into a slot whose flow is over.
#[inline(always)]
pub fn insert<T: Tables>(tables: &T, key: &Key, word: FlowWord) -> Result<(), DropReason> {
    for set in key.sets(tables.config()) {
        if put(tables, set, key.tag, word, word.seen()).is_some() {
            return Ok(());
        }
    }
    Err(DropReason::FlowTableFull)
}

/// Puts a flow into a slot of a set whose flow is over.
#[inline(always)]
fn put<T: Tables>(tables: &T, set: u32, tag: u64, word: FlowWord, now: Ticks) -> Option<&FlowSlot> {
    tables.flow_set(set)?.ways.iter().find(|slot| {
        let old = FlowWord(tables.load(&slot.word));
        let claim = FlowWord::new(0, Be16::from_raw(0), State::Claimed, now);
        let claimed = old.is_over(now, tables.config()) && tables.compare_exchange(&slot.word, old.0, claim.0) == old.0;
        if claimed {
            tables.store(&slot.tag, tag);
            tables.store(&slot.word, word.0);
        }
        claimed
    })
}

/// Frees a slot where a flow may stand: moves another to the other set far off where that may stand, or else forgets the one that is
/// missed least. False where all of them are established.
#[inline(always)]
pub fn make_room<T: Tables>(tables: &T, key: &Key, now: Ticks) -> bool {
    let sets = key.sets(tables.config());
    let set = |place: u32| sets[place as usize / WAYS % SETS];
    for place in WAYS as u32..(SETS * WAYS) as u32 {
        if tables.flow_move(set(place), place, now) {
            return true;
        }
    }
    let mut least = u64::MAX;
    for place in 0..(SETS * WAYS) as u32 {
        least = least.min(u64::from(tables.flow_missed(set(place), place, now)) << 32 | u64::from(place));
    }
    let place = least as u32;
    tables.flow_forget(set(place), place, now)
}

/// Forgets the flow of a slot. False where it may not go, or has changed meanwhile.
///
/// Its place comes out of a loop. Where it is used at once, the verifier wants to know for every turn what came of it, and does not get
/// to an end.
#[inline(always)]
pub fn forget<T: Tables>(tables: &T, set: u32, way: u32, now: Ticks) -> bool {
    slot(tables, set, way).is_some_and(|slot| clear(tables, &slot.word, now))
}

/// Forgets the flow of a word.
#[inline(always)]
pub(crate) fn clear<T: Tables>(tables: &T, word: &AtomicU64, now: Ticks) -> bool {
    let old = FlowWord(tables.load(word));
    may_go(old.missed(now, tables.config())) && tables.compare_exchange(word, old.0, FlowWord::forgotten().0) == old.0
}

#[inline(always)]
fn slot<T: Tables>(tables: &T, set: u32, way: u32) -> Option<&FlowSlot> {
    tables.flow_set(set)?.ways.get(way as usize & (WAYS - 1))
}

/// Moves the flow of a slot far off to the other set where it may stand. Whether the slot is free; it is not where the other set is full, or where the flow
/// changed meanwhile.
#[inline(always)]
pub fn move_away<T: Tables>(tables: &T, set: u32, way: u32, now: Ticks) -> bool {
    let Some(slot) = slot(tables, set, way) else { return false };
    let (tag, word) = (tables.load(&slot.tag), FlowWord(tables.load(&slot.word)));
    if !word.is_live(now, tables.config()) {
        return word.is_free(now, tables.config());
    }
    // For a moment it stands in both sets, and is found in either.
    let Some(copy) = put(tables, other(tables.config(), set, tag), tag, word, now) else { return false };
    let moved = tables.compare_exchange(&slot.word, word.0, FlowWord::forgotten().0) == word.0;
    if !moved {
        tables.store(&copy.word, FlowWord::forgotten().0);
    }
    moved
}

/// How much a slot's flow would be missed.
#[inline(always)]
pub fn missed<T: Tables>(tables: &T, set: u32, way: u32, now: Ticks) -> u32 {
    let slot = slot(tables, set, way);
    slot.map_or(u32::MAX, |slot| FlowWord(tables.load(&slot.word)).missed(now, tables.config()))
}
