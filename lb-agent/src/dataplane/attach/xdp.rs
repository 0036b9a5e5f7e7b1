//! XDP links: pinned, so that they outlive the agent, and replaced in place by the next one.
//!
//! A device takes one XDP program. Where somebody else's is, it stays, and TC does all the work.

use aya::programs::links::FdLink;
use aya::programs::{self, ProgramError, Xdp, XdpError};
use aya::sys::SyscallError;
use futures::TryStreamExt as _;
use rtnetlink::Handle;
use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage, LinkXdp, XdpAttached};

use super::tcx::pinned;
use super::{AttachError, AttachPoint, Outcome};
use crate::dataplane::Pins;
use crate::dataplane::xdp::{NoXdp, XdpMode, XdpState};

/// The XDP program at a device, whosever it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Attached {
    program: u32,
    /// `None` when it is in none of the modes that we use.
    mode: Option<XdpMode>,
}

/// What is at a device now.
pub(super) async fn attached(netlink: &Handle, ifindex: u32) -> Result<Option<Attached>, rtnetlink::Error> {
    let mut links = std::pin::pin!(netlink.link().get().match_index(ifindex).execute());
    Ok(links.try_next().await?.as_ref().and_then(found))
}

/// Brings XDP at an uplink into order: a link of ours is there in this mode and holds the program of this run, or it is known
/// why not.
pub(super) fn sync(
    program: &mut Xdp,
    pins: &Pins,
    point: &AttachPoint,
    mode: XdpMode,
    present: Option<Attached>,
) -> Result<(XdpState, Outcome), AttachError> {
    let link = pinned(&pins.xdp_link(point.ifindex))?;
    if let (Some(link), Some(present)) = (link, present)
        && link.info()?.program_id() == present.program
        && present.mode == Some(mode)
    {
        let outcome = hold(program, link, present)?;
        return Ok((Ok(mode), outcome));
    }
    // In another mode; or the link of an earlier device of that index, or detached by force.
    let had_one = pins.unlink_xdp(point.ifindex)?;
    if present.is_some() && !had_one {
        return Ok((Err(NoXdp::Foreign), Outcome::Kept));
    }
    let outcome = if had_one {
        Outcome::Moved
    } else {
        Outcome::Attached
    };
    match attach(program, pins, point, mode) {
        Ok(()) => Ok((Ok(mode), outcome)),
        Err(error) => match refusal(&error) {
            Some(reason) => Ok((Err(reason), Outcome::Kept)),
            None => Err(error),
        },
    }
}

/// How XDP is attached at a device by our link, if it is.
pub(super) fn inspect(
    pins: &Pins,
    ifindex: u32,
    present: Option<Attached>,
) -> Result<Option<XdpMode>, AttachError> {
    let link = pinned(&pins.xdp_link(ifindex))?;
    let (Some(link), Some(present)) = (link, present) else {
        return Ok(None);
    };
    let ours = link.info()?.program_id() == present.program;
    Ok(present.mode.filter(|_| ours))
}

/// Gives the link this run's program, at once; its pin stays.
fn hold(program: &mut Xdp, link: FdLink, present: Attached) -> Result<Outcome, AttachError> {
    if program.info()?.id() == present.program {
        return Ok(Outcome::Kept);
    }
    let id = program.attach_to_link(link.try_into()?)?;
    // Ours is only one more descriptor of the link, the pin holds it.
    drop(program.take_link(id)?);
    Ok(Outcome::Replaced)
}

fn attach(program: &mut Xdp, pins: &Pins, point: &AttachPoint, mode: XdpMode) -> Result<(), AttachError> {
    let mode = match mode {
        XdpMode::Native => programs::XdpMode::Driver,
        XdpMode::Generic => programs::XdpMode::Skb,
    };
    let id = program.attach_to_if_index(point.ifindex, mode)?;
    let link: FdLink = program.take_link(id)?.try_into()?;
    link.pin(pins.xdp_link(point.ifindex))?;
    Ok(())
}

/// What the kernel means by refusing the program; `None` when it is none of the device's doing.
fn refusal(error: &AttachError) -> Option<NoXdp> {
    let AttachError::Program(error) = error else {
        return None;
    };
    let error = match error {
        ProgramError::SyscallError(SyscallError { io_error, .. }) => io_error.raw_os_error(),
        ProgramError::XdpError(XdpError::NetlinkError(error)) => error.raw_os_error(),
        _ => None,
    }?;
    match error {
        libc::EBUSY | libc::EEXIST => Some(NoXdp::Foreign),
        libc::ENODEV => None,
        error => Some(NoXdp::Refused(error)),
    }
}

/// The program that netlink tells of.
fn found(message: &LinkMessage) -> Option<Attached> {
    let xdp = message.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Xdp(xdp) => Some(xdp),
        _ => None,
    })?;
    let mode = xdp.iter().find_map(|part| match part {
        LinkXdp::Attached(XdpAttached::Driver) => Some(XdpMode::Native),
        LinkXdp::Attached(XdpAttached::SocketBuffer) => Some(XdpMode::Generic),
        _ => None,
    });
    xdp.iter().find_map(|part| match part {
        LinkXdp::ProgId(program) | LinkXdp::DrvProgId(program) | LinkXdp::SkbProgId(program) => {
            Some(Attached {
                program: *program,
                mode,
            })
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn refused(number: i32) -> AttachError {
        AttachError::Program(ProgramError::SyscallError(SyscallError {
            call: "bpf_link_create",
            io_error: io::Error::from_raw_os_error(number),
        }))
    }

    #[test]
    fn what_the_kernel_says_becomes_a_reason() {
        assert_eq!(refusal(&refused(libc::EBUSY)), Some(NoXdp::Foreign));
        assert_eq!(
            refusal(&refused(libc::EOPNOTSUPP)),
            Some(NoXdp::Refused(libc::EOPNOTSUPP))
        );
        assert_eq!(refusal(&refused(libc::ENODEV)), None);
        assert_eq!(refusal(&AttachError::Other(String::new())), None);
    }

    #[test]
    fn netlink_tells_program_and_mode() {
        let found = |attributes: Vec<LinkXdp>| {
            let mut message = LinkMessage::default();
            message.attributes.push(LinkAttribute::Xdp(attributes));
            super::found(&message)
        };
        assert_eq!(found(vec![LinkXdp::Attached(XdpAttached::None)]), None);
        assert_eq!(
            found(vec![LinkXdp::Attached(XdpAttached::Driver), LinkXdp::ProgId(7)]),
            Some(Attached {
                program: 7,
                mode: Some(XdpMode::Native)
            })
        );
        assert_eq!(
            found(vec![
                LinkXdp::Attached(XdpAttached::Multiple),
                LinkXdp::DrvProgId(7)
            ]),
            Some(Attached {
                program: 7,
                mode: None
            })
        );
    }
}
