//! What changes a flow: it begins, it takes a step, it is answered.
//!
//! Few packets do that, and what they do is long. So each of the three is a function of its own in the BPF program, which
//! the verifier goes through once, whatever led to it; the [`Tables`] of the host call them directly.

use bytemuck::{Pod, Zeroable};

use crate::{
    flow::{self, FlowWord, State, TICK_SHIFT, Ticks},
    handshake,
    layout::{Backend, NatSlot, Path, Service, VIRTUAL_ADDRESS, backend_flags, forward},
    nat,
    parse::Flags,
    room, schedule, service,
    tables::Tables,
    verdict::DropReason,
    wire::{AddressWords, Be16},
};

/// A packet from a client, as far as its flow is concerned.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Event {
    /// The client's address.
    pub address: AddressWords,
    /// Where packets to the client leave.
    pub path: Path,
    /// With NAT, of a segment: its [`Mark`](crate::time_wait::Mark).
    pub mark: u64,
    /// The service's slot.
    pub service: u16,
    /// The client's port.
    pub port: Be16,
    /// 4 or 6.
    pub family: u8,
    /// TCP control bits: [`Flags`].
    pub flags: u8,
    /// For a new flow: its [`State`].
    pub state: u8,
    /// Zero.
    pub reserved: u8,
}

impl Event {
    #[inline(always)]
    fn key<T: Tables>(&self, tables: &T) -> flow::Key {
        flow::Key::new(tables.config(), self.family, self.address, self.port, self.service.into())
    }
}

/// Begins a flow, in the place of the one that its client had before, if any ([`FlowWord::NOBODYS`]): chooses its backend, and
/// makes room for it where there is none. A SYN that was not answered goes on as the flow that it began where there is no other
/// backend.
#[inline(always)]
pub fn begin<T: Tables>(tables: &T, event: &Event, before: FlowWord) -> Result<FlowWord, DropReason> {
    let service = tables.service(event.service.into()).ok_or(DropReason::Internal)?;
    if tables.is_ours(event) {
        return Err(DropReason::NoFlow);
    }
    let backend = tables.choose(event, before)?;
    if matches!(before.state(), State::Opening | State::Repeated) && backend == before.backend() {
        // By the same port unless that has become another's.
        if tables.advance(event) {
            return Ok(before);
        }
        if room::is_limited(service) {
            tables.add(tables.load_of(backend).ok_or(DropReason::Internal)?, 1);
        }
    }
    let mut flow = with(tables, event, service, backend);
    // Once for its port, once for its place in the table.
    for _ in 0..2 {
        if let Err(reason) = flow
            && room_was_made(tables, event, service, backend, reason)
        {
            flow = with(tables, event, service, backend);
        }
    }
    if flow.is_err() && room::is_limited(service) {
        room::give(tables, backend);
    }
    flow
}

/// Whether a packet comes from an address that is balanced itself: two services would answer each other without an end (RFC 1812, section
/// 5.3.8).
#[inline(always)]
pub fn is_ours<T: Tables>(tables: &T, event: &Event) -> bool {
    service::find(tables, event.address, Be16::from_raw(0), VIRTUAL_ADDRESS, event.family).is_some()
}

/// A flow with a backend.
#[inline(always)]
fn with<T: Tables>(tables: &T, event: &Event, service: &Service, backend: u32) -> Result<FlowWord, DropReason> {
    let place = match service.forward {
        forward::NAT => tables.nat_pick(event, backend),
        forward::DNAT => tables.dnat_pick(event, backend),
        _ => None,
    };
    tables.open(event, backend, place)
}

/// Makes room for a flow that was refused for `reason`, if that helps.
#[inline(always)]
fn room_was_made<T: Tables>(tables: &T, event: &Event, service: &Service, backend: u32, reason: DropReason) -> bool {
    match reason {
        DropReason::FlowTableFull => tables.flow_make_room(event),
        DropReason::NatPortsExhausted if service.forward == forward::NAT => tables.nat_make_room(event, backend),
        _ => false,
    }
}

/// The index of the backend for a new flow: as the algorithm schedules it, or where there is room; there it has its place.
#[inline(always)]
pub fn choose<T: Tables>(tables: &T, event: &Event, before: FlowWord) -> Result<u32, DropReason> {
    let slot = event.service.into();
    let service = tables.service(slot).ok_or(DropReason::Internal)?;
    let wish = tables.wish(before);
    let (index, avoid) = match schedule::stays(wish) {
        Some(index) => (index, schedule::NOBODY),
        None => (schedule::backend(tables, slot, service, event.address, event.port, wish)?, wish),
    };
    if room::is_limited(service) { tables.take(slot, index, avoid) } else { Ok(index) }
}

/// Where a client is to go for what became of the flow that it had before: to the backend whose connection it has only just reset, as it
/// may not have been the client who did that; not to one that has not answered, which counts if it was not heard meanwhile.
#[inline(always)]
pub fn wish<T: Tables>(tables: &T, before: FlowWord) -> u32 {
    let index = before.backend();
    match before.state() {
        State::Reset if tables.backend(index).is_some_and(Backend::takes_flows) => schedule::stay(index),
        State::Opening | State::Repeated => {
            if !was_heard(tables, before)
                && let Some(counters) = tables.counters(index)
            {
                tables.count(&counters.repeated, 1);
            }
            index
        }
        _ => schedule::NOBODY,
    }
}

