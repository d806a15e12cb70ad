//! A slice of the source range that is a node's, for a time.
//!
//! A node starts and serves without a control plane, so nobody can take its slice away: it keeps it until the
//! time that it was promised, and stops by itself then. Only some time after that the slice is another's:
//! clocks differ, and packets to the node before may still be under way.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use dataplane::source::{RANGE_V4, is_source};
pub use dataplane::source::{SLICE_LEN, SLICES};
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use super::{Resource, Timestamp, address};

/// How long slices are promised, and when they are another's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// From a renewal to the end; a node that is connected gets the next one after half of it. It is as
    /// long as an edge can go without its control plane.
    pub lease: Duration,
    /// From the end to the next node: more than clocks differ, and than a packet is under way.
    pub quarantine: Duration,
}

impl Default for Terms {
    fn default() -> Terms {
        Terms {
            lease: Duration::from_secs(7 * 24 * 3600),
            quarantine: Duration::from_secs(3600),
        }
    }
}

/// A slice that is a node's, or was the last time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The slice; one lease each.
    pub slice: Ipv4Net,
    /// The node's name; of an edge that is a control plane itself, that of its machine.
    pub node: String,
    /// SHA-256 of the node's certificate. A node that is enrolled again may be another machine, while the
    /// one before still uses its slice: it gets another. An edge that is a control plane itself has no
    /// certificate: here is the id of its data directory, a UUID.
    pub certificate_sha256: String,
    /// When the node got it.
    pub since: Timestamp,
    /// Until when it is the node's.
    pub until: Timestamp,
    /// Where the node takes packets for its slice that came to other nodes: Geneve over UDP. `None`: it
    /// takes none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay: Option<SocketAddr>,
}

impl Lease {
    /// Whether the node may use it.
    pub fn is_held(&self, now: Timestamp) -> bool {
        now < self.until
    }

    /// Whether it is time to prolong it: half of the lease is over.
    pub fn is_due(&self, now: Timestamp, terms: Terms) -> bool {
        now.after(terms.lease / 2) > self.until
    }

    /// Whether another node may have it.
    pub fn is_free(&self, now: Timestamp, terms: Terms) -> bool {
        self.until.after(terms.quarantine) <= now
    }
}

/// Whether other machines can reach a node at this address and port.
///
/// # Errors
/// A sentence that says why not.
pub fn check_relay(relay: SocketAddr) -> Result<(), String> {
    let ip = relay.ip();
    if relay.port() == 0 {
        return Err(format!("{relay} has no port: 6081 is Geneve's"));
    }
    if address::is_impossible(ip) || ip == IpAddr::V4(Ipv4Addr::BROADCAST) {
        return Err(format!(
            "{ip} is not where other machines reach this one: give an address of its own, no wildcard, \
             loopback, link-local or multicast address"
        ));
    }
    if is_source(ip) {
        return Err(format!(
            "{ip} lies in the source range, which is for what the packets carry"
        ));
    }
    Ok(())
}

/// The slice of this number, below [`SLICES`].
pub fn slice(number: u32) -> Ipv4Net {
    let first = RANGE_V4.network().to_bits();
    let address = first + ((number % SLICES) << (32 - SLICE_LEN));
    Ipv4Net::new_assert(Ipv4Addr::from(address), SLICE_LEN)
}

/// The number of the slice that an address of 100.64.0.0/12 lies in; 0 outside.
pub fn number(slice: Ipv4Net) -> u8 {
    let first = RANGE_V4.network().to_bits();
    let offset = u32::from(slice.network()).wrapping_sub(first) >> (32 - SLICE_LEN);
    u8::try_from(offset).unwrap_or(0)
}

impl Resource for Lease {
    const KIND: &'static str = "lease";
    const ON_NODES: bool = true;
    type Id = Ipv4Net;

    fn id(&self) -> Ipv4Net {
        self.slice
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_fill_the_range_without_overlap() {
        assert_eq!(slice(0).to_string(), "100.64.0.0/20");
        assert_eq!(slice(1).to_string(), "100.64.16.0/20");
        assert_eq!(slice(SLICES - 1).to_string(), "100.79.240.0/20");
        assert!((0..SLICES).all(|n| u32::from(number(slice(n))) == n));
    }

    #[test]
    fn a_lease_is_its_nodes_then_nobodys_then_anybodys() {
        let terms = Terms {
            lease: Duration::from_secs(100),
            quarantine: Duration::from_secs(10),
        };
        let start = Timestamp::new(time::OffsetDateTime::UNIX_EPOCH);
        let at = |secs| start.after(Duration::from_secs(secs));
        let lease = Lease {
            slice: slice(3),
            node: "fra1".to_owned(),
            certificate_sha256: String::new(),
            since: start,
            until: at(100),
            relay: None,
        };
        let seen = |secs| {
            let now = at(secs);
            (
                lease.is_held(now),
                lease.is_due(now, terms),
                lease.is_free(now, terms),
            )
        };
        assert_eq!(seen(0), (true, false, false));
        assert_eq!(seen(50), (true, false, false));
        assert_eq!(seen(51), (true, true, false));
        assert_eq!(seen(99), (true, true, false));
        assert_eq!(seen(100), (false, true, false));
        assert_eq!(seen(109), (false, true, false));
        assert_eq!(seen(110), (false, true, true));
    }

    #[test]
    fn a_lease_of_before_relays_is_read_and_written_as_it_was() {
        let stored = r#"{"slice":"100.64.16.0/20","node":"fra1","certificate_sha256":"ab","since":"2026-11-26T00:00:00Z","until":"2026-12-03T00:00:00Z"}"#;
        let lease: Lease = serde_json::from_str(stored).unwrap();
        assert_eq!(lease.relay, None);
        assert_eq!(serde_json::to_string(&lease).unwrap(), stored);
        let relay = Some("192.0.2.1:6081".parse().unwrap());
        let said = serde_json::to_string(&Lease { relay, ..lease }).unwrap();
        assert!(said.ends_with(r#","relay":"192.0.2.1:6081"}"#), "{said}");
    }

    #[test]
    fn a_relay_is_an_address_that_other_machines_reach() {
        for good in ["192.0.2.1:6081", "10.0.0.1:1", "[2001:db8::1]:6081"] {
            assert_eq!(check_relay(good.parse().unwrap()), Ok(()), "{good}");
        }
        for (bad, why) in [
            ("192.0.2.1:0", "no port"),
            ("0.0.0.0:6081", "no wildcard"),
            ("[::]:6081", "no wildcard"),
            ("127.0.0.1:6081", "loopback"),
            ("[::1]:6081", "loopback"),
            ("224.0.0.1:6081", "multicast"),
            ("[ff02::1]:6081", "multicast"),
            ("255.255.255.255:6081", "of its own"),
            ("169.254.1.1:6081", "link-local"),
            ("[fe80::1]:6081", "link-local"),
            ("[::ffff:192.0.2.1]:6081", "of its own"),
            ("100.64.0.1:6081", "source range"),
            ("[2606:4700:cf1:5000::1]:6081", "source range"),
        ] {
            let said = check_relay(bad.parse().unwrap()).unwrap_err();
            assert!(said.contains(why), "{bad}: {said}");
        }
    }
}
