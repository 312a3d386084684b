//! The two IP headers behind one trait, for what the pipeline wants of them.

use core::mem::offset_of;

use network_types::{
    eth::EthHdr,
    ip::{Ipv4Hdr, Ipv6Hdr},
};

use crate::{
    checksum::{Change, fold},
    header::{Byte, Extension, FragmentHeader, Header},
    packet::Packet,
    wire::{Address, Address4, Address6, Be16},
};

/// Offset of the IP header in an untagged frame.
pub const L3: usize = size_of::<EthHdr>();

/// IP protocol numbers.
pub const TCP: u8 = 6;
/// IP protocol number of UDP.
pub const UDP: u8 = 17;
/// IP protocol number of IPv4 in IP.
pub const IPV4: u8 = 4;
/// IP protocol number of IPv6 in IP.
pub const IPV6: u8 = 41;

/// Hop limit of headers that start here (RFC 1700).
pub const HOPS: u8 = 64;
/// Class of packets that are nothing special, which know nothing of congestion notification.
pub const BEST_EFFORT: u8 = 0;

/// An IP header.
pub trait Ip: Header {
    /// An address of this family.
    type Address: Address;
    /// The Ethernet type of packets with this header.
    const ETHER_TYPE: Be16;
    /// 4 or 6.
    const FAMILY: u8;
    /// Protocol number of this header inside another.
    const ENCAPSULATED: u8;
    /// Protocol number of this family's ICMP.
    const ICMP: u8;

    /// Whether the rare path looks at what follows the header.
    fn is_rare(protocol: u8) -> bool;
    /// Finds what is behind the header and its extensions; none where they contradict themselves or do not end.
    fn walk(packet: &impl Packet) -> Option<Walk>;

    /// Length of the header, IPv4 options included; none where the header contradicts itself.
    fn length(&self) -> Option<usize>;
    /// Protocol number of what follows the header.
    fn protocol(&self) -> u8;
    /// Whether this is a fragment, and if so whether the first.
    fn fragment(&self) -> Fragment;
    /// Whether it is of this family, has no options, and is no fragment.
    fn is_plain(&self) -> bool;
    /// Source address.
    fn source(&self) -> Self::Address;
    /// Destination address.
    fn destination(&self) -> Self::Address;
    /// Time to live or hop limit.
    fn hop_limit(&self) -> u8;
    /// Differentiated services and congestion notification (RFC 2474, RFC 3168).
    fn class(&self) -> u8;
    /// Sum of the header's words, options apart, as a checksum's operand.
    fn sum(&self) -> u64;
    /// Bytes of header and payload.
    fn total_length(&self) -> u16;
    /// Writes a header without options, for `payload` bytes of a class that start here.
    fn start(&mut self, source: Self::Address, destination: Self::Address, class: u8, payload: u16, protocol: u8);
    /// Sets the class, header checksum included.
    fn set_class(&mut self, class: u8);
    /// Sets time to live or hop limit, header checksum included.
    fn set_hop_limit(&mut self, hops: u8);
    /// Sets both addresses, takes one hop off the limit, and mends the header checksum. `change` is that of the addresses.
    fn forward(&mut self, source: Self::Address, destination: Self::Address, change: Change);
}

/// What is behind an IP header and its extensions.
#[derive(Clone, Copy, Debug)]
pub struct Walk {
    /// Offset in the frame of the transport header.
    pub l4: usize,
    /// Its protocol.
    pub protocol: u8,
    /// Whether this is a fragment.
    pub fragment: Fragment,
    /// The identification that a packet's fragments share.
    pub id: u32,
}

impl Walk {
    /// In one word, which is not zero.
    #[inline(always)]
    pub const fn to_word(self) -> u64 {
        (self.id as u64) << 32 | (self.l4 as u64) << 16 | (self.protocol as u64) << 8 | self.fragment as u64
    }

    /// Back from [`to_word`](Self::to_word); none from zero.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Option<Self> {
        let fragment = match word & 0xff {
            0 => return None,
            1 => Fragment::Whole,
            2 => Fragment::First,
            _ => Fragment::Later,
        };
        Some(Self {
            l4: (word >> 16) as usize & 0xffff,
            protocol: (word >> 8) as u8,
            fragment,
            id: (word >> 32) as u32,
        })
    }
}

/// A packet's place among the fragments of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragment {
    /// Not fragmented.
    Whole = 1,
    /// The first: the transport header is in it.
    First,
    /// A later one: the transport header is not in it.
    Later,
}

/// Version and length of an IPv4 header without options.
const PLAIN: u8 = 0x45;

impl Ip for Ipv4Hdr {
    type Address = Address4;
    const ETHER_TYPE: Be16 = Be16::new(0x0800);
    const FAMILY: u8 = 4;
    const ENCAPSULATED: u8 = IPV4;
    const ICMP: u8 = 1;

    #[inline(always)]
    fn is_rare(protocol: u8) -> bool {
        protocol == Self::ICMP
    }

