//! The packet's way, on one page: parse, service, flow, schedule, rewrite, count, verdict.

use network_types::{
    eth::EthHdr,
    ip::{Ipv4Hdr, Ipv6Hdr},
    tcp::TcpHdr,
    udp::UdpHdr,
};

use crate::{
    encap,
    event::{Event, is_nat, is_open, is_plain},
    flow::{self, FlowWord, State, Ticks},
    header::Byte,
    http,
    ip::{Ip, L3, TCP, UDP},
    layout::{Backend, Service, backend_flags},
    nat,
    packet::Packet,
    parse::{self, Datagram, Flags, Parsed},
    rare::Stages,
    reset, rewrite, schedule, service,
    tables::Tables,
    time_wait::Mark,
    verdict::{DropReason, Verdict},
    vlan,
    wire::{Address, Be16},
};

/// Which of the two paths this is: the common one leaves to the rare one whatever is not a packet of a known flow nor begins one
/// plainly, or changes more than counters and the packet.
pub trait Road {
    /// Whether it is the rare one, which does everything.
    const RARE: bool;
}

/// Packets of known flows, and plain beginnings.
#[derive(Debug)]
pub struct Common;

/// All packets.
#[derive(Debug)]
pub struct Rare;

impl Road for Common {
    const RARE: bool = false;
}

impl Road for Rare {
    const RARE: bool = true;
}

/// What becomes of a frame. It is rewritten unless the verdict is to pass it or to take the rare path.
#[inline(always)]
pub fn process<P: Stages, T: Tables>(packet: &mut P, tables: &T) -> Verdict {
    let Some(eth) = packet.at::<EthHdr>(0) else { return Verdict::Pass };
    match Be16::from_raw(eth.ether_type) {
        Ipv4Hdr::ETHER_TYPE => balance::<Ipv4Hdr, P, T>(packet, tables),
        Ipv6Hdr::ETHER_TYPE => balance::<Ipv6Hdr, P, T>(packet, tables),
        vlan::DOT1Q | vlan::DOT1AD => Verdict::Rare,
        _ => Verdict::Pass,
    }
}

#[inline(always)]
fn balance<I: Ip, P: Stages, T: Tables>(packet: &mut P, tables: &T) -> Verdict {
    let l4 = L3 + size_of::<I>();
    // Once it is known that a frame has room for a TCP header, nothing before that need be looked for.
    let is_short = packet.at::<TcpHdr>(l4).is_none();
    match parse::packet::<I>(packet) {
        Parsed::Datagram(protocol) if !is_short => datagram::<Common, I, P, T>(packet, tables, l4, protocol),
        Parsed::Datagram(_) | Parsed::Rare => Verdict::Rare,
        Parsed::Other => Verdict::Pass,
    }
}

/// What becomes of a datagram, or of the first fragment of one, whose TCP or UDP header is at `l4`.
#[inline(always)]
pub fn datagram<R: Road, I: Ip, P: Stages, T: Tables>(packet: &mut P, tables: &T, l4: usize, protocol: u8) -> Verdict {
    let Some((address, port)) = parse::destination::<I>(packet, l4) else { return Verdict::Pass };
    let found = service::find(tables, address.words(), port, protocol, I::FAMILY);
    // What else there is to know of it is read behind this: until then it would only have to be kept somewhere.
    let Some(datagram) = parse::datagram::<I>(packet, l4, protocol) else { return Verdict::Pass };
    let verdict = if let Some((slot, service)) = found {
        from_client::<R, I, P, T>(packet, tables, &datagram, slot, service)
    } else {
        let Some(reply) = nat::find_reply(tables, &datagram) else { return Verdict::Pass };
        from_backend::<R, I, P, T>(packet, tables, &datagram, &reply)
    };
    match verdict {
        Ok(verdict) => verdict,
        Err(_) if !R::RARE => Verdict::Rare,
        Err(reason) => {
            count(tables, reason);
            let answer = if reset::deserves(reason) { reset::answer(packet, &datagram) } else { None };
            answer.unwrap_or(Verdict::Drop(reason))
        }
    }
}

