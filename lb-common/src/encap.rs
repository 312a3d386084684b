//! Encapsulation: the client's packet, whole, inside one to the backend, which answers the client directly.
//!
//! The outer header has the class of the inner one, so that the network on the way treats and marks the packet as its own (RFC 2983,
//! RFC 6040).
//!
//! IP in IP (RFC 2003, RFC 2473, RFC 4213), or GUE variant 1 (draft-ietf-intarea-gue-09, section 4): the same behind a UDP
//! header, so that routers and network cards spread the flows.

use network_types::{
    eth::EthHdr,
    ip::{Ipv4Hdr, Ipv6Hdr},
    udp::UdpHdr,
};

use crate::{
    ecn,
    header::Byte,
    ip::{Fragment, IPV4, IPV6, Ip, L3, UDP},
    layout::{Backend, Service, backend_flags, forward},
    packet::Packet,
    rewrite,
    verdict::{DropReason, Verdict},
    wire::{Address, Be16},
};

/// The port of GUE (IANA).
pub const GUE_PORT: Be16 = Be16::new(6080);

/// Bytes that the way to a backend adds to a packet.
#[inline(always)]
pub fn overhead(service: &Service, backend: &Backend) -> u16 {
    match service.forward {
        forward::IPIP => added(backend, false),
        forward::GUE => added(backend, true),
        _ => 0,
    }
}

/// The largest packet that gets to a backend with so much overhead, where one of so many bytes does not.
#[inline(always)]
pub fn exceeded(backend: &Backend, overhead: u16, length: u16) -> Option<u16> {
    let through = backend.mtu.wrapping_sub(overhead);
    (overhead != 0 && backend.mtu != 0 && length > through).then_some(through)
}

/// Bytes that the encapsulation towards a backend adds.
#[inline(always)]
fn added(backend: &Backend, gue: bool) -> u16 {
    let ip = if backend.flags & backend_flags::IPV6 == 0 { size_of::<Ipv4Hdr>() } else { size_of::<Ipv6Hdr>() };
    (if gue { ip + size_of::<UdpHdr>() } else { ip }) as u16
}

/// Sends a client's packet to its backend by a mode with direct return. `entropy` spreads the flows of GUE over source
/// ports.
#[inline(always)]
pub fn direct<I: Ip, P: Packet>(
    packet: &mut P,
    mode: u8,
    backend: &Backend,
    entropy: u32,
) -> Result<Verdict, DropReason> {
    match mode {
        forward::L2 => rewrite::leave(packet, backend.path),
        mode => encapsulate::<I, P>(packet, backend, mode == forward::GUE, entropy),
    }
}

#[inline(always)]
fn encapsulate<I: Ip, P: Packet>(
    packet: &mut P,
    backend: &Backend,
    gue: bool,
    entropy: u32,
) -> Result<Verdict, DropReason> {
    let protocol = if gue { UDP } else { I::ENCAPSULATED };
    let ip = packet.at_mut::<I>(L3).ok_or(DropReason::Internal)?;
    let (inner, hops, class) = (ip.total_length(), ip.hop_limit(), ip.class());
    let payload = if gue { inner.wrapping_add(size_of::<UdpHdr>() as u16) } else { inner };
    ip.set_hop_limit(hops.wrapping_sub(1));
    if !packet.adjust_head(-i32::from(added(backend, gue))) {
        return Err(DropReason::Internal);
    }
    let l4 = if backend.flags & backend_flags::IPV6 == 0 {
        push::<Ipv4Hdr, P>(packet, backend, class, payload, protocol)
    } else {
        push::<Ipv6Hdr, P>(packet, backend, class, payload, protocol)
    };
    let l4 = l4.ok_or(DropReason::Internal)?;
    if gue {
        let udp = packet.at_mut::<UdpHdr>(l4).ok_or(DropReason::Internal)?;
        *udp = UdpHdr {
            src: Be16::new(0xc000 | entropy as u16 & 0x3fff).to_bytes(),
            dst: GUE_PORT.to_bytes(),
            len: Be16::new(payload).to_bytes(),
            // Allowed for tunnels over IPv6 too (RFC 6935): what is inside has its own.
            check: [0, 0],
        };
    }
    rewrite::leave(packet, backend.path)
}

/// Writes Ethernet type and outer header; the offset of what is behind them.
#[inline(always)]
fn push<O: Ip, P: Packet>(packet: &mut P, backend: &Backend, class: u8, payload: u16, protocol: u8) -> Option<usize> {
    packet.at_mut::<EthHdr>(0)?.ether_type = O::ETHER_TYPE.raw();
    let source = O::Address::from_words(backend.source);
    let destination = O::Address::from_words(backend.address);
    packet.at_mut::<O>(L3)?.start(source, destination, class, payload, protocol);
    Some(L3 + size_of::<O>())
}

/// Takes the outer headers of a packet from a balancer off; false where it is not one. For backends.
#[inline(always)]
pub fn decapsulate<P: Packet>(packet: &mut P) -> Option<bool> {
    let eth = *packet.at::<EthHdr>(0)?;
    let (mut l4, mut protocol, class) = match Be16::from_raw(eth.ether_type) {
        Ipv4Hdr::ETHER_TYPE => outer::<Ipv4Hdr, P>(packet)?,
        Ipv6Hdr::ETHER_TYPE => outer::<Ipv6Hdr, P>(packet)?,
        _ => return Some(false),
    };
    if protocol == UDP {
        let udp = packet.at::<UdpHdr>(l4)?;
        if Be16::from_bytes(udp.dst) != GUE_PORT {
            return Some(false);
        }
        l4 += size_of::<UdpHdr>();
        protocol = match packet.at::<Byte>(l4)?.0 >> 4 {
            4 => IPV4,
            6 => IPV6,
            _ => return Some(false),
        };
    }
    let (ether_type, is_marked) = match protocol {
        IPV4 => (Ipv4Hdr::ETHER_TYPE, mark::<Ipv4Hdr, P>(packet, l4, class)?),
        IPV6 => (Ipv6Hdr::ETHER_TYPE, mark::<Ipv6Hdr, P>(packet, l4, class)?),
        _ => return Some(false),
    };
    if !is_marked || !packet.adjust_head((l4 - L3) as i32) {
        return Some(false);
    }
    *packet.at_mut::<EthHdr>(0)? = EthHdr { ether_type: ether_type.raw(), ..eth };
    Some(true)
}

/// Offset and protocol of what is in a packet that is not a fragment, and the packet's class.
#[inline(always)]
fn outer<I: Ip, P: Packet>(packet: &P) -> Option<(usize, u8, u8)> {
    let ip = packet.at::<I>(L3)?;
    (ip.fragment() == Fragment::Whole).then_some((L3 + ip.length()?, ip.protocol(), ip.class()))
}

/// Marks the packet inside one of a class with the congestion that that one met; false where it may not be told of it.
#[inline(always)]
fn mark<I: Ip, P: Packet>(packet: &mut P, inner: usize, class: u8) -> Option<bool> {
    let ip = packet.at_mut::<I>(inner)?;
    let Some(marked) = ecn::decapsulated(class, ip.class()) else { return Some(false) };
    if marked != ip.class() {
        ip.set_class(marked);
    }
    Some(true)
}
