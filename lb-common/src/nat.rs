//! Network address translation: which flow a backend's reply belongs to.
//!
//! With full NAT a slot belongs to one (backend address, backend port, source port): its place in the array follows from
//! these three, so a reply finds it by one look, and whoever swings its word from free to taken owns the port, on whatever
//! CPU. Two backends may share slots; then a port that is taken at one is not offered at the other.
//!
//! With DNAT the client keeps its address and port, and the place follows from them and the backend: one of a few slots in a
//! row.

use core::sync::atomic::AtomicU64;

use crate::{
    event::Event,
    flow::{self, FlowWord, State, Ticks},
    hash,
    ip::{Ip, UDP},
    layout::{Backend, Config, NatSlot, Path, Service, backend_flags, features, forward},
    parse::{Datagram, Flags},
    rewrite::Rewrite,
    tables::Tables,
    time_wait::{self, Mark},
    verdict::DropReason,
    wire::{Address, AddressWords, Be16},
};

/// Ports tried for a new flow before it is refused. With 14 of 15 taken one flow in a thousand is refused.
const PROBES: u32 = 96;

/// Of these, those tried before a port is taken over from a flow that has only just closed.
const PATIENT_PROBES: u32 = 8;

/// The logarithm of the slots in a page: what one entry of the processor's TLB reaches.
const PAGE_SHIFT: u32 = 6;
const _: () = assert!(size_of::<NatSlot>() << PAGE_SHIFT == 4096);

/// Slots in a row where a DNAT flow may stand.
const ROW: u32 = 16;

/// Where a backend's slots begin.
#[inline(always)]
pub fn base(config: &Config, address: AddressWords, port: Be16) -> u32 {
    (hash::nh(&config.place_key, address, u32::from(port.raw())) >> 32) as u32
}

/// The index of a backend's slot for the port so far above the first.
///
/// A page of slots has as many neighbouring ports. Leaps of a length of its own spread a backend's pages over the whole table: so it does not
/// matter how those of others lie, and the table fills evenly. No two of its ports share a slot: the length is odd, so the low
/// bits differ.
#[inline(always)]
fn index(config: &Config, base: u32, offset: u32) -> u32 {
    let leap = (base ^ base >> 15).wrapping_mul(0x9e37_79b1) | 1;
    let point = base.wrapping_add((offset >> PAGE_SHIFT).wrapping_mul(leap));
    let shift = config.nat_shift - PAGE_SHIFT;
    let (low, high) = (point & ((1 << shift) - 1), point >> shift);
    let page = (high * 3) >> (32 - shift) << shift | low;
    page << PAGE_SHIFT | offset & ((1 << PAGE_SHIFT) - 1)
}

/// How far above the first NAT port a port lies; none where it is not one of them.
#[inline(always)]
fn offset(config: &Config, port: Be16) -> Option<u32> {
    let offset = port.get().wrapping_sub(config.nat_port_base);
    (offset < config.nat_port_count).then_some(u32::from(offset))
}

/// A slot, and the source port that it stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its index.
    pub slot: u32,
    /// The port.
    pub port: Be16,
}

/// Takes a slot that was picked for a new flow of `client`, whose word is `fresh` but for the port: the flow's word, its slot
/// written. Refused where another CPU was faster.
#[inline(always)]
pub fn open<T: Tables>(tables: &T, client: &Event, fresh: FlowWord, place: Place) -> Result<FlowWord, DropReason> {
    let slot = tables.nat_slot(place.slot).ok_or(DropReason::Internal)?;
    let old = FlowWord(tables.load(&slot.word));
    let (address, port, _) = self::client(tables, slot);
    let may_go = old.is_free(fresh.seen(), tables.config())
        || old.state() == State::Closed
        || (address, port) == (client.address, client.port);
    let word = fresh.with_port(place.port);
    if may_go && claim(tables, slot, client, old, word) { Ok(word) } else { Err(DropReason::NatPortsExhausted) }
}

