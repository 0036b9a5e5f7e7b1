//! What the bench needs in the kernel: wrappers that restore the packet before each run, and floors to compare with.
//! Never attached; run by `BPF_PROG_TEST_RUN`. On the host this is an empty stand-in.

#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

#[cfg(target_arch = "bpf")]
mod programs;

#[cfg(not(target_arch = "bpf"))]
fn main() {}
