//! The few commands of bpf(2) that rows are read and written with. Everything `unsafe` of the agent is here and in
//! memory.rs.
//!
//! aya reads maps row by row, with two system calls for each; half a million slots want batches.

use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use aya::Pod;
use aya_obj::generated::{BPF_F_RDONLY, bpf_attr, bpf_cmd};

/// Rows that one system call reads.
const BATCH: u32 = 4096;
/// Nor more bytes of them, but for a single row.
const MOST: usize = 1 << 18;
/// Room for the kernel's place in a map between two batches: a key, or the number of a bucket.
const CURSOR: usize = 64;
/// The kernel's own number for "not supported" (`linux/errno.h`), which libc has no name for.
const ENOTSUPP: i32 = 524;

/// Opens what is pinned at `path`.
pub(super) fn open_pin(path: &Path, read_only: bool) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = zeroed();
    // SAFETY: writing a field of a union of plain integers, all of whose bytes are set.
    let object = unsafe { &mut attr.__bindgen_anon_4 };
    object.pathname = path.as_ptr() as u64;
    object.file_flags = if read_only { BPF_F_RDONLY } else { 0 };
    let fd = bpf(bpf_cmd::BPF_OBJ_GET, &mut attr)?;
    // SAFETY: the kernel has just given us this descriptor, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Detaches the link that is pinned at `path` from what it is attached to, at once.
pub(in crate::dataplane) fn detach_link(path: &Path) -> io::Result<()> {
    let link = open_pin(path, false)?;
    let mut attr = zeroed();
    attr.link_detach.link_fd = link.as_raw_fd().cast_unsigned();
    bpf(bpf_cmd::BPF_LINK_DETACH, &mut attr).map(drop)
}

/// Writes a row.
pub(super) fn update(map: BorrowedFd<'_>, key: &[u8], value: &[u8]) -> io::Result<()> {
    let (key, value) = (key.as_ptr() as u64, value.as_ptr() as u64);
    element(bpf_cmd::BPF_MAP_UPDATE_ELEM, map, key, value)
}

/// Removes a row of a hash map.
pub(super) fn delete(map: BorrowedFd<'_>, key: &[u8]) -> io::Result<()> {
    element(bpf_cmd::BPF_MAP_DELETE_ELEM, map, key.as_ptr() as u64, 0)
}

/// How many rows of this size are read at once.
fn batch(value: usize) -> u32 {
    u32::try_from(MOST / value.max(1))
        .unwrap_or(BATCH)
        .clamp(1, BATCH)
}

/// Calls `take` with key and value of every row; a row that changes meanwhile may be met as it was or as it is.
pub(super) fn for_each_row(
    map: BorrowedFd<'_>,
    key: usize,
    value: usize,
    mut take: impl FnMut(&[u8], &[u8]),
) -> io::Result<()> {
    let mut room = batch(value);
    let mut cursor = None;
    let (mut keys, mut values) = (vec![0; key * room as usize], vec![0; value * room as usize]);
    loop {
        let mut next = [0; CURSOR];
        let mut attr = zeroed();
        // SAFETY: writing a field of a union of plain integers, all of whose bytes are set.
        let batch = unsafe { &mut attr.batch };
        batch.map_fd = map.as_raw_fd().cast_unsigned();
        batch.in_batch = cursor
            .as_ref()
            .map_or(0, |cursor: &[u8; CURSOR]| cursor.as_ptr() as u64);
        batch.out_batch = next.as_mut_ptr() as u64;
        batch.keys = keys.as_mut_ptr() as u64;
        batch.values = values.as_mut_ptr() as u64;
        batch.count = room;
        let result = bpf(bpf_cmd::BPF_MAP_LOOKUP_BATCH, &mut attr);
        // SAFETY: the kernel wrote a number of rows there, and every bit pattern is one.
        let count = unsafe { attr.batch.count } as usize;
        let last = match result {
            Ok(_) => false,
            // Not every kernel reads every kind of map by batches.
            Err(error) if cursor.is_none() && error.raw_os_error() == Some(ENOTSUPP) => {
                return for_each_key(map, key, value, take);
            }
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
            // One bucket of the hash table holds more than there is room for.
            Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => {
                room = room.saturating_mul(2);
                keys.resize(key * room as usize, 0);
                values.resize(value * room as usize, 0);
                continue;
            }
            Err(error) => return Err(error),
        };
        for (key, value) in keys.chunks_exact(key).zip(values.chunks_exact(value)).take(count) {
            take(key, value);
        }
        if last {
            return Ok(());
        }
        cursor = Some(next);
    }
}

