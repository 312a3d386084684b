//! What most frames are spared: VLAN tags, IPv6 extension headers, fragments, ICMP.
//!
//! A program of its own, so that the common path is small: the entry point calls it where [`pipeline::process`] says
//! [`Verdict::Rare`].

use network_types::{
    eth::EthHdr,
    ip::{Ipv4Hdr, Ipv6Hdr},
};

use crate::{
    fragment, http, icmp,
    ip::{Fragment, Ip, L3, TCP, UDP, Walk},
    mss, nat,
    packet::Packet,
    parse, pipeline,
    tables::Tables,
    tcp_option::{self, TcpOption},
    time_wait::{self, Mark},
    verdict::{DropReason, Verdict},
    vlan,
    wire::{Address as _, Address4, Be16},
};

/// The parts of the rare path. In the BPF program each is a function of its own for each family, which the verifier goes
/// through once, whatever led to it; on the host they are called directly.
pub trait Stages: Packet {
    /// [`Ip::walk`].
    fn walk<I: Ip>(&self) -> Option<Walk> {
        I::walk(self)
    }

    /// [`datagram`].
    fn datagram<I: Ip, T: Tables>(&mut self, tables: &T, l4: usize, protocol: u8) -> Verdict {
        datagram::<I, Self, T>(self, tables, l4, protocol)
    }

    /// [`note`].
    fn note<I: Ip, T: Tables>(&mut self, tables: &T) {
        note::<I, Self, T>(self, tables);
    }

    /// [`follow`].
    fn follow<I: Ip, T: Tables>(&mut self, tables: &T) -> Verdict {
        follow::<I, Self, T>(self, tables)
    }

    /// [`fragment::tell_apart`].
    fn tell_apart<T: Tables>(&mut self, tables: &T, sender: Address4) {
        fragment::tell_apart(self, tables, sender);
    }

    /// [`mss::clamp`], best effort.
    fn clamp_mss(&mut self, l4: usize, most: u16) {
        // A SYN without the option stays as it is: the other side then assumes 536 bytes or less anyhow.
        let _ = mss::clamp(self, l4, most);
    }

    /// [`time_wait::mark`]; none of a segment cut short.
    fn mark(&self, l4: usize, length: u16) -> Mark {
        time_wait::mark(self, l4, length).unwrap_or(Mark::NONE)
    }

    /// [`nat::expect`], of the SYN at `l4`.
    fn expect<T: Tables>(&self, tables: &T, slot: u32, l4: usize, length: u16) {
        nat::expect(tables, slot, self.mark(l4, length));
    }

    /// [`tcp_option::at`].
    fn tcp_option(&self, offset: usize) -> Option<TcpOption> {
        tcp_option::at(self, offset)
    }

    /// [`http::class`].
    fn response(&self, l4: usize, length: u16) -> Option<usize> {
        http::class(self, l4, length)
    }

    /// [`http::is_request`].
    fn is_request(&self, l4: usize, length: u16) -> bool {
        http::is_request(self, l4, length)
    }

    /// [`too_big`].
    fn too_big<I: Ip, T: Tables>(&mut self, tables: &T, l4: usize, protocol: u8, mtu: u16) -> Verdict {
        too_big::<I, Self, T>(self, tables, l4, protocol, mtu)
    }

    /// [`message`].
    fn message<I: Ip, T: Tables>(&mut self, tables: &T, l4: usize) -> Verdict {
        message::<I, Self, T>(self, tables, l4)
    }
}

/// What becomes of a frame that is not a plain one; or of any.
#[inline(always)]
pub fn process<P: Stages, T: Tables>(packet: &mut P, tables: &T) -> Verdict {
    if parse::is_to_many(packet) {
        return Verdict::Pass;
    }
    let Some(tags) = vlan::strip(packet) else { return Verdict::Pass };
    let Some(eth) = packet.at::<EthHdr>(0) else { return Verdict::Pass };
    let verdict = match Be16::from_raw(eth.ether_type) {
        Ipv4Hdr::ETHER_TYPE => balance::<Ipv4Hdr, P, T>(packet, tables),
        Ipv6Hdr::ETHER_TYPE => balance::<Ipv6Hdr, P, T>(packet, tables),
        _ => Verdict::Pass,
    };
    match vlan::restore(packet, tags) {
        Some(()) => verdict,
        None => Verdict::Drop(DropReason::Internal),
    }
}