/// Counts a packet that is not forwarded.
#[inline(always)]
pub fn count<T: Tables>(tables: &T, reason: DropReason) {
    if let Some(counter) = tables.drops(reason) {
        tables.count(counter, 1);
    }
}

#[inline(always)]
fn from_client<R: Road, I: Ip, P: Stages, T: Tables>(
    packet: &mut P,
    tables: &T,
    datagram: &Datagram<I>,
    slot: u32,
    service: &Service,
) -> Result<Verdict, DropReason> {
    if datagram.hop_limit <= 1 {
        return Err(DropReason::HopLimit);
    }
    let known = if !R::RARE && datagram.flags.begin_or_end() {
        plainly_opened(packet, tables, datagram, slot, service)
    } else {
        established::<R, I, P, T>(packet, tables, datagram, slot, service)?
    };
    let (flow, backend) = match known {
        Known::Flow(flow, backend) => (flow, backend),
        Known::Nothing { before } if R::RARE => opened(packet, tables, datagram, slot, service, before)?,
        Known::Nothing { .. } => return Ok(Verdict::Rare),
    };
    let overhead = encap::overhead(service, backend);
    if let Some(through) = encap::exceeded(backend, overhead, datagram.length) {
        return too_big::<R, I, P, T>(packet, tables, datagram, through);
    }
    let counters = tables.count_in(flow.backend(), datagram.bytes()).ok_or(DropReason::Internal)?;
    if is_nat(service) && datagram.protocol == TCP {
        let (l4, length) = (datagram.l4, datagram.length);
        let asks = if R::RARE { packet.is_request(l4, length) } else { http::is_request(packet, l4, length) };
        tables.count(&counters.requests, asks.into());
    }
    if R::RARE && datagram.flags.syn() {
        clamp(packet, datagram, backend, overhead);
    }
    to_backend(packet, datagram, service, flow, backend)
}

#[inline(always)]
fn too_big<R: Road, I: Ip, P: Stages, T: Tables>(
    packet: &mut P,
    tables: &T,
    datagram: &Datagram<I>,
    through: u16,
) -> Result<Verdict, DropReason> {
    if !R::RARE {
        return Ok(Verdict::Rare);
    }
    count(tables, DropReason::TooBig);
    Ok(packet.too_big::<I, T>(tables, datagram.l4, datagram.protocol, through))
}

/// What the flow table says of a datagram.
enum Known<'t> {
    /// Its flow, in step with it, and the backend.
    Flow(FlowWord, &'t Backend),
    /// No flow, one whose backend is gone, or a client that starts anew: not with the backend that did not answer, and with the one whose
    /// connection it has only just reset. On the common path also a flow that is to be changed.
    Nothing { before: FlowWord },
}

impl Known<'_> {
    const NOTHING: Self = Self::Nothing { before: FlowWord::NOBODYS };
}

