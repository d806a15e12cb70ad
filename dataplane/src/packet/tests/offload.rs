//! The virtio_net_hdr of linux/virtio_net.h.

use proptest::prelude::*;

use super::super::*;
use crate::wire::ip::Malformed;

/// flags, gso_type, hdr_len, gso_size, csum_start, csum_offset.
fn header(flags: u8, gso_type: u8, words: [u16; 4]) -> [u8; VNET_HDR_LEN] {
    let mut bytes = [0; VNET_HDR_LEN];
    (bytes[0], bytes[1]) = (flags, gso_type);
    for (at, word) in words.into_iter().enumerate() {
        bytes[2 + at * 2..4 + at * 2].copy_from_slice(&word.to_ne_bytes());
    }
    bytes
}

fn offload(segmentation: Segmentation, segment_size: u16, start: u16, offset: u16) -> Offload {
    Offload {
        segmentation,
        segment_size,
        checksum: Some(PartialChecksum { start, offset }),
    }
}

#[test]
fn each_kind_of_super_packet_has_its_gso_type() {
    let mut v4 = [0; 60];
    (v4[0], v4[32]) = (0x45, 0x80);
    let mut v6 = [0; 80];
    (v6[0], v6[52]) = (0x60, 0x50);
    let tcp = offload(Segmentation::Tcp, 1368, 20, 16);
    assert_eq!(tcp.encode(&v4), header(1, 1, [52, 1368, 20, 16]));
    let tcp = offload(Segmentation::Tcp, 1348, 40, 16);
    assert_eq!(tcp.encode(&v6), header(1, 4, [60, 1348, 40, 16]));
    let udp = offload(Segmentation::Udp, 1200, 20, 6);
    assert_eq!(udp.encode(&v4), header(1, 5, [28, 1200, 20, 6]));
    assert_eq!(Offload::NONE.encode(&v4), [0; VNET_HDR_LEN]);
}

#[test]
fn congestion_window_reduced_is_announced_to_the_kernel() {
    let mut packet = [0; 60];
    (packet[0], packet[32], packet[33]) = (0x45, 0x50, 0x90);
    let tcp = offload(Segmentation::Tcp, 1000, 20, 16);
    assert_eq!(tcp.encode(&packet)[1], 0x81);
    assert_eq!(Offload::decode(&tcp.encode(&packet)), Ok(tcp));
}

#[test]
fn what_was_never_asked_for_is_refused() {
    // VIRTIO_NET_HDR_GSO_UDP (fragmentation), an unknown type, and a size of zero.
    for bytes in [
        header(1, 3, [0, 9, 0, 0]),
        header(0, 2, [0, 9, 0, 0]),
        header(1, 1, [0; 4]),
    ] {
        assert_eq!(Offload::decode(&bytes), Err(Malformed::Offload));
    }
}

proptest! {
    #[test]
    fn any_header_that_decodes_encodes_to_the_same_meaning(
        bytes in any::<[u8; VNET_HDR_LEN]>(),
        gso_type in prop::sample::select(vec![0_u8, 1, 4, 5, 0x81, 2]),
        packet in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        let mut bytes = bytes;
        bytes[1] = gso_type;
        if let Ok(offload) = Offload::decode(&bytes) {
            prop_assert_eq!(Offload::decode(&offload.encode(&packet)), Ok(offload));
        }
    }
}
