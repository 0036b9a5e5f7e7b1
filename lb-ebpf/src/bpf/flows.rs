//! The flow table in the kernel: see [`lb_common::flow_table`].
//!
//! Each of the things that are done with it, or with the key of a flow, is a function that the verifier checks once,
//! whoever calls it: a global one (Documentation/bpf/verifier.rst), which is what `no_mangle` makes it. So it can be sure of
//! no pointer that it is given.

use core::arch::asm;

use aya_ebpf::helpers::bpf_ktime_get_ns;
use lb_common::flow_table::{self, FlowRow, FlowTags, Place, Way};
use lb_common::{Counter, Flow, FlowKey, Ip4, Ip6, Port, V4, V6};
use lb_ebpf::headers::flow_hash;

use super::env;
use super::maps::{self, FamilyMaps};

/// A family's flow table.
pub(super) trait FlowTable: FamilyMaps {
    /// Copies the flow of a key; whether there is one.
    fn find_flow(key: &FlowKey<Self::Addr>, flow: &mut Flow<Self::Addr>) -> bool;
    /// Puts a flow in; `replace` what stands there, or do not.
    fn put_flow(key: &FlowKey<Self::Addr>, flow: &Flow<Self::Addr>, replace: bool) -> i32;
    /// [`lb_ebpf::headers::flow_hash`] under the settings' seed.
    fn hash_flow(key: &FlowKey<Self::Addr>) -> u32;
    /// Takes a flow out.
    fn take_flow(key: &FlowKey<Self::Addr>);
}

/// The flow is in.
pub(super) const DONE: i32 = 0;
/// One with this key stands there.
pub(super) const EXISTS: i32 = 1;
/// There is no such bucket, because the agent has not said yet how many there are; or others write it all the time.
const NO_ROOM: i32 = 2;

