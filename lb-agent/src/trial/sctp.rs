//! The first packet of an SCTP association (RFC 9260).

/// Length of the common header (section 3.1).
const HEADER: usize = 12;
/// Length of an INIT chunk without parameters (section 3.3.2).
const INIT: u16 = 20;
/// Type of an INIT chunk.
const INIT_TYPE: u8 = 1;
/// Where the checksum stands in the common header.
const CHECKSUM: std::ops::Range<usize> = 8..HEADER;

/// An SCTP packet that holds an INIT chunk.
pub(super) fn init(from: u16, to: u16) -> Vec<u8> {
    // An INIT, and nothing else, has the verification tag 0; a checksum is computed over a field of zeros (section 6.8).
    let (verification_tag, no_checksum) = ([0; 4], [0; 4]);
    let (initiate_tag, window, streams, sequence) = (1_u32, 65_536_u32, 1_u16, 1_u32);
    let mut packet = [
        &from.to_be_bytes()[..],
        &to.to_be_bytes(),
        &verification_tag,
        &no_checksum,
        // Its flags are reserved.
        &[INIT_TYPE, 0],
        &INIT.to_be_bytes(),
        &initiate_tag.to_be_bytes(),
        &window.to_be_bytes(),
        // Outbound, and inbound.
        &streams.to_be_bytes(),
        &streams.to_be_bytes(),
        &sequence.to_be_bytes(),
    ]
    .concat();
    let checksum = crc32c::crc32c(&packet);
    // The CRC goes out with the lowest byte first (appendix A).
    packet.splice(CHECKSUM, checksum.to_le_bytes());
    packet
}

/// The ports of an SCTP packet.
pub(super) fn ports(packet: &[u8]) -> Option<(u16, u16)> {
    let ([source, destination], _) = packet.first_chunk::<4>()?.as_chunks() else {
        return None;
    };
    Some((u16::from_be_bytes(*source), u16::from_be_bytes(*destination)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_init_is_well_formed() {
        let expected = [
            // Ports 40000 and 38412, verification tag 0, and the checksum as another program computes it.
            &[0x9c, 0x40, 0x96, 0x0c, 0, 0, 0, 0][..],
            &[0xbf, 0x53, 0x17, 0xb2],
            // An INIT of 20 bytes: its tag, the window, streams both ways, the first sequence number.
            &[1, 0, 0, 20, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1],
        ];
        assert_eq!(init(40_000, 38_412), expected.concat());
    }

    #[test]
    fn ports_are_those_that_were_put_in() {
        assert_eq!(ports(&init(1, 65_535)), Some((1, 65_535)));
        assert_eq!(ports(&[0; 3]), None);
    }
}
