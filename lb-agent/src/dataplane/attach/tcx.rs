//! TCX links: pinned, so that they outlive the agent, and replaced in place by the next one.

use std::path::Path;

use aya::programs::links::{FdLink, LinkError, PinnedLink};
use aya::programs::tc::TcAttachOptions;
use aya::programs::{LinkOrder, ProgramError, SchedClassifier};
use aya::sys::SyscallError;

use super::{AttachError, AttachPoint, Hook, Outcome};
use crate::dataplane::Pins;

/// The index of the loopback device, in every network namespace.
const LOOPBACK: u32 = 1;

/// Whether the kernel has TCX. Asked of the kernel itself, because its version does not tell: distributions take
/// features back to older kernels, and TCX can be left out of newer ones (`CONFIG_NET_XGRESS`).
pub(super) fn supported() -> bool {
    // Asking changes nothing. What the kernel does not know is an invalid argument; other errors come up again, and
    // are told, when programs are attached.
    let answer = AttachPoint::of(LOOPBACK).and_then(|loopback| chain(&loopback, Hook::Ingress));
    !matches!(
        answer,
        Err(AttachError::Program(ProgramError::SyscallError(SyscallError { io_error, .. })))
            if io_error.raw_os_error() == Some(libc::EINVAL)
    )
}

/// Brings one hook into order: a link of ours is there, in its place, and holds the program of this run.
pub(super) fn sync(
    program: &mut SchedClassifier,
    pins: &Pins,
    point: &AttachPoint,
    hook: Hook,
) -> Result<Outcome, AttachError> {
    let chain = chain(point, hook)?;
    let current = program.info()?.id();
    let Some(link) = pinned(&pins.link(point.ifindex, hook))? else {
        attach(program, pins, point, hook)?;
        return Ok(Outcome::Attached);
    };
    let held = link.info()?.program_id();
    match place(&chain, held, hook) {
        Place::Right if held == current => Ok(Outcome::Kept),
        Place::Right => {
            replace(program, link)?;
            Ok(Outcome::Replaced)
        }
        Place::Wrong => {
            move_into_place(program, pins, point, hook)?;
            Ok(Outcome::Moved)
        }
        // The link of an earlier device of that index, or detached by force.
        Place::Nowhere => {
            drop(link);
            pins.unlink(point.ifindex, hook)?;
            attach(program, pins, point, hook)?;
            Ok(Outcome::Attached)
        }
    }
}

/// Whether a link of ours is there; an error when it is, but not in its place.
pub(super) fn inspect(pins: &Pins, point: &AttachPoint, hook: Hook) -> Result<bool, AttachError> {
    let Some(link) = pinned(&pins.link(point.ifindex, hook))? else {
        return Ok(false);
    };
    match place(&chain(point, hook)?, link.info()?.program_id(), hook) {
        Place::Right => Ok(true),
        Place::Wrong => Err(AttachError::Other(format!(
            "another program took its place at {hook}"
        ))),
        Place::Nowhere => Err(AttachError::Other("its link is detached".to_owned())),
    }
}

/// Ids of the programs at a hook, in the order in which they run.
fn chain(point: &AttachPoint, hook: Hook) -> Result<Vec<u32>, AttachError> {
    let (_revision, programs) = SchedClassifier::query_tcx(&point.name, hook.attach_type())?;
    Ok(programs.iter().map(aya::programs::ProgramInfo::id).collect())
}

#[derive(Debug, PartialEq, Eq)]
enum Place {
    Right,
    Wrong,
    Nowhere,
}

/// Where a program stands among those of a hook: ours is to be last on ingress and first on egress.
fn place(chain: &[u32], program: u32, hook: Hook) -> Place {
    let outermost = match hook {
        Hook::Ingress => chain.last(),
        Hook::Egress => chain.first(),
    };
    if outermost == Some(&program) {
        Place::Right
    } else if chain.contains(&program) {
        Place::Wrong
    } else {
        Place::Nowhere
    }
}

/// The link that is pinned there, if one is.
pub(super) fn pinned(path: &Path) -> Result<Option<FdLink>, AttachError> {
    match PinnedLink::from_pin(path) {
        Ok(link) => Ok(Some(link.into())),
        Err(LinkError::SyscallError(SyscallError { io_error, .. }))
            if io_error.kind() == std::io::ErrorKind::NotFound =>
        {
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

fn attach(
    program: &mut SchedClassifier,
    pins: &Pins,
    point: &AttachPoint,
    hook: Hook,
) -> Result<(), AttachError> {
    let order = match hook {
        Hook::Ingress => LinkOrder::last(),
        Hook::Egress => LinkOrder::first(),
    };
    let id =
        program.attach_with_options(&point.name, hook.attach_type(), TcAttachOptions::TcxOrder(order))?;
    let link: FdLink = program.take_link(id)?.try_into()?;
    link.pin(pins.link(point.ifindex, hook))?;
    match place(&chain(point, hook)?, program.info()?.id(), hook) {
        Place::Right => Ok(()),
        _ => Err(AttachError::Other(format!(
            "another program keeps its place at {hook} before ours"
        ))),
    }
}

/// Gives the link this run's program, at once and in its place; its pin stays.
fn replace(program: &mut SchedClassifier, link: FdLink) -> Result<(), AttachError> {
    let id = program.attach_to_link(link.try_into()?)?;
    // Ours is only one more descriptor of the link, the pin holds it.
    drop(program.take_link(id)?);
    Ok(())
}

/// A link cannot be moved and a program cannot be at a hook twice, so it leaves and comes back.
fn move_into_place(
    program: &mut SchedClassifier,
    pins: &Pins,
    point: &AttachPoint,
    hook: Hook,
) -> Result<(), AttachError> {
    pins.unlink(point.ifindex, hook)?;
    attach(program, pins, point, hook)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ours_is_last_on_ingress_and_first_on_egress() {
        let cases = [
            (&[7][..], Hook::Ingress, Place::Right),
            (&[1, 7], Hook::Ingress, Place::Right),
            (&[7, 1], Hook::Ingress, Place::Wrong),
            (&[7, 1], Hook::Egress, Place::Right),
            (&[1, 7], Hook::Egress, Place::Wrong),
            (&[1, 2], Hook::Egress, Place::Nowhere),
            (&[], Hook::Ingress, Place::Nowhere),
        ];
        for (chain, hook, expected) in cases {
            assert_eq!(place(chain, 7, hook), expected, "{chain:?} at {hook}");
        }
    }
}