/// A slot that may be taken for a new flow of a client to a backend, with full NAT.
#[inline(always)]
pub fn pick<T: Tables>(tables: &T, client: &Event, index: u32) -> Option<Place> {
    let (config, backend) = (tables.config(), tables.backend(index)?);
    let fresh = fresh(tables, index);
    let ports = Ports::of(config, client);
    let mut probe = 0;
    while !tables.nat_suits(client, fresh, ports, probe) {
        probe += 1;
        if probe == PROBES {
            return None;
        }
    }
    let offset = ports.offset(config, probe);
    Some(Place { slot: self::index(config, backend.nat_base, offset), port: port_at(config, offset) })
}

/// A new flow to a backend, by no port.
#[inline(always)]
fn fresh<T: Tables>(tables: &T, index: u32) -> FlowWord {
    FlowWord::new(index, Be16::from_raw(0), State::Opening, Ticks::from_ns(tables.now_ns()))
}

/// The ports to be tried for a client, one after the other.
///
/// The first tried follows from the client's: a client's ports map to as many ports, and the one client that comes again from
/// a port of its own meets the sequence numbers that the backend may still remember.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    first: u32,
    stride: u32,
}

impl Ports {
    #[inline(always)]
    fn of(config: &Config, client: &Event) -> Self {
        let count = u32::from(config.nat_port_count);
        let hash = hash::nh(&config.flow_key, client.address, client.service.into());
        // Odd, and another for each of a client's ports: so that probes of flows that begin alike do not meet each other again.
        let mixed = hash::nh(&config.tag_key, client.address, u32::from(client.port.raw()));
        Self {
            first: u32::from(client.port.get()) + hash::scale(hash, count),
            stride: 1 + 2 * hash::scale(mixed, count / 2),
        }
    }

    /// How far above the first NAT port a probe's port lies.
    #[inline(always)]
    fn offset(self, config: &Config, probe: u32) -> u32 {
        (self.first + probe * self.stride) % u32::from(config.nat_port_count).max(1)
    }

    /// A flow by a probe's port.
    #[inline(always)]
    fn give(self, config: &Config, flow: FlowWord, probe: u32) -> FlowWord {
        flow.with_port(port_at(config, self.offset(config, probe)))
    }

    /// In one word.
    #[inline(always)]
    pub const fn to_word(self) -> u64 {
        (self.stride as u64) << 32 | self.first as u64
    }

    /// Back from [`to_word`](Self::to_word).
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        Self { first: word as u32, stride: (word >> 32) as u32 }
    }
}

/// The slot of the backend and port in a word.
#[inline(always)]
fn slot_for<T: Tables>(tables: &T, word: FlowWord) -> Option<&NatSlot> {
    let (config, backend) = (tables.config(), tables.backend(word.backend())?);
    tables.nat_slot(index(config, backend.nat_base, offset(config, word.port())?))
}

/// Whether a client's `fresh` flow may have the port of a probe: what was there is over, and the backend will take the client's SYN.
#[inline(always)]
pub fn suits<T: Tables>(tables: &T, client: &Event, fresh: FlowWord, ports: Ports, probe: u32) -> bool {
    has_room(tables, client, ports.give(tables.config(), fresh, probe), probe >= PATIENT_PROBES)
}

/// The same of the port in the flow's word. `urgent` where a flow that has only just closed may go, too.
#[inline(always)]
fn has_room<T: Tables>(tables: &T, client: &Event, fresh: FlowWord, urgent: bool) -> bool {
    let Some(slot) = slot_for(tables, fresh) else { return false };
    let old = FlowWord(tables.load(&slot.word));
    let is_over = match old.state() {
        State::Closed => true,
        State::Reset => self::client(tables, slot) == (client.address, client.port, client.service.into()),
        _ => false,
    };
    (is_over || old.is_free(fresh.seen(), tables.config())) && welcomes(tables, slot, old, client, fresh, urgent)
}

