//! What is built is what etherparse reads, what is read is what was built, and what is wrong is seen.

use std::net::{IpAddr, SocketAddr};

use etherparse::{Icmpv4Type, Icmpv6Type, NetSlice, SlicedPacket, TransportSlice};

use super::*;

fn ends() -> [(SocketAddr, SocketAddr); 2] {
    [
        (([192, 0, 2, 1], 4000).into(), ([192, 0, 2, 2], 80).into()),
        (
            "[2001:db8::1]:4000".parse().unwrap(),
            "[2001:db8::2]:80".parse().unwrap(),
        ),
    ]
}

fn router(end: SocketAddr) -> IpAddr {
    if end.is_ipv4() {
        [192, 0, 2, 254].into()
    } else {
        "2001:db8::fe".parse().unwrap()
    }
}

fn view(packet: &PacketBuilder) -> View {
    View::of(&packet.build()).unwrap()
}

#[test]
fn what_is_built_has_right_checksums_and_a_flipped_bit_is_seen() {
    for (from, to) in ends() {
        let mut packets = vec![
            PacketBuilder::tcp(from, to),
            PacketBuilder::udp(from, to).vlan(7).vlan(8),
            PacketBuilder::icmp(from, to).icmp_rest([1, 2, 3, 4]),
            PacketBuilder::tcp(from, to).wrapped(router(from), to.ip()),
            PacketBuilder::udp(from, to).error(router(from), IcmpError::TooBig(1400)),
        ];
        if from.is_ipv4() {
            packets.push(PacketBuilder::udp(from, to).options(12));
        } else {
            packets.push(PacketBuilder::tcp(from, to).extension(Extension::Authentication));
        }
        for packet in packets {
            let mut bytes = packet.build();
            assert_eq!(checksums_are_right(&bytes), Some(true), "{packet:?}");
            assert!(View::of(&bytes).is_ok());
            *bytes.last_mut().unwrap() ^= 1;
            assert_eq!(checksums_are_right(&bytes), Some(false), "{packet:?}");
            assert!(View::of(&bytes).is_err());
        }
    }
}

#[test]
fn udp_without_checksum_is_right() {
    for (from, to) in ends() {
        let bytes = PacketBuilder::udp(from, to).without_checksum().build();
        assert_eq!(checksums_are_right(&bytes), Some(true));
    }
}

#[test]
fn etherparse_reads_the_same() {
    for (from, to) in ends() {
        let packet = PacketBuilder::tcp(from, to)
            .flags(flag::ACK | flag::FIN)
            .sequence(7, 9)
            .hop_limit(3)
            .traffic_class(0xb9)
            .identification(99)
            .vlan(5);
        let bytes = packet.build();
        let sliced = SlicedPacket::from_ethernet(&bytes).unwrap();
        let hops = match sliced.net.unwrap() {
            NetSlice::Ipv4(ip) => {
                let header = ip.header();
                assert_eq!((header.identification(), header.dont_fragment()), (99, true));
                assert_eq!((header.dcp().value(), header.ecn().value()), (0xb9 >> 2, 1));
                header.ttl()
            }
            NetSlice::Ipv6(ip) => {
                assert_eq!(ip.header().traffic_class(), 0xb9);
                ip.header().hop_limit()
            }
            NetSlice::Arp(_) => panic!("no ARP was built"),
        };
        let Some(TransportSlice::Tcp(tcp)) = sliced.transport else {
            panic!("no TCP: {bytes:02x?}");
        };
        assert_eq!(
            (hops, tcp.sequence_number(), tcp.fin(), tcp.syn()),
            (3, 7, true, false)
        );
        let view = view(&packet);
        assert_eq!(
            (view.hop_limit, view.traffic_class, view.tags.as_slice()),
            (3, 0xb9, &[5][..])
        );
        assert_eq!(view.ends(), [from, to]);
        assert_eq!(
            view.content,
            Content::Tcp {
                ports: [4000, 80],
                flags: flag::ACK | flag::FIN,
                numbers: [7, 9],
                options: Vec::new(),
                data: b"some data of an odd length.".to_vec(),
            }
        );
    }
}

#[test]
fn errors_quote_the_packet_and_etherparse_knows_them() {
    for (from, to) in ends() {
        let packet = PacketBuilder::udp(from, to);
        let quoted = packet.clone().without_link().build();
        for error in IcmpError::all(router(from)) {
            let about = packet.error(router(from), error);
            let view = view(&about);
            assert_eq!((view.source, view.destination), (router(from), from.ip()));
            assert_eq!(view.error(), Some((error, Some([from, to]))));
            let Content::Error { quoted: read, .. } = view.content else {
                panic!("no error: {about:?}");
            };
            assert_eq!(read[..quoted.len()], quoted);
            let bytes = about.build();
            match SlicedPacket::from_ethernet(&bytes).unwrap().transport.unwrap() {
                TransportSlice::Icmpv4(icmp) => {
                    assert!(
                        !matches!(icmp.icmp_type(), Icmpv4Type::Unknown { .. }),
                        "{error:?}"
                    );
                }
                TransportSlice::Icmpv6(icmp) => {
                    assert!(
                        icmp.is_checksum_valid(
                            router(from)
                                .to_string()
                                .parse::<std::net::Ipv6Addr>()
                                .unwrap()
                                .octets(),
                            from.ip()
                                .to_string()
                                .parse::<std::net::Ipv6Addr>()
                                .unwrap()
                                .octets(),
                        )
                    );
                    let is_known = !matches!(icmp.icmp_type(), Icmpv6Type::Unknown { .. });
                    assert!(
                        is_known || matches!(error, IcmpError::Redirect(_) | IcmpError::Unreachable(7)),
                        "{error:?}"
                    );
                }
                other => panic!("no ICMP: {other:?}"),
            }
        }
    }
}

