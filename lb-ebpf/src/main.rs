//! The XDP programs: the frame accessor, the maps, the entry point. What they do stands in `lb_common::pipeline`.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![expect(
    missing_docs,
    unreachable_pub,
    reason = "the macro for the entry point makes an undocumented public function"
)]

mod atomic;
mod event;
mod frame;
mod maps;
mod object;
mod opaque;
mod stage;
mod table;

use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};
use aya_log_ebpf::info;
use lb_common::{
    layout::{Config, features},
    packet::Packet,
    pipeline, rare,
    tables::Tables,
    verdict::Verdict,
};

use crate::{frame::XdpFrame, maps::Maps};

/// Balances one frame: the common path.
#[xdp(frags)]
pub fn lb(ctx: XdpContext) -> u32 {
    let mut frame = XdpFrame::<false>::new(&ctx);
    let verdict = pipeline::process(&mut frame, &Maps);
    if verdict == Verdict::Rare {
        maps::take_rare_path(&ctx);
    }
    action(&ctx, &frame, verdict)
}

/// Balances one frame: what the common path leaves to it.
#[xdp(frags)]
pub fn lb_rare(ctx: XdpContext) -> u32 {
    let mut frame = XdpFrame::<true>::new(&ctx);
    let verdict = rare::process(&mut frame, &Maps);
    action(&ctx, &frame, verdict)
}

/// The verdict as an XDP action.
#[inline(always)]
fn action<const ROUGH: bool>(ctx: &XdpContext, frame: &XdpFrame<'_, ROUGH>, verdict: Verdict) -> u32 {
    let action = match verdict {
        Verdict::Pass | Verdict::Rare => xdp_action::XDP_PASS,
        Verdict::Transmit if Maps.features() & features::REDIRECT_BACK != 0 => maps::redirect(frame.ingress_ifindex()),
        Verdict::Transmit => xdp_action::XDP_TX,
        Verdict::Redirect(ifindex) => maps::redirect(ifindex),
        Verdict::Drop(reason) => {
            info!(ctx, "dropped {} bytes: {}", frame.len(), reason.name());
            xdp_action::XDP_DROP
        }
    };
    if cfg!(feature = "rebuilt") { opaque::opaque(action as usize) as u32 } else { action }
}

// The layout must be one that override_global can fill.
const _: () = assert!(align_of::<Config>() == 4);
