//! ICMP and ICMPv6: echoes to a virtual address are answered; errors go to whoever sent what they are about.
//!
//! An error quotes the packet that could not be delivered. The packet that would have answered that one belongs to a flow,
//! from the client or from the backend; the error takes its way, and the quote is rewritten to what the receiver had sent.

use network_types::{
    eth::EthHdr,
    ip::{Ipv4Hdr, Ipv6Hdr},
    udp::UdpHdr,
};

use crate::{
    checksum::{Change, fold},
    encap,
    event::is_nat,
    flow,
    header::{Byte, FragmentHeader, Icmp, Ports},
    ip::{BEST_EFFORT, FRAGMENT, Fragment, HOPS, IPV4, IPV6, Ip, L3, TCP, UDP},
    layout::{Backend, Path, Service, backend_flags},
    nat,
    packet::Packet,
    parse::{Datagram, Flags},
    rewrite::{self, Rewrite},
    service,
    tables::Tables,
    verdict::{DropReason, Verdict},
    wire::{Address, Be16},
};

/// Packets of its own that a CPU sends in half a second.
const ANSWERS_PER_TICK: u64 = 500;

/// Message types of one family, told by its protocol number.
struct Kinds {
    echo: u8,
    echo_reply: u8,
    too_big: (u8, u8),
}

const V4: Kinds = Kinds { echo: 8, echo_reply: 0, too_big: (3, 4) };
const V6: Kinds = Kinds { echo: 128, echo_reply: 129, too_big: (2, 0) };

#[inline(always)]
fn kinds<I: Ip>() -> Kinds {
    if I::FAMILY == 4 { V4 } else { V6 }
}

/// Whether a type is an error about another packet.
#[inline(always)]
fn is_error<I: Ip>(kind: u8) -> bool {
    if I::FAMILY == 4 { matches!(kind, 3 | 11 | 12) } else { (1..=4).contains(&kind) }
}

/// What becomes of an ICMP message.
#[inline(always)]
pub fn handle<I: Ip, P: Packet, T: Tables>(packet: &mut P, tables: &T, l4: usize) -> Result<Verdict, DropReason> {
    let Some(icmp) = packet.at::<Icmp>(l4).copied() else { return Ok(Verdict::Pass) };
    let Some(ip) = packet.at::<I>(L3) else { return Ok(Verdict::Pass) };
    let destination = ip.destination();
    if icmp.kind == kinds::<I>().echo && service::is_virtual::<I, T>(tables, destination) {
        return echo::<I, P>(packet, l4, icmp);
    }
    if is_error::<I>(icmp.kind) {
        return error::<I, P, T>(packet, tables, l4, icmp);
    }
    Ok(Verdict::Pass)
}

#[inline(always)]
fn echo<I: Ip, P: Packet>(packet: &mut P, l4: usize, icmp: Icmp) -> Result<Verdict, DropReason> {
    let reply = kinds::<I>().echo_reply;
    let (old, new) = (u16::from_ne_bytes([icmp.kind, icmp.code]), u16::from_ne_bytes([reply, icmp.code]));
    let header = packet.at_mut::<Icmp>(l4).ok_or(DropReason::Internal)?;
    header.kind = reply;
    header.check = Change::default().word(old, new).apply(header.check);
    let ip = packet.at_mut::<I>(L3).ok_or(DropReason::Internal)?;
    let (source, destination) = (ip.source(), ip.destination());
    // The sum of the addresses is the same in any order.
    ip.forward(destination, source, Change::default());
    ip.set_hop_limit(HOPS);
    let path = rewrite::return_path(packet).ok_or(DropReason::Internal)?;
    rewrite::leave(packet, path)
}

