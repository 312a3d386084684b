//! The frame, as the pipeline sees it.

use crate::header::Header;

/// A frame whose headers are read and written in place.
pub trait Packet: Sized {
    /// The header at `offset` bytes from the start of the frame; none where the frame ends before it does.
    fn at<T: Header>(&self, offset: usize) -> Option<&T>;
    /// Like [`at`](Self::at), to write.
    fn at_mut<T: Header>(&mut self, offset: usize) -> Option<&mut T>;
    /// Cuts `delta` bytes off the start of the frame, or puts as many in front where it is negative; false where there is no
    /// room.
    #[must_use]
    fn adjust_head(&mut self, delta: i32) -> bool;
    /// Adds `delta` bytes to the end of the frame, or cuts as many off where it is negative; false where there is no room.
    #[must_use]
    fn adjust_tail(&mut self, delta: i32) -> bool;
    /// Length of the frame in bytes, Ethernet header and whatever lies in other buffers included.
    fn len(&self) -> u64;
    /// The interface that the frame came in by.
    fn ingress_ifindex(&self) -> u32;

    /// Whether the frame has no byte at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
