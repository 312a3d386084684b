//! Fragments: the first shows the ports, and the later ones of the same packet are treated as if they had them.
//!
//! One slot to a hash of addresses, protocol and identification; the newest packet has it.

use network_types::ip::Ipv4Hdr;

use crate::{
    checksum::Change,
    encap,
    event::is_nat,
    flow::{self, Ticks},
    hash,
    ip::{Fragment, Ip, L3, TCP, UDP, Walk},
    layout::{FragmentSlot, backend_flags},
    nat,
    packet::Packet,
    parse::{Datagram, Flags},
    service,
    tables::Tables,
    verdict::{DropReason, Verdict},
    wire::{Address, Address4, Be16},
};

/// How long after the first one later fragments are expected: as long as Linux waits for them.
const PATIENCE: u32 = flow::ticks(30);

/// Ports (source 16, destination 16) and when they were seen (24), and two bits: that it is UDP, and that there are any.
#[derive(Clone, Copy, Debug)]
pub struct Note(u64);

impl Note {
    const UDP: u64 = 1 << 62;
    const VALID: u64 = 1 << 63;

    #[inline(always)]
    fn new<I: Ip>(datagram: &Datagram<I>, now: Ticks) -> Self {
        let ports = u64::from(datagram.source_port.raw()) | u64::from(datagram.destination_port.raw()) << 16;
        let protocol = if datagram.protocol == UDP { Self::UDP } else { 0 };
        Self(Self::VALID | protocol | u64::from(now.number()) << 32 | ports)
    }

    #[inline(always)]
    fn protocol(self) -> u8 {
        if self.0 & Self::UDP == 0 { TCP } else { UDP }
    }

    #[inline(always)]
    fn seen(self) -> Ticks {
        Ticks::of((self.0 >> 32) as u32)
    }
}

/// Remembers the ports of the first fragment of a packet.
#[inline(always)]
pub fn note<I: Ip, T: Tables>(tables: &T, datagram: &Datagram<I>, walk: &Walk) {
    let tag = tag::<I, T>(tables, datagram.source, datagram.destination, walk);
    if let Some(slot) = slot(tables, tag) {
        let now = Ticks::from_ns(tables.now_ns());
        tables.store(&slot.note, 0);
        tables.store(&slot.tag, tag);
        tables.store(&slot.note, Note::new(datagram, now).0);
    }
}

/// Sends a later fragment after the first one.
#[inline(always)]
pub fn forward<I: Ip, P: Packet, T: Tables>(packet: &mut P, tables: &T, walk: &Walk) -> Result<Verdict, DropReason> {
    let ip = packet.at::<I>(L3).ok_or(DropReason::Internal)?;
    let (source, destination, hop_limit, length) = (ip.source(), ip.destination(), ip.hop_limit(), ip.total_length());
    let Some(note) = recall::<I, T>(tables, source, destination, walk) else {
        // Nobody else's business if it is for a service.
        return if matches!(walk.protocol, TCP | UDP) && service::is_virtual::<I, T>(tables, destination) {
            Err(DropReason::Fragment)
        } else {
            Ok(Verdict::Pass)
        };
    };
    let datagram: Datagram<I> = Datagram {
        l4: walk.l4,
        protocol: note.protocol(),
        source,
        destination,
        source_port: Be16::from_raw(note.0 as u16),
        destination_port: Be16::from_raw((note.0 >> 16) as u16),
        flags: Flags::default(),
        hop_limit,
        length,
    };
    let (address, port) = (destination.words(), datagram.destination_port);
    if let Some((slot, service)) = service::find(tables, address, port, note.protocol(), I::FAMILY) {
        if hop_limit <= 1 {
            return Err(DropReason::HopLimit);
        }
        let key = flow::Key::new(tables.config(), I::FAMILY, source.words(), datagram.source_port, slot);
        let flow = tables.find_flow(&key).ok_or(DropReason::Fragment)?;
        let backend = tables.backend(flow.backend()).ok_or(DropReason::Internal)?;
        if backend.flags & backend_flags::PRESENT == 0 {
            return Err(DropReason::Fragment);
        }
        if encap::exceeded(backend, encap::overhead(service, backend), length).is_some() {
            return Err(DropReason::TooBig);
        }
        tables.count_in(flow.backend(), datagram.bytes()).ok_or(DropReason::Internal)?;
        if is_nat(service) {
            nat::towards::<I>(service, backend, flow, source).apply_to_fragment::<I, P>(packet)
        } else {
            encap::direct::<I, P>(packet, service.forward, backend, 0)
        }
    } else if let Some(reply) = nat::find_reply(tables, &datagram) {
        if hop_limit <= 1 {
            return Err(DropReason::HopLimit);
        }
        tables.count_out(reply.word.backend(), datagram.bytes()).ok_or(DropReason::Internal)?;
        reply.rewrite::<I, T>(tables).ok_or(DropReason::Internal)?.apply_to_fragment::<I, P>(packet)
    } else {
        Ok(Verdict::Pass)
    }
}

/// Changes the identification of an IPv4 fragment from `sender` that has got another source address: packets of two senders that are told
/// apart by nothing else would be put together from parts of both (RFC 6864, section 4.1). That of IPv6 is long enough.
#[inline(always)]
pub fn tell_apart<P: Packet, T: Tables>(packet: &mut P, tables: &T, sender: Address4) {
    let Some(ip) = packet.at_mut::<Ipv4Hdr>(L3) else { return };
    // What was encapsulated has a header of another family, perhaps.
    if ip.length().is_none() || ip.source() == sender || ip.fragment() == Fragment::Whole {
        return;
    }
    let salt = (hash::nh(&tables.config().place_key, sender.words(), 0) >> 48) as u16;
    let (old, new) = (u16::from_ne_bytes(ip.id), u16::from_ne_bytes(ip.id) ^ salt);
    ip.id = new.to_ne_bytes();
    ip.check = Change::default().word(old, new).apply(ip.check);
}

#[inline(always)]
fn recall<I: Ip, T: Tables>(tables: &T, source: I::Address, destination: I::Address, walk: &Walk) -> Option<Note> {
    let tag = tag::<I, T>(tables, source, destination, walk);
    let slot = slot(tables, tag)?;
    let note = Note(tables.load(&slot.note));
    let recent = Ticks::from_ns(tables.now_ns()).since(note.seen()) <= PATIENCE;
    (tables.load(&slot.tag) == tag && note.0 & Note::VALID != 0 && recent).then_some(note)
}

#[inline(always)]
fn slot<T: Tables>(tables: &T, tag: u64) -> Option<&FragmentSlot> {
    tables.fragment((tag >> 32) as u32 & tables.config().fragment_mask)
}

#[inline(always)]
fn tag<I: Ip, T: Tables>(tables: &T, source: I::Address, destination: I::Address, walk: &Walk) -> u64 {
    let config = tables.config();
    // With IPv6 no part of what tells packets apart (RFC 8200, section 4.5): it is that of the next header, whatever that is.
    let protocol = if I::FAMILY == 4 { u32::from(walk.protocol) } else { 0 };
    hash::nh(&config.flow_key, source.words(), walk.id) ^ hash::nh(&config.tag_key, destination.words(), protocol)
}