/// Forgets the flow that is missed least of those whose ports a client's `fresh` flow might have. False where all of them are
/// established.
#[inline(always)]
pub fn make_room<T: Tables>(tables: &T, client: &Event, index: u32) -> bool {
    let Some(backend) = tables.backend(index) else { return false };
    let config = tables.config();
    let fresh = fresh(tables, index);
    let ports = Ports::of(config, client);
    let mut least = u64::MAX;
    for probe in 0..PROBES {
        least = least.min(u64::from(tables.nat_missed(client, fresh, ports, probe)) << 32 | u64::from(probe));
    }
    let offset = ports.offset(config, least as u32);
    tables.nat_forget(self::index(config, backend.nat_base, offset), fresh.seen())
}

/// Forgets the flow of a slot: see [`flow::forget`].
#[inline(always)]
pub fn forget<T: Tables>(tables: &T, slot: u32, now: Ticks) -> bool {
    tables.nat_slot(slot).is_some_and(|slot| flow::clear(tables, &slot.word, now))
}

/// How much a slot's flow would be missed if a client's `fresh` flow took the port of a probe, as [`FlowWord::missed`] has it, but 0
/// only where the backend will take the client's SYN.
#[inline(always)]
pub fn missed<T: Tables>(tables: &T, client: &Event, fresh: FlowWord, ports: Ports, probe: u32) -> u32 {
    let config = tables.config();
    let fresh = ports.give(config, fresh, probe);
    let Some(old) = slot_for(tables, fresh) else { return u32::MAX };
    let missed = FlowWord(tables.load(&old.word)).missed(fresh.seen(), config);
    if has_room(tables, client, fresh, true) { 0 } else { missed.max(1) }
}

/// Whether a backend will take a client's SYN by the port of a slot whose flow `old` is over: the flow was the client's own, or
/// nothing of it is remembered there, or what is remembered lets the SYN pass. What is remembered there of another port, or by
/// another backend, that shares the slot would be forgotten here, so it is left alone for as long.
#[inline(always)]
fn welcomes<T: Tables>(
    tables: &T,
    slot: &NatSlot,
    old: FlowWord,
    client: &Event,
    fresh: FlowWord,
    urgent: bool,
) -> bool {
    let idle = fresh.seen().since(old.seen());
    if old.state() == State::Free || idle > time_wait::TICKS {
        return true;
    }
    if (old.backend(), old.port()) != (fresh.backend(), fresh.port()) {
        return false;
    }
    if self::client(tables, slot) == (client.address, client.port, client.service.into()) {
        return true;
    }
    if old.is_live(fresh.seen(), tables.config()) && !(urgent && idle >= flow::SETTLED_TICKS) {
        return false;
    }
    let left = Mark(tables.load(&slot.left));
    left == Mark::NONE || left.admits(Mark(client.mark))
}

/// The port so far above the first.
#[inline(always)]
fn port_at(config: &Config, offset: u32) -> Be16 {
    Be16::new(config.nat_port_base.wrapping_add(offset as u16))
}

/// A slot that may be taken for a new flow of a client to a backend, with DNAT.
#[inline(always)]
pub fn pick_dnat<T: Tables>(tables: &T, client: &Event, index: u32) -> Option<Place> {
    let backend = tables.backend(index)?;
    let fresh = fresh(tables, index);
    let row = row(tables.config(), client.address, client.port, backend.nat_base);
    let mut best = u64::MAX;
    for step in 0..ROW {
        let slot = row.wrapping_add(step);
        let rank = tables.nat_rank(slot, client, fresh);
        best = best.min(u64::from(rank) << 32 | u64::from(slot));
        if rank == UNUSED {
            break;
        }
    }
    let (rank, slot) = ((best >> 32) as u32, best as u32);
    let is_free = match rank {
        CONFLICT => false,
        OWN | FREE | UNUSED => true,
        _ => tables.nat_forget(slot, fresh.seen()),
    };
    is_free.then_some(Place { slot, port: client.port })
}

/// Ranks of a slot for a DNAT flow, the best first. What holds the client's port with the backend for another service decides.
const CONFLICT: u32 = 0;
/// What there was between the two before: its replies would be found here.
const OWN: u32 = 1;
const FREE: u32 = 2;
/// It never held any: nothing stands behind it in the row.
const UNUSED: u32 = 3;
/// And as much more as its flow would be missed.
const TAKEN: u32 = 4;

