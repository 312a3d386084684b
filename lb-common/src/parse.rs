//! From bytes to a segment: what the pipeline needs to know of a TCP packet.

use network_types::tcp::TcpHdr;

use crate::{
    ip::{self, Fragment, Ip, L3},
    packet::Packet,
    wire::Be16,
};

/// A TCP segment, its addresses of the family of `I`.
#[derive(Clone, Copy, Debug)]
pub struct Segment<I: Ip> {
    /// Offset of the TCP header in the frame.
    pub l4: usize,
    /// Source address.
    pub source: I::Address,
    /// Destination address.
    pub destination: I::Address,
    /// Source port.
    pub source_port: Be16,
    /// Destination port.
    pub destination_port: Be16,
    /// Control bits.
    pub flags: Flags,
    /// Time to live or hop limit.
    pub hop_limit: u8,
    /// Whether more fragments follow.
    pub fragmented: bool,
}

/// The TCP control bits that matter to a balancer (RFC 9293, section 3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// No more data from the sender.
    pub fin: bool,
    /// Synchronise sequence numbers.
    pub syn: bool,
    /// Reset the connection.
    pub rst: bool,
    /// The acknowledgment field is significant.
    pub ack: bool,
}

impl Flags {
    /// Whether the segment asks for a connection.
    #[inline(always)]
    pub fn opens(self) -> bool {
        self.syn && !self.ack && !self.rst && !self.fin
    }
}

/// The TCP segment in a frame whose Ethernet type is that of `I`; none for everything else, broken headers included.
#[inline(always)]
pub fn tcp<I: Ip>(packet: &impl Packet) -> Option<Segment<I>> {
    let ip = packet.at::<I>(L3)?;
    let l4 = ip.l4()?;
    let fragment = ip.fragment();
    if ip.protocol() != ip::TCP || fragment == Fragment::Later {
        return None;
    }
    let (source, destination, hop_limit) = (ip.source(), ip.destination(), ip.hop_limit());
    let tcp = packet.at::<TcpHdr>(l4)?;
    let bits = tcp._bitfield_1;
    Some(Segment {
        l4,
        source,
        destination,
        source_port: Be16::from_bytes(tcp.source),
        destination_port: Be16::from_bytes(tcp.dest),
        flags: Flags { fin: bits.get_bit(8), syn: bits.get_bit(9), rst: bits.get_bit(10), ack: bits.get_bit(12) },
        hop_limit,
        fragmented: fragment == Fragment::First,
    })
}