#[inline(always)]
fn balance<I: Ip, P: Stages, T: Tables>(packet: &mut P, tables: &T) -> Verdict {
    let Some(walk) = packet.walk::<I>() else { return Verdict::Pass };
    if parse::is_from_nobody::<I>(packet) {
        return Verdict::Pass;
    }
    match (walk.protocol, walk.fragment) {
        (TCP | UDP, Fragment::Whole) => packet.datagram::<I, T>(tables, walk.l4, walk.protocol),
        (TCP | UDP, Fragment::First) => {
            packet.note::<I, T>(tables);
            apart::<I, P, T>(packet, tables, |packet| packet.datagram::<I, T>(tables, walk.l4, walk.protocol))
        }
        // Between an IPv6 fragment's header and what is carried there may be other headers.
        (protocol, Fragment::Later) if I::FAMILY == 6 || matches!(protocol, TCP | UDP) => {
            apart::<I, P, T>(packet, tables, |packet| packet.follow::<I, T>(tables))
        }
        (protocol, Fragment::Whole) if protocol == I::ICMP => packet.message::<I, T>(tables, walk.l4),
        _ => Verdict::Pass,
    }
}

/// What becomes of a fragment, which is told apart from those of others with whom it shares an address from here.
#[inline(always)]
fn apart<I: Ip, P: Stages, T: Tables>(packet: &mut P, tables: &T, stage: impl FnOnce(&mut P) -> Verdict) -> Verdict {
    let Some(sender) = packet.at::<I>(L3).map(Ip::source) else { return Verdict::Pass };
    let verdict = stage(packet);
    if I::FAMILY == 4 && matches!(verdict, Verdict::Transmit | Verdict::Redirect(_)) {
        packet.tell_apart(tables, Address4::from_words(sender.words()));
    }
    verdict
}

/// What becomes of a whole datagram.
#[inline(always)]
pub fn datagram<I: Ip, P: Stages, T: Tables>(packet: &mut P, tables: &T, l4: usize, protocol: u8) -> Verdict {
    pipeline::datagram::<pipeline::Rare, I, P, T>(packet, tables, l4, protocol)
}

/// Remembers the first fragment of a datagram.
#[inline(always)]
pub fn note<I: Ip, P: Stages, T: Tables>(packet: &mut P, tables: &T) {
    let Some(walk) = packet.walk::<I>() else { return };
    if let Some(datagram) = parse::datagram::<I>(packet, walk.l4, walk.protocol) {
        fragment::note(tables, &datagram, &walk);
    }
}

/// What becomes of a later fragment of a datagram.
#[inline(always)]
pub fn follow<I: Ip, P: Stages, T: Tables>(packet: &mut P, tables: &T) -> Verdict {
    match packet.walk::<I>() {
        Some(walk) => counted(tables, fragment::forward::<I, P, T>(packet, tables, &walk)),
        None => Verdict::Pass,
    }
}

/// What becomes of a datagram, or the first fragment of one, of which only `mtu` bytes get through.
#[inline(always)]
pub fn too_big<I: Ip, P: Packet, T: Tables>(packet: &mut P, tables: &T, l4: usize, protocol: u8, mtu: u16) -> Verdict {
    let datagram = parse::datagram::<I>(packet, l4, protocol);
    let answer = datagram.and_then(|datagram| icmp::too_big(packet, tables, &datagram, mtu));
    answer.unwrap_or(Verdict::Drop(DropReason::TooBig))
}

/// What becomes of an ICMP message.
#[inline(always)]
pub fn message<I: Ip, P: Packet, T: Tables>(packet: &mut P, tables: &T, l4: usize) -> Verdict {
    counted(tables, icmp::handle::<I, P, T>(packet, tables, l4))
}

#[inline(always)]
fn counted<T: Tables>(tables: &T, verdict: Result<Verdict, DropReason>) -> Verdict {
    match verdict {
        Ok(verdict) => verdict,
        Err(reason) => {
            pipeline::count(tables, reason);
            Verdict::Drop(reason)
        }
    }
}