/// How well a slot suits a client's `fresh` DNAT flow.
#[inline(always)]
pub fn rank<T: Tables>(tables: &T, slot: u32, client: &Event, fresh: FlowWord) -> u32 {
    let config = tables.config();
    let (Some(slot), Some(backend)) = (tables.nat_slot(slot), tables.backend(fresh.backend())) else {
        return u32::MAX;
    };
    let old = FlowWord(tables.load(&slot.word));
    if old.0 == 0 {
        return UNUSED;
    }
    let (address, port, service) = self::client(tables, slot);
    let same_protocol = (old.state() == State::Datagram) == (client.state == State::Datagram as u8);
    let same_ends = (address, port) == (client.address, client.port) && old.port() == client.port;
    if same_protocol && same_ends && leads_to(tables, old, backend) {
        // The backend could not tell two flows of a client's port apart.
        let is_over = !old.is_live(fresh.seen(), config) || matches!(old.state(), State::Closed | State::Reset);
        return if is_over || service == u32::from(client.service) { OWN } else { CONFLICT };
    }
    if old.is_free(fresh.seen(), config) { FREE } else { TAKEN + old.missed(fresh.seen(), config) }
}

/// Whether a flow's backend is at the same address and port as another.
#[inline(always)]
fn leads_to<T: Tables>(tables: &T, word: FlowWord, backend: &Backend) -> bool {
    tables.backend(word.backend()).is_some_and(|own| own.address == backend.address && own.port == backend.port)
}

/// The index of the first slot of a client and backend with DNAT.
#[inline(always)]
fn row(config: &Config, client: AddressWords, port: Be16, base: u32) -> u32 {
    let hash = hash::nh(&config.flow_key, client, u32::from(port.raw()) << 16);
    hash::scale(hash.wrapping_add(u64::from(base) << 32), config.nat_slots() - (ROW - 1))
}

/// Makes a slot whose word is `old` a client's; false where somebody else was faster.
#[inline(always)]
fn claim<T: Tables>(tables: &T, slot: &NatSlot, client: &Event, old: FlowWord, word: FlowWord) -> bool {
    let claimed = FlowWord::new(word.backend(), word.port(), State::Claimed, word.seen());
    if tables.compare_exchange(&slot.word, old.0, claimed.0) != old.0 {
        return false;
    }
    set(tables, &slot.client, client.address);
    let port_service = u64::from(client.service) << 16 | u64::from(client.port.raw());
    tables.store(&slot.port_service, port_service);
    set(tables, &slot.path, client.path);
    tables.store(&slot.opened, if word.state() == State::Opening { tables.clock_ns() } else { 0 });
    tables.store(&slot.left, Mark::NONE.0);
    tables.store(&slot.word, word.0);
    true
}

/// The slot of a flow of a client; none where it has become another's.
#[inline(always)]
fn slot_of<'t, T: Tables>(
    tables: &'t T,
    client: &Event,
    service: &Service,
    backend: &Backend,
    flow: FlowWord,
) -> Option<(&'t NatSlot, FlowWord)> {
    let config = tables.config();
    let index = if service.forward == forward::DNAT {
        let row = row(config, client.address, client.port, backend.nat_base);
        row.wrapping_add(tables.dnat_find(client, flow, row)?)
    } else {
        index(config, backend.nat_base, offset(config, flow.port())?)
    };
    let slot = tables.nat_slot(index)?;
    let word = FlowWord(tables.load(&slot.word));
    is_of(tables, slot, word, client, flow).then_some((slot, word))
}

/// How far behind the start of its row the slot of a client's DNAT flow stands.
#[inline(always)]
pub fn find_dnat<T: Tables>(tables: &T, client: &Event, flow: FlowWord, row: u32) -> Option<u32> {
    for step in 0..ROW {
        let slot = tables.nat_slot(row.wrapping_add(step))?;
        if is_of(tables, slot, FlowWord(tables.load(&slot.word)), client, flow) {
            return Some(step);
        }
    }
    None
}

