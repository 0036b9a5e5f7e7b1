//! What the verifier makes of each program: instructions that it has followed, stack of the deepest chain of calls.
//!
//! Compared with `verifier-budget.txt`; `UPDATE_EXPECT=1` writes it anew.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests panic"
)]

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ffi::{CStr, CString};
use std::fmt::Write as _;
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd};
use std::path::PathBuf;
use std::{env, fs, io};

use aya::maps::MapData;
use aya_obj::btf::BtfFeatures;
use aya_obj::generated::{bpf_attr, bpf_cmd, bpf_insn, bpf_prog_type};
use aya_obj::{Function, Object, Program, ProgramSection};
use lb_tests::need_root;

/// Never more, whatever the budget says: both families, direct server return and answers are in one program, and the
/// longest took the verifier 0.5 s. The kernel's own limit is a million.
const MOST_INSTRUCTIONS: u32 = 200_000;
/// The kernel's own limit (`MAX_BPF_STACK`).
const MOST_STACK: u32 = 512;
/// Rows of each map: as few as the kernel takes of every kind.
const ROWS: u32 = 1024;

/// What a program costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cost {
    instructions: u32,
    stack: u32,
}

#[test]
fn every_program_stays_within_its_budget() {
    need_root!();
    let costs = costs();
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("verifier-budget.txt");
    if env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(path, text(&costs)).unwrap();
        return;
    }
    let budget = parse(&fs::read_to_string(path).unwrap_or_default());
    let mut wrong = Vec::new();
    for (name, cost) in &costs {
        let Some(most) = budget.get(name) else {
            wrong.push(format!("{name} has no budget: it takes {cost:?}"));
            continue;
        };
        if cost.instructions > most.instructions + most.instructions / 10
            || cost.stack > most.stack + most.stack / 10
        {
            wrong.push(format!("{name}: {cost:?} is more than {most:?} and a tenth"));
        }
        if cost.instructions > MOST_INSTRUCTIONS || cost.stack > MOST_STACK {
            wrong.push(format!("{name}: {cost:?} is more than any program may take"));
        }
    }
    for name in budget.keys().filter(|name| !costs.contains_key(*name)) {
        wrong.push(format!("{name} has a budget, but does not exist"));
    }
    assert!(
        wrong.is_empty(),
        "{wrong:#?}\nIf it must be so, run with UPDATE_EXPECT=1:\n{}",
        text(&costs)
    );
}

fn text(costs: &BTreeMap<String, Cost>) -> String {
    let mut text = String::from("# program  instructions  stack\n");
    for (name, Cost { instructions, stack }) in costs {
        writeln!(text, "{name} {instructions} {stack}").unwrap();
    }
    text
}

fn parse(text: &str) -> BTreeMap<String, Cost> {
    let rows = text.lines().filter(|line| !line.starts_with('#'));
    rows.map(|row| {
        let [name, instructions, stack] = row.split_whitespace().collect::<Vec<_>>().try_into().unwrap();
        let cost = Cost {
            instructions: instructions.parse().unwrap(),
            stack: stack.parse().unwrap(),
        };
        (name.to_owned(), cost)
    })
    .collect()
}

/// Loads every program of the object, as aya does, but keeps what the verifier says.
fn costs() -> BTreeMap<String, Cost> {
    let folder = env::var_os("SLUICE_BPF_DIR").expect("SLUICE_BPF_DIR is not set: use cargo xtask test");
    let object = fs::read(PathBuf::from(folder).join("sluice.o")).unwrap();
    let mut object = Object::parse(&object).unwrap();
    let types = types(&mut object);
    let mut maps = Vec::new();
    for (name, map) in object.maps.drain().collect::<BTreeMap<_, _>>() {
        let mut small = map.clone();
        small.set_max_entries(map.max_entries().min(ROWS));
        let made = MapData::create(small, &name, Some(types.as_fd())).unwrap();
        maps.push((name, map, made));
    }
    let sections: HashSet<usize> = object.functions.keys().map(|(section, _)| *section).collect();
    let by_name = maps
        .iter()
        .map(|(name, map, made)| (name.as_str(), made.fd().as_fd().as_raw_fd(), map));
    object.relocate_maps(by_name, &sections).unwrap();
    object.relocate_calls(&sections).unwrap();
    let programs = object.programs.iter().map(|(name, program)| {
        let function = &object.functions[&program.function_key()];
        let log = load(program, function, &types).unwrap_or_else(|error| panic!("{name}: {error}"));
        (name.clone(), cost(&function.instructions, &log))
    });
    programs.collect()
}

