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

/// Ports tried for a new flow before it is refused. With 9 of 10 ports taken one flow in a thousand is refused.
const PROBES: u32 = 64;

/// Of these, those tried before a port is taken over from a flow that has only just closed.
const PATIENT_PROBES: u32 = 8;

/// A closed flow's last packets are over after this.
const SETTLED_TICKS: u32 = 2;

/// Slots in a row where a DNAT flow may stand.
const ROW: u32 = 8;

/// The index of a backend's slot for the first port.
#[inline(always)]
pub fn base(config: &Config, address: AddressWords, port: Be16) -> u32 {
    hash::scale(hash::nh(&config.place_key, address, u32::from(port.raw())), config.nat_slots)
}

/// The index of the slot `offset` behind a base.
#[inline(always)]
fn index(config: &Config, base: u32, offset: u32) -> u32 {
    let index = base.wrapping_add(offset);
    if index < config.nat_slots { index } else { index.wrapping_sub(config.nat_slots) }
}

/// How far above the first NAT port a port lies; none where it is not one of them.
#[inline(always)]
fn offset(config: &Config, port: Be16) -> Option<u32> {
    let offset = port.get().wrapping_sub(config.nat_port_base);
    (offset < config.nat_port_count).then_some(u32::from(offset))
}

/// Takes a slot for a new flow of `client` to a backend: the flow's word, its slot written.
#[inline(always)]
pub fn open<T: Tables>(
    tables: &T,
    client: &Event,
    service: &Service,
    backend: &Backend,
    fresh: FlowWord,
) -> Result<FlowWord, DropReason> {
    if service.forward == forward::DNAT {
        open_dnat(tables, client, backend, fresh)
    } else {
        open_nat(tables, client, backend, fresh)
    }
}

/// The first port tried follows from the client's: a client's ports map to as many ports, and the one client that comes
/// again from a port of its own meets the sequence numbers that the backend may still remember.
#[inline(always)]
fn open_nat<T: Tables>(tables: &T, client: &Event, backend: &Backend, fresh: FlowWord) -> Result<FlowWord, DropReason> {
    let config = tables.config();
    let count = u32::from(config.nat_port_count);
    let hash = hash::nh(&config.flow_key, client.address, client.service);
    // Odd, and another for each of a client's ports: so that probes of flows that begin alike do not meet each other again.
    let mixed = hash::nh(&config.tag_key, client.address, u32::from(client.port.raw()));
    let stride = 1 + 2 * hash::scale(mixed, count / 2);
    let start = (u32::from(client.port.get()) + hash::scale(hash, count)) % count.max(1);
    for _ in 0..flow::CLAIMS {
        let mut offset = start;
        let mut least = u64::MAX;
        for probe in 0..PROBES {
            let slot = index(config, backend.nat_base, offset);
            let missed = tables.nat_missed(slot, client, fresh, probe >= PATIENT_PROBES);
            least = least.min(u64::from(missed) << 32 | u64::from(offset));
            if missed == 0 {
                break;
            }
            offset += stride;
            if offset >= count {
                offset -= count;
            }
        }
        if !flow::may_go((least >> 32) as u32) {
            break;
        }
        let offset = least as u32;
        let slot = tables.nat_slot(index(config, backend.nat_base, offset)).ok_or(DropReason::Internal)?;
        let word = FlowWord::new(fresh.backend(), port_at(config, offset), fresh.state(), fresh.seen());
        let old = FlowWord(tables.load(&slot.word));
        if flow::may_go(old.missed(fresh.seen(), config)) && claim(tables, slot, client, old, word) {
            return Ok(word);
        }
    }
    Err(DropReason::NatPortsExhausted)
}

/// How much a slot's flow would be missed if a client's `fresh` flow took its port, as [`FlowWord::missed`] has it, but 0 only where the backend will take the
/// client's SYN. `urgent` where a flow that has only just closed may go, too.
#[inline(always)]
pub fn missed<T: Tables>(tables: &T, slot: u32, client: &Event, fresh: FlowWord, urgent: bool) -> u32 {
    let Some(slot) = tables.nat_slot(slot) else { return u32::MAX };
    let old = FlowWord(tables.load(&slot.word));
    let (now, config) = (fresh.seen(), tables.config());
    let is_over = old.is_free(now, config) || old.state() == State::Closed;
    if is_over && welcomes(tables, slot, old, client, fresh, urgent) { 0 } else { old.missed(now, config).max(1) }
}