/// Whether a client has acknowledged what a flow's backend answered since the flow was last seen: then it is there, and what has no answer
/// was lost on the way, or the answer was, or that is a long way. Only asked, and only noted, with direct return: elsewhere the answer is seen.
#[inline(always)]
pub fn was_heard<T: Tables>(tables: &T, flow: FlowWord) -> bool {
    let now = tables.now_ns();
    let seen = (now >> TICK_SHIFT).wrapping_sub(Ticks::from_ns(now).since(flow.seen()).into());
    tables.heard_of(flow.backend()).is_some_and(|heard| tables.load(heard) > seen)
}

/// Begins a flow with a backend, where it has its place: takes the slot that [`nat::pick`] found for its replies, where they come
/// back this way, and remembers it.
#[inline(always)]
pub fn open<T: Tables>(
    tables: &T,
    event: &Event,
    index: u32,
    place: Option<nat::Place>,
) -> Result<FlowWord, DropReason> {
    let service = tables.service(event.service.into()).ok_or(DropReason::Internal)?;
    let backend = tables.backend(index).ok_or(DropReason::Internal)?;
    let now = Ticks::from_ns(tables.now_ns());
    let fresh = FlowWord::new(index, Be16::from_raw(0), State::from_bits(event.state.into()), now);
    let flow = make(tables, event, service, backend, fresh, place)?;
    let counters = tables.counters(index).ok_or(DropReason::Internal)?;
    tables.count(&counters.connections, 1);
    if schedule::counts_flows(service) && !room::is_limited(service) {
        tables.add(tables.load_of(index).ok_or(DropReason::Internal)?, 1);
    }
    Ok(flow)
}

/// Begins a flow that needs nothing but its place in the flow table, with the backend at a [`schedule::point`]. None where it is
/// not so simple: it is known, or there is no backend for it or no place.
#[inline(always)]
pub fn open_plainly<T: Tables>(tables: &T, key: &flow::Key, slot: u32, point: u64) -> Option<FlowWord> {
    let service = tables.service(slot)?;
    if flow::find(tables, key).is_some() {
        return None;
    }
    let index = schedule::plain(tables, slot, service, point).ok()?;
    let counters = tables.counters(index)?;
    let flow = FlowWord::new(index, Be16::from_raw(0), State::Opening, Ticks::from_ns(tables.now_ns()));
    flow::insert(tables, key, flow).ok()?;
    tables.count(&counters.connections, 1);
    Some(flow)
}

/// Makes the flow: its slot for replies, and its place in the table.
#[inline(always)]
fn make<T: Tables>(
    tables: &T,
    event: &Event,
    service: &Service,
    backend: &Backend,
    fresh: FlowWord,
    place: Option<nat::Place>,
) -> Result<FlowWord, DropReason> {
    let flow = if is_nat(service) {
        nat::open(tables, event, fresh, place.ok_or(DropReason::NatPortsExhausted)?)?
    } else {
        fresh
    };
    if let Err(reason) = remember(tables, event, service, flow) {
        if is_nat(service) {
            nat::release(tables, event, service, backend, flow);
        }
        return Err(reason);
    }
    Ok(flow)
}

/// Makes room in the flow table for a flow that [`open`] refused, which may then be tried again. False where nothing may go.
#[inline(always)]
pub fn make_room<T: Tables>(tables: &T, event: &Event) -> bool {
    flow::make_room(tables, &event.key(tables), Ticks::from_ns(tables.now_ns()))
}

#[inline(always)]
fn remember<T: Tables>(tables: &T, event: &Event, service: &Service, flow: FlowWord) -> Result<(), DropReason> {
    let key = event.key(tables);
    match flow::locate(tables, &key) {
        Some((slot, old)) if tables.compare_exchange(&slot.word, old.0, flow.0) == old.0 => {
            // A SYN that goes elsewhere now: what did not answer it has one flow less.
            if old.is_live(flow.seen(), tables.config()) && is_open(service, old) {
                closed(tables, service, old.backend());
            }
            Ok(())
        }
        _ => flow::insert(tables, &key, flow),
    }
}

/// Takes a flow on after a packet from its client: its word, its slot for replies, the way back. False where the slot has
/// become another's: then the flow is no more.
#[inline(always)]
pub fn advance<T: Tables>(tables: &T, event: &Event) -> bool {
    let Some((slot, flow)) = flow::locate(tables, &event.key(tables)) else { return false };
    let Some(service) = tables.service(event.service.into()) else { return false };
    let Some(backend) = tables.backend(flow.backend()) else { return false };
    if backend.flags & backend_flags::PRESENT == 0 {
        return false;
    }
    let now = Ticks::from_ns(tables.now_ns());
    let believed =
        if is_nat(service) { nat::keep(tables, event, service, backend, flow, now) } else { Some(Flags(event.flags)) };
    let Some(flags) = believed else { return false };
    let after = |flow| tables.after_client(flow, flags, now);
    if let Some(flow) = flow::step(tables, &slot.word, flow, after) {
        let next = after(flow);
        tables.hear(flow, next);
        if closes(service, flow, next) {
            closed(tables, service, flow.backend());
        }
        if closes(service, next, flow) {
            reopened(tables, service, flow.backend());
        }
    }
    true
}

