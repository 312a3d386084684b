//! What `core::sync::atomic` does not offer on this target: LLVM selects no relaxed load, store or exchange for BPF v3.
#![expect(unsafe_code, reason = "volatile access and inline assembly")]

use core::{arch::asm, sync::atomic::AtomicU64};

/// Reads a word: one aligned load, which the kernel's JITs keep whole.
#[inline(always)]
pub(crate) fn load(word: &AtomicU64) -> u64 {
    // SAFETY: the pointer comes from a reference.
    unsafe { word.as_ptr().read_volatile() }
}

/// Writes a word: one aligned store.
#[inline(always)]
pub(crate) fn store(word: &AtomicU64, value: u64) {
    // SAFETY: the pointer comes from a reference to something with interior mutability.
    unsafe { word.as_ptr().write_volatile(value) }
}

/// Puts `new` in place of `current` if that is what is there; returns what was there. Fully ordered
/// (Linux, Documentation/bpf/standardization/instruction-set.rst, "Atomic operations").
#[inline(always)]
pub(crate) fn compare_exchange(word: &AtomicU64, current: u64, new: u64) -> u64 {
    let found;
    // SAFETY: the pointer comes from a reference; the kernel's instruction is atomic.
    unsafe {
        asm!(
            "r0 = cmpxchg_64({pointer} + 0, r0, {new})",
            pointer = in(reg) word.as_ptr(),
            new = in(reg) new,
            inout("r0") current => found,
        );
    }
    found
}

/// Adds to a word that other CPUs write too, wrapping round.
#[inline(always)]
pub(crate) fn add(word: &AtomicU64, value: u64) {
    // SAFETY: the pointer comes from a reference; the kernel's instruction is atomic.
    unsafe {
        asm!(
            "lock *(u64 *)({pointer} + 0) += {value}",
            pointer = in(reg) word.as_ptr(),
            value = in(reg) value,
        );
    }
}
