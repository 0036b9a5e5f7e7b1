//! The kernel's side of the core. All `unsafe` of this crate is below here.

mod access;
mod devices;
mod env;
mod flows;
mod lookup;
mod maps;
mod programs;
mod tc;
mod xdp;

/// The verifier refuses an object that could get here; `cargo xtask build` looks for it before.
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
