//! Tells the time: the controller runs it once, to learn which nanosecond a jiffy is.
#![no_std]
#![no_main]
#![expect(
    missing_docs,
    unreachable_pub,
    reason = "the macro for the entry point makes an undocumented public function"
)]
#![expect(unsafe_code, reason = "packet memory is reached by pointers")]

mod object;

use aya_ebpf::{bindings::xdp_action, helpers::bpf_jiffies64, macros::xdp, programs::XdpContext};

/// Writes the jiffies into the first eight bytes of the frame.
#[xdp]
pub fn lb_clock(ctx: XdpContext) -> u32 {
    let (start, end) = (ctx.data(), ctx.data_end());
    if start + size_of::<u64>() > end {
        return xdp_action::XDP_ABORTED;
    }
    // SAFETY: within the frame, by the check above; a helper without arguments.
    unsafe { (start as *mut u64).write_unaligned(bpf_jiffies64()) };
    xdp_action::XDP_PASS
}
