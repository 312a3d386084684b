//! Which types may be laid over the bytes of a packet.
#![expect(unsafe_code, reason = "the markers, and the one cast that they permit")]

use network_types::{
    eth::EthHdr,
    ip::{Ipv4Hdr, Ipv6Hdr},
    tcp::TcpHdr,
    udp::UdpHdr,
};

/// A header: bytes on the wire seen as a struct.
///
/// # Safety
///
/// The type has no padding, any bit pattern is a valid value of it, and its alignment is at most 2 (Ethernet puts IP at
/// offset 14 of the frame).
pub unsafe trait Header: Copy + 'static {}

// SAFETY: two byte arrays and a u16, repr(C).
unsafe impl Header for EthHdr {}
// SAFETY: bytes and byte arrays, repr(C).
unsafe impl Header for Ipv4Hdr {}
// SAFETY: bytes and byte arrays, repr(C).
unsafe impl Header for Ipv6Hdr {}
// SAFETY: byte arrays and a byte-array bit field, repr(C).
unsafe impl Header for TcpHdr {}
// SAFETY: byte arrays, repr(C).
unsafe impl Header for UdpHdr {}
// SAFETY: a byte array.
unsafe impl Header for MacPair {}
// SAFETY: two byte arrays, repr(C).
unsafe impl Header for Ports {}
// SAFETY: a byte array.
unsafe impl Header for Checksum {}
// SAFETY: bytes and byte arrays, repr(C).
unsafe impl Header for Icmp {}
// SAFETY: two bytes, repr(C).
unsafe impl Header for Extension {}
// SAFETY: bytes and byte arrays, repr(C).
unsafe impl Header for FragmentHeader {}
// SAFETY: two byte arrays, repr(C).
unsafe impl Header for VlanTag {}
// SAFETY: a byte.
unsafe impl Header for Byte {}
// SAFETY: a byte array.
unsafe impl Header for Word {}
// SAFETY: bytes and a byte array, repr(C).
unsafe impl Header for StatusLine {}
// SAFETY: a byte array.
unsafe impl Header for Method {}

// Headers of ours are aligned by two: a copy of one may come to lie on the stack, where the verifier takes no misaligned
// access ("misaligned stack access").

/// The first twelve bytes of a frame: destination and source MAC address, which `lb` always writes together.
#[repr(C, align(2))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MacPair(pub [u8; 12]);

/// The ports, which TCP and UDP have at the same place.
#[repr(C, align(2))]
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    /// Source port.
    pub source: [u8; 2],
    /// Destination port.
    pub destination: [u8; 2],
}

/// A checksum, wherever it stands.
#[repr(transparent)]
#[derive(Clone, Copy, Debug)]
pub struct Checksum(pub [u8; 2]);

/// One byte, wherever it stands.
#[repr(transparent)]
#[derive(Clone, Copy, Debug)]
pub struct Byte(pub u8);

/// A 32-bit number in wire order, wherever it stands.
#[repr(transparent)]
#[derive(Clone, Copy, Debug)]
pub struct Word(pub [u8; 4]);

impl Word {
    /// The number.
    #[inline(always)]
    pub const fn get(self) -> u32 {
        u32::from_be_bytes(self.0)
    }
}

/// The start of an HTTP/1.x request: "GET ".
#[repr(C, align(2))]
#[derive(Clone, Copy, Debug)]
pub struct Method(pub [u8; 4]);

/// The start of an HTTP/1.x response: "HTTP/1.1 2".
#[repr(C, align(2))]
#[derive(Clone, Copy, Debug)]
pub struct StatusLine {
    /// "HTTP/1.1".
    pub version: [u8; 8],
    /// A space.
    pub space: u8,
    /// The first digit of the status.
    pub class: u8,
}

/// An ICMP or ICMPv6 header (RFC 792, RFC 4443).
#[repr(C, align(2))]
#[derive(Clone, Copy, Debug)]
pub struct Icmp {
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// Checksum.
    pub check: [u8; 2],
    /// Depends on the type: identifier and sequence number, or unused and MTU.
    pub rest: [u8; 4],
}

/// The start of an IPv6 extension header (RFC 8200, section 4).
#[repr(C, align(2))]
#[derive(Clone, Copy, Debug)]
pub struct Extension {
    /// What follows it.
    pub next: u8,
    /// Its length in 8-byte units, the first not counted.
    pub length: u8,
}

/// The IPv6 fragment header (RFC 8200, section 4.5).
#[repr(C, align(2))]
#[derive(Clone, Copy, Debug)]
pub struct FragmentHeader {
    /// What follows it in the first fragment.
    pub next: u8,
    /// Zero.
    pub reserved: u8,
    /// Offset in 8-byte units, and in the lowest bit whether more follow.
    pub offset: [u8; 2],
    /// The same in all fragments of a packet.
    pub id: [u8; 4],
}

/// An 802.1Q or 802.1ad tag, as it stands between the MAC addresses and the Ethernet type.
#[repr(C, align(2))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VlanTag {
    /// Which of the two.
    pub tpid: [u8; 2],
    /// Priority and VLAN identifier.
    pub tci: [u8; 2],
}

/// The header at the start of `bytes`, if they are long enough and aligned for it.
pub fn from_bytes<T: Header>(bytes: &[u8]) -> Option<&T> {
    let pointer = bytes.as_ptr().cast::<T>();
    // SAFETY: long enough, aligned, initialised, and any bit pattern is a T.
    (bytes.len() >= size_of::<T>() && pointer.is_aligned()).then(|| unsafe { &*pointer })
}

/// Like [`from_bytes`], to write.
pub fn from_bytes_mut<T: Header>(bytes: &mut [u8]) -> Option<&mut T> {
    let pointer = bytes.as_mut_ptr().cast::<T>();
    // SAFETY: long enough, aligned, initialised, borrowed mutably; any bit pattern is a T, and any T is bytes.
    (bytes.len() >= size_of::<T>() && pointer.is_aligned()).then(|| unsafe { &mut *pointer })
}
