//! What holds for every packet, whatever it was and whatever became of it.

use std::net::IpAddr;

use crate::cases::vip;
use crate::engine::{TestFamily, Verdict, backend, end};
use crate::packet::{Residue, is_later_fragment, network_residues, quoted};

/// How a packet was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Not at all.
    None,
    /// Endpoints were replaced.
    Translated,
    /// A header was put around it, or taken off.
    Wrapped,
    /// It has become another packet.
    Answered,
}

/// What was done to a packet, both from the network header on; or what is wrong about it.
pub(super) fn judge<F: TestFamily>(
    verdict: Verdict,
    before: &[u8],
    after: &[u8],
) -> Result<Change, &'static str> {
    match verdict {
        // Nobody sees it any more.
        Verdict::Dropped => return Ok(Change::None),
        Verdict::On if before == after => return Ok(Change::None),
        // A connection of the node's own straight to a pod may have been given another port, and no other address.
        Verdict::Redirected if before == after && is_later_fragment(before) => return Ok(Change::None),
        // At the least it has come a hop further.
        Verdict::Back | Verdict::Redirected if before == after => return Err("sent on as it was"),
        Verdict::On | Verdict::Back | Verdict::Redirected => {}
    }
    if is_nobodys::<F>(before) {
        return Err("changed, and it is no service's");
    }
    let [was, is] = [before, after].map(network_residues);
    if was == is {
        return Ok(Change::Translated);
    }
    if inside(&is) == was || inside(&was) == is {
        return Ok(Change::Wrapped);
    }
    if verdict == Verdict::On {
        return Err("checksums are off by another amount than before");
    }
    // A packet that was wrong is quoted as it was.
    let own = is.iter().filter(|residue| residue.depth == 0);
    if own.clone().any(|residue| !residue.is_whole || residue.off != 0) || own.count() == 0 {
        return Err("an answer that is no whole packet, or has a wrong checksum");
    }
    if quoted(after).is_some_and(|quoted| !before.starts_with(quoted) && !is_in_wrapper(before, quoted)) {
        return Err("an error that quotes another packet");
    }
    Ok(Change::Answered)
}

/// Whether `before` is an error about a wrapped packet, and that packet begins so: then its sender is told in turn.
fn is_in_wrapper(before: &[u8], packet: &[u8]) -> bool {
    let Some(outer) = quoted(before) else {
        return false;
    };
    let header = match outer.first() {
        Some(first) if first >> 4 == 4 => usize::from(first & 0x0f) * 4,
        _ => 40,
    };
    outer.get(header..).is_some_and(|inner| inner.starts_with(packet))
}

/// The residues of what is in a wrapper.
fn inside(residues: &[Residue]) -> Vec<Residue> {
    residues
        .iter()
        .filter(|residue| residue.depth > 0)
        .map(|residue| Residue {
            depth: residue.depth - 1,
            ..*residue
        })
        .collect()
}

/// A packet between two who have to do with no service, and not about packets of others: TCP, UDP or SCTP.
fn is_nobodys<F: TestFamily>(bytes: &[u8]) -> bool {
    let Some((ends, protocol)) = crate::packet::ends(bytes) else {
        return true;
    };
    crate::packet::has_ports(protocol) && !ends.into_iter().any(has_to_do_with_services::<F>)
}

fn has_to_do_with_services<F: TestFamily>(ip: IpAddr) -> bool {
    let starts_like = |other: IpAddr, rest: u32| match (ip, other) {
        (IpAddr::V4(ip), IpAddr::V4(other)) => (ip.to_bits() ^ other.to_bits()) >> rest == 0,
        (IpAddr::V6(ip), IpAddr::V6(other)) => (ip.to_bits() ^ other.to_bits()) >> rest == 0,
        _ => false,
    };
    // VIPs, the node's addresses, backends here and there.
    starts_like(vip::<F>(0).ip(), 8)
        || [[2, 1], [2, 2], [5, 1]]
            .map(|octets| end::<F>(octets, 0).ip())
            .contains(&ip)
        || (0..10).any(|number| backend::<F>(number).ip() == ip)
        || [[4, 0], [6, 0]]
            .into_iter()
            .any(|octets| starts_like(end::<F>(octets, 0).ip(), 8))
}