/// Counts what a client's packet tells: that it resets a connection, or has heard its backend.
#[inline(always)]
pub fn hear<T: Tables>(tables: &T, before: FlowWord, after: FlowWord) {
    let (index, before, after) = (before.backend(), before.state(), after.state());
    let Some(counters) = tables.counters(index) else { return };
    match before {
        State::Answered | State::Established | State::BackendClosed | State::Tentative if after == State::Reset => {
            tables.count(&counters.aborted, 1);
        }
        State::Answered if matches!(after, State::Established | State::ClientClosed) => {
            tables.count(&counters.opened, 1);
        }
        State::Opening | State::Repeated if matches!(after, State::Tentative | State::TentativeClosed) => {
            if let Some(heard) = tables.heard_of(index) {
                tables.store(heard, tables.now_ns() >> TICK_SHIFT);
            }
        }
        _ => {}
    }
}

/// Takes a flow on after a packet from its backend: the slot, by its index, and where the state has changed the flow
/// itself. False where the packet answers a SYN that has gone to another backend since: the client must not see it.
#[inline(always)]
pub fn answer<T: Tables>(tables: &T, slot: u32, family: u8, flags: Flags) -> bool {
    let Some(slot) = tables.nat_slot(slot) else { return false };
    let now = Ticks::from_ns(tables.now_ns());
    let word = FlowWord(tables.load(&slot.word));
    let after = |word| tables.after_backend(word, flags, now);
    if after(word).state() == word.state() {
        tables.compare_exchange(&slot.word, word.0, after(word).0);
        return true;
    }
    if let Some(word) = flow::step(tables, &slot.word, word, after) {
        see(tables, slot, word, after(word), flags);
    }
    let (address, port, service) = nat::client(tables, slot);
    let key = flow::Key::new(tables.config(), family, address, port, service);
    let opening = word.state() == State::Opening;
    let Some((slot, flow)) = flow::locate(tables, &key) else { return !opening };
    if (flow.backend(), flow.port()) != (word.backend(), word.port()) {
        return !opening;
    }
    if let Some(flow) = flow::step(tables, &slot.word, flow, after)
        && let Some(service) = tables.service(service)
        && closes(service, flow, after(flow))
    {
        closed(tables, service, flow.backend());
    }
    true
}

/// Counts what a backend's answer tells of it: how long its SYN-ACK took, that it refuses, that it resets.
#[inline(always)]
fn see<T: Tables>(tables: &T, slot: &NatSlot, before: FlowWord, after: FlowWord, flags: Flags) {
    let Some(counters) = tables.counters(before.backend()) else { return };
    match before.state() {
        State::Opening if flags.rst() => tables.count(&counters.refused, 1),
        State::Opening if after.state() == State::Answered => {
            let took = tables.clock_ns().wrapping_sub(tables.load(&slot.opened));
            tables.count(&counters.handshake_ns, took);
            if let Some(bucket) = counters.handshakes.get(handshake::bucket(took)) {
                tables.count(bucket, 1);
            }
        }
        State::Answered | State::Established | State::ClientClosed if flags.rst() => tables.count(&counters.reset, 1),
        _ => {}
    }
}

/// Whether replies come back through here.
#[inline(always)]
pub fn is_nat(service: &Service) -> bool {
    matches!(service.forward, forward::NAT | forward::DNAT)
}

/// Whether a new flow of a service takes nothing but a place in the flow table.
#[inline(always)]
pub fn is_plain(service: &Service) -> bool {
    !is_nat(service) && !schedule::counts_flows(service)
}

/// Whether a live flow counts as open. With direct return the backend's FIN is not seen: the client's ends the flow.
#[inline(always)]
pub fn is_open(service: &Service, flow: FlowWord) -> bool {
    match flow.state() {
        State::Closed | State::Reset => false,
        State::ClientClosed | State::TentativeClosed => is_nat(service),
        _ => true,
    }
}

#[inline(always)]
fn closes(service: &Service, before: FlowWord, after: FlowWord) -> bool {
    is_open(service, before) && !is_open(service, after)
}

/// One open flow less.
#[inline(always)]
fn closed<T: Tables>(tables: &T, service: &Service, backend: u32) {
    counted(tables, service, backend, u64::MAX);
}

/// One open flow more, of which it was thought that it had ended.
#[inline(always)]
fn reopened<T: Tables>(tables: &T, service: &Service, backend: u32) {
    counted(tables, service, backend, 1);
}

#[inline(always)]
fn counted<T: Tables>(tables: &T, service: &Service, backend: u32, change: u64) {
    if schedule::counts_flows(service)
        && let Some(load) = tables.load_of(backend)
    {
        tables.add(load, change);
    }
}