/// Offset and protocol of the transport header in the packet quoted at `l3`; none where it is not TCP, UDP, or not there.
#[inline(always)]
fn quoted_l4<I: Ip>(packet: &impl Packet, l3: usize) -> Option<(usize, u8)> {
    let quoted = packet.at::<I>(l3)?;
    let (mut l4, mut protocol) = (l3 + quoted.length()?, quoted.protocol());
    if I::FAMILY == 6 && protocol == FRAGMENT {
        let header = packet.at::<FragmentHeader>(l4)?;
        if u16::from_be_bytes(header.offset) >> 3 != 0 {
            return None;
        }
        (l4, protocol) = (l4 + size_of::<FragmentHeader>(), header.next);
    }
    let is_datagram = matches!(protocol, TCP | UDP) && quoted.fragment() != Fragment::Later;
    packet.at::<Ports>(l4)?;
    is_datagram.then_some((l4, protocol))
}

/// The packet that would answer the one quoted at `l3`.
///
/// Not an option of it: LLVM would put that on the stack and take it apart by accesses that the verifier does not take
/// ("misaligned stack access").
#[inline(always)]
fn answer_to_quote<I: Ip>(quoted: &I, ports: Ports, (l4, protocol): (usize, u8)) -> Datagram<I> {
    Datagram {
        l4,
        protocol,
        source: quoted.destination(),
        destination: quoted.source(),
        source_port: Be16::from_bytes(ports.destination),
        destination_port: Be16::from_bytes(ports.source),
        flags: Flags::default(),
        hop_limit: HOPS,
        length: 0,
    }
}

#[inline(always)]
fn error<I: Ip, P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    l4: usize,
    icmp: Icmp,
) -> Result<Verdict, DropReason> {
    let quote = l4 + size_of::<Icmp>();
    let Some(quoted) = quoted_l4::<I>(packet, quote) else {
        return learn::<I, P, T>(packet, tables, quote, icmp);
    };
    let ports = *packet.at::<Ports>(quoted.0).ok_or(DropReason::Internal)?;
    let answer = answer_to_quote(packet.at::<I>(quote).ok_or(DropReason::Internal)?, ports, quoted);
    let (to, to_port) = (answer.destination.words(), answer.destination_port);
    if let Some((slot, service)) = service::find(tables, to, to_port, answer.protocol, I::FAMILY) {
        to_backend(packet, tables, l4, &answer, slot, service)
    } else if let Some(reply) = nat::find_reply(tables, &answer) {
        let rewrite = reply.rewrite::<I, T>(tables).ok_or(DropReason::Internal)?;
        rewrite_error(packet, l4, &answer, &rewrite)
    } else {
        // GUE, perhaps: a datagram, but no service's.
        learn::<I, P, T>(packet, tables, quote, icmp)
    }
}

/// A packet of the service did not reach the client: the backend is told.
#[inline(always)]
fn to_backend<I: Ip, P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    l4: usize,
    answer: &Datagram<I>,
    slot: u32,
    service: &Service,
) -> Result<Verdict, DropReason> {
    let client = answer.source.words();
    let key = flow::Key::new(tables.config(), I::FAMILY, client, answer.source_port, slot);
    let Some(flow) = tables.find_flow(&key) else { return Ok(Verdict::Pass) };
    let backend = tables.backend(flow.backend()).ok_or(DropReason::Internal)?;
    if backend.flags & backend_flags::PRESENT == 0 {
        return Ok(Verdict::Pass);
    }
    if is_nat(service) {
        rewrite_error(packet, l4, answer, &nat::towards::<I>(service, backend, flow, answer.source))
    } else if packet.at::<I>(L3).ok_or(DropReason::Internal)?.hop_limit() <= 1 {
        Err(DropReason::HopLimit)
    } else {
        encap::direct::<I, P>(packet, service.forward, backend, 0)
    }
}

