//! What changes a flow: it begins, it takes a step, it is answered.
//!
//! Few packets do that, and what they do is long. So each of the three is a function of its own in the BPF program, which
//! the verifier goes through once, whatever led to it; the [`Tables`] of the host call them directly.

use bytemuck::{Pod, Zeroable};

use crate::{
    flow::{self, FlowWord, State, Ticks},
    layout::{Path, Service, backend_flags, forward},
    nat,
    parse::Flags,
    schedule,
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
    /// The service's slot.
    pub service: u32,
    /// For a new flow: the backend that did not answer, or [`schedule::NOBODY`].
    pub avoid: u32,
    /// The client's port.
    pub port: Be16,
    /// 4 or 6.
    pub family: u8,
    /// TCP control bits: [`Flags`].
    pub flags: u8,
    /// For a new flow: its [`State`].
    pub state: u32,
    /// Of a SYN or FIN: its [`Mark`](crate::time_wait::Mark).
    pub mark: u64,
}

impl Event {
    #[inline(always)]
    fn key<T: Tables>(&self, tables: &T) -> flow::Key {
        flow::Key::new(tables.config(), self.family, self.address, self.port, self.service)
    }
}

/// Begins a flow: schedules it, takes a slot for its replies where they come back this way, and remembers it.
#[inline(always)]
pub fn open<T: Tables>(tables: &T, event: &Event) -> Result<FlowWord, DropReason> {
    let service = tables.service(event.service).ok_or(DropReason::Internal)?;
    let index = schedule::backend(tables, event.service, service, event.address, event.port, event.avoid)?;
    let backend = tables.backend(index).ok_or(DropReason::Internal)?;
    if index == event.avoid
        // There is no other: the SYN goes where it went before, by the same port unless that has become another's.
        && let Some(flow) = again(tables, event)
    {
        return Ok(flow);
    }
    let now = Ticks::from_ns(tables.now_ns());
    let fresh = FlowWord::new(index, Be16::from_raw(0), State::from_bits(event.state), now);
    let flow = if is_nat(service) { nat::open(tables, event, service, backend, fresh)? } else { fresh };
    if let Err(reason) = remember(tables, &event.key(tables), flow) {
        if is_nat(service) {
            nat::release(tables, event, service, backend, flow);
        }
        return Err(reason);
    }
    let counters = tables.counters(index).ok_or(DropReason::Internal)?;
    tables.count(&counters.connections, 1);
    if schedule::counts_flows(service) {
        tables.add(tables.load_of(index).ok_or(DropReason::Internal)?, 1);
    }
    Ok(flow)
}

#[inline(always)]
fn again<T: Tables>(tables: &T, event: &Event) -> Option<FlowWord> {
    let (_, flow) = flow::locate(tables, &event.key(tables))?;
    advance(tables, event).then_some(flow)
}

#[inline(always)]
fn remember<T: Tables>(tables: &T, key: &flow::Key, flow: FlowWord) -> Result<(), DropReason> {
    match flow::locate(tables, key) {
        Some((slot, dead)) if tables.compare_exchange(&slot.word, dead.0, flow.0) == dead.0 => Ok(()),
        _ => flow::insert(tables, key, flow),
    }
}

/// Takes a flow on after a packet from its client: its word, its slot for replies, the way back. False where the slot has
/// become another's: then the flow is no more.
#[inline(always)]
pub fn advance<T: Tables>(tables: &T, event: &Event) -> bool {
    let Some((slot, flow)) = flow::locate(tables, &event.key(tables)) else { return false };
    let Some(service) = tables.service(event.service) else { return false };
    let Some(backend) = tables.backend(flow.backend()) else { return false };
    if backend.flags & backend_flags::PRESENT == 0 {
        return false;
    }
    let now = Ticks::from_ns(tables.now_ns());
    if is_nat(service) && !nat::keep(tables, event, service, backend, flow, now) {
        return false;
    }
    let next = flow.after_client(Flags(event.flags), now);
    if tables.compare_exchange(&slot.word, flow.0, next.0) == flow.0 && closes(flow, next) {
        closed(tables, service, flow.backend());
    }
    true
}

/// Takes a flow on after a packet from its backend: the slot, by its index, and where the state has changed the flow
/// itself. False where the packet answers a SYN that has gone to another backend since: the client must not see it.
#[inline(always)]
pub fn answer<T: Tables>(tables: &T, slot: u32, family: u8, flags: Flags) -> bool {
    let Some(slot) = tables.nat_slot(slot) else { return false };
    let now = Ticks::from_ns(tables.now_ns());
    let word = FlowWord(tables.load(&slot.word));
    let next = word.after_backend(flags, now);
    tables.compare_exchange(&slot.word, word.0, next.0);
    if next.state() == word.state() {
        return true;
    }
    let (address, port, service) = nat::client(tables, slot);
    let key = flow::Key::new(tables.config(), family, address, port, service);
    let opening = word.state() == State::Opening;
    let Some((slot, flow)) = flow::locate(tables, &key) else { return !opening };
    if (flow.backend(), flow.port()) != (word.backend(), word.port()) {
        return !opening;
    }
    let next = flow.after_backend(flags, now);
    if tables.compare_exchange(&slot.word, flow.0, next.0) == flow.0
        && closes(flow, next)
        && let Some(service) = tables.service(service)
    {
        closed(tables, service, flow.backend());
    }
    true
}

/// Whether replies come back through here.
#[inline(always)]
pub fn is_nat(service: &Service) -> bool {
    matches!(service.forward, forward::NAT | forward::DNAT)
}

#[inline(always)]
fn closes(before: FlowWord, after: FlowWord) -> bool {
    after.state() == State::Closed && before.state() != State::Closed
}

/// One open flow less.
#[inline(always)]
fn closed<T: Tables>(tables: &T, service: &Service, backend: u32) {
    if schedule::counts_flows(service)
        && let Some(load) = tables.load_of(backend)
    {
        tables.add(load, u64::MAX);
    }
}