/// Calls `take` with the values of neighbouring rows of an array, in order.
pub(super) fn for_each_of(
    array: BorrowedFd<'_>,
    first: u32,
    count: u32,
    value: usize,
    mut take: impl FnMut(&[u8]),
) -> io::Result<()> {
    let end = first.saturating_add(count);
    let room = batch(value).min(count).max(1);
    let (mut keys, mut values) = (vec![0_u32; room as usize], vec![0; value * room as usize]);
    for start in (first..end).step_by(room as usize) {
        // The kernel begins after the row that it is told.
        let (before, mut last) = (start.wrapping_sub(1), 0_u32);
        let wanted = room.min(end - start);
        let mut attr = zeroed();
        // SAFETY: writing a field of a union of plain integers, all of whose bytes are set.
        let batch = unsafe { &mut attr.batch };
        batch.map_fd = array.as_raw_fd().cast_unsigned();
        batch.in_batch = if start == 0 {
            0
        } else {
            std::ptr::from_ref(&before) as u64
        };
        batch.out_batch = std::ptr::from_mut(&mut last) as u64;
        batch.keys = keys.as_mut_ptr() as u64;
        batch.values = values.as_mut_ptr() as u64;
        batch.count = wanted;
        match bpf(bpf_cmd::BPF_MAP_LOOKUP_BATCH, &mut attr) {
            Ok(_) => {}
            // These were the last rows of the array.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            Err(error) => return Err(error),
        }
        // SAFETY: the kernel wrote a number of rows there, and every bit pattern is one.
        let count = unsafe { attr.batch.count }.min(wanted) as usize;
        values.chunks_exact(value).take(count).for_each(&mut take);
    }
    Ok(())
}

/// Like [`for_each_row`], one row after the other.
fn for_each_key(
    map: BorrowedFd<'_>,
    key: usize,
    value: usize,
    mut take: impl FnMut(&[u8], &[u8]),
) -> io::Result<()> {
    let (mut before, mut next, mut row) = (None::<Vec<u8>>, vec![0; key], vec![0; value]);
    loop {
        let pointer = before.as_ref().map_or(0, |key| key.as_ptr() as u64);
        match element(
            bpf_cmd::BPF_MAP_GET_NEXT_KEY,
            map,
            pointer,
            next.as_mut_ptr() as u64,
        ) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(()),
            result => result?,
        }
        match element(
            bpf_cmd::BPF_MAP_LOOKUP_ELEM,
            map,
            next.as_ptr() as u64,
            row.as_mut_ptr() as u64,
        ) {
            Ok(()) => take(&next, &row),
            // It has gone meanwhile.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            Err(error) => return Err(error),
        }
        before = Some(next.clone());
    }
}

/// A command about one row. `value` is also where the next key is put.
fn element(command: bpf_cmd, map: BorrowedFd<'_>, key: u64, value: u64) -> io::Result<()> {
    let mut attr = zeroed();
    // SAFETY: writing a field of a union of plain integers, all of whose bytes are set.
    let element = unsafe { &mut attr.__bindgen_anon_2 };
    element.map_fd = map.as_raw_fd().cast_unsigned();
    element.key = key;
    element.__bindgen_anon_1.value = value;
    bpf(command, &mut attr).map(drop)
}

/// A row as the kernel takes it.
pub(super) fn bytes_of<T: Pod>(row: &T) -> &[u8] {
    // SAFETY: a `Pod` may be read byte by byte (no padding, see `lb_common::layout`), and lives as long as the slice.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(row).cast(), size_of::<T>()) }
}

/// A row as the kernel gave it; `None` when the length is wrong.
pub(super) fn from_bytes<T: Pod>(bytes: &[u8]) -> Option<T> {
    // SAFETY: the bytes are as many as the type has, any bit pattern is one of a `Pod`, and the read needs no
    // alignment.
    (bytes.len() == size_of::<T>()).then(|| unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}

fn zeroed() -> bpf_attr {
    // SAFETY: a union of structures of integers; all zero is one of its values, and what the kernel wants of unused
    // fields.
    unsafe { MaybeUninit::zeroed().assume_init() }
}

fn bpf(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<i32> {
    // SAFETY: `attr` is of the size that is told, and what its fields point to lives in the caller and is as large as
    // the command and the map want.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command as libc::c_long,
            std::ptr::from_mut(attr),
            size_of::<bpf_attr>(),
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(i32::try_from(result).unwrap_or(i32::MAX))
    }
}
