//! What an operator can do about it: one hint for each reason, and no reason without.

use lb_common::DropReason;

/// What to do about a drop.
pub(super) const fn of_drop(reason: DropReason) -> &'static str {
    match reason {
        DropReason::NoBackend => "the service has just lost its last endpoint: look at its EndpointSlices",
        DropReason::BackendGone => {
            "the endpoint of this connection has left: the client has to connect anew; look whether the pod was deleted"
        }
        DropReason::FlowTableFull => "the table of flows takes no more: raise --max-flows of `lb-agent run`",
        DropReason::NoClientPort => {
            "the client has too many connections to the same endpoint by several service addresses: wait for some to \
             end, or use one address"
        }
        DropReason::SpoofedSource => {
            "the route to the sender's address does not lead back to the device that the packet came in by: the pod \
             uses an address that is not its own, or the CNI's route to the pod is missing (`ip route get ADDRESS`)"
        }
        DropReason::ServiceChanging => "the service was being updated at this very moment: try again",
        DropReason::RewriteFailed => {
            "the kernel did not let the packet be changed; with `lb-agent status` see whether the counter grows, and \
             report it"
        }
        DropReason::NoLocalBackend => {
            "the traffic policy is Local and no endpoint that is ready is on this node: send the packet to a node that \
             has one, run a pod here, or set the policy to \
             Cluster"
        }
        DropReason::SourceNotAllowed => {
            "the sender is in none of spec.loadBalancerSourceRanges: add its address there, or ask the ClusterIP or \
             NodePort, which are open to all"
        }
        DropReason::NoSnatPort => {
            "all source ports that were tried for masquerading are taken: widen --snat-ports of `lb-agent run`"
        }
        DropReason::NoSnatAddress => {
            "the device that leads to the endpoint has no address, and the node has none in this family: give the node \
             an address on that device (`ip addr`)"
        }
        DropReason::NoRoute => {
            "the node has no route to the endpoint: look at the CNI and at `ip route get ADDRESS` for the endpoint's \
             address"
        }
        DropReason::ServiceLimited => {
            "the service has had as many new connections in this second as its annotation \
             sluice.dev/limit-connections-per-second allows: raise it, or add capacity and then raise it"
        }
        DropReason::SourceLimited => {
            "this sender has opened as many connections in this second as the service's annotation \
             sluice.dev/limit-connections-per-second-per-source allows: raise it, or slow the sender down"
        }
        DropReason::UnusedServiceAddress => {
            "the address is in --service-cidr, and no Service has it: the Service was deleted, or the client remembers \
             an old address (look at its DNS)"
        }
        DropReason::AnswerLimited => {
            "the node gives no more answers in this second: raise --answers-per-second of `lb-agent run`, and see who \
             sends so many packets that have to be refused"
        }
        DropReason::NotAnswerable => {
            "the packet would be rejected, but none of its kind is answered (RFC 1122, 3.2.2): look at its source address"
        }
        DropReason::TinyFragment | DropReason::OverlappingFragment => {
            "fragments of this shape are made by attacks, not by hosts: look at what sends them"
        }
        DropReason::UnknownFragment => {
            "the first fragment of this packet was not seen here: make the sender use a smaller MTU, so that nothing is \
             fragmented"
        }
        DropReason::IcmpRedirect => {
            "none is needed: the redirect would lead the client past the load balancer"
        }
        DropReason::ForeignWrapper => {
            "the sender of the wrapped packet is no node that is known: with direct server return, name it with \
             --dsr-peer of `lb-agent run`"
        }
        DropReason::WrappedForNobody => {
            "the endpoint that another node has chosen is not on this node any more: the nodes' agents do not agree; \
             see whether both follow the same objects"
        }
        DropReason::WrapFailed => {
            "the kernel could not put the packet into another one: see the kernel's log, and report it"
        }
        DropReason::TimeExceeded => {
            "the packet has been forwarded too often: there is a loop between routers, or somebody runs a traceroute"
        }
        DropReason::SctpFragment => {
            "the sender has to make smaller packets, or port and targetPort have to be the same"
        }
        DropReason::NoFlow => {
            "the connection is not known here any more: the client has to connect anew; if that happens often, raise \
             --max-flows of `lb-agent run`"
        }
    }
}

/// What to do when a service without endpoints rejects.
pub(super) const NO_ENDPOINTS: &str = "no endpoint gets new connections: look at `kubectl get endpointslices`, at the \
     readiness of the pods, and at whether the Service's selector fits their labels";

/// What to do when an address of a service has no such port.
pub(super) const NO_SUCH_PORT: &str = "the address is a Service's, but it has no such port: look at `kubectl get service` for its ports and protocols";

/// What to do when nothing is done with a packet.
pub(super) const NOT_A_SERVICE: &str = "no Service has this address and port: look at `lb-agent services` for those \
     that there are; what listens there, and whether it is reached, is not up to Sluice";

/// What to do when the kernel has no way for a packet.
pub(super) const NOT_ROUTED: &str = "the programs are done, but the kernel does not send the packet on: look at `ip route \
     get` for the endpoint, at net.ipv4.ip_forward (net.ipv6.conf.all.forwarding), and at rp_filter";
