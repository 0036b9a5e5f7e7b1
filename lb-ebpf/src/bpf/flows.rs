//! The flow table in the kernel: see [`lb_common::flow_table`].
//!
//! Each of the three things that are done with it is a function that the verifier checks once, whoever calls it: a global
//! one (Documentation/bpf/verifier.rst), which is what `no_mangle` makes it. So it can be sure of no pointer that it is given.

use core::arch::asm;

use aya_ebpf::bindings::bpf_spin_lock;
use aya_ebpf::helpers::generated::{bpf_spin_lock as lock, bpf_spin_unlock as unlock};
use lb_common::flow_table::{self, Bucket, Entry, FlowTags, Place, Way};
use lb_common::{Counter, Flow, FlowKey, Ip4, Ip6, V4, V6};

use super::env;
use super::maps::{self, FamilyMaps};

/// A family's flow table.
pub(super) trait FlowTable: FamilyMaps {
    /// Copies the flow of a key; whether there is one.
    fn find_flow(key: &FlowKey<Self::Addr>, flow: &mut Flow<Self::Addr>) -> bool;
    /// Puts a flow in; `replace` what stands there, or do not.
    fn put_flow(key: &FlowKey<Self::Addr>, flow: &Flow<Self::Addr>, replace: bool) -> i32;
    /// Takes a flow out.
    fn take_flow(key: &FlowKey<Self::Addr>);
}

/// The flow is in.
pub(super) const DONE: i32 = 0;
/// One with this key stands there.
pub(super) const EXISTS: i32 = 1;
/// There is no such bucket: the agent has not said yet how many there are.
const NO_BUCKET: i32 = 2;

