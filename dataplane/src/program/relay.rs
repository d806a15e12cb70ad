//! The other nodes: whose each slice of the source range is, and where packets for it are handed over.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::id::NodeId;
use crate::source::{RANGE_V4, SLICE_LEN, SLICES, Slice};

/// Another node, and its slice of the source range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Relay {
    /// The slice, a /20 of 100.64.0.0/12. Never this node's own.
    pub net: Ipv4Net,
    /// The node that owns it.
    pub node: NodeId,
    /// Where the node takes packets for its source addresses by Geneve, and where it sends such from.
    pub address: SocketAddr,
}

/// Why a relay cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum RelayError {
    #[error("a relay's net is a /20 of 100.64.0.0/12 without host bits, and {0} is not")]
    Net(Ipv4Net),
    #[error("{0} is this node's own, wholly or in part: its packets are not handed over")]
    Own(Ipv4Net),
    #[error("{0} has two relays: a slice has one owner")]
    Twice(Ipv4Net),
    #[error("no node is reached at {0}: a relay has an address of one host, and a port")]
    Address(SocketAddr),
}

impl Relay {
    fn check(&self, own: Option<Slice>) -> Result<(), RelayError> {
        let net = self.net;
        if net.prefix_len() != SLICE_LEN || net != net.trunc() || !RANGE_V4.contains(&net) {
            return Err(RelayError::Net(net));
        }
        let is_own = |own: Slice| own.net().contains(&net) || net.contains(&own.net());
        if own.is_some_and(is_own) {
            return Err(RelayError::Own(net));
        }
        let ip = self.address.ip();
        let is_broadcast = ip == IpAddr::V4(Ipv4Addr::BROADCAST);
        if ip.is_unspecified() || ip.is_multicast() || is_broadcast || self.address.port() == 0 {
            return Err(RelayError::Address(self.address));
        }
        Ok(())
    }
}

/// The relays among these that can be, by net, and what is wrong with each other one.
pub(super) fn sorted(
    relays: &[Relay],
    own: Option<Slice>,
) -> (Vec<Relay>, Vec<(Ipv4Net, RelayError)>) {
    let mut by_net = BTreeMap::new();
    let mut refused = Vec::new();
    for relay in relays {
        match relay.check(own) {
            Ok(()) if by_net.contains_key(&relay.net) => {
                refused.push((relay.net, RelayError::Twice(relay.net)));
            }
            Ok(()) => _ = by_net.insert(relay.net, *relay),
            Err(error) => refused.push((relay.net, error)),
        }
    }
    (by_net.into_values().collect(), refused)
}

/// The relays as packets need them. Replaced as a whole, so two nodes that exchange their slices do so
/// at once.
#[derive(Debug)]
pub struct Relays {
    /// By slice.
    slices: Box<[Option<Relay>]>,
    /// Where they send from, sorted. An IPv6 flow label or scope is no part of it.
    senders: Box<[(IpAddr, u16)]>,
}

impl Relays {
    /// A table of these, which can be.
    pub(super) fn new(relays: &[Relay]) -> Self {
        let mut slices: Box<[_]> = (0..SLICES).map(|_| None).collect();
        for relay in relays {
            if let Some(slot) = place(relay.net.network()).and_then(|index| slices.get_mut(index)) {
                *slot = Some(*relay);
            }
        }
        let senders = relays.iter().map(|relay| ends_of(relay.address));
        let mut senders: Box<[_]> = senders.collect();
        senders.sort_unstable();
        Self { slices, senders }
    }

    /// The node that owns a source address; `None` where that is this one, or nobody known.
    #[inline]
    pub fn of(&self, address: Ipv4Addr) -> Option<&Relay> {
        self.slices.get(place(address)?)?.as_ref()
    }

    /// Whether one of the nodes sends from here.
    #[inline]
    pub fn send_from(&self, remote: SocketAddr) -> bool {
        self.senders.binary_search(&ends_of(remote)).is_ok()
    }
}

