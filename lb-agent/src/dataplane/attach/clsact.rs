//! Filters of the clsact qdisc: for kernels without TCX, and to come after clsact filters of others on ingress.

use std::collections::BTreeSet;

use aya::programs::tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle, qdisc_add_clsact};
use aya::programs::{SchedClassifier, TcError};
use futures::TryStreamExt as _;
use lb_common::layout::program;
use rtnetlink::Handle;
use rtnetlink::packet_route::tc::{TcAttribute, TcFilterBpfOption, TcMessage, TcOption};

use super::{AttachError, AttachPoint, Hook, Outcome};
use crate::dataplane::Pins;

/// Priority on ingress where nobody else is: behind the one that the kernel gives to the first that asks for none.
const INGRESS_PRIORITY: u16 = 0xd000;
/// Priority on egress: the first there is.
const EGRESS_PRIORITY: u16 = 1;
/// Programs of ours.
const OURS: [&str; 4] = [program::PRE, program::POST, program::PRE_L3, program::POST_L3];

/// A filter at a hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// Filters run in this order, lowest first.
    pub priority: u16,
    /// Which one of that priority.
    pub handle: u32,
    /// Whether it runs a program of ours.
    pub ours: bool,
    /// Its program, if it is a BPF filter.
    pub program: Option<u32>,
    /// The program's name, or the filter's kind.
    pub name: String,
}

/// Devices that have a clsact or ingress qdisc.
pub(super) async fn devices(netlink: &Handle) -> Result<BTreeSet<u32>, rtnetlink::Error> {
    let mut found = BTreeSet::new();
    let mut qdiscs = std::pin::pin!(netlink.qdisc().get().execute());
    while let Some(message) = qdiscs.try_next().await? {
        let takes_filters = |attribute: &TcAttribute| matches!(attribute, TcAttribute::Kind(kind) if kind == "clsact" || kind == "ingress");
        if message.attributes.iter().any(takes_filters) {
            found.insert(message.header.index.cast_unsigned());
        }
    }
    Ok(found)
}

/// The filters at a hook, in the order in which they run.
pub(super) async fn filters(
    netlink: &Handle,
    ifindex: u32,
    hook: Hook,
) -> Result<Vec<Filter>, rtnetlink::Error> {
    let request = netlink.traffic_filter(ifindex.cast_signed()).get();
    let request = match hook {
        Hook::Ingress => request.ingress(),
        Hook::Egress => request.egress(),
    };
    let messages: Vec<TcMessage> = request.execute().try_collect().await?;
    Ok(messages.iter().filter_map(filter).collect())
}

/// Makes the qdisc that filters hang on, and remembers that it is ours.
pub(super) fn add_qdisc(point: &AttachPoint, pins: &Pins) -> Result<(), AttachError> {
    match qdisc_add_clsact(&point.name) {
        Ok(()) => Ok(pins.mark_qdisc(point.ifindex)?),
        // The other hook's turn made it.
        Err(TcError::NetlinkError(error)) if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
        Err(error) => Err(aya::programs::ProgramError::from(error).into()),
    }
}

/// Brings one hook into order: a filter of ours is there, in its place, and runs the program of this run.
pub(super) fn sync(
    program: &mut SchedClassifier,
    point: &AttachPoint,
    hook: Hook,
    filters: &[Filter],
) -> Result<Outcome, AttachError> {
    let current = program.info()?.id();
    let (ours, foreign): (Vec<&Filter>, Vec<&Filter>) = filters.iter().partition(|filter| filter.ours);
    let wanted = wanted_priority(hook, &foreign);
    let Some(present) = ours.first() else {
        attach(program, point, hook, wanted)?;
        return Ok(Outcome::Attached);
    };
    if !in_place(present.priority, hook, &foreign) {
        // The new one first: for a moment both run, which known flows do not feel; a gap would break them.
        attach(program, point, hook, wanted)?;
        remove(point, hook, filters)?;
        return Ok(Outcome::Moved);
    }
    if present.program == Some(current) {
        return Ok(Outcome::Kept);
    }
    let id = program.attach_to_link(link(point, hook, present)?)?;
    std::mem::forget(program.take_link(id)?);
    Ok(Outcome::Replaced)
}

/// Whether a filter of ours is among them and in its place; the error says what is the matter.
pub(super) fn inspect(hook: Hook, filters: &[Filter]) -> Result<(), AttachError> {
    let (ours, foreign): (Vec<&Filter>, Vec<&Filter>) = filters.iter().partition(|filter| filter.ours);
    match ours.first() {
        None => Err(AttachError::Other("no program of ours".to_owned())),
        Some(present) if in_place(present.priority, hook, &foreign) => Ok(()),
        Some(_) => Err(AttachError::Other(format!(
            "another filter took its place at {hook}"
        ))),
    }
}

/// Removes those of the filters that are ours.
pub(super) fn remove(point: &AttachPoint, hook: Hook, filters: &[Filter]) -> Result<(), AttachError> {
    for filter in filters.iter().filter(|filter| filter.ours) {
        drop(link(point, hook, filter)?);
    }
    Ok(())
}

