//! The frame accessor: headers of the packet that an XDP context points at.
#![expect(unsafe_code, reason = "packet memory is reached by pointers that the verifier checks")]

use aya_ebpf::programs::XdpContext;
use lb_common::{header::Header, packet::Packet};

/// The frame of one run of the program.
pub(crate) struct XdpFrame<'a> {
    ctx: &'a XdpContext,
    data: usize,
    end: usize,
}

impl<'a> XdpFrame<'a> {
    #[inline(always)]
    pub(crate) fn new(ctx: &'a XdpContext) -> Self {
        Self { ctx, data: ctx.data(), end: ctx.data_end() }
    }

    #[inline(always)]
    pub(crate) fn length(&self) -> u64 {
        (self.end - self.data) as u64
    }

    #[inline(always)]
    fn pointer<T: Header>(&self, offset: usize) -> Option<*mut T> {
        let start = self.data + offset;
        (start + size_of::<T>() <= self.end).then_some(start as *mut T)
    }
}

impl Packet for XdpFrame<'_> {
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
    fn len(&self) -> u64 {
        self.length()
    }

    #[inline(always)]
    fn ingress_ifindex(&self) -> u32 {
        self.ctx.ingress_ifindex() as u32
    }
}