/// The slice that an address lies in; `None` outside of the range.
fn place(address: Ipv4Addr) -> Option<usize> {
    let offset = address.to_bits().checked_sub(RANGE_V4.addr().to_bits())?;
    usize::try_from(offset >> (32 - SLICE_LEN)).ok()
}

fn ends_of(address: SocketAddr) -> (IpAddr, u16) {
    (address.ip(), address.port())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Delta, Key, Programmer, ReturnOwner, Spec};
    use super::*;
    use crate::fib::pin;
    use crate::id::Workers;

    fn relay(net: &str, node: u8, address: &str) -> Relay {
        Relay {
            net: net.parse().unwrap(),
            node: NodeId(node),
            address: address.parse().unwrap(),
        }
    }

    fn programmer() -> Programmer {
        let slice = Slice::new("100.64.16.0/20".parse().unwrap()).unwrap();
        Programmer::new(Some(slice), NodeId(1), Workers::ONE)
    }

    fn apply(programmer: &mut Programmer, relays: &[Relay]) -> Vec<(Key, String)> {
        let wanted = Spec {
            relays: relays.to_vec(),
            ..Spec::default()
        };
        let delta = programmer.spec().diff(&wanted);
        programmer.apply(&delta, &mut |_| Ok(())).rejected
    }

    fn owner(programmer: &Programmer, address: &str) -> Option<NodeId> {
        let guard = pin();
        let relays = programmer.tables().relays(&guard)?;
        Some(relays.of(address.parse().unwrap())?.node)
    }

    #[test]
    fn an_address_of_another_nodes_slice_leads_to_that_node_and_no_other_does() {
        let mut programmer = programmer();
        assert_eq!(owner(&programmer, "100.64.0.2"), None);
        let (zero, last) = (
            relay("100.64.0.0/20", 0, "10.9.0.1:6081"),
            relay("100.79.240.0/20", 255, "[fd00:9::ff]:6081"),
        );
        assert_eq!(apply(&mut programmer, &[last, zero]), []);
        for (address, expected) in [
            ("100.63.255.255", None),
            ("100.64.0.0", Some(NodeId(0))),
            ("100.64.15.255", Some(NodeId(0))),
            ("100.64.16.2", None),
            ("100.79.239.255", None),
            ("100.79.255.255", Some(NodeId(255))),
            ("100.80.0.0", None),
            ("0.0.0.0", None),
            ("255.255.255.255", None),
        ] {
            assert_eq!(owner(&programmer, address), expected, "{address}");
        }
        let guard = pin();
        let relays = programmer.tables().relays(&guard).unwrap();
        for (from, expected) in [
            ("10.9.0.1:6081", true),
            ("10.9.0.1:6082", false),
            ("10.9.0.2:6081", false),
            ("[fd00:9::ff]:6081", true),
            ("[::ffff:10.9.0.1]:6081", false),
        ] {
            let from = from.parse().unwrap();
            assert_eq!(relays.send_from(from), expected, "{from}");
        }
    }

    #[test]
    fn a_new_list_takes_the_place_of_the_old_one_and_none_leaves_it() {
        let mut programmer = programmer();
        let first = relay("100.64.0.0/20", 0, "10.9.0.1:6081");
        let second = relay("100.64.32.0/20", 2, "10.9.0.3:6081");
        assert_eq!(apply(&mut programmer, &[first]), []);
        let unchanged = Delta {
            revision: 7,
            changes: Vec::new(),
            relays: None,
        };
        programmer.apply(&unchanged, &mut |_| Ok(()));
        assert_eq!(owner(&programmer, "100.64.0.2"), Some(NodeId(0)));
        assert_eq!(apply(&mut programmer, &[second]), []);
        assert_eq!(owner(&programmer, "100.64.0.2"), None);
        assert_eq!(owner(&programmer, "100.64.32.2"), Some(NodeId(2)));
        assert_eq!(programmer.spec().relays, [second]);
        let to_itself = programmer.spec().diff(programmer.spec());
        assert_eq!(to_itself.relays, None);
        assert_eq!(apply(&mut programmer, &[]), []);
        assert_eq!(owner(&programmer, "100.64.32.2"), None);
    }

    #[test]
    fn a_relay_that_cannot_be_is_refused_and_the_others_stand() {
        let good = relay("100.64.0.0/20", 0, "10.9.0.1:6081");
        for (bad, words) in [
            (relay("100.64.32.0/21", 2, "10.9.0.3:6081"), "a /20 of"),
            (relay("100.64.33.0/20", 2, "10.9.0.3:6081"), "host bits"),
            (relay("100.80.0.0/20", 2, "10.9.0.3:6081"), "100.64.0.0/12"),
            (relay("100.64.16.0/20", 1, "10.9.0.2:6081"), "own"),
            (relay("100.64.32.0/20", 2, "10.9.0.3:0"), "a port"),
            (relay("100.64.32.0/20", 2, "0.0.0.0:6081"), "one host"),
            (relay("100.64.32.0/20", 2, "224.0.0.1:6081"), "one host"),
            (relay("100.64.32.0/20", 2, "[ff02::1]:6081"), "one host"),
            (relay("100.64.32.0/20", 2, "255.255.255.255:1"), "one host"),
            (relay("100.64.0.0/20", 2, "10.9.0.3:6081"), "two relays"),
        ] {
            let mut programmer = programmer();
            let rejected = apply(&mut programmer, &[good, bad]);
            assert_eq!(rejected.len(), 1, "{bad:?}");
            assert_eq!(rejected[0].0, Key::Relay(bad.net));
            assert!(rejected[0].1.contains(words), "{rejected:?}");
            assert_eq!(programmer.spec().relays, [good]);
            assert_eq!(owner(&programmer, "100.64.0.2"), Some(NodeId(0)));
        }
        // A node with a part of a slice, or more than one.
        for own in ["100.64.0.0/24", "100.64.0.0/12"] {
            let own = Slice::new(own.parse().unwrap()).unwrap();
            assert_eq!(good.check(Some(own)), Err(RelayError::Own(good.net)));
        }
    }

    #[test]
    fn the_return_table_shows_whose_the_other_slices_are() {
        let mut programmer = programmer();
        let other = relay("100.64.0.0/20", 0, "10.9.0.1:6081");
        apply(&mut programmer, &[other]);
        let rows = programmer.return_rows();
        assert_eq!(rows.len(), 1);
        assert_eq!(
            (rows[0].prefix, rows[0].owner),
            (other.net, ReturnOwner::from(other))
        );
        let shown = serde_json::to_value(&rows[0]).unwrap();
        let expected = serde_json::json!({
            "prefix": "100.64.0.0/20", "node": 0, "relay": "10.9.0.1:6081",
        });
        assert_eq!(shown, expected);
    }

    proptest! {
        #[test]
        fn look_ups_equal_a_linear_scan(
            nodes in prop::collection::btree_set(any::<u8>(), 0..40),
            addresses in prop::collection::vec(0x6430_0000_u32..0x6460_0000, 200),
        ) {
            let relays: Vec<_> = nodes
                .iter()
                .map(|node| {
                    let first = Ipv4Addr::from_bits(0x6440_0000 + (u32::from(*node) << 12));
                    let net = Ipv4Net::new(first, 20).unwrap();
                    let address = SocketAddr::from(([10, 9, 0, *node], 6081));
                    Relay { net, node: NodeId(*node), address }
                })
                .collect();
            let table = Relays::new(&relays);
            for address in addresses.into_iter().map(Ipv4Addr::from_bits) {
                let scanned = relays.iter().find(|relay| relay.net.contains(&address));
                prop_assert_eq!(table.of(address), scanned);
            }
        }
    }
}
