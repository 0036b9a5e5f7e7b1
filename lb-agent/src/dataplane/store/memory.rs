//! The rows of an array as memory: read and written without system calls. The array must have been made with
//! `BPF_F_MMAPABLE`.
//!
//! Reading half a million rows takes a few milliseconds this way, and by batches a few hundred. A table of 65 521 slots
//! is written in less than one millisecond; row by row it would take tens.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use aya::Pod;

use super::sys::bytes_of;

/// The kernel rounds rows of arrays up to words.
const WORD: usize = size_of::<u64>();
/// Words that are looked at at once: most of an array is unused.
const BLOCK: usize = 4096;

/// The mapped rows of an array.
#[derive(Debug)]
pub(super) struct Memory {
    words: NonNull<AtomicU64>,
    rows: u32,
    /// Bytes of a row that count.
    value: usize,
}

// SAFETY: the mapping belongs to the process, not to a thread, and is read and written by atomic words alone.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    /// Maps all rows, for reading and writing.
    pub(super) fn map(array: BorrowedFd<'_>, rows: u32, value: usize) -> io::Result<Self> {
        // SAFETY: a new mapping at a place of the kernel's choice touches nothing of ours.
        let memory = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                value.next_multiple_of(WORD) * rows as usize,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                array.as_raw_fd(),
                0,
            )
        };
        if memory == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let words = NonNull::new(memory.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { words, rows, value })
    }

    /// Calls `take` with index and value of every row that is not all zero.
    pub(super) fn for_each_used_row(&self, mut take: impl FnMut(u32, &[u8])) {
        let stride = self.stride();
        let rows_of_block = (BLOCK / stride).max(1);
        let mut row = Vec::with_capacity(stride * WORD);
        for (block, words) in self.words().chunks(rows_of_block * stride).enumerate() {
            if words.iter().all(|word| word.load(Ordering::Relaxed) == 0) {
                continue;
            }
            for (place, words) in words.chunks_exact(stride).enumerate() {
                row.clear();
                row.extend(
                    words
                        .iter()
                        .flat_map(|word| word.load(Ordering::Relaxed).to_ne_bytes()),
                );
                row.truncate(self.value);
                if row.iter().any(|byte| *byte != 0)
                    && let Ok(index) = u32::try_from(block * rows_of_block + place)
                {
                    take(index, &row);
                }
            }
        }
    }

    /// Writes neighbouring rows. Each of their words changes at once, so that a row of one word is never seen in halves.
    pub(super) fn write<T: Pod>(&self, first: u32, values: &[T]) -> io::Result<()> {
        let stride = self.stride();
        let start = first as usize * stride;
        let words = self.words().get(start..start + values.len() * stride);
        let words = words.filter(|_| size_of::<T>() == self.value);
        let words = words.ok_or(io::ErrorKind::InvalidInput)?;
        for (words, value) in words.chunks_exact(stride).zip(values) {
            for (word, bytes) in words.iter().zip(bytes_of(value).chunks(WORD)) {
                let mut octets = [0; WORD];
                octets
                    .iter_mut()
                    .zip(bytes)
                    .for_each(|(octet, byte)| *octet = *byte);
                word.store(u64::from_ne_bytes(octets), Ordering::Relaxed);
            }
        }
        // What is written after this, by system call or not, is seen after it.
        std::sync::atomic::fence(Ordering::Release);
        Ok(())
    }

    /// Words of a row.
    fn stride(&self) -> usize {
        self.value.div_ceil(WORD)
    }

    fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping is as long as all rows, aligned to pages, and lives as long as `self`; what the kernel and
        // other processes write into it meanwhile is allowed of atomics.
        unsafe { std::slice::from_raw_parts(self.words.as_ptr(), self.stride() * self.rows as usize) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let length = self.stride() * WORD * self.rows as usize;
        // SAFETY: the mapping made in `map`, which nothing refers to any more.
        unsafe { libc::munmap(self.words.as_ptr().cast(), length) };
    }
}
