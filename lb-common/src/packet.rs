//! The frame, as the pipeline sees it.

use crate::header::{self, Header};

/// A frame whose headers are read and written in place.
pub trait Packet {
    /// The header at `offset` bytes from the start of the frame; none where the frame ends before it does.
    fn at<T: Header>(&self, offset: usize) -> Option<&T>;
    /// Like [`at`](Self::at), to write.
    fn at_mut<T: Header>(&mut self, offset: usize) -> Option<&mut T>;
    /// Length of the frame in bytes, Ethernet header included.
    fn len(&self) -> u64;
    /// The interface that the frame came in by.
    fn ingress_ifindex(&self) -> u32;

    /// Whether the frame has no byte at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A frame in memory, for the host: 2-byte aligned, as [`Header`] asks.
#[derive(Debug)]
pub struct Frame<'a> {
    /// From the Ethernet header on.
    pub bytes: &'a mut [u8],
    /// The interface that it came in by.
    pub ingress_ifindex: u32,
}

impl Packet for Frame<'_> {
    fn at<T: Header>(&self, offset: usize) -> Option<&T> {
        header::from_bytes(self.bytes.get(offset..)?)
    }

    fn at_mut<T: Header>(&mut self, offset: usize) -> Option<&mut T> {
        header::from_bytes_mut(self.bytes.get_mut(offset..)?)
    }

    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn ingress_ifindex(&self) -> u32 {
        self.ingress_ifindex
    }
}
