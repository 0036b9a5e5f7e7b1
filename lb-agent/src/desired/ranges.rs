//! Lists of prefixes.

use std::collections::BTreeSet;
use std::net::IpAddr;

use lb_common::addr::Address as _;
use lb_common::{Family, RangeKey};

use super::{Surroundings, ip_family};
use crate::model::{IpFamily, IpPrefix, Service};

/// Bits of [`RangeKey::list`], all of which count.
const LIST_BITS: u32 = u32::BITS;

/// The sources of one family that may use the load balancer's addresses; none when all may.
///
/// Where the node may, its load-balancer addresses may, too: a packet of the node's own to such an address can have it
/// as source.
pub(super) fn of_service<F: Family>(service: &Service, around: Surroundings<'_>) -> BTreeSet<IpPrefix> {
    let family = ip_family::<F>();
    let ranges = service.source_ranges.iter().copied();
    let mut ranges: BTreeSet<_> = ranges.filter(|range| range.family() == family).collect();
    let node = around.world.node(around.node_name);
    let node_ips = node.map(|node| node.internal_ips.as_slice()).unwrap_or_default();
    if node_ips
        .iter()
        .any(|ip| ranges.iter().any(|range| range.contains(*ip)))
    {
        let own = |ip: &&IpAddr| IpFamily::of(**ip) == family;
        ranges.extend(
            service
                .load_balancer_ips
                .iter()
                .filter(own)
                .map(|ip| IpPrefix::host(*ip)),
        );
    }
    ranges
}

/// The row of a prefix in a list; `None` when it is of the other family.
pub fn range_key<F: Family>(list: u32, prefix: IpPrefix) -> Option<RangeKey<F::Addr>> {
    Some(RangeKey {
        prefix_length: LIST_BITS + u32::from(prefix.length()),
        list,
        addr: F::Addr::from_ip(prefix.ip())?,
    })
}
