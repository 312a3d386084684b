//! A map as memory: the values of an array map, read and written without system calls.
#![expect(unsafe_code, reason = "map accessor: memory shared with the kernel")]

use std::{
    fs::File,
    io,
    marker::PhantomData,
    ops::Range,
    os::fd::BorrowedFd,
    sync::atomic::{AtomicU64, Ordering},
};

use bytemuck::{Pod, Zeroable};
use memmap2::{MmapOptions, MmapRaw};

/// Bytes of a word: the unit that both sides read and write at once.
const WORD: usize = size_of::<u64>();

/// The values of an array map created with `BPF_F_MMAPABLE`, as rows of words.
///
/// Programs read and write the same memory meanwhile; that is why every access is atomic.
#[derive(Debug)]
pub(crate) struct Region<T> {
    memory: MmapRaw,
    writable: bool,
    value: PhantomData<T>,
}

impl<T> Region<T> {
    const ROW: usize = size_of::<T>() / WORD;

    /// Maps a map of `entries` values.
    pub(crate) fn new(fd: BorrowedFd<'_>, entries: u32, writable: bool) -> io::Result<Self> {
        const { assert!(size_of::<T>().is_multiple_of(WORD), "array maps round values up to words") };
        let file = File::from(fd.try_clone_to_owned()?);
        let mut options = MmapOptions::new();
        options.len(entries as usize * size_of::<T>());
        let memory = if writable { options.map_raw(&file)? } else { options.map_raw_read_only(&file)? };
        Ok(Self { memory, writable, value: PhantomData })
    }

    /// Number of values.
    pub(crate) fn len(&self) -> u32 {
        (self.memory.len() / size_of::<T>()) as u32
    }

    /// The words of one value.
    ///
    /// # Panics
    ///
    /// Where there is no such value.
    pub(crate) fn row(&self, index: u32) -> &[AtomicU64] {
        &self.words()[index as usize * Self::ROW..][..Self::ROW]
    }

    /// The words of each of several values.
    ///
    /// # Panics
    ///
    /// Where there are no such values.
    pub(crate) fn rows(&self, indexes: Range<u32>) -> impl ExactSizeIterator<Item = &[AtomicU64]> {
        self.words()[indexes.start as usize * Self::ROW..indexes.end as usize * Self::ROW].chunks_exact(Self::ROW)
    }

    /// The words of all values, one after another.
    pub(crate) fn words(&self) -> &[AtomicU64] {
        let words = self.memory.len() / WORD;
        // SAFETY: the mapping is page-aligned, that long, and lives as long as self; all access to it is atomic, here
        // and in the kernel. Read-only mappings are only loaded from: `write` is the only function that stores, and
        // asserts it.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr().cast::<AtomicU64>(), words) }
    }
}

impl<T: Pod + PartialEq> Region<T> {
    /// One value, each word read at once.
    pub(crate) fn read(&self, index: u32) -> T {
        let mut value = T::zeroed();
        for (bytes, word) in bytemuck::bytes_of_mut(&mut value).chunks_exact_mut(WORD).zip(self.row(index)) {
            bytes.copy_from_slice(&word.load(Ordering::Relaxed).to_ne_bytes());
        }
        value
    }

    /// Sets one value, each word at once; false where it was that already.
    pub(crate) fn write(&self, index: u32, value: &T) -> bool {
        assert!(self.writable, "writing to a map that was opened to be read");
        let mut changed = false;
        for (bytes, word) in bytemuck::bytes_of(value).chunks_exact(WORD).zip(self.row(index)) {
            let new = bytemuck::pod_read_unaligned(bytes);
            if word.load(Ordering::Relaxed) != new {
                word.store(new, Ordering::Release);
                changed = true;
            }
        }
        changed
    }
}

/// A value of zeros.
pub(crate) fn zero<T: Zeroable>() -> T {
    T::zeroed()
}