/// Whether a slot, whose word that is, is that of a client's flow.
#[inline(always)]
fn is_of<T: Tables>(tables: &T, slot: &NatSlot, word: FlowWord, client: &Event, flow: FlowWord) -> bool {
    word.backend() == flow.backend()
        && word.port() == flow.port()
        && !matches!(word.state(), State::Free | State::Claimed)
        && self::client(tables, slot) == (client.address, client.port, client.service.into())
}

/// Gives a slot back that no flow came to use.
#[inline(always)]
pub fn release<T: Tables>(tables: &T, client: &Event, service: &Service, backend: &Backend, flow: FlowWord) {
    if let Some((slot, _)) = slot_of(tables, client, service, backend, flow) {
        tables.store(&slot.word, FlowWord::forgotten().0);
    }
}

/// So far may what a client acknowledges first be from the SYN of its backend: on either side what may have come with that.
const FIRST_WINDOW: u32 = 1 << 15;

/// In a slot's `opened`: it is what the client is to acknowledge, in the low half, and not a time.
const EXPECTED: u64 = 1 << 63;

/// Notes what the client is to acknowledge of its backend's SYN, which is another each time where it is a cookie.
#[inline(always)]
pub fn expect<T: Tables>(tables: &T, slot: u32, syn: Mark) {
    if let Some(slot) = tables.nat_slot(slot)
        && FlowWord(tables.load(&slot.word)).state() == State::Answered
    {
        tables.store(&slot.opened, EXPECTED | u64::from((syn.0 as u32).wrapping_add(1)));
    }
}

/// Which of a client's control bits are to be believed. Who has not seen the backend's answer does not know what to acknowledge (RFC
/// 9293, section 3.10.7.4): it cannot open a flow, nor take a RST back that it sent before.
#[inline(always)]
fn believed<T: Tables>(tables: &T, slot: &NatSlot, state: State, client: &Event) -> Flags {
    let (flags, opened) = (Flags(client.flags), tables.load(&slot.opened));
    let is_opened = !matches!(state, State::Answered | State::Reset) || opened & EXPECTED == 0;
    if is_opened || flags.rst() {
        return flags;
    }
    let from_first = (client.mark as u32).wrapping_sub(opened as u32);
    let acknowledges = flags.ack() && !flags.begin_or_end() && from_first.wrapping_add(FIRST_WINDOW) < 2 * FIRST_WINDOW;
    if !acknowledges {
        return Flags::default();
    }
    tables.store(&slot.opened, 0);
    flags
}

/// Keeps the slot of a flow in step with the flow after a packet from the client: which of its control bits are to be believed. None where
/// the slot is another's.
#[inline(always)]
pub fn keep<T: Tables>(
    tables: &T,
    client: &Event,
    service: &Service,
    backend: &Backend,
    flow: FlowWord,
    now: Ticks,
) -> Option<Flags> {
    let (slot, word) = slot_of(tables, client, service, backend, flow)?;
    let flags = believed(tables, slot, word.state(), client);
    if path(tables, slot) != client.path {
        set(tables, &slot.path, client.path);
    }
    if word.state() == State::BackendClosed && flags.fin() {
        tables.store(&slot.left, client.mark);
    }
    flow::step(tables, &slot.word, word, |word| tables.after_client(word, flags, now));
    Some(flags)
}

/// What makes a client's packet one to its backend.
#[inline(always)]
pub fn towards<I: Ip>(service: &Service, backend: &Backend, flow: FlowWord, client: I::Address) -> Rewrite<I::Address> {
    let dnat = service.forward == forward::DNAT;
    Rewrite {
        source: if dnat { client } else { I::Address::from_words(backend.source) },
        destination: I::Address::from_words(backend.address),
        // With DNAT that is the client's own.
        source_port: flow.port(),
        destination_port: backend.port,
        path: backend.path,
    }
}