macro_rules! flow_table {
    ($family:ident $addr:ident: $find:ident $put:ident $take:ident $hash:ident) => {
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
                return NO_ROOM;
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

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $hash(key: *const FlowKey<$addr>) -> u32 {
            match maps::SETTINGS.get(0) {
                // SAFETY: as above.
                Some(settings) if !key.is_null() => unsafe {
                    flow_hash::<$family>(&*key, settings.hash_seed)
                },
                _ => 0,
            }
        }

        impl FlowTable for $family {
            #[inline(always)]
            fn hash_flow(key: &FlowKey<$addr>) -> u32 {
                $hash(key)
            }

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
flow_table!(V4 Ip4: lb_find_flow4 lb_put_flow4 lb_take_flow4 lb_hash_flow4);
flow_table!(V6 Ip6: lb_find_flow6 lb_put_flow6 lb_take_flow6 lb_hash_flow6);

/// The number of the last way.
const LAST: usize = flow_table::WAYS as usize - 1;
/// How often something is tried anew because somebody wrote meanwhile.
const ATTEMPTS: usize = 2;
/// How often a bucket that is being written is looked at until its writer is given up: longer than one takes, unless the
/// machine under it has stopped. Until it goes on, flows are found as they stand there, and new ones not opened.
const PATIENCE: u32 = 8;

/// Whether nobody writes a bucket of this version.
#[inline(always)]
const fn is_quiet(version: u64) -> bool {
    version & 1 == 0
}

/// The bucket of a key.
struct Bucket {
    tags: *mut FlowTags,
    place: Place,
    /// [`FlowHash::reorders`](lb_common::FlowHash::reorders).
    reorders: bool,
}

#[inline(always)]
fn bucket<F: FamilyMaps>(key: &FlowKey<F::Addr>) -> Option<Bucket> {
    let hash = maps::FLOW_HASH.get(0)?;
    let place = as_written(key).place(hash);
    let tags = F::flow_tags().get_ptr_mut(place.bucket)?;
    Some(Bucket {
        tags,
        place,
        reorders: hash.reorders != 0,
    })
}

/// A copy of a key, read in the pieces that it has been written in just now: a processor hands no others on, but waits until
/// they are in the cache.
#[inline(always)]
fn as_written<A: Copy>(key: &FlowKey<A>) -> FlowKey<A> {
    // SAFETY: they are read from a reference; a port is as a word is.
    unsafe {
        let port = |port: *const Port| Port::from_word(port.cast::<u16>().read_volatile());
        FlowKey {
            src: key.src,
            dst: key.dst,
            src_port: port(&raw const key.src_port),
            dst_port: port(&raw const key.dst_port),
            protocol: (&raw const key.protocol).read_volatile(),
            stage: (&raw const key.stage).read_volatile(),
            pad: [0; 2],
        }
    }
}

/// The flow of a bucket with that number.
#[inline(always)]
fn row<F: FamilyMaps>(at: &Bucket, way: usize) -> Option<*mut FlowRow<F::Addr>> {
    F::flows().get_ptr_mut(at.place.row(way as u32))
}

/// What was copied while somebody wrote does not count, unless who writes does not go on. Then a flow is as it should be if its
/// key still stands there: a writer begins with that. Without it, a reply would leave with the pod's address.
///
/// Where a processor does not keep the order of loads (arm64), what was copied may be of two moments even so. A known flow
/// is used only if the packet's backend is the one that it says (`stage::is_steady`), and the rest is right within a second.
///
/// # Safety
/// `flow` can be written.
#[inline(always)]
unsafe fn find<F: FamilyMaps>(key: &FlowKey<F::Addr>, flow: *mut Flow<F::Addr>) -> bool {
    let Some(at) = bucket::<F>(key) else {
        return false;
    };
    // SAFETY: elements of arrays live as long as the map; other CPUs change the version before and after they write them.
    unsafe {
        let mut found = false;
        for _attempt in 0..ATTEMPTS {
            let version = at.quiet();
            found = copy_flow::<F>(&at, key, flow);
            if is_quiet(version) && at.version() == version {
                return found;
            }
        }
        found && row_of::<F>(&at, key).is_some()
    }
}

/// Copies the flow of a key.
///
/// # Safety
/// The bucket is one of the table, and `flow` can be written.
#[inline(always)]
unsafe fn copy_flow<F: FamilyMaps>(at: &Bucket, key: &FlowKey<F::Addr>, flow: *mut Flow<F::Addr>) -> bool {
    // SAFETY: the caller's.
    unsafe {
        let Some(row) = row_of::<F>(at, key) else {
            return false;
        };
        copy::<u64, _>(&raw const (*row).flow, flow);
        true
    }
}

/// The row of a key's flow.
///
/// # Safety
/// The bucket is one of the table.
#[inline(always)]
unsafe fn row_of<F: FamilyMaps>(at: &Bucket, key: &FlowKey<F::Addr>) -> Option<*mut FlowRow<F::Addr>> {
    // SAFETY: the caller's.
    unsafe {
        let found = flow_table::find(|way| at.tag(way), at.place.tag);
        if found == 0 {
            return None;
        }
        let row = row::<F>(at, masked(found - 1))?;
        (difference(&raw const (*row).key, key) == 0).then_some(row)
    }
}

/// The place is found before the bucket is claimed, and found anew if somebody wrote meanwhile.
#[inline(always)]
fn put<F: FamilyMaps>(key: &FlowKey<F::Addr>, flow: &Flow<F::Addr>, replace: u32) -> i32 {
    let Some(at) = bucket::<F>(key) else {
        return NO_ROOM;
    };
    let (seen, assured) = (flow.seen(), u8::from(flow.is_assured()));
    for _attempt in 0..ATTEMPTS {
        // SAFETY: elements of arrays live as long as the map, and are written by who has claimed their bucket.
        unsafe {
            let version = at.quiet();
            let turn = opaque(flow_table::turn(version, at.tag(LAST)));
            let claim = flow_table::claim(|way| at.way(way, turn), at.place.tag, seen, opaque);
            let way = masked(claim.order ^ turn);
            let Some(row) = row::<F>(&at, way) else {
                return NO_ROOM;
            };
            let stands = replace == 0 && claim.is_own() && difference(&raw const (*row).key, key) == 0;
            if stands && at.version() == version {
                return EXISTS;
            }
            if stands || !at.begin(version) {
                continue;
            }
            copy::<u32, _>(key, &raw mut (*row).key);
            copy::<u64, _>(flow, &raw mut (*row).flow);
            at.set(way, at.place.tag, seen, assured);
            at.end(version);
            if claim.evicts() {
                env::count(Counter::FlowEvicted);
            }
            return DONE;
        }
    }
    NO_ROOM
}

#[inline(always)]
fn take<F: FamilyMaps>(key: &FlowKey<F::Addr>) {
    let Some(at) = bucket::<F>(key) else {
        return;
    };
    for _attempt in 0..ATTEMPTS {
        // SAFETY: as in `put`.
        unsafe {
            let version = at.quiet();
            let found = flow_table::find(|way| at.tag(way), at.place.tag);
            let way = masked(found.wrapping_sub(1));
            let Some(row) = row::<F>(&at, way) else {
                return;
            };
            let stands = found != 0 && difference(&raw const (*row).key, key) == 0;
            if !stands && at.version() == version {
                return;
            }
            if !stands || !at.begin(version) {
                continue;
            }
            (&raw mut (*row).key.protocol).write_volatile(0);
            at.set(way, 0, 0, 0);
            at.end(version);
            return;
        }
    }
}

/// What is asked of it has to be a bucket of the table, with ways that it has.
impl Bucket {
    /// # Safety
    /// The bucket is one of the table.
    #[inline(always)]
    unsafe fn version(&self) -> u64 {
        // SAFETY: the caller's.
        unsafe { (&raw const (*self.tags).version).read_volatile() }
    }

    /// The version, once nobody writes; odd when somebody does all the time.
    ///
    /// # Safety
    /// As of [`Self::version`].
    #[inline(always)]
    unsafe fn quiet(&self) -> u64 {
        // SAFETY: the caller's.
        unsafe {
            let mut looks = PATIENCE;
            while !is_quiet(self.version()) && looks != 0 {
                looks -= 1;
                // For the time that it takes.
                _ = bpf_ktime_get_ns();
            }
            self.version()
        }
    }

    /// Claims the bucket, if nobody has written since it had this version; whether it is claimed. What others read from now
    /// on does not count.
    ///
    /// # Safety
    /// As of [`Self::version`].
    #[inline(always)]
    unsafe fn begin(&self, version: u64) -> bool {
        if !is_quiet(version) {
            return false;
        }
        let mut found = version;
        // SAFETY: the caller's; a compare-and-exchange of eight bytes (the compiler's own is not for BPF), fully ordered.
        unsafe {
            asm!(
                "r0 = cmpxchg_64({at} + 0, r0, {new})",
                at = in(reg) &raw mut (*self.tags).version,
                new = in(reg) version.wrapping_add(1),
                inout("r0") found,
                options(nostack),
            );
        }
        found == version
    }

    /// The bucket is as it should be.
    ///
    /// A plain write where others see it after those before it: what is atomic would wait for all of them, of which
    /// that of the row mostly misses all caches.
    ///
    /// # Safety
    /// As of [`Self::begin`], which came before, with the same version.
    #[inline(always)]
    unsafe fn end(&self, version: u64) {
        let next = version.wrapping_add(2);
        // SAFETY: the caller's; an exchange of eight bytes, fully ordered.
        unsafe {
            let at = &raw mut (*self.tags).version;
            if self.reorders {
                asm!("{0} = xchg_64({1} + 0, {0})", inout(reg) next => _, in(reg) at, options(nostack));
            } else {
                at.write_volatile(next);
            }
        }
    }

    /// # Safety
    /// As of [`Self::way`], and the bucket is claimed.
    #[inline(always)]
    unsafe fn set(&self, way: usize, tag: u32, seen: u16, assured: u8) {
        // SAFETY: the caller's.
        unsafe {
            (&raw mut (*self.tags).tags)
                .cast::<u32>()
                .add(way)
                .write_volatile(tag);
            (&raw mut (*self.tags).seen)
                .cast::<u16>()
                .add(way)
                .write_volatile(seen);
            (&raw mut (*self.tags).assured)
                .cast::<u8>()
                .add(way)
                .write_volatile(assured);
        }
    }

    /// # Safety
    /// As of [`Self::way`].
    #[inline(always)]
    unsafe fn tag(&self, way: usize) -> u64 {
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
    /// The bucket is one of the table, and the number is below eight.
    #[inline(always)]
    unsafe fn way(&self, way: usize, turn: u64) -> Way {
        // SAFETY: the caller's.
        unsafe {
            Way {
                tag: self.tag(way),
                seen: (&raw const (*self.tags).seen)
                    .cast::<u16>()
                    .add(way)
                    .read_volatile(),
                assured: (&raw const (*self.tags).assured)
                    .cast::<u8>()
                    .add(way)
                    .read_volatile(),
                order: opaque(way as u64 ^ turn),
            }
        }
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

/// The same number, of which the compiler knows nothing: or else it makes branches of what is without, which a processor
/// cannot foresee. Not `pure`, so that it stays where it is: or else all of a bucket is read first, and has no place but the
/// stack.
#[inline(always)]
fn opaque(mut number: u64) -> u64 {
    // SAFETY: no instruction.
    unsafe { asm!("/* {0} */", inout(reg) number, options(nomem, nostack)) };
    number
}

/// 0 when both keys are the same.
///
/// # Safety
/// Both can be read.
#[inline(always)]
unsafe fn difference<A>(one: *const FlowKey<A>, other: *const FlowKey<A>) -> u64 {
    let words = size_of::<FlowKey<A>>() / 4;
    // One word after the other: or else the compiler reads all of them first, and has no place for them but the stack.
    // SAFETY: the caller's; keys are made of words.
    (0..words).fold(0, |found, word| unsafe {
        let (one, other) = (one.cast::<u32>().add(word), other.cast::<u32>().add(word));
        opaque(found | u64::from(one.read_volatile() ^ other.read_volatile()))
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
