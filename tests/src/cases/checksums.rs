//! UDP's two zeros (RFC 768): the rest is in every other case, for all of them compare checksums, too.

use super::{cases, client, open, vip};
use crate::engine::{Bed, TestFamily, backend};
use crate::packet::PacketBuilder;

cases! {
    UDP:
        no_checksum_stays_none,
        a_checksum_that_becomes_zero_is_sent_as_all_ones;
}

fn no_checksum_stays_none<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (client, vip, pod) = (client::<F>(), vip::<F>(2), backend::<F>(0));
    let request = bed.data(client, vip).without_checksum();
    bed.pre(&request).becomes(&request.clone().to(pod));
    let reply = bed.data(pod, client).without_checksum();
    bed.post(&reply).becomes(&reply.clone().from(vip));
}

fn a_checksum_that_becomes_zero_is_sent_as_all_ones<F: TestFamily>(bed: &mut Bed<'_, F>) {
    let (client, vip, pod) = (client::<F>(), vip::<F>(2), backend::<F>(0));
    open(bed, client, vip, pod);
    let request = all_ones(&bed.data(client, pod));
    bed.pre(&request.clone().to(vip)).becomes(&request);
    let reply = all_ones(&bed.data(vip, client));
    bed.post(&reply.clone().from(pod)).becomes(&reply);
    // The other way: all ones become something else.
    let request = all_ones(&bed.data(client, vip));
    bed.pre(&request).becomes(&request.clone().to(pod));
}

/// The packet with such data that its checksum would be zero, which is sent as all ones.
fn all_ones(packet: &PacketBuilder) -> PacketBuilder {
    (0..=u16::MAX)
        .map(|word| packet.clone().payload(&word.to_be_bytes()))
        .find(|packet| {
            let bytes = packet.build();
            // The checksum stands before the data.
            bytes[bytes.len() - 4..bytes.len() - 2] == [0xff, 0xff]
        })
        .unwrap()
}