#[test]
fn a_quoted_packet_may_be_cut_and_its_residues_stay() {
    for (from, to) in ends() {
        let packet = PacketBuilder::tcp(from, to);
        let header = if from.is_ipv4() { 20 } else { 40 };
        let error = |packet: &PacketBuilder, length| {
            residues(
                &packet
                    .error(router(from), IcmpError::TooBig(1300))
                    .cut(length)
                    .build(),
            )
        };
        // Ports alone; the checksum, too, but not all of the data.
        for (length, has_checksum) in [(header + 8, false), (header + 18, true), (header + 23, true)] {
            let found = error(&packet, length);
            assert_eq!(found.iter().any(|residue| residue.what == "tcp"), has_checksum);
            assert!(found.iter().all(|residue| residue.off == 0 || !residue.is_whole));
            // As if it had been sent to another port and address, with the right checksum.
            let other = packet.clone().to(SocketAddr::new(router(to), 8080));
            assert_eq!(found, error(&other, length));
        }
    }
}

#[test]
fn fragments_make_the_packet_again() {
    for (from, to) in ends() {
        let packet = PacketBuilder::udp(from, to)
            .payload(&[5; 100])
            .identification(77)
            .may_be_fragmented();
        let views: Vec<View> = packet.fragments(48).iter().map(view).collect();
        assert_eq!(
            views.iter().map(|view| view.fragment).collect::<Vec<_>>(),
            [Some((0, true)), Some((6, true)), Some((12, false))]
        );
        assert!(
            views
                .iter()
                .all(|view| view.identification == 77 && view.source == from.ip())
        );
        let data = views.into_iter().map(|view| match view.content {
            Content::Other { protocol: 17, data } => data,
            other => panic!("no fragment: {other:?}"),
        });
        let whole = packet.clone().without_link().build();
        let header = if from.is_ipv4() { 20 } else { 40 };
        assert_eq!(data.collect::<Vec<_>>().concat(), whole[header..]);
        let overlapping = view(&packet.fragment_of(1, 16, true));
        assert_eq!(overlapping.fragment, Some((1, true)));
    }
}

#[test]
fn an_atomic_fragment_is_a_whole_packet() {
    let (from, to) = ends()[1];
    let view = view(&PacketBuilder::udp(from, to).fragment(0, false));
    assert_eq!((view.fragment, view.identification), (None, 0x1234));
    assert!(matches!(view.content, Content::Udp { .. }));
}

#[test]
fn a_wrapped_packet_is_seen_inside() {
    for (from, to) in ends() {
        for (outer_from, outer_to) in ends() {
            let packet = PacketBuilder::tcp(from, to);
            let wrapped = packet.wrapped(outer_from.ip(), outer_to.ip());
            let view = view(&wrapped);
            assert_eq!(view.source, outer_from.ip());
            assert_eq!(view.inner().unwrap().ends(), [from, to]);
            let bytes = packet.clone().without_link().build();
            assert!(wrapped.build().ends_with(&bytes));
        }
    }
}

#[test]
fn a_reset_answers_as_the_standard_has_it() {
    for (from, to) in ends() {
        let syn = PacketBuilder::tcp(from, to).flags(flag::SYN).sequence(41, 0);
        let reset = view(&syn.reset());
        assert!(reset.is_reset() && reset.ends() == [to, from]);
        assert!(matches!(
            reset.content,
            Content::Tcp {
                numbers: [0, 42],
                flags: 0x14,
                ..
            }
        ));
        let data = PacketBuilder::tcp(from, to).sequence(41, 1234).payload(b"");
        assert!(matches!(
            view(&data.reset()).content,
            Content::Tcp {
                numbers: [1234, 0],
                flags: 0x04,
                ..
            }
        ));
        assert!(view(&syn.reset().hop_limit(9).identification(0)).is_like(&syn.reset()));
        assert!(!view(&syn.reset().sequence(0, 43)).is_like(&syn.reset()));
    }
}

#[test]
fn a_changed_packet_without_its_checksum_has_another_residue() {
    for (from, to) in ends() {
        for packet in [PacketBuilder::tcp(from, to), PacketBuilder::udp(from, to)] {
            let mut bytes = packet.build();
            let right = residues(&bytes);
            // The source port's.
            let at = 14 + if from.is_ipv4() { 20 } else { 40 };
            bytes[at] ^= 1;
            assert_ne!(residues(&bytes), right);
            assert_eq!(residues(&bytes).len(), right.len());
        }
    }
}

#[test]
fn a_turned_packet_is_the_one_built_the_other_way_round() {
    for (from, to) in ends() {
        for packet in [
            PacketBuilder::tcp(from, to).vlan(9),
            PacketBuilder::udp(from, to),
            PacketBuilder::udp(from, to).wrapped(router(from), to.ip()),
        ] {
            let other = packet.clone().reversed().swapped_macs();
            assert_eq!(turned(&packet.build()), Some(other.build()));
        }
    }
    assert_eq!(turned(&[0; 40]), None);
}