#[inline(always)]
fn established<'t, R: Road, I: Ip, P: Stages, T: Tables>(
    packet: &P,
    tables: &'t T,
    datagram: &Datagram<I>,
    slot: u32,
    service: &Service,
) -> Result<Known<'t>, DropReason> {
    let config = tables.config();
    let key = flow::Key::new(config, I::FAMILY, datagram.source.words(), datagram.source_port, slot);
    let found = if R::RARE { tables.find_flow(&key) } else { flow::find(tables, &key) };
    let Some(flow) = found else { return Ok(Known::NOTHING) };
    let now = Ticks::from_ns(tables.now_ns());
    let serves = if R::RARE { flow.is_live(now, config) } else { flow.is_steady(now) };
    if !serves {
        return Ok(Known::NOTHING);
    }
    if R::RARE && datagram.flags.opens() {
        match flow.state() {
            // One that comes twice within a tick was not repeated by its client, which gives a backend a second: the network did that.
            State::Opening if flow.seen() != now && !tables.was_heard(flow) => {
                return Ok(Known::Nothing { before: flow });
            }
            State::Repeated if flow.seen() != now => return Ok(Known::Nothing { before: flow }),
            // Both may be made up: then its backend knows better, and the connection goes on.
            State::Reset if now.since(flow.seen()) < flow::SETTLED_TICKS => {
                return Ok(Known::Nothing { before: flow });
            }
            // The client's port is free again, and so it may come by it at once.
            _ if !is_open(service, flow) => return Ok(Known::NOTHING),
            _ => {}
        }
    }
    let backend = tables.backend(flow.backend()).ok_or(DropReason::Internal)?;
    let serves = backend.serves();
    if !serves && (!R::RARE || backend.flags & backend_flags::PRESENT == 0) {
        return Ok(Known::NOTHING);
    }
    // With a backend that is given up, what is under way may come to its end.
    let ends = R::RARE && !serves && (flow.state() == State::Reset || asks(packet, datagram));
    let flags = if ends { Flags::RESET } else { datagram.flags };
    // Where the backend has not answered, the flow's port may have become another's without a change of its own.
    let changes = R::RARE && (flow.state() == State::Opening || flow.after_client(flags, now) != flow);
    let is_gone = changes && !tables.advance(&Event { flags: flags.0, ..event(packet, datagram, slot, service)? });
    Ok(if ends || is_gone { Known::NOTHING } else { Known::Flow(flow, backend) })
}

/// Whether a datagram asks for something: it has a payload, or it begins a connection.
#[inline(always)]
fn asks<I: Ip, P: Packet>(packet: &P, datagram: &Datagram<I>) -> bool {
    let header = match packet.at::<Byte>(datagram.l4 + 12) {
        Some(words) if datagram.protocol == TCP => usize::from(words.0 >> 4) * 4,
        _ => size_of::<UdpHdr>(),
    };
    datagram.flags.syn() || usize::from(datagram.length) + L3 > datagram.l4 + header
}

/// A new flow on the common path, where nothing is to be made for it but its place in the flow table.
#[inline(always)]
fn plainly_opened<'t, I: Ip, P: Stages, T: Tables>(
    packet: &mut P,
    tables: &'t T,
    datagram: &Datagram<I>,
    slot: u32,
    service: &Service,
) -> Known<'t> {
    /// A SYN without data is not larger, and what gets to a backend is not smaller.
    const HEADERS: u16 = 128;
    let is_odd = || parse::is_to_many(packet) || parse::is_from_nobody::<I>(packet);
    if !datagram.flags.opens() || datagram.length > HEADERS || !is_plain(service) || is_odd() {
        return Known::NOTHING;
    }
    let key = flow::Key::new(tables.config(), I::FAMILY, datagram.source.words(), datagram.source_port, slot);
    let point = schedule::point(service, datagram.source.words(), datagram.source_port);
    let Some(flow) = tables.open_plainly(&key, slot, point) else { return Known::NOTHING };
    let Some(backend) = tables.backend(flow.backend()) else { return Known::NOTHING };
    clamp(packet, datagram, backend, encap::overhead(service, backend));
    Known::Flow(flow, backend)
}

/// A new flow.
#[inline(always)]
fn opened<'t, I: Ip, P: Stages, T: Tables>(
    packet: &P,
    tables: &'t T,
    datagram: &Datagram<I>,
    slot: u32,
    service: &Service,
    before: FlowWord,
) -> Result<(FlowWord, &'t Backend), DropReason> {
    let state = match () {
        () if datagram.protocol == UDP => State::Datagram,
        () if datagram.flags.opens() => State::Opening,
        // Another front node, or this one before its tables were made anew, chose the same backend.
        () if schedule::is_consistent(service) && !is_nat(service) && !datagram.flags.rst() => State::Tentative,
        () => return Err(DropReason::NoFlow),
    };
    let event = Event { state: state as u8, ..event(packet, datagram, slot, service)? };
    let flow = tables.begin(&event, before)?;
    Ok((flow, tables.backend(flow.backend()).ok_or(DropReason::Internal)?))
}

