//! The packet's way, on one page: parse, service, flow, schedule, rewrite, count, verdict.

use core::sync::atomic::AtomicU64;

use network_types::{
    eth::EthHdr,
    ip::{Ipv4Hdr, Ipv6Hdr},
};

use crate::{
    flow::{self, FlowWord, State, Ticks},
    ip::{self, Ip},
    layout::{Backend, Service, backend_flags},
    nat,
    packet::Packet,
    parse::{self, Segment},
    schedule, service,
    tables::Tables,
    verdict::{DropReason, Verdict},
    wire::{Address, Be16},
};

/// What becomes of a frame. It is rewritten unless the verdict is to pass or drop it.
#[inline(always)]
pub fn process<P: Packet, T: Tables>(packet: &mut P, tables: &T) -> Verdict {
    let Some(eth) = packet.at::<EthHdr>(0) else { return Verdict::Pass };
    let verdict = match Be16::from_raw(eth.ether_type) {
        Ipv4Hdr::ETHER_TYPE => balance::<Ipv4Hdr, P, T>(packet, tables),
        Ipv6Hdr::ETHER_TYPE => balance::<Ipv6Hdr, P, T>(packet, tables),
        _ => Ok(Verdict::Pass),
    };
    verdict.unwrap_or_else(|reason| {
        if let Some(counter) = tables.drops(reason) {
            add(tables, counter, 1);
        }
        Verdict::Drop(reason)
    })
}

#[inline(always)]
fn balance<I: Ip, P: Packet, T: Tables>(packet: &mut P, tables: &T) -> Result<Verdict, DropReason> {
    let Some(segment) = parse::tcp::<I>(packet) else { return Ok(Verdict::Pass) };
    let (address, port) = (segment.destination.words(), segment.destination_port);
    if let Some((slot, service)) = service::find(tables, address, port, ip::TCP, I::FAMILY) {
        from_client(packet, tables, &segment, slot, service)
    } else if let Some(reply) = nat::find_reply(tables, &segment) {
        let counters = tables.counters(reply.backend_index()).ok_or(DropReason::Internal)?;
        add(tables, &counters.packets_out, 1);
        add(tables, &counters.bytes_out, packet.len());
        nat::to_client(packet, tables, &segment, &reply)
    } else {
        Ok(Verdict::Pass)
    }
}

#[inline(always)]
fn from_client<I: Ip, P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    segment: &Segment<I>,
    slot: u32,
    service: &Service,
) -> Result<Verdict, DropReason> {
    if segment.fragmented {
        return Err(DropReason::Fragment);
    }
    let (flow, backend) = match established(packet, tables, segment, slot) {
        Some(found) => found,
        None => opened(packet, tables, segment, slot, service)?,
    };
    let counters = tables.counters(flow.backend()).ok_or(DropReason::Internal)?;
    add(tables, &counters.packets_in, 1);
    add(tables, &counters.bytes_in, packet.len());
    nat::to_backend(packet, segment, backend, flow.port())
}

/// The flow that a segment belongs to and its backend, both in step with the segment; none where it is not known, its
/// backend is gone, or the client starts anew.
#[inline(always)]
fn established<'t, I: Ip, P: Packet, T: Tables>(
    packet: &P,
    tables: &'t T,
    segment: &Segment<I>,
    service: u32,
) -> Option<(FlowWord, &'t Backend)> {
    let config = tables.config();
    let key = flow::Key::new(config, I::FAMILY, segment.source.words(), segment.source_port, service);
    let (slot, flow) = flow::find(tables, &key)?;
    let now = Ticks::from_ns(tables.now_ns());
    let starts_anew = segment.flags.opens() && flow.state() == State::Closed;
    if starts_anew || !flow.is_live(now, config.established_ticks) {
        return None;
    }
    let backend = tables.backend(flow.backend())?;
    if backend.flags & backend_flags::PRESENT == 0 {
        return None;
    }
    let next = flow.after_client(segment.flags, now);
    if next != flow {
        let path = nat::return_path(packet)?;
        if !nat::keep(tables, segment, path, service, backend, flow, now) {
            return None;
        }
        tables.compare_exchange(&slot.word, flow.0, next.0);
    }
    Some((flow, backend))
}

/// A new flow, scheduled and remembered.
#[inline(always)]
fn opened<'t, I: Ip, P: Packet, T: Tables>(
    packet: &P,
    tables: &'t T,
    segment: &Segment<I>,
    slot: u32,
    service: &Service,
) -> Result<(FlowWord, &'t Backend), DropReason> {
    if !segment.flags.opens() {
        return Err(DropReason::NoFlow);
    }
    let index = schedule::backend(tables, slot, service, segment.source.words(), segment.source_port)?;
    let backend = tables.backend(index).ok_or(DropReason::Internal)?;
    let path = nat::return_path(packet).ok_or(DropReason::Internal)?;
    let now = Ticks::from_ns(tables.now_ns());
    let flow = nat::open(tables, segment, path, slot, index, backend, now)?;
    if let Err(reason) = remember(tables, segment, slot, flow) {
        nat::release(tables, backend, flow);
        return Err(reason);
    }
    let counters = tables.counters(index).ok_or(DropReason::Internal)?;
    add(tables, &counters.connections, 1);
    Ok((flow, backend))
}

#[inline(always)]
fn remember<I: Ip, T: Tables>(
    tables: &T,
    segment: &Segment<I>,
    service: u32,
    flow: FlowWord,
) -> Result<(), DropReason> {
    let key = flow::Key::new(tables.config(), I::FAMILY, segment.source.words(), segment.source_port, service);
    match flow::find(tables, &key) {
        Some((slot, dead)) if tables.compare_exchange(&slot.word, dead.0, flow.0) == dead.0 => Ok(()),
        _ => flow::insert(tables, &key, flow),
    }
}

/// Adds to a counter of this CPU, which nobody else writes.
#[inline(always)]
fn add<T: Tables>(tables: &T, counter: &AtomicU64, value: u64) {
    tables.store(counter, tables.load(counter).wrapping_add(value));
}

#[cfg(test)]
mod tests;