/// Rewrites an error as the packet that would answer its quote, and the quote to match.
#[inline(always)]
fn rewrite_error<I: Ip, P: Packet>(
    packet: &mut P,
    l4: usize,
    answer: &Datagram<I>,
    rewrite: &Rewrite<I::Address>,
) -> Result<Verdict, DropReason> {
    let quote = l4 + size_of::<Icmp>();
    let addresses = Change::of_addresses([answer.destination, answer.source], [rewrite.destination, rewrite.source]);
    let ports = Change::default()
        .word(answer.source_port.raw(), rewrite.source_port.raw())
        .word(answer.destination_port.raw(), rewrite.destination_port.raw());
    let quoted = packet.at_mut::<Ports>(answer.l4).ok_or(DropReason::Internal)?;
    // Quoted is what the answer answers: its source is the answer's destination.
    quoted.source = rewrite.destination_port.to_bytes();
    quoted.destination = rewrite.source_port.to_bytes();
    let ip = packet.at_mut::<I>(quote).ok_or(DropReason::Internal)?;
    let hops = ip.hop_limit();
    ip.forward(rewrite.destination, rewrite.source, addresses);
    ip.set_hop_limit(hops);

    let outer = packet.at::<I>(L3).ok_or(DropReason::Internal)?;
    let (from, to) = (outer.source(), outer.destination());
    if outer.hop_limit() <= 1 {
        return Err(DropReason::HopLimit);
    }
    let outer_change = Change::of_addresses([from, to], [rewrite.source, rewrite.destination]);
    let icmp = packet.at_mut::<Icmp>(l4).ok_or(DropReason::Internal)?;
    // The checksum of a quoted IPv4 header changes against its addresses; an IPv6 header has none, but ICMPv6 covers
    // the outer addresses as well.
    let change = if I::FAMILY == 4 { ports } else { ports.and(addresses).and(outer_change) };
    icmp.check = change.apply(icmp.check);
    let ip = packet.at_mut::<I>(L3).ok_or(DropReason::Internal)?;
    ip.forward(rewrite.source, rewrite.destination, outer_change);
    rewrite::leave(packet, rewrite.path)
}

/// A packet that was encapsulated here was too large on its way: what gets to the backend is remembered, so that the next
/// one that is too large is answered. The message goes on to the kernel.
#[inline(always)]
fn learn<I: Ip, P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    quote: usize,
    icmp: Icmp,
) -> Result<Verdict, DropReason> {
    if (icmp.kind, icmp.code) != kinds::<I>().too_big {
        return Ok(Verdict::Pass);
    }
    let found = tunnel::<I>(packet, tables, quote);
    if let Some((index, backend, least)) = found {
        let [_, _, high, low] = icmp.rest;
        let mtu = u16::from_be_bytes([high, low]).max(least);
        if backend.mtu == 0 || mtu < backend.mtu {
            tables.learn_mtu(index, mtu);
        }
    }
    Ok(Verdict::Pass)
}

/// The smallest MTU that is believed for packets inside others: what every host takes of IPv4 (RFC 791), and every link of IPv6 (RFC 8200, section 5).
const LEAST_V4: u16 = 576;
const LEAST_V6: u16 = 1280;

/// The backend of a packet that a quoted outer header carried from here, and the smallest MTU that it can be about. Somebody who does
/// not see what is sent to the backend can only guess the address that it is sent from, where the message must go to.
#[inline(always)]
fn tunnel<'t, I: Ip>(packet: &impl Packet, tables: &'t impl Tables, quote: usize) -> Option<(u32, &'t Backend, u16)> {
    let outer = packet.at::<I>(quote)?;
    let (address, source) = (outer.destination().words(), outer.source());
    if packet.at::<I>(L3)?.destination() != source {
        return None;
    }
    let inner = quote + outer.length()?;
    let (inner, protocol) = match outer.protocol() {
        UDP => {
            let udp = packet.at::<UdpHdr>(inner)?;
            if Be16::from_bytes(udp.dst) != encap::GUE_PORT {
                return None;
            }
            let inner = inner + size_of::<UdpHdr>();
            let version = packet.at::<Byte>(inner)?.0 >> 4;
            (inner, if version == 4 { IPV4 } else { IPV6 })
        }
        protocol => (inner, protocol),
    };
    let ((index, backend), least) = match protocol {
        IPV4 => (owner::<Ipv4Hdr>(packet, tables, inner)?, LEAST_V4),
        IPV6 => (owner::<Ipv6Hdr>(packet, tables, inner)?, LEAST_V6),
        _ => return None,
    };
    let least = least + (inner - quote) as u16;
    (backend.address == address && backend.source == source.words()).then_some((index, backend, least))
}

