//! Fragments, put together again by etherparse.

use etherparse::defrag::IpDefragPool;
use etherparse::{IpNumber, Ipv4Header, Ipv4HeaderSlice, Ipv4Options, SlicedPacket};
use proptest::prelude::*;

use super::super::fragment::{Fragments, may_cut};

fn packet(payload: &[u8], options: &[u8]) -> Vec<u8> {
    let len = u16::try_from(payload.len()).unwrap();
    let mut header = Ipv4Header::new(len, 64, IpNumber::UDP, [10, 0, 0, 1], [10, 0, 0, 2]).unwrap();
    header.options = Ipv4Options::try_from(options).unwrap();
    header.dont_fragment = false;
    header.identification = 0x1234;
    header.header_checksum = header.calc_header_checksum();
    [&header.to_bytes()[..], payload].concat()
}

fn cut(packet: &[u8], mtu: u16) -> Vec<Vec<u8>> {
    let mut fragments = Fragments::new(packet, mtu).unwrap();
    let mut out = [0; 9216];
    let mut all = Vec::new();
    while let Some(len) = fragments.next_into(&mut out) {
        assert!(len <= usize::from(mtu));
        let header = Ipv4HeaderSlice::from_slice(&out[..len]).unwrap();
        let sum = header.to_header().calc_header_checksum();
        assert_eq!(header.header_checksum(), sum);
        all.push(out[..len].to_vec());
    }
    all
}

fn joined(fragments: &[Vec<u8>]) -> Vec<u8> {
    let mut pool = IpDefragPool::<(), ()>::new();
    for fragment in fragments {
        let sliced = SlicedPacket::from_ip(fragment).unwrap();
        if let Some(whole) = pool.process_sliced_packet(&sliced, (), ()).unwrap() {
            return whole.payload;
        }
    }
    panic!("not whole");
}

#[test]
fn options_go_along_where_their_flag_says_so() {
    // A record of the route (7) stays with the first, a stream identifier (136, copied) goes along.
    let options = [7, 7, 4, 0, 0, 0, 0, 136, 4, 0, 9, 0];
    let all = cut(&packet(&[5; 1000], &options), 576);
    let lens: Vec<usize> = all
        .iter()
        .map(|one| usize::from(one[0] & 0x0f) * 4)
        .collect();
    assert_eq!(lens, [32, 24]);
    assert_eq!(all[1][20..24], [136, 4, 0, 9]);
}

#[test]
fn a_sender_may_forbid_it_and_ipv6_always_does() {
    let mut whole = packet(&[5; 1000], &[]);
    assert!(may_cut(&whole));
    whole[6] |= 0x40;
    assert!(!may_cut(&whole));
    assert!(Fragments::new(&whole, 576).is_err());
    assert!(!may_cut(&[0x60; 40]));
    assert!(!may_cut(&[0x45]));
}

proptest! {
    #[test]
    fn fragments_of_fragments_make_the_packet_again(
        payload in prop::collection::vec(any::<u8>(), 1..9000),
        first in 68_u16..2000,
        second in 68_u16..2000,
    ) {
        let whole = packet(&payload, &[]);
        let pieces: Vec<_> = cut(&whole, first)
            .iter()
            .flat_map(|piece| cut(piece, second))
            .collect();
        if pieces.len() > 1 {
            prop_assert_eq!(joined(&pieces), payload);
        } else {
            prop_assert_eq!(&pieces[0], &whole);
        }
    }
}
