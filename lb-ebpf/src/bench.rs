//! Programs to measure with: one that restores the frame before each run, and the floors.
//!
//! `BPF_PROG_TEST_RUN` does not restore the frame between repeats, so a program that rewrites would see its own output.
//! [`restore`] puts the head back, writes the headers from a template with the address and port of the next flow, and
//! tail-calls what is measured. The floors do next to nothing, and are measured alike.
#![no_std]
#![no_main]
#![expect(missing_docs, unreachable_pub, reason = "the macro for entry points makes undocumented public functions")]
#![expect(unsafe_code, reason = "packet memory and map values are reached by pointers")]

mod object;

use aya_ebpf::{
    EbpfContext,
    bindings::{BPF_F_MMAPABLE, xdp_action},
    helpers::{bpf_ktime_get_ns, bpf_xdp_adjust_head},
    macros::{map, xdp},
    maps::{Array, ProgramArray},
    programs::XdpContext,
};
use lb_common::{
    bench::{TEMPLATE_WORDS, Template},
    header::MacPair,
};

/// What [`restore`] writes.
#[map]
static TEMPLATE: Array<Template> = Array::pinned(1, BPF_F_MMAPABLE);
/// Address and port of each flow, as [`Template`] wants them.
#[map]
static KEYS: Array<u64> = Array::pinned(1, BPF_F_MMAPABLE);
/// The program that is measured.
#[map]
static MEASURED: ProgramArray = ProgramArray::with_max_entries(1, 0);

#[xdp(frags)]
pub fn restore(ctx: XdpContext) -> u32 {
    let Some(template) = TEMPLATE.get_ptr_mut(0) else { return xdp_action::XDP_ABORTED };
    // SAFETY: one CPU runs this, and nobody else writes meanwhile.
    let template = unsafe { &mut *template };
    // Opaque: otherwise LLVM adds the length to the pointer, and the verifier takes no unbounded scalar there.
    let length = core::hint::black_box(ctx.data_end() - ctx.data());
    let grown = length as i64 - template.length as i64;
    // SAFETY: the context is this program's.
    if grown != 0 && unsafe { bpf_xdp_adjust_head(ctx.ctx, grown as i32) } != 0 {
        return xdp_action::XDP_ABORTED;
    }
    let (start, end) = (ctx.data(), ctx.data_end());
    if start + TEMPLATE_WORDS * 8 > end {
        return xdp_action::XDP_ABORTED;
    }
    let words = start as *mut u64;
    for word in 0..TEMPLATE_WORDS {
        // SAFETY: within the frame, by the check above.
        unsafe { words.add(word).write_unaligned(template.words[word]) };
    }
    let turn = template.sent;
    template.sent = turn + 1;
    if turn & template.slice_mask == 0 {
        let now = now_ns();
        let took = now - template.began_ns;
        if turn != 0 && took < template.least_ns {
            template.least_ns = took;
        }
        template.began_ns = now;
    }
    let Some(key) = KEYS.get((turn & template.turn_mask) as u32) else { return xdp_action::XDP_ABORTED };
    let (address, port) = ((key >> 32) as u32, *key as u16);
    let (address_at, port_at) = (template.address_at as usize & 0x3f, template.port_at as usize & 0x3f);
    if start + address_at + 4 > end || start + port_at + 2 > end {
        return xdp_action::XDP_ABORTED;
    }
    // SAFETY: within the frame, by the check above.
    unsafe {
        ((start + address_at) as *mut u32).write_unaligned(address);
        ((start + port_at) as *mut u16).write_unaligned(port);
    }
    // SAFETY: the context is this program's.
    unsafe { MEASURED.tail_call(&ctx, 0) };
    // There was nothing to call.
    xdp_action::XDP_ABORTED
}

/// The kernel's own figure of a test run is a whole number of nanoseconds per packet: too coarse for a floor of eight.
#[inline(always)]
fn now_ns() -> u64 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_ktime_get_ns() }
}

/// The floor of dropping.
#[xdp(frags)]
pub fn floor_drop(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_DROP
}

/// The floor of passing.
#[xdp(frags)]
pub fn floor_pass(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

/// The floor of rewriting: the MAC addresses are swapped.
#[xdp(frags)]
pub fn floor_swap(ctx: XdpContext) -> u32 {
    let (start, end) = (ctx.data(), ctx.data_end());
    if start + size_of::<MacPair>() > end {
        return xdp_action::XDP_ABORTED;
    }
    let macs = start as *mut MacPair;
    // SAFETY: within the frame, by the check above.
    unsafe {
        let MacPair([a, b, c, d, e, f, g, h, i, j, k, l]) = *macs;
        *macs = MacPair([g, h, i, j, k, l, a, b, c, d, e, f]);
    }
    xdp_action::XDP_TX
}

/// The floor of encapsulating: a constant IPv4 header is pushed.
#[xdp(frags)]
pub fn floor_ipip(ctx: XdpContext) -> u32 {
    // SAFETY: the context is this program's.
    if unsafe { bpf_xdp_adjust_head(ctx.as_ptr().cast(), -20) } != 0 {
        return xdp_action::XDP_ABORTED;
    }
    let (start, end) = (ctx.data(), ctx.data_end());
    if start + 40 > end {
        return xdp_action::XDP_ABORTED;
    }
    let words = start as *mut u64;
    const HEADERS: [u64; 4] =
        [0x0200_0000_1100_0200, 0x0008_2200_0000_0000, 0x4000_0000_2800_0045, 0x0b00_000a_0000_0440];
    for (word, value) in HEADERS.into_iter().enumerate() {
        // SAFETY: within the frame, by the check above.
        unsafe { words.add(word).write_unaligned(value) };
    }
    xdp_action::XDP_TX
}
