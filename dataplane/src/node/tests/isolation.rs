//! The property that matters most: nothing crosses from one vnet into another.

use std::net::IpAddr;

use proptest::prelude::*;

use super::world::{World, ip};
use super::{packet, seal};
use crate::id::VnetId;
use crate::source;
use crate::wire::ip::Inner;

/// Addresses that matter, of both vnets and of nobody.
const ADDRESSES: &[&str] = &[
    "10.0.0.50",
    "10.0.0.200",
    "10.3.0.200",
    "10.3.0.7",
    "192.0.2.1",
    "100.64.0.1",
    "100.64.0.2",
    "100.64.0.3",
    "100.64.0.9",
    "100.64.1.2",
    "100.64.1.3",
    "100.64.2.2",
    "100.66.0.2",
    "127.0.0.1",
    "224.0.0.1",
    "0.0.0.0",
    "169.254.0.1",
    // In the ranges that vnets may have chosen.
    "10.64.0.2",
    "10.64.0.3",
    "10.64.1.3",
    "10.80.0.3",
    "10.80.2.2",
];

/// Source ranges that a vnet may choose; both may choose the same.
const RANGES: [&str; 3] = ["100.64.0.0/12", "10.64.0.0/12", "10.80.0.0/12"];

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Whatever is sent from wherever, nothing of one vnet arrives in the other: payloads carry
    /// the vnet that they started in, and each packet comes to another worker of the edge. Site 1 and 3 are vnet 1, site 2 is vnet 2; the edge's
    /// overlay knows the vnet by the address that a packet is for.
    #[test]
    fn nothing_crosses_between_vnets(
        packets in prop::collection::vec(
            (0..4usize, 0..ADDRESSES.len(), 0..ADDRESSES.len(), any::<bool>(), any::<u8>(),
             any::<u16>(), prop::option::of((0..64usize, any::<u8>()))),
            1..200,
        ),
        workers in 1..=3_u8,
        ranges in (0..3_usize, 0..3_usize),
    ) {
        let mut world = World::of(workers);
        world.place(1, RANGES[ranges.0]);
        world.place(2, RANGES[ranges.1]);
        let tables = world.edge().program.tables().clone();
        let owner = |address| match tables.sources.vnet(address) {
            Some(VnetId(1)) => Some(1),
            Some(VnetId(2)) => Some(2),
            _ => None,
        };
        for (n, src, dst, is_v6, protocol, fragment, damage) in packets {
            let address = |text: &str| match (is_v6, ip(text)) {
                (true, IpAddr::V4(v4)) if source::is_source(v4.into()) => source::to_v6(v4).into(),
                (true, IpAddr::V4(v4)) => {
                    let [_, net, _, host] = v4.octets();
                    IpAddr::from([0xfd00, u16::from(net), 0, 0, 0, 0, 0, u16::from(host)])
                }
                (_, address) => address,
            };
            let (src, dst) = (address(ADDRESSES[src]), address(ADDRESSES[dst]));
            let from = match n {
                0 => owner(src).unwrap_or(2),
                2 => 2,
                _ => 1,
            };
            let mut sent = packet(src, dst, protocol, &[b'A' + from; 64]);
            if !is_v6 {
                sent[6..8].copy_from_slice(&fragment.to_be_bytes());
                seal(&mut sent);
            }
            if let Some((at, value)) = damage.filter(|_| n != 0) {
                let at = at % (sent.len() - 64);
                sent[at] = value;
                if sent[0] >> 4 == 4 { seal(&mut sent); }
            }
            for (end, arrived) in world.send(n, &sent).iter().enumerate() {
                for got in arrived {
                    let Ok(inner) = Inner::parse(got) else { continue };
                    let vnet = match end {
                        // An ICMP error to a local sender that was none of ours: its own packet.
                        0 => owner(inner.dst).unwrap_or(from),
                        2 => 2,
                        _ => 1,
                    };
                    let foreign = b'A' + (3 - vnet);
                    prop_assert!(
                        !got.windows(8).any(|bytes| bytes == [foreign; 8]),
                        "{src} > {dst} from end {n} arrived at end {end}: {inner:?}"
                    );
                }
            }
        }
    }
}
