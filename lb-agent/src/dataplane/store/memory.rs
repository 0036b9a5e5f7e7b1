//! The rows of an array as memory: read and written without a system call for each. The array must have been made with
//! `BPF_F_MMAPABLE`.
//!
//! Reading half a million rows takes a few milliseconds this way, and by batches a few hundred. A table of 65 521 slots
//! is written in less than one millisecond; row by row it would take tens.
//!
//! Rows are mapped for as long as they are read or written, and no longer: the kernel counts all that is mapped as memory
//! of the process, and maps are large.

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd as _};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use aya::Pod;

use super::sys::bytes_of;

/// The kernel rounds rows of arrays up to words.
const WORD: usize = size_of::<u64>();
/// Words that are looked at at once: most of an array is unused.
const BLOCK: usize = 4096;
/// Words that are mapped at once for reading.
const READ_AT_ONCE: usize = 32 * BLOCK;
/// Where a mapping may begin, in words: the largest page of any processor has 64 KiB.
const PAGE: usize = (64 << 10) / WORD;

/// An array whose rows can be mapped.
#[derive(Debug)]
pub(super) struct Memory {
    rows: u32,
    /// Bytes of a row that count.
    value: usize,
}

impl Memory {
    pub(super) fn new(rows: u32, value: usize) -> Self {
        Self { rows, value }
    }

    /// Calls `take` with index and value of every row that is not all zero.
    pub(super) fn for_each_used_row(
        &self,
        array: impl AsFd,
        mut take: impl FnMut(u32, &[u8]),
    ) -> io::Result<()> {
        let stride = self.stride();
        let at_once = (READ_AT_ONCE / stride).max(1);
        for first in (0..self.rows as usize).step_by(at_once) {
            let rows = first..(first + at_once).min(self.rows as usize);
            let window = Window::map(&array, rows.start * stride..rows.end * stride)?;
            self.used_rows_of(window.words(), |place, row| {
                if let Ok(index) = u32::try_from(first + place) {
                    take(index, row);
                }
            });
        }
        Ok(())
    }

    /// The rows of some that are not all zero.
    fn used_rows_of(&self, words: &[AtomicU64], mut take: impl FnMut(usize, &[u8])) {
        let stride = self.stride();
        let rows_of_block = (BLOCK / stride).max(1);
        let mut row = Vec::with_capacity(stride * WORD);
        for (block, words) in words.chunks(rows_of_block * stride).enumerate() {
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
                if row.iter().any(|byte| *byte != 0) {
                    take(block * rows_of_block + place, &row);
                }
            }
        }
    }

    /// Writes neighbouring rows. Each of their words changes at once, so that a row of one word is never seen in halves.
    pub(super) fn write<T: Pod>(&self, array: impl AsFd, first: u32, values: &[T]) -> io::Result<()> {
        let (stride, first) = (self.stride(), first as usize);
        let end = first + values.len();
        if size_of::<T>() != self.value || end > self.rows as usize {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        if values.is_empty() {
            return Ok(());
        }
        let window = Window::map(array, first * stride..end * stride)?;
        for (words, value) in window.words().chunks_exact(stride).zip(values) {
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
}

/// Some words of an array, mapped for reading and writing.
struct Window {
    memory: NonNull<AtomicU64>,
    /// All that is mapped, from the beginning of a page on.
    mapped: usize,
    /// Those that were asked for.
    words: Range<usize>,
}

impl Window {
    /// Maps these words of an array, of which there must be some. The kernel refuses more than there are.
    fn map(array: impl AsFd, words: Range<usize>) -> io::Result<Self> {
        let page = words.start / PAGE * PAGE;
        let mapped = words.end - page;
        let offset = libc::off_t::try_from(page * WORD).map_err(|_| io::ErrorKind::InvalidInput)?;
        // SAFETY: a new mapping at a place of the kernel's choice touches nothing of ours.
        let memory = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                mapped * WORD,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                array.as_fd().as_raw_fd(),
                offset,
            )
        };
        if memory == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self {
            memory: NonNull::new(memory.cast()).ok_or(io::ErrorKind::OutOfMemory)?,
            mapped,
            words: words.start - page..words.end - page,
        })
    }

    fn words(&self) -> &[AtomicU64] {
        // SAFETY: so many words are mapped, aligned to pages, for as long as `self` lives; what the kernel and other
        // processes write into them meanwhile is allowed of atomics.
        let mapped = unsafe { std::slice::from_raw_parts(self.memory.as_ptr(), self.mapped) };
        mapped.get(self.words.clone()).unwrap_or_default()
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `map`, which nothing refers to any more.
        unsafe { libc::munmap(self.memory.as_ptr().cast(), self.mapped * WORD) };
    }
}