    #[inline(always)]
    fn walk(packet: &impl Packet) -> Option<Walk> {
        let ip = packet.at::<Self>(L3)?;
        let id = u32::from(u16::from_ne_bytes(ip.id));
        let walk = Walk { l4: L3 + ip.length()?, protocol: ip.proto, fragment: ip.fragment(), id };
        packet.at::<Byte>(walk.l4 - 1)?;
        Some(walk)
    }

    #[inline(always)]
    fn length(&self) -> Option<usize> {
        let length = usize::from(self.vihl & 0x0f) * 4;
        (self.vihl >> 4 == Self::FAMILY && length >= size_of::<Self>()).then_some(length)
    }

    #[inline(always)]
    fn protocol(&self) -> u8 {
        self.proto
    }

    #[inline(always)]
    fn fragment(&self) -> Fragment {
        const MORE: u16 = Be16::new(0x2000).raw();
        const OFFSET: u16 = Be16::new(0x1fff).raw();
        match u16::from_ne_bytes(self.frags) & (MORE | OFFSET) {
            0 => Fragment::Whole,
            MORE => Fragment::First,
            _ => Fragment::Later,
        }
    }

    #[inline(always)]
    fn is_plain(&self) -> bool {
        self.vihl == PLAIN && self.fragment() == Fragment::Whole
    }

    #[inline(always)]
    fn source(&self) -> Address4 {
        Address4(u32::from_ne_bytes(self.src_addr))
    }

    #[inline(always)]
    fn destination(&self) -> Address4 {
        Address4(u32::from_ne_bytes(self.dst_addr))
    }

    #[inline(always)]
    fn hop_limit(&self) -> u8 {
        self.ttl
    }

    #[inline(always)]
    fn class(&self) -> u8 {
        self.tos
    }

    #[inline(always)]
    fn sum(&self) -> u64 {
        let first = u16::from_ne_bytes([self.vihl, self.tos]);
        let hops = u16::from_ne_bytes([self.ttl, self.proto]);
        let [length, id, frags, check] = [self.tot_len, self.id, self.frags, self.check].map(u16::from_ne_bytes);
        let [a, b, c, d] = [first, length, id, frags].map(u64::from);
        a + b + c + d + u64::from(hops) + u64::from(check) + self.source().sum() + self.destination().sum()
    }

    #[inline(always)]
    fn total_length(&self) -> u16 {
        u16::from_be_bytes(self.tot_len)
    }

    #[inline(always)]
    fn start(&mut self, source: Address4, destination: Address4, class: u8, payload: u16, protocol: u8) {
        let length = Be16::new(payload.wrapping_add(size_of::<Self>() as u16));
        let dont_fragment = Be16::new(0x4000);
        let first = u16::from_ne_bytes([PLAIN, class]);
        let hops_protocol = u16::from_ne_bytes([HOPS, protocol]);
        let words = [first, length.raw(), dont_fragment.raw(), hops_protocol];
        let [a, b, c, d] = words.map(u64::from);
        *self = Self {
            vihl: PLAIN,
            tos: class,
            tot_len: length.to_bytes(),
            id: [0, 0],
            frags: dont_fragment.to_bytes(),
            ttl: HOPS,
            proto: protocol,
            check: (!fold(a + b + c + d + source.sum() + destination.sum())).to_ne_bytes(),
            src_addr: source.0.to_ne_bytes(),
            dst_addr: destination.0.to_ne_bytes(),
        };
    }

    #[inline(always)]
    fn set_class(&mut self, class: u8) {
        let [before, after] = [self.tos, class].map(|class| u16::from_ne_bytes([self.vihl, class]));
        self.tos = class;
        self.check = Change::default().word(before, after).apply(self.check);
    }

    #[inline(always)]
    fn set_hop_limit(&mut self, hops: u8) {
        let before = u16::from_ne_bytes([self.ttl, self.proto]);
        self.ttl = hops;
        self.check = Change::default().word(before, u16::from_ne_bytes([self.ttl, self.proto])).apply(self.check);
    }

    #[inline(always)]
    fn forward(&mut self, source: Address4, destination: Address4, change: Change) {
        let before = u16::from_ne_bytes([self.ttl, self.proto]);
        self.ttl = self.ttl.wrapping_sub(1);
        let change = change.word(before, u16::from_ne_bytes([self.ttl, self.proto]));
        self.check = change.apply(self.check);
        self.src_addr = source.0.to_ne_bytes();
        self.dst_addr = destination.0.to_ne_bytes();
    }
}

// The TTL and the protocol are one 16-bit word of the checksum, the TTL first.
const _: () = assert!(offset_of!(Ipv4Hdr, ttl) == 8 && offset_of!(Ipv4Hdr, proto) == 9);

impl Ip for Ipv6Hdr {
    type Address = Address6;
    const ETHER_TYPE: Be16 = Be16::new(0x86dd);
    const FAMILY: u8 = 6;
    const ENCAPSULATED: u8 = IPV6;
    const ICMP: u8 = 58;

