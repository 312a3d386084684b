//! The XDP program for backends: takes the outer headers off what a balancer sends, and leaves the rest to the kernel.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![expect(
    missing_docs,
    unreachable_pub,
    reason = "the macro for the entry point makes an undocumented public function"
)]

mod frame;
mod object;
mod opaque;

use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};
use lb_common::encap;

use crate::frame::XdpFrame;

/// Decapsulates one frame; one that is not encapsulated is left as it is.
#[xdp(frags)]
pub fn lb_decap(ctx: XdpContext) -> u32 {
    // Whether it was one, or was cut short: the kernel sees to it.
    let _ = encap::decapsulate(&mut XdpFrame::<true>::new(&ctx));
    xdp_action::XDP_PASS
}
