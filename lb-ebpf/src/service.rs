//! Is the destination a service?

use lb_common::{FlowKey, Port, ServiceFlags, ServiceKey, ServiceValue};

use crate::ctx::{Ctx, Hook};
use crate::wire::Wire;

/// Finds the front end that a packet is sent to: by its exact address, or as a NodePort on an address of the node.
#[inline(always)]
pub fn find<F: Wire, C: Ctx<F>>(cx: &C, packet: &FlowKey<F::Addr>, front_end: &mut ServiceValue) -> bool {
    if cx.may_be_front_end(packet.dst) {
        let exact = ServiceKey::new(packet.dst, packet.dst_port, packet.protocol);
        // The address of a NodePort's row is nobody's.
        if let Some(found) = cx.service(&exact)
            && found.flags & ServiceFlags::NODE_PORT == 0
        {
            *front_end = found;
            return true;
        }
    }
    if !is_node_port::<F, C>(cx, packet.dst_port) {
        return false;
    }
    if cx.node_address(packet.dst).is_none_or(|row| row.node_ports == 0) {
        return false;
    }
    if cx.hook() != Hook::Egress && F::is_loopback(packet.dst) {
        // Nobody outside is to reach it, whatever the sender has made of the packet.
        return false;
    }
    let node_port = ServiceKey::new(F::Addr::default(), packet.dst_port, packet.protocol);
    match cx.service(&node_port) {
        Some(found) if found.flags & ServiceFlags::NODE_PORT != 0 => {
            *front_end = found;
            true
        }
        _ => false,
    }
}

/// Whether a port is in the range of NodePorts.
#[inline(always)]
pub fn is_node_port<F: Wire, C: Ctx<F>>(cx: &C, port: Port) -> bool {
    let (settings, port) = (cx.settings(), port.number());
    port >= settings.node_port_min && port <= settings.node_port_max
}
