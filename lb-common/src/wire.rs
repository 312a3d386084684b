//! Integers as they stand on the wire: big-endian, compared as they are, read as host integers by `get` alone.

use bytemuck::{Pod, Zeroable};

/// A 16-bit field: a port, a length.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct Be16(u16);

impl Be16 {
    /// From a host integer.
    #[inline(always)]
    pub const fn new(host: u16) -> Self {
        Self(host.to_be())
    }

    /// From the bytes of a header.
    #[inline(always)]
    pub const fn from_bytes(bytes: [u8; 2]) -> Self {
        Self(u16::from_ne_bytes(bytes))
    }

    /// The host integer.
    #[inline(always)]
    pub const fn get(self) -> u16 {
        u16::from_be(self.0)
    }

    /// The bytes for a header.
    #[inline(always)]
    pub const fn to_bytes(self) -> [u8; 2] {
        self.0.to_ne_bytes()
    }

    /// As it lies in memory: for hashes, keys and checksums, which do not care what it means.
    #[inline(always)]
    pub const fn raw(self) -> u16 {
        self.0
    }

    /// Back from [`raw`](Self::raw).
    #[inline(always)]
    pub const fn from_raw(raw: u16) -> Self {
        Self(raw)
    }
}

/// An IP address in map values: sixteen bytes in wire order, an IPv4 address in the first four and zero in the others.
///
/// Words of 64 bits, so that they are aligned on the stack, where the verifier insists on it.
pub type AddressWords = [u64; 2];

/// The address of one family.
pub trait Address: Copy + Eq + core::fmt::Debug {
    /// As map values hold it.
    fn words(self) -> AddressWords;
    /// Back from [`words`](Self::words).
    fn from_words(words: AddressWords) -> Self;
    /// Whether nobody has it for himself, or nobody beyond his own machine: unspecified, loopback, multicast, broadcast.
    fn is_nobody(self) -> bool;
    /// Sum of its 32-bit words, as a checksum's operand.
    fn sum(self) -> u64;
    /// Sum of the complements of its 32-bit words, to take it out of a checksum.
    fn complement_sum(self) -> u64;
}

/// An IPv4 address: one word in wire order.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address4(pub u32);

impl Address for Address4 {
    #[inline(always)]
    fn words(self) -> AddressWords {
        [u64::from(self.0), 0]
    }

    #[inline(always)]
    fn from_words(words: AddressWords) -> Self {
        Self(words[0] as u32)
    }

    #[inline(always)]
    fn is_nobody(self) -> bool {
        matches!(self.0.to_ne_bytes()[0], 0 | 127 | 224..=239 | 255)
    }

    #[inline(always)]
    fn sum(self) -> u64 {
        u64::from(self.0)
    }

    #[inline(always)]
    fn complement_sum(self) -> u64 {
        u64::from(!self.0)
    }
}

/// An IPv6 address: two words in wire order.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address6(pub [u64; 2]);

impl Address for Address6 {
    #[inline(always)]
    fn words(self) -> AddressWords {
        self.0
    }

    #[inline(always)]
    fn from_words(words: AddressWords) -> Self {
        Self(words)
    }

    #[inline(always)]
    fn is_nobody(self) -> bool {
        let [a, b] = self.0;
        a.to_ne_bytes()[0] == 0xff || a == 0 && u64::from_be(b) <= 1
    }

    #[inline(always)]
    fn sum(self) -> u64 {
        let [a, b] = self.0;
        halves(a) + halves(b)
    }

    #[inline(always)]
    fn complement_sum(self) -> u64 {
        let [a, b] = self.0;
        halves(!a) + halves(!b)
    }
}

#[inline(always)]
fn halves(word: u64) -> u64 {
    (word >> 32) + (word & 0xffff_ffff)
}
