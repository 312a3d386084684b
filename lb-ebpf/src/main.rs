//! x
#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "x")]
use aya_ebpf::{macros::xdp, programs::XdpContext};
#[xdp]
fn lb(_c: XdpContext) -> u32 { 2 }
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! { loop {} }
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
