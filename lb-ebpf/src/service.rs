//! Is the destination a service?

use lb_common::{FlowKey, ServiceFlags, ServiceKey, ServiceValue};

use crate::ctx::Ctx;
use crate::wire::Wire;

/// Finds the front end that a packet is sent to: by its exact address, or as a NodePort on an address of the node.
#[inline(always)]
pub fn find<F: Wire, C: Ctx<F>>(cx: &C, packet: &FlowKey<F::Addr>) -> Option<ServiceValue> {
    if cx.may_be_front_end(packet.dst) {
        let exact = ServiceKey::new(packet.dst, packet.dst_port, packet.protocol);
        if let Some(front_end) = cx.service(&exact) {
            return Some(front_end);
        }
    }
    let settings = cx.settings();
    let port = packet.dst_port.number();
    if port < settings.node_port_min || port > settings.node_port_max {
        return None;
    }
    if cx.node_address(packet.dst)?.node_ports == 0 {
        return None;
    }
    let node_port = ServiceKey::new(F::Addr::default(), packet.dst_port, packet.protocol);
    cx.service(&node_port)
        .filter(|front_end| front_end.flags & ServiceFlags::NODE_PORT != 0)
}