macro_rules! flow_table {
    ($family:ident $addr:ident: $find:ident $put:ident $take:ident) => {
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $find(key: *const FlowKey<$addr>, flow: *mut Flow<$addr>) -> u32 {
            if key.is_null() || flow.is_null() {
                return 0;
            }
            // SAFETY: the caller's, who gives references; the null test is for the verifier.
            unsafe { find::<$family>(&*key, flow) }.into()
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $put(key: *const FlowKey<$addr>, flow: *const Flow<$addr>, replace: u32) -> i32 {
            if key.is_null() || flow.is_null() {
                return NO_BUCKET;
            }
            // SAFETY: as above.
            unsafe { put::<$family>(&*key, &*flow, replace) }
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $take(key: *const FlowKey<$addr>) -> u32 {
            if !key.is_null() {
                // SAFETY: as above.
                unsafe { take::<$family>(&*key) }
            }
            0
        }

        impl FlowTable for $family {
            #[inline(always)]
            fn find_flow(key: &FlowKey<$addr>, flow: &mut Flow<$addr>) -> bool {
                $find(key, flow) != 0
            }

            #[inline(always)]
            fn put_flow(key: &FlowKey<$addr>, flow: &Flow<$addr>, replace: bool) -> i32 {
                $put(key, flow, replace.into())
            }

            #[inline(always)]
            fn take_flow(key: &FlowKey<$addr>) {
                $take(key);
            }
        }
    };
}
flow_table!(V4 Ip4: lb_find_flow4 lb_put_flow4 lb_take_flow4);
flow_table!(V6 Ip6: lb_find_flow6 lb_put_flow6 lb_take_flow6);

/// The bucket of a key, and what to look for in it.
struct Found<A> {
    tags: *mut FlowTags,
    bucket: *mut Bucket<A>,
    tag: u32,
}

#[inline(always)]
fn bucket<F: FamilyMaps>(key: &FlowKey<F::Addr>) -> Option<Found<F::Addr>> {
    let Place { bucket, tag } = key.place(maps::FLOW_HASH.get(0)?);
    Some(Found {
        tags: F::flow_tags().get_ptr_mut(bucket)?,
        bucket: F::flows().get_ptr_mut(bucket)?,
        tag,
    })
}

/// Without the lock; with it only if somebody wrote meanwhile.
///
/// # Safety
/// `flow` can be written.
#[inline(always)]
unsafe fn find<F: FamilyMaps>(key: &FlowKey<F::Addr>, flow: *mut Flow<F::Addr>) -> bool {
    let Some(at) = bucket::<F>(key) else {
        return false;
    };
    // SAFETY: elements of arrays live as long as the map; other CPUs write them only under the lock, and change the
    // version before and after.
    unsafe {
        let version = (&raw const (*at.tags).version).read_volatile();
        let found = at.copy(key, flow);
        let is_same = (&raw const (*at.tags).version).read_volatile() == version;
        if is_same && version & 1 == 0 {
            return found;
        }
        lock(at.lock());
        let found = at.copy(key, flow);
        unlock(at.lock());
        found
    }
}

#[inline(always)]
fn put<F: FamilyMaps>(key: &FlowKey<F::Addr>, flow: &Flow<F::Addr>, replace: u32) -> i32 {
    let Some(at) = bucket::<F>(key) else {
        return NO_BUCKET;
    };
    let (seen, assured) = (flow.seen(), u8::from(flow.is_assured()));
    // SAFETY: elements of arrays live as long as the map, and are written under the lock.
    unsafe {
        lock(at.lock());
        let claim = flow_table::claim(|way| at.way(way), at.tag, seen);
        let way = masked(claim.way as u64);
        let entry = at.entry(way);
        if replace == 0 && claim.is_own() && difference(&raw const (*entry).key, key) == 0 {
            unlock(at.lock());
            return EXISTS;
        }
        at.begin();
        copy::<u32, _>(key, &raw mut (*entry).key);
        copy::<u64, _>(flow, &raw mut (*entry).flow);
        (&raw mut (*at.tags).tags)
            .cast::<u32>()
            .add(way)
            .write_volatile(at.tag);
        (&raw mut (*at.tags).seen)
            .cast::<u16>()
            .add(way)
            .write_volatile(seen);
        (&raw mut (*at.tags).assured)
            .cast::<u8>()
            .add(way)
            .write_volatile(assured);
        at.end();
        unlock(at.lock());
        if claim.evicts() {
            env::count(Counter::FlowEvicted);
        }
        DONE
    }
}

#[inline(always)]
fn take<F: FamilyMaps>(key: &FlowKey<F::Addr>) {
    let Some(at) = bucket::<F>(key) else {
        return;
    };
    // SAFETY: as in `put`.
    unsafe {
        lock(at.lock());
        let found = flow_table::find(|way| at.tag_of(way), at.tag);
        let way = masked(found.wrapping_sub(1));
        let entry = at.entry(way);
        if found != 0 && difference(&raw const (*entry).key, key) == 0 {
            at.begin();
            (&raw mut (*at.tags).tags)
                .cast::<u32>()
                .add(way)
                .write_volatile(0);
            (&raw mut (*entry).key.protocol).write_volatile(0);
            at.end();
        }
        unlock(at.lock());
    }
}

/// What is asked of it has to be of one bucket of the table, and what writes needs its lock.
impl<A> Found<A> {
    #[inline(always)]
    fn lock(&self) -> *mut bpf_spin_lock {
        // The first field.
        self.tags.cast()
    }

    /// Copies the flow of a key.
    ///
    /// # Safety
    /// The pointers are those of a bucket, and `flow` can be written.
    #[inline(always)]
    unsafe fn copy(&self, key: &FlowKey<A>, flow: *mut Flow<A>) -> bool {
        // SAFETY: the caller's; the number of the way is below eight.
        unsafe {
            let found = flow_table::find(|way| self.tag_of(way), self.tag);
            if found == 0 {
                return false;
            }
            let entry = self.entry(masked(found - 1));
            if difference(&raw const (*entry).key, key) != 0 {
                return false;
            }
            copy::<u64, _>(&raw const (*entry).flow, flow);
            true
        }
    }

    /// What is read from now on does not count.
    ///
    /// # Safety
    /// The lock is held.
    #[inline(always)]
    unsafe fn begin(&self) {
        // SAFETY: the caller's.
        unsafe {
            let version = &raw mut (*self.tags).version;
            version.write_volatile(version.read_volatile() | 1);
        }
    }

    /// The bucket is as it should be.
    ///
    /// # Safety
    /// As of [`Self::begin`], which came before.
    #[inline(always)]
    unsafe fn end(&self) {
        // SAFETY: the caller's.
        unsafe {
            let version = &raw mut (*self.tags).version;
            version.write_volatile(version.read_volatile().wrapping_add(1));
        }
    }

    /// # Safety
    /// The number is that of a way.
    #[inline(always)]
    unsafe fn tag_of(&self, way: usize) -> u64 {
        // SAFETY: the caller's.
        let tag = unsafe {
            (&raw const (*self.tags).tags)
                .cast::<u32>()
                .add(way)
                .read_volatile()
        };
        opaque(tag.into())
    }

    /// # Safety
    /// As of [`Self::tag_of`].
    #[inline(always)]
    unsafe fn way(&self, way: usize) -> Way {
        // SAFETY: the caller's.
        unsafe {
            Way {
                tag: self.tag_of(way),
                seen: (&raw const (*self.tags).seen)
                    .cast::<u16>()
                    .add(way)
                    .read_volatile(),
                assured: (&raw const (*self.tags).assured)
                    .cast::<u8>()
                    .add(way)
                    .read_volatile(),
            }
        }
    }

    /// # Safety
    /// As of [`Self::tag_of`].
    #[inline(always)]
    unsafe fn entry(&self, way: usize) -> *mut Entry<A> {
        // SAFETY: the caller's.
        unsafe { (&raw mut (*self.bucket).entries).cast::<Entry<A>>().add(way) }
    }
}

/// The number of a way, so that the verifier sees that it is one.
#[inline(always)]
fn masked(mut way: u64) -> usize {
    const _: () = assert!(flow_table::WAYS == 8);
    // SAFETY: arithmetic on a register.
    unsafe { asm!("{0} &= 7", inout(reg) way, options(pure, nomem, nostack)) };
    way as usize
}

/// The same number, of which the compiler knows nothing: or else it makes branches of what is without.
#[inline(always)]
fn opaque(mut number: u64) -> u64 {
    // SAFETY: no instruction.
    unsafe { asm!("/* {0} */", inout(reg) number, options(pure, nomem, nostack)) };
    number
}

/// 0 when both keys are the same.
///
/// # Safety
/// Both can be read.
#[inline(always)]
unsafe fn difference<A>(one: *const FlowKey<A>, other: *const FlowKey<A>) -> u32 {
    let words = size_of::<FlowKey<A>>() / 4;
    // SAFETY: the caller's; keys are made of words.
    (0..words).fold(0, |found, word| unsafe {
        found | one.cast::<u32>().add(word).read_volatile() ^ other.cast::<u32>().add(word).read_volatile()
    })
}

/// Copies by words of a size that the value is made of. Volatile: another CPU may write meanwhile.
///
/// # Safety
/// `from` can be read, `to` be written.
#[inline(always)]
unsafe fn copy<W: Copy, T>(from: *const T, to: *mut T) {
    for word in 0..size_of::<T>() / size_of::<W>() {
        // SAFETY: the caller's.
        unsafe {
            let value = from.cast::<W>().add(word).read_volatile();
            to.cast::<W>().add(word).write_volatile(value);
        }
    }
}
