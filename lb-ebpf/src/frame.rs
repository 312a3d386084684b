//! The frame accessor: headers of the packet that an XDP context points at.
#![expect(unsafe_code, reason = "packet memory is reached by pointers that the verifier checks")]

use aya_ebpf::{
    helpers::{bpf_xdp_adjust_head, bpf_xdp_adjust_tail, bpf_xdp_get_buff_len},
    programs::XdpContext,
};
use lb_common::{header::Header, packet::Packet};

use crate::opaque;

/// The frame of one run of the program.
///
/// `ROUGH` is for code with variable offsets. There LLVM leaves a check out that it has made before, but computes the
/// pointer again; the verifier knows only the pointer that was checked ("offset is outside of the packet"). So every
/// pointer is made opaque between its computation and its check. The common path does without, and is shorter for it.
pub(crate) struct XdpFrame<'a, const ROUGH: bool> {
    pub(crate) ctx: &'a XdpContext,
    data: usize,
    end: usize,
}

impl<'a, const ROUGH: bool> XdpFrame<'a, ROUGH> {
    #[inline(always)]
    pub(crate) fn new(ctx: &'a XdpContext) -> Self {
        Self { ctx, data: ctx.data(), end: ctx.data_end() }
    }

    /// After a helper that moves the packet, old pointers into it are worth nothing to the verifier.
    #[inline(always)]
    pub(crate) fn look_again(&mut self) {
        self.data = self.ctx.data();
        self.end = self.ctx.data_end();
    }

    #[inline(always)]
    fn pointer<T: Header>(&self, offset: usize) -> Option<*mut T> {
        let (start, end) = if ROUGH {
            let start = opaque::opaque(self.data + offset);
            (start, start + size_of::<T>())
        } else {
            // SAFETY: what a header may take up behind a frame's start does not reach to the end of memory. So LLVM knows that a frame that
            // has one header has what comes before it.
            unsafe {
                let start = self.data.unchecked_add(offset);
                (start, start.unchecked_add(size_of::<T>()))
            }
        };
        // SAFETY: no frame is at address 0. Otherwise it would be compared with that, which is an option's none.
        unsafe { core::hint::assert_unchecked(start != 0) };
        (end <= self.end).then_some(start as *mut T)
    }
}

impl<const ROUGH: bool> Packet for XdpFrame<'_, ROUGH> {
    #[inline(always)]
    fn at<T: Header>(&self, offset: usize) -> Option<&T> {
        // SAFETY: within the frame, which lives as long as the context; any bit pattern is a T, and this target reads
        // unaligned.
        self.pointer(offset).map(|pointer| unsafe { &*pointer })
    }

    #[inline(always)]
    fn at_mut<T: Header>(&mut self, offset: usize) -> Option<&mut T> {
        // SAFETY: as above, and the frame is borrowed mutably.
        self.pointer(offset).map(|pointer| unsafe { &mut *pointer })
    }

    #[inline(always)]
    fn adjust_head(&mut self, delta: i32) -> bool {
        // SAFETY: the context is this program's; every reference into the packet has ended, for this borrows mutably.
        let done = unsafe { bpf_xdp_adjust_head(self.ctx.ctx, delta) } == 0;
        self.look_again();
        done
    }

    #[inline(always)]
    fn adjust_tail(&mut self, delta: i32) -> bool {
        // SAFETY: as above.
        let done = unsafe { bpf_xdp_adjust_tail(self.ctx.ctx, delta) } == 0;
        self.look_again();
        done
    }

    #[inline(always)]
    fn len(&self) -> u64 {
        // SAFETY: the context is this program's.
        unsafe { bpf_xdp_get_buff_len(self.ctx.ctx) }
    }

    #[inline(always)]
    fn ingress_ifindex(&self) -> u32 {
        self.ctx.ingress_ifindex() as u32
    }
}
