//! The two IP headers behind one trait, for what the pipeline wants of them.

use core::mem::offset_of;

use network_types::{
    eth::EthHdr,
    ip::{Ipv4Hdr, Ipv6Hdr},
};

use crate::{
    checksum::Change,
    header::Header,
    wire::{Address, Address4, Address6, Be16},
};

/// Offset of the IP header in an untagged frame.
pub const L3: usize = size_of::<EthHdr>();

/// IP protocol number of TCP.
pub const TCP: u8 = 6;

/// An IP header.
pub trait Ip: Header {
    /// An address of this family.
    type Address: Address;
    /// The Ethernet type of packets with this header.
    const ETHER_TYPE: Be16;
    /// 4 or 6.
    const FAMILY: u8;

    /// Offset in the frame of what follows the header; none where the header contradicts itself.
    fn l4(&self) -> Option<usize>;
    /// Protocol number of what follows the header.
    fn protocol(&self) -> u8;
    /// Whether this is a fragment, and if so whether the first.
    fn fragment(&self) -> Fragment;
    /// Source address.
    fn source(&self) -> Self::Address;
    /// Destination address.
    fn destination(&self) -> Self::Address;
    /// Time to live or hop limit.
    fn hop_limit(&self) -> u8;
    /// Sets both addresses, takes one hop off the limit, and mends the header checksum. `change` is that of the addresses.
    fn forward(&mut self, source: Self::Address, destination: Self::Address, change: Change);
}

/// A packet's place among the fragments of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragment {
    /// Not fragmented.
    Whole,
    /// The first: the transport header is in it.
    First,
    /// A later one: the transport header is not in it.
    Later,
}

impl Ip for Ipv4Hdr {
    type Address = Address4;
    const ETHER_TYPE: Be16 = Be16::new(0x0800);
    const FAMILY: u8 = 4;

    #[inline(always)]
    fn l4(&self) -> Option<usize> {
        let length = usize::from(self.vihl & 0x0f) * 4;
        (self.vihl >> 4 == Self::FAMILY && length >= size_of::<Self>()).then_some(L3 + length)
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

    #[inline(always)]
    fn l4(&self) -> Option<usize> {
        (self.vcf[0] >> 4 == Self::FAMILY).then_some(L3 + size_of::<Self>())
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
    fn forward(&mut self, source: Address6, destination: Address6, _: Change) {
        self.hop_limit = self.hop_limit.wrapping_sub(1);
        self.src_addr = bytemuck::cast(source.0);
        self.dst_addr = bytemuck::cast(destination.0);
    }
}

#[inline(always)]
fn words(bytes: [u8; 16]) -> [u32; 4] {
    bytemuck::cast(bytes)
}
