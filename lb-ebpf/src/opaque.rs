//! Where the compiler is to know less than it could find out.
#![expect(unsafe_code, reason = "inline assembly")]

use core::arch::asm;

/// The value, of which the compiler knows nothing from here on.
///
/// By an instruction, not by an empty template: that would have a line of its own in the debug information and no
/// instruction, which the kernel refuses ("Invalid line_info").
#[inline(always)]
pub(crate) fn opaque(mut value: usize) -> usize {
    // SAFETY: a register is moved to itself.
    unsafe { asm!("{0} = {0}", inout(reg) value, options(pure, nomem, nostack)) };
    value
}