/// Loads the types of the object: by them the kernel knows functions that are verified by themselves.
fn types(object: &mut Object) -> OwnedFd {
    let all = BtfFeatures::new(true, true, true, true, true, true, true, true);
    let types = object.fixup_and_sanitize_btf(&all).unwrap().unwrap().to_bytes();
    // SAFETY: all zero is a valid value of this union.
    let mut attr: bpf_attr = unsafe { std::mem::zeroed() };
    // SAFETY: the member that belongs to BPF_BTF_LOAD.
    let asked = unsafe { &mut attr.__bindgen_anon_7 };
    asked.btf = types.as_ptr() as u64;
    asked.btf_size = u32::try_from(types.len()).unwrap();
    bpf(bpf_cmd::BPF_BTF_LOAD, &mut attr).unwrap()
}

/// A command that gives a descriptor.
fn bpf(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<OwnedFd> {
    // SAFETY: what the union points to lives on, and its lengths are those given.
    let done = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attr),
            size_of::<bpf_attr>(),
        )
    };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given this descriptor, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(i32::try_from(done).map_err(io::Error::other)?) })
}

/// From `processed 4089 insns ...` and `stack depth 8+208+...`, the frame of each function in the order of addresses.
fn cost(instructions: &[bpf_insn], log: &str) -> Cost {
    let after = |prefix: &str| log.lines().find_map(|line| line.strip_prefix(prefix)).unwrap();
    let frames: Vec<u32> = after("stack depth ")
        .split('+')
        .map(|frame| frame.trim().parse().unwrap())
        .collect();
    Cost {
        instructions: after("processed ").split(' ').next().unwrap().parse().unwrap(),
        stack: deepest(&calls(instructions), &frames, 0),
    }
}

/// Which functions each function calls.
fn calls(instructions: &[bpf_insn]) -> Vec<BTreeSet<usize>> {
    let called: Vec<(usize, usize)> = (0..)
        .zip(instructions)
        .filter(|(_, instruction)| is_call(**instruction))
        .map(|(at, instruction)| {
            let distance = isize::try_from(instruction.imm).unwrap() + 1;
            (at, usize::checked_add_signed(at, distance).unwrap())
        })
        .collect();
    let mut starts: Vec<usize> = called.iter().map(|(_, to)| *to).chain([0]).collect();
    starts.sort_unstable();
    starts.dedup();
    let function = |at: usize| starts.partition_point(|start| *start <= at) - 1;
    let mut calls = vec![BTreeSet::new(); starts.len()];
    for (at, to) in called {
        calls[function(at)].insert(function(to));
    }
    calls
}

/// `BPF_JMP | BPF_CALL` with `BPF_PSEUDO_CALL`.
fn is_call(instruction: bpf_insn) -> bool {
    instruction.code == 0x85 && instruction.src_reg() == 1
}

/// The kernel counts frames in units of 16 bytes where it compiles programs (`round_up_stack_depth`).
fn deepest(calls: &[BTreeSet<usize>], frames: &[u32], function: usize) -> u32 {
    let below = calls[function]
        .iter()
        .map(|called| deepest(calls, frames, *called));
    frames[function].max(1).next_multiple_of(16) + below.max().unwrap_or(0)
}

/// Loads a program; returns the verifier's statistics.
fn load(program: &Program, function: &Function, types: &OwnedFd) -> io::Result<String> {
    /// `BPF_LOG_STATS`.
    const STATISTICS: u32 = 4;
    let mut log = vec![0u8; 1 << 16];
    let functions = function.func_info.func_info_bytes();
    let length = |length: usize| u32::try_from(length).map_err(io::Error::other);
    // SAFETY: all zero is a valid value of this union.
    let mut attr: bpf_attr = unsafe { std::mem::zeroed() };
    // SAFETY: the member that belongs to BPF_PROG_LOAD.
    let asked = unsafe { &mut attr.__bindgen_anon_3 };
    asked.prog_type = match program.section {
        ProgramSection::Xdp { .. } => bpf_prog_type::BPF_PROG_TYPE_XDP,
        _ => bpf_prog_type::BPF_PROG_TYPE_SCHED_CLS,
    } as u32;
    asked.insn_cnt = length(function.instructions.len())?;
    asked.insns = function.instructions.as_ptr() as u64;
    asked.license = program.license.as_ptr() as u64;
    asked.prog_btf_fd = types.as_raw_fd().cast_unsigned();
    asked.func_info = functions.as_ptr() as u64;
    asked.func_info_cnt = length(function.func_info.len())?;
    asked.func_info_rec_size = length(function.func_info_rec_size)?;
    asked.log_level = STATISTICS;
    asked.log_size = length(log.len())?;
    asked.log_buf = log.as_mut_ptr() as u64;
    let done = bpf(bpf_cmd::BPF_PROG_LOAD, &mut attr);
    let log = CStr::from_bytes_until_nul(&log).map_or_else(|_| CString::default(), CStr::to_owned);
    let log = log.to_string_lossy().into_owned();
    done.map(|_| log.clone())
        .map_err(|error| io::Error::other(format!("{error}: {log}")))
}
