//! Which types may be laid over the bytes of a packet.
#![expect(unsafe_code, reason = "the markers, and the one cast that they permit")]

use network_types::{
    eth::EthHdr,
    ip::{Ipv4Hdr, Ipv6Hdr},
    tcp::TcpHdr,
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
// SAFETY: a byte array.
unsafe impl Header for MacPair {}

/// The first twelve bytes of a frame: destination and source MAC address, which `lb` always writes together.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MacPair(pub [u8; 12]);

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