#[inline(always)]
fn event<I: Ip, P: Stages>(
    packet: &P,
    datagram: &Datagram<I>,
    slot: u32,
    service: &Service,
) -> Result<Event, DropReason> {
    let mark = if is_nat(service) { packet.mark(datagram.l4, datagram.length) } else { Mark::NONE };
    Ok(Event {
        address: datagram.source.words(),
        path: rewrite::return_path(packet).ok_or(DropReason::Internal)?,
        mark: mark.0,
        service: slot as u16,
        port: datagram.source_port,
        family: I::FAMILY,
        flags: datagram.flags.0,
        state: 0,
        reserved: 0,
    })
}

#[inline(always)]
fn to_backend<I: Ip, P: Packet>(
    packet: &mut P,
    datagram: &Datagram<I>,
    service: &Service,
    flow: FlowWord,
    backend: &Backend,
) -> Result<Verdict, DropReason> {
    if is_nat(service) {
        return nat::towards::<I>(service, backend, flow, datagram.source).apply(packet, datagram);
    }
    let entropy = u32::from(datagram.source_port.raw()) ^ datagram.source.sum() as u32;
    encap::direct::<I, P>(packet, service.forward, backend, entropy ^ entropy >> 16)
}

#[inline(always)]
fn from_backend<R: Road, I: Ip, P: Stages, T: Tables>(
    packet: &mut P,
    tables: &T,
    datagram: &Datagram<I>,
    reply: &nat::Reply<'_>,
) -> Result<Verdict, DropReason> {
    if datagram.hop_limit <= 1 {
        return Err(DropReason::HopLimit);
    }
    if !R::RARE && datagram.flags.begin_or_end() {
        return Ok(Verdict::Rare);
    }
    let now = Ticks::from_ns(tables.now_ns());
    if !R::RARE && !reply.word.is_steady(now) {
        return Ok(Verdict::Rare);
    }
    if R::RARE && reply.word.after_backend(datagram.flags, now) != reply.word {
        // The client's next SYN goes to another backend.
        let refuses = datagram.flags.rst() && reply.word.state() == State::Opening;
        if refuses && schedule::has_choice(reply.service(tables).ok_or(DropReason::Internal)?) {
            let counters = tables.counters(reply.word.backend()).ok_or(DropReason::Internal)?;
            tables.count(&counters.refused, 1);
            return Err(DropReason::Refused);
        }
        if !tables.answer(reply.index, I::FAMILY, datagram.flags) {
            return Err(DropReason::Superseded);
        }
    }
    let counters = tables.count_out(reply.word.backend(), datagram.bytes()).ok_or(DropReason::Internal)?;
    if datagram.protocol == TCP {
        let (l4, length) = (datagram.l4, datagram.length);
        let class = if R::RARE { packet.response(l4, length) } else { http::class(packet, l4, length) };
        if let Some(responses) = class.and_then(|class| counters.responses.get(class)) {
            tables.count(responses, 1);
        }
    }
    if R::RARE && datagram.flags.syn() {
        packet.expect(tables, reply.index, datagram.l4, datagram.length);
        clamp(packet, datagram, reply.backend, 0);
    }
    let rewrite = reply.rewrite::<I, T>(tables).ok_or(DropReason::Internal)?;
    rewrite.apply(packet, datagram)
}

/// Keeps the segments that a SYN asks for within what gets to and from the backend.
#[inline(always)]
fn clamp<I: Ip, P: Stages>(packet: &mut P, datagram: &Datagram<I>, backend: &Backend, overhead: u16) {
    const TCP_HEADER: u16 = 20;
    if backend.mtu != 0 {
        let most = backend.mtu.saturating_sub(overhead + size_of::<I>() as u16 + TCP_HEADER);
        packet.clamp_mss(datagram.l4, most);
    }
}

#[cfg(test)]
mod tests;
