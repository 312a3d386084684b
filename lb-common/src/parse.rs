//! From bytes to a datagram: what the pipeline needs to know of a TCP or UDP packet.

use network_types::{eth::EthHdr, tcp::TcpHdr, udp::UdpHdr};

use crate::{
    header::Ports,
    ip::{Ip, L3, TCP, UDP},
    packet::Packet,
    wire::{Address as _, Be16},
};

/// A TCP segment or UDP datagram, its addresses of the family of `I`.
#[derive(Clone, Copy, Debug)]
pub struct Datagram<I: Ip> {
    /// Offset of the TCP or UDP header in the frame.
    pub l4: usize,
    /// TCP or UDP.
    pub protocol: u8,
    /// Source address.
    pub source: I::Address,
    /// Destination address.
    pub destination: I::Address,
    /// Source port.
    pub source_port: Be16,
    /// Destination port.
    pub destination_port: Be16,
    /// Control bits; none for UDP.
    pub flags: Flags,
    /// Time to live or hop limit.
    pub hop_limit: u8,
    /// Bytes of the IP packet, as its header says.
    pub length: u16,
}

impl<I: Ip> Datagram<I> {
    /// Bytes for the counters: the packet and an Ethernet header, padding not counted.
    #[inline(always)]
    pub fn bytes(&self) -> u64 {
        u64::from(self.length) + L3 as u64
    }

    /// Whether it may begin a flow.
    #[inline(always)]
    pub fn opens(&self) -> bool {
        self.protocol == UDP || self.flags.opens()
    }
}

/// The TCP control bits (RFC 9293, section 3.1).
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(pub u8);

impl Flags {
    const FIN: u8 = 0x01;
    const SYN: u8 = 0x02;
    const RST: u8 = 0x04;
    const ACK: u8 = 0x10;

    /// Those of a RST.
    pub const RESET: Self = Self(Self::RST);

    /// Those of a header.
    #[inline(always)]
    pub fn of(header: &TcpHdr) -> Self {
        let bit = |index, mask| if header._bitfield_1.get_bit(index) { mask } else { 0 };
        Self(bit(8, Self::FIN) | bit(9, Self::SYN) | bit(10, Self::RST) | bit(12, Self::ACK))
    }

    /// No more data from the sender.
    #[inline(always)]
    pub const fn fin(self) -> bool {
        self.0 & Self::FIN != 0
    }

    /// Synchronise sequence numbers.
    #[inline(always)]
    pub const fn syn(self) -> bool {
        self.0 & Self::SYN != 0
    }

    /// Reset the connection.
    #[inline(always)]
    pub const fn rst(self) -> bool {
        self.0 & Self::RST != 0
    }

    /// The acknowledgment field is significant.
    #[inline(always)]
    pub const fn ack(self) -> bool {
        self.0 & Self::ACK != 0
    }

    /// Whether the segment may begin or end something.
    #[inline(always)]
    pub const fn begin_or_end(self) -> bool {
        self.0 & (Self::SYN | Self::RST | Self::FIN) != 0
    }

    /// Whether the segment asks for a connection.
    #[inline(always)]
    pub const fn opens(self) -> bool {
        self.0 & (Self::SYN | Self::ACK | Self::RST | Self::FIN) == Self::SYN
    }
}

/// What follows an Ethernet header.
#[derive(Clone, Copy, Debug)]
pub enum Parsed {
    /// A whole datagram of this protocol right behind the IP header.
    Datagram(u8),
    /// A fragment, ICMP, options or an extension header: the rare path looks closer.
    Rare,
    /// Nothing that could be for a service, broken headers included.
    Other,
}

/// Looks at an IP packet of the family of `I`.
#[inline(always)]
pub fn packet<I: Ip>(packet: &impl Packet) -> Parsed {
    let Some(ip) = packet.at::<I>(L3) else { return Parsed::Other };
    let protocol = ip.protocol();
    let is_transport = protocol == TCP || protocol == UDP;
    if is_transport && ip.is_plain() {
        return Parsed::Datagram(protocol);
    }
    if ip.length().is_some() && (is_transport || I::is_rare(protocol)) { Parsed::Rare } else { Parsed::Other }
}

/// Whether a frame is a broadcast or multicast. What is balanced would be balanced by each front node that hears it.
#[inline(always)]
pub fn is_to_many(packet: &impl Packet) -> bool {
    packet.at::<EthHdr>(0).is_some_and(|eth| eth.dst_addr[0] & 1 != 0)
}

/// Whether a packet's source address is nobody's, so that there is nobody to be answered (RFC 1122, section 3.2.1.3; RFC 4291, section 2.7).
#[inline(always)]
pub fn is_from_nobody<I: Ip>(packet: &impl Packet) -> bool {
    packet.at::<I>(L3).is_some_and(|ip| ip.source().is_nobody())
}

/// Whom the TCP segment or UDP datagram at `l4` is for.
#[inline(always)]
pub fn destination<I: Ip>(packet: &impl Packet, l4: usize) -> Option<(I::Address, Be16)> {
    Some((packet.at::<I>(L3)?.destination(), Be16::from_bytes(packet.at::<Ports>(l4)?.destination)))
}

/// The datagram whose TCP or UDP header is at `l4`.
#[inline(always)]
pub fn datagram<I: Ip>(packet: &impl Packet, l4: usize, protocol: u8) -> Option<Datagram<I>> {
    let ip = packet.at::<I>(L3)?;
    let (source, destination, hop_limit, length) = (ip.source(), ip.destination(), ip.hop_limit(), ip.total_length());
    let (flags, header) = if protocol == TCP {
        (Flags::of(packet.at::<TcpHdr>(l4)?), size_of::<TcpHdr>())
    } else {
        packet.at::<UdpHdr>(l4)?;
        (Flags::default(), size_of::<UdpHdr>())
    };
    // What is behind the packet is padding, though it may look like a header.
    if L3 + usize::from(length) < l4 + header {
        return None;
    }
    let ports = packet.at::<Ports>(l4)?;
    Some(Datagram {
        l4,
        protocol,
        source,
        destination,
        source_port: Be16::from_bytes(ports.source),
        destination_port: Be16::from_bytes(ports.destination),
        flags,
        hop_limit,
        length,
    })
}