/// Whether a backend will take a client's SYN by the port of a slot whose flow `old` is over: the flow was the client's own, or
/// nothing of it is remembered there, or what is remembered lets the SYN pass. What another backend remembers of a port of
/// its own that shares the slot would be forgotten here, so it is left alone for as long.
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
    if old.backend() != fresh.backend() {
        return false;
    }
    if self::client(tables, slot) == (client.address, client.port, client.service) {
        return true;
    }
    if old.is_live(fresh.seen(), tables.config()) && !(urgent && idle >= SETTLED_TICKS) {
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

#[inline(always)]
fn open_dnat<T: Tables>(
    tables: &T,
    client: &Event,
    backend: &Backend,
    fresh: FlowWord,
) -> Result<FlowWord, DropReason> {
    let config = tables.config();
    let word = FlowWord::new(fresh.backend(), client.port, fresh.state(), fresh.seen());
    let row = row(config, client.address, client.port, backend.nat_base);
    let mut best = u64::MAX;
    for step in 0..ROW {
        best = best.min(u64::from(tables.nat_rank(index(config, row, step), client, fresh)) << 32 | u64::from(step));
    }
    let slot = tables.nat_slot(index(config, row, best as u32 & (ROW - 1))).ok_or(DropReason::Internal)?;
    let old = FlowWord(tables.load(&slot.word));
    let may_go = matches!((best >> 32) as u32, OWN | FREE);
    if may_go && claim(tables, slot, client, old, word) { Ok(word) } else { Err(DropReason::NatPortsExhausted) }
}

/// Ranks of a slot for a DNAT flow, the best first. What holds the client's port with the backend for another service decides.
const CONFLICT: u32 = 0;
/// What there was between the two before: its replies would be found here.
const OWN: u32 = 1;
const FREE: u32 = 2;
const TAKEN: u32 = 3;

/// How well a slot suits a client's `fresh` DNAT flow.
#[inline(always)]
pub fn rank<T: Tables>(tables: &T, slot: u32, client: &Event, fresh: FlowWord) -> u32 {
    let config = tables.config();
    let (Some(slot), Some(backend)) = (tables.nat_slot(slot), tables.backend(fresh.backend())) else { return TAKEN };
    let old = FlowWord(tables.load(&slot.word));
    let (address, port, service) = self::client(tables, slot);
    if (address, port) == (client.address, client.port) && old.port() == client.port && leads_to(tables, old, backend) {
        // The backend could not tell two flows of a client's port apart.
        let is_over = !old.is_live(fresh.seen(), config) || old.state() == State::Closed;
        return if is_over || service == client.service { OWN } else { CONFLICT };
    }
    if old.is_free(fresh.seen(), config) { FREE } else { TAKEN }
}

/// Whether a flow's backend is at the same address and port as another.
#[inline(always)]
fn leads_to<T: Tables>(tables: &T, word: FlowWord, backend: &Backend) -> bool {
    tables.backend(word.backend()).is_some_and(|own| own.address == backend.address && own.port == backend.port)
}

/// Where the slots of a client and backend begin.
#[inline(always)]
fn row(config: &Config, client: AddressWords, port: Be16, base: u32) -> u32 {
    let hash = hash::nh(&config.flow_key, client, u32::from(port.raw()) << 16);
    index(config, base, hash::scale(hash, config.nat_slots))
}

/// Makes a slot whose word is `old` a client's; false where somebody else was faster.
#[inline(always)]
fn claim<T: Tables>(tables: &T, slot: &NatSlot, client: &Event, old: FlowWord, word: FlowWord) -> bool {
    let claimed = FlowWord::new(word.backend(), word.port(), State::Claimed, word.seen());
    if tables.compare_exchange(&slot.word, old.0, claimed.0) != old.0 {
        return false;
    }
    set(tables, &slot.client, client.address);
    let port_service = u64::from(client.service << 16 | u32::from(client.port.raw()));
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
    let (base, offset, steps) = if service.forward == forward::DNAT {
        (row(config, client.address, client.port, backend.nat_base), 0, ROW)
    } else {
        (backend.nat_base, offset(config, flow.port())?, 1)
    };
    for step in 0..ROW {
        if step >= steps {
            return None;
        }
        let slot = tables.nat_slot(index(config, base, offset.wrapping_add(step)))?;
        let word = FlowWord(tables.load(&slot.word));
        let ours = word.backend() == flow.backend()
            && word.port() == flow.port()
            && !matches!(word.state(), State::Free | State::Claimed)
            && self::client(tables, slot) == (client.address, client.port, client.service);
        if ours {
            return Some((slot, word));
        }
    }
    None
}

/// Gives a slot back that no flow came to use.
#[inline(always)]
pub fn release<T: Tables>(tables: &T, client: &Event, service: &Service, backend: &Backend, flow: FlowWord) {
    if let Some((slot, _)) = slot_of(tables, client, service, backend, flow) {
        tables.store(&slot.word, FlowWord::forgotten().0);
    }
}

/// Keeps the slot of a flow in step with the flow after a packet from the client. False where the slot is another's.
#[inline(always)]
pub fn keep<T: Tables>(
    tables: &T,
    client: &Event,
    service: &Service,
    backend: &Backend,
    flow: FlowWord,
    now: Ticks,
) -> bool {
    let Some((slot, word)) = slot_of(tables, client, service, backend, flow) else { return false };
    if path(tables, slot) != client.path {
        set(tables, &slot.path, client.path);
    }
    if word.state() == State::BackendClosed && Flags(client.flags).fin() {
        tables.store(&slot.left, client.mark);
    }
    tables.compare_exchange(&slot.word, word.0, word.after_client(Flags(client.flags), now).0);
    true
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
        let reply = reply(tables, datagram, index(config, row, step));
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