/// Removes filters of ours from a device, and says how many hooks had one.
pub(super) async fn remove_from(netlink: &Handle, ifindex: u32) -> Result<usize, AttachError> {
    let mut removed = 0;
    for hook in [Hook::Ingress, Hook::Egress] {
        let filters = filters(netlink, ifindex, hook).await?;
        if filters.iter().any(|filter| filter.ours) {
            let point = AttachPoint::of(ifindex)?;
            remove(&point, hook, &filters)?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// Removes every filter of ours from every device, and the qdiscs that we made if nobody else uses them. Says what it
/// removed.
pub async fn remove_all(netlink: &Handle, pins: &Pins) -> Result<Vec<String>, AttachError> {
    let mut removed = Vec::new();
    let marked = pins.marked_qdiscs();
    for ifindex in devices(netlink).await? {
        let AttachPoint { name, .. } = AttachPoint::of(ifindex)?;
        if remove_from(netlink, ifindex).await? > 0 {
            removed.push(format!("clsact filters on {name}"));
        }
        if marked.contains(&ifindex) && is_unused(netlink, ifindex).await? {
            let mut request = netlink.qdisc().del(ifindex.cast_signed());
            request.message_mut().header.parent = rtnetlink::packet_route::tc::TcHandle::CLSACT;
            request.execute().await?;
            removed.push(format!("clsact qdisc of {name}"));
        }
    }
    Ok(removed)
}

async fn is_unused(netlink: &Handle, ifindex: u32) -> Result<bool, AttachError> {
    Ok(filters(netlink, ifindex, Hook::Ingress).await?.is_empty()
        && filters(netlink, ifindex, Hook::Egress).await?.is_empty())
}

fn attach(
    program: &mut SchedClassifier,
    point: &AttachPoint,
    hook: Hook,
    priority: u16,
) -> Result<(), AttachError> {
    let options = NlOptions {
        priority,
        ..NlOptions::default()
    };
    let id =
        program.attach_with_options(&point.name, hook.attach_type(), TcAttachOptions::Netlink(options))?;
    // Dropped, the link would take the filter away; the filter is to outlive us.
    std::mem::forget(program.take_link(id)?);
    Ok(())
}

/// aya's view of a filter that is there; dropping it removes the filter.
fn link(point: &AttachPoint, hook: Hook, filter: &Filter) -> Result<SchedClassifierLink, AttachError> {
    let handle = TcHandle::from(filter.handle);
    SchedClassifierLink::attached(&point.name, hook.attach_type(), filter.priority, handle, None)
        .map_err(|error| AttachError::Other(format!("device {}: {error}", point.name)))
}

fn wanted_priority(hook: Hook, foreign: &[&Filter]) -> u16 {
    match hook {
        Hook::Ingress => foreign
            .iter()
            .map(|filter| filter.priority.saturating_add(1))
            .max()
            .unwrap_or(INGRESS_PRIORITY)
            .max(INGRESS_PRIORITY),
        Hook::Egress => EGRESS_PRIORITY,
    }
}

fn in_place(priority: u16, hook: Hook, foreign: &[&Filter]) -> bool {
    foreign.iter().all(|filter| match hook {
        Hook::Ingress => filter.priority < priority,
        Hook::Egress => filter.priority >= priority,
    })
}

/// A filter as the kernel lists it; `None` for the head of a list, which has no handle.
fn filter(message: &TcMessage) -> Option<Filter> {
    let handle = u32::from(message.header.handle);
    if handle == 0 {
        return None;
    }
    // Priority and protocol share a word.
    let priority = u16::try_from(message.header.info >> 16).ok()?;
    let mut filter = Filter {
        priority,
        handle,
        ours: false,
        program: None,
        name: String::new(),
    };
    for attribute in &message.attributes {
        match attribute {
            TcAttribute::Kind(kind) if filter.name.is_empty() => filter.name.clone_from(kind),
            TcAttribute::Options(options) => {
                for option in options {
                    match option {
                        TcOption::Bpf(TcFilterBpfOption::ProgName(name)) => filter.name.clone_from(name),
                        TcOption::Bpf(TcFilterBpfOption::ProgId(id)) => filter.program = Some(*id),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    filter.ours = OURS.contains(&filter.name.as_str());
    Some(filter)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn foreign(priority: u16) -> Filter {
        Filter {
            priority,
            handle: 1,
            ours: false,
            program: Some(1),
            name: "cni".to_owned(),
        }
    }

    #[test]
    fn ours_comes_after_all_others_on_ingress_and_before_them_on_egress() {
        let (first, auto) = (foreign(1), foreign(0xc000));
        let last = foreign(0xe000);
        assert_eq!(wanted_priority(Hook::Ingress, &[]), INGRESS_PRIORITY);
        assert_eq!(wanted_priority(Hook::Ingress, &[&first, &auto]), INGRESS_PRIORITY);
        assert_eq!(wanted_priority(Hook::Ingress, &[&first, &last]), 0xe001);
        assert_eq!(wanted_priority(Hook::Egress, &[&auto]), EGRESS_PRIORITY);

        assert!(in_place(INGRESS_PRIORITY, Hook::Ingress, &[&first, &auto]));
        assert!(!in_place(INGRESS_PRIORITY, Hook::Ingress, &[&last]));
        assert!(in_place(EGRESS_PRIORITY, Hook::Egress, &[&first]));
        assert!(!in_place(5, Hook::Egress, &[&first]));
    }
}