/// The backend of the flow that a quoted client's packet belongs to.
#[inline(always)]
fn owner<'t, I: Ip>(packet: &impl Packet, tables: &'t impl Tables, l3: usize) -> Option<(u32, &'t Backend)> {
    let quoted = quoted_l4::<I>(packet, l3)?;
    let answer = answer_to_quote(packet.at::<I>(l3)?, *packet.at::<Ports>(quoted.0)?, quoted);
    let (to, to_port) = (answer.source.words(), answer.source_port);
    let (slot, _) = service::find(tables, to, to_port, answer.protocol, I::FAMILY)?;
    let key = flow::Key::new(tables.config(), I::FAMILY, answer.destination.words(), answer.destination_port, slot);
    let flow = tables.find_flow(&key)?;
    Some((flow.backend(), tables.backend(flow.backend())?))
}

/// Bytes of an IPv6 fragment's header.
const EXTENSION: usize = size_of::<FragmentHeader>();

/// Tells the sender of a packet that only `mtu` bytes get through; none where it cannot or may not be told.
#[inline(always)]
pub fn too_big<I: Ip, P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    datagram: &Datagram<I>,
    mtu: u16,
) -> Option<Verdict> {
    // A fragment's header at most, and what has eight bytes as well.
    let extension = datagram.l4 - L3 - size_of::<I>();
    if !matches!(extension, 0 | EXTENSION) || !may_answer(tables) {
        return None;
    }
    let path: Path = rewrite::return_path(packet)?;
    let headers = size_of::<I>() + size_of::<Icmp>();
    // The headers and eight bytes: the ports and the sequence number.
    let quoted = size_of::<I>() + extension + 8;
    let excess = packet.len() as i64 - (L3 + quoted) as i64;
    if excess < 0 || !packet.adjust_tail(-(excess as i32)) || !packet.adjust_head(-(headers as i32)) {
        return None;
    }
    packet.at_mut::<EthHdr>(0)?.ether_type = I::ETHER_TYPE.raw();
    let (kind, code) = kinds::<I>().too_big;
    let [high, low] = mtu.to_be_bytes();
    let l4 = L3 + size_of::<I>();
    let icmp = Icmp { kind, code, check: [0, 0], rest: [0, 0, high, low] };
    *packet.at_mut::<Icmp>(l4)? = icmp;
    let (from, to) = (datagram.destination, datagram.source);
    let length = (size_of::<Icmp>() + quoted) as u16;
    let mut sum = u64::from(u16::from_ne_bytes([kind, code])) + u64::from(u16::from_ne_bytes([high, low]));
    let quote = l4 + size_of::<Icmp>();
    sum += packet.at::<I>(quote)?.sum();
    sum += eight(packet, quote + size_of::<I>())?;
    if extension != 0 {
        sum += eight(packet, quote + size_of::<I>() + EXTENSION)?;
    }
    if I::FAMILY == 6 {
        sum += from.sum() + to.sum() + u64::from(Be16::new(length).raw()) + u64::from(u16::from(I::ICMP).to_be());
    }
    packet.at_mut::<Icmp>(l4)?.check = (!fold(sum)).to_ne_bytes();
    packet.at_mut::<I>(L3)?.start(from, to, BEST_EFFORT, length, I::ICMP);
    rewrite::leave(packet, path).ok()
}

/// The sum of eight bytes, whatever they mean.
#[inline(always)]
fn eight(packet: &impl Packet, offset: usize) -> Option<u64> {
    let Icmp { kind, code, check, rest } = *packet.at::<Icmp>(offset)?;
    Some(
        u64::from(u16::from_ne_bytes([kind, code]))
            + u64::from(u16::from_ne_bytes(check))
            + u64::from(u32::from_ne_bytes(rest)),
    )
}

/// Whether this CPU has not answered too often of late: a word of half seconds and a count.
#[inline(always)]
fn may_answer<T: Tables>(tables: &T) -> bool {
    let Some(word) = tables.answers() else { return false };
    let tick = tables.now_ns() >> flow::TICK_SHIFT;
    let before = tables.load(word);
    let sent = if before >> 16 == tick { before & 0xffff } else { 0 };
    tables.store(word, tick << 16 | (sent + 1).min(0xffff));
    sent < ANSWERS_PER_TICK
}
