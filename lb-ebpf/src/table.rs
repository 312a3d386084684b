//! Tables: maps whose one value is the whole table, at an address that is in the program.
//!
//! The look-up of an array map is a bounds check and an addition as well, but a function to the compiler: before it the key goes
//! to the stack, and after it registers are lost. Here the compiler sees the addition.
#![expect(unsafe_code, reason = "map values are reached by pointers")]

use core::cell::UnsafeCell;

use crate::opaque;

/// A table, of which the object file only has the first entry: the map that takes its place is as large as the controller made
/// it. To be put into a section of its own, whose name begins with `.bss`.
#[repr(transparent)]
pub(crate) struct Table<T>(UnsafeCell<T>);

// SAFETY: it is memory that is shared with other CPUs and with the controller; entries that packets change are atomic.
unsafe impl<T> Sync for Table<T> {}

impl<T> Table<T> {
    /// All zero.
    pub(crate) const fn new() -> Self {
        // SAFETY: entries are words.
        Self(UnsafeCell::new(unsafe { core::mem::zeroed() }))
    }

    /// The entry at an index, of a table with so many.
    #[inline(always)]
    pub(crate) fn get(&'static self, index: u32, length: u32) -> Option<&'static T> {
        // SAFETY: within the map, by the check there, which the verifier demands.
        self.pointer(index, length).map(|pointer| unsafe { &*pointer })
    }

    /// The same, to write it.
    #[inline(always)]
    pub(crate) fn pointer(&'static self, index: u32, length: u32) -> Option<*mut T> {
        // One register, compared and used: of a copy the verifier would not know that it was compared.
        let index = opaque::opaque(index as usize);
        if index >= length as usize {
            return None;
        }
        let start = opaque::opaque(self.0.get().addr());
        let entry = (start + index * size_of::<T>()) as *mut T;
        // SAFETY: no map is at address 0. Otherwise it would be compared with that, which is an option's none.
        unsafe { core::hint::assert_unchecked(!entry.is_null()) };
        Some(entry)
    }
}