/// A reply's flow.
#[derive(Clone, Copy, Debug)]
pub struct Reply<'t> {
    /// Its slot.
    pub slot: &'t NatSlot,
    /// Where the slot is.
    pub index: u32,
    /// The slot's word.
    pub word: FlowWord,
    /// The backend that sent it.
    pub backend: &'t Backend,
}

impl Reply<'_> {
    /// The service that the client knows.
    #[inline(always)]
    pub fn service<'t, T: Tables>(&self, tables: &'t T) -> Option<&'t Service> {
        let (_, _, service) = client(tables, self.slot);
        tables.service(service)
    }

    /// What makes it a packet from the service to the client.
    #[inline(always)]
    pub fn rewrite<I: Ip, T: Tables>(&self, tables: &T) -> Option<Rewrite<I::Address>> {
        let (address, port, service) = client(tables, self.slot);
        let service = tables.service(service)?;
        Some(Rewrite {
            source: I::Address::from_words(service.address),
            destination: I::Address::from_words(address),
            source_port: service.port,
            destination_port: port,
            path: path(tables, self.slot),
        })
    }
}

/// The flow that a datagram from a backend belongs to; none where it is not such a datagram.
#[inline(always)]
pub fn find_reply<'t, I: Ip, T: Tables>(tables: &'t T, datagram: &Datagram<I>) -> Option<Reply<'t>> {
    let config = tables.config();
    let source = datagram.source.words();
    if let Some(offset) = offset(config, datagram.destination_port)
        && let base = base(config, source, datagram.source_port)
        && let Some(reply) = reply(tables, datagram, index(config, base, offset))
        && reply.backend.source == datagram.destination.words()
    {
        return Some(reply);
    }
    if tables.features() & features::DNAT == 0 {
        return None;
    }
    let base = base(config, source, datagram.source_port);
    let row = row(config, datagram.destination.words(), datagram.destination_port, base);
    for step in 0..ROW {
        let slot = row.wrapping_add(step);
        if tables.load(&tables.nat_slot(slot)?.word) == 0 {
            return None;
        }
        let reply = reply(tables, datagram, slot);
        if let Some(reply) = reply {
            let (address, port, service) = client(tables, reply.slot);
            if (address, port) == (datagram.destination.words(), datagram.destination_port)
                && tables.service(service)?.forward == forward::DNAT
            {
                return Some(reply);
            }
        }
    }
    None
}

/// The flow of a slot, if it is one of the datagram's backend and destination port.
#[inline(always)]
fn reply<'t, I: Ip, T: Tables>(tables: &'t T, datagram: &Datagram<I>, index: u32) -> Option<Reply<'t>> {
    let slot = tables.nat_slot(index)?;
    let word = FlowWord(tables.load(&slot.word));
    if word.port() != datagram.destination_port || matches!(word.state(), State::Free | State::Claimed) {
        return None;
    }
    let backend = tables.backend(word.backend())?;
    let ours = backend.address == datagram.source.words()
        && backend.port == datagram.source_port
        && backend.flags & backend_flags::PRESENT != 0
        && (word.state() == State::Datagram) == (datagram.protocol == UDP);
    ours.then_some(Reply { slot, index, word, backend })
}

/// The client of a slot: address, port, and service.
#[inline(always)]
pub fn client<T: Tables>(tables: &T, slot: &NatSlot) -> (AddressWords, Be16, u32) {
    let port_service = tables.load(&slot.port_service);
    (get(tables, &slot.client), Be16::from_raw(port_service as u16), (port_service >> 16) as u32)
}

/// Where packets to the client of a slot leave.
#[inline(always)]
pub fn path<T: Tables>(tables: &T, slot: &NatSlot) -> Path {
    get(tables, &slot.path)
}

#[inline(always)]
fn set<T: Tables>(tables: &T, [a, b]: &[AtomicU64; 2], [x, y]: [u64; 2]) {
    tables.store(a, x);
    tables.store(b, y);
}

#[inline(always)]
fn get<T: Tables>(tables: &T, [a, b]: &[AtomicU64; 2]) -> [u64; 2] {
    [tables.load(a), tables.load(b)]
}
