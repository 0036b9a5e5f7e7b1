//! SCTP's own (RFC 9260): another checksum, and INIT. The rest is in every other case, for all of them compare checksums,
//! too.

use lb_common::{Counter, DropReason, ServiceFlags};
use lb_ebpf::testkit::Program;

use super::{cases, client, node, open, vip};
use crate::engine::{Bed, TestFamily, backend, end};
use crate::packet::{PacketBuilder, residues};

cases! {
    SCTP:
        no_checksum_stays_none,
        a_wrong_checksum_stays_as_wrong,
        what_fills_a_frame_up_is_not_in_the_checksum,
        packets_of_all_lengths,
        fragments_whose_ports_stay_are_translated,
        a_fragment_whose_ports_change_is_dropped,
        a_node_port_takes_what_opens_an_association;
}

fn no_checksum_stays_none<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (client, vip, pod) = (client::<F>(), vip::<F>(2), backend::<F>(0));
    let request = bed.opening(client, vip).without_checksum();
    bed.pre(&request).becomes(&request.clone().to(pod));
    let reply = bed.data(pod, client).without_checksum();
    bed.post(&reply).becomes(&reply.clone().from(vip));
}

fn a_wrong_checksum_stays_as_wrong<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let mut bytes = bed.opening(client::<F>(), vip::<F>(2)).build();
    *bytes.last_mut().unwrap() ^= 0x81;
    let wrong = residues(&bytes);
    assert!(wrong.iter().any(|residue| residue.off != 0), "{wrong:?}");
    let after = bed.run(Program::Pre, &bytes).after;
    assert_ne!(after, bytes);
    assert_eq!(residues(&after), wrong);
}

fn what_fills_a_frame_up_is_not_in_the_checksum<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let filled = |packet: &PacketBuilder| [packet.build().as_slice(), &[0xa5; 10]].concat();
    let request = bed.opening(client::<F>(), vip::<F>(2));
    let after = bed.run(Program::Pre, &filled(&request)).after;
    assert_eq!(after, filled(&request.to(backend::<F>(0))));
}

fn packets_of_all_lengths<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (client, vip, pod) = (client::<F>(), vip::<F>(2), backend::<F>(0));
    open(bed, client, vip, pod);
    for length in (0..64).chain([255, 256, 1000, 1400, 3000]) {
        let data = vec![0xc3; length];
        let request = bed.data(client, vip).payload(&data);
        bed.pre(&request).becomes(&request.clone().to(pod));
        let reply = bed.data(pod, client).payload(&data);
        bed.post(&reply).becomes(&reply.clone().from(vip));
    }
}

fn fragments_whose_ports_stay_are_translated<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (client, vip) = (client::<F>(), vip::<F>(2));
    let pod = end::<F>([1, 9], 80);
    bed.update(|rows| rows.set_backend(3, 2, pod));
    open(bed, client, vip, pod);
    let request = bed.data(client, vip).payload(&[0x5a; 3001]).may_be_fragmented();
    let expected = request.clone().to(pod);
    for (part, expected) in request.fragments(1240).iter().zip(expected.fragments(1240)) {
        bed.pre(part).becomes(&expected);
    }
}

fn a_fragment_whose_ports_change_is_dropped<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (client, vip) = (client::<F>(), vip::<F>(2));
    bed.update(|rows| rows.add_address(vip.ip(), ServiceFlags::REJECT));
    open(bed, client, vip, backend::<F>(0));
    let request = bed.data(client, vip).payload(&[0x5a; 3001]).may_be_fragmented();
    let parts = request.fragments(1240);
    bed.pre(&parts[0]).dropped(DropReason::SctpFragment);
}

fn a_node_port_takes_what_opens_an_association<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (client, service, pod) = (client::<F>(), node::<F>(30_081), backend::<F>(0));
    // It may as well belong to a process of the node.
    bed.pre(&bed.data(client, service))
        .untouched()
        .counts(&[Counter::NotOpening]);
    assert_eq!(bed.flow_count(), 0);
    open(bed, client, service, pod);
    let data = bed.data(client, service);
    bed.pre(&data).becomes(&data.clone().to(pod));
}
