//! What every object file has.
#![expect(unsafe_code, reason = "the kernel looks for the licence by its name")]

/// Cannot be reached: a loop without an end does not load, so a reachable panic would be found at once.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// Compatible with the GPL, as helpers demand.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