    #[inline(always)]
    fn is_rare(protocol: u8) -> bool {
        protocol == Self::ICMP || extension(protocol) || protocol == FRAGMENT
    }

    #[inline(always)]
    fn walk(packet: &impl Packet) -> Option<Walk> {
        let mut walk = Walk {
            l4: L3 + size_of::<Self>(),
            protocol: packet.at::<Self>(L3)?.next_hdr,
            fragment: Fragment::Whole,
            id: 0,
        };
        for _ in 0..MAX_EXTENSIONS {
            if walk.protocol == FRAGMENT {
                let header = packet.at::<FragmentHeader>(walk.l4)?;
                let offset = u16::from_be_bytes(header.offset);
                walk.protocol = header.next;
                walk.fragment = match (offset >> 3, offset & 1) {
                    // An atomic fragment (RFC 6946): whole, for all its header.
                    (0, 0) => Fragment::Whole,
                    (0, _) => Fragment::First,
                    _ => Fragment::Later,
                };
                walk.id = u32::from_ne_bytes(header.id);
                walk.l4 += size_of::<FragmentHeader>();
                if walk.fragment == Fragment::Later {
                    return Some(walk);
                }
            } else if extension(walk.protocol) {
                let header = packet.at::<Extension>(walk.l4)?;
                walk.protocol = header.next;
                walk.l4 += (usize::from(header.length) + 1) * 8;
                // A bound for the verifier, and for what can be in a frame's headers.
                if walk.l4 > MAX_L4 {
                    return None;
                }
            } else {
                return Some(walk);
            }
        }
        None
    }

    #[inline(always)]
    fn length(&self) -> Option<usize> {
        (self.vcf[0] >> 4 == Self::FAMILY).then_some(size_of::<Self>())
    }

    #[inline(always)]
    fn protocol(&self) -> u8 {
        self.next_hdr
    }

    #[inline(always)]
    fn fragment(&self) -> Fragment {
        Fragment::Whole
    }

    #[inline(always)]
    fn is_plain(&self) -> bool {
        self.length().is_some()
    }

    #[inline(always)]
    fn source(&self) -> Address6 {
        Address6(words(self.src_addr))
    }

    #[inline(always)]
    fn destination(&self) -> Address6 {
        Address6(words(self.dst_addr))
    }

    #[inline(always)]
    fn hop_limit(&self) -> u8 {
        self.hop_limit
    }

    #[inline(always)]
    fn class(&self) -> u8 {
        self.vcf[0] << 4 | self.vcf[1] >> 4
    }

    #[inline(always)]
    fn sum(&self) -> u64 {
        let hops = u16::from_ne_bytes([self.next_hdr, self.hop_limit]);
        let first = u64::from(u32::from_ne_bytes(self.vcf));
        let length = u64::from(u16::from_ne_bytes(self.payload_len));
        first + length + u64::from(hops) + self.source().sum() + self.destination().sum()
    }

    #[inline(always)]
    fn total_length(&self) -> u16 {
        u16::from_be_bytes(self.payload_len).wrapping_add(size_of::<Self>() as u16)
    }

    #[inline(always)]
    fn start(&mut self, source: Address6, destination: Address6, class: u8, payload: u16, protocol: u8) {
        *self = Self {
            vcf: [0x60 | class >> 4, class << 4, 0, 0],
            payload_len: Be16::new(payload).to_bytes(),
            next_hdr: protocol,
            hop_limit: HOPS,
            src_addr: bytemuck::cast(source.0),
            dst_addr: bytemuck::cast(destination.0),
        };
    }

    #[inline(always)]
    fn set_class(&mut self, class: u8) {
        let [_, label, ..] = self.vcf;
        (self.vcf[0], self.vcf[1]) = (Self::FAMILY << 4 | class >> 4, class << 4 | label & 0x0f);
    }

    #[inline(always)]
    fn set_hop_limit(&mut self, hops: u8) {
        self.hop_limit = hops;
    }

    #[inline(always)]
    fn forward(&mut self, source: Address6, destination: Address6, _: Change) {
        self.hop_limit = self.hop_limit.wrapping_sub(1);
        self.src_addr = bytemuck::cast(source.0);
        self.dst_addr = bytemuck::cast(destination.0);
    }
}

/// Next-header number of the fragment header.
pub const FRAGMENT: u8 = 44;
/// Extension headers that are followed, as many as Katran and Linux's own flow dissector care for, and some.
const MAX_EXTENSIONS: usize = 6;
/// How far from the start of the frame a transport header may be.
const MAX_L4: usize = 1024;

/// Whether it is an extension header that says its own length: hop-by-hop options, routing, destination options.
#[inline(always)]
fn extension(protocol: u8) -> bool {
    matches!(protocol, 0 | 43 | 60)
}

#[inline(always)]
fn words(bytes: [u8; 16]) -> [u64; 2] {
    bytemuck::cast(bytes)
}
