//! A frame in memory.

use std::vec::Vec;

use crate::{
    header::{self, Header},
    packet::Packet,
    pipeline,
    rare::{self, Stages},
    tables::Tables,
    verdict::Verdict,
};

/// Room before a frame that the kernel leaves for headers to be pushed: `XDP_PACKET_HEADROOM`.
const HEADROOM: usize = 256;

/// A frame in memory. A vector of bytes is aligned as [`Header`] asks: allocators align by 8 at least.
#[derive(Debug)]
pub struct Frame<'a> {
    bytes: &'a mut Vec<u8>,
    ingress_ifindex: u32,
    headroom: usize,
}

impl<'a> Frame<'a> {
    /// A frame that came in by an interface.
    pub fn new(bytes: &'a mut Vec<u8>, ingress_ifindex: u32) -> Self {
        Self { bytes, ingress_ifindex, headroom: HEADROOM }
    }
}

/// What becomes of a frame: the common path, and where that says so the rare one.
pub fn process(bytes: &mut Vec<u8>, ingress_ifindex: u32, tables: &impl Tables) -> Verdict {
    let mut frame = Frame::new(bytes, ingress_ifindex);
    match pipeline::process(&mut frame, tables) {
        Verdict::Rare => rare::process(&mut frame, tables),
        verdict => verdict,
    }
}

impl Stages for Frame<'_> {}

impl Packet for Frame<'_> {
    fn at<T: Header>(&self, offset: usize) -> Option<&T> {
        header::from_bytes(self.bytes.get(offset..)?)
    }

    fn at_mut<T: Header>(&mut self, offset: usize) -> Option<&mut T> {
        header::from_bytes_mut(self.bytes.get_mut(offset..)?)
    }

    fn adjust_head(&mut self, delta: i32) -> bool {
        let length = delta.unsigned_abs() as usize;
        if delta >= 0 {
            // The kernel leaves an Ethernet header.
            if length + 14 > self.bytes.len() {
                return false;
            }
            self.bytes.drain(..length);
            self.headroom += length;
        } else {
            if length > self.headroom {
                return false;
            }
            self.bytes.splice(..0, core::iter::repeat_n(0, length));
            self.headroom -= length;
        }
        true
    }

    fn adjust_tail(&mut self, delta: i32) -> bool {
        let length = delta.unsigned_abs() as usize;
        if delta >= 0 {
            self.bytes.extend(core::iter::repeat_n(0, length));
        } else if length + 14 > self.bytes.len() {
            return false;
        } else {
            self.bytes.truncate(self.bytes.len() - length);
        }
        true
    }

    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn ingress_ifindex(&self) -> u32 {
        self.ingress_ifindex
    }
}
