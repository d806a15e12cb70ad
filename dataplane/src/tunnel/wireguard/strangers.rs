//! What handshake messages of all strangers together may cost, so that sessions that there are go on.

use std::collections::HashSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::tunnel::bucket::{Bucket, Rate};

/// Handshake messages a second from addresses where no peer is. Checking mac1 and mac2 and sealing a
/// cookie takes about 3 µs (measured), so this is 3 % of a core. Sources are easily forged: a limit
/// per source does not bound what all of them cost.
const STRANGERS: Rate = Rate {
    interval: Duration::from_micros(100),
    burst: 1000,
};
/// Identities whose mac1 is checked for one token: about 0.25 µs each (measured).
const IDENTITIES_PER_TOKEN: usize = 16;
/// For how long the set of known addresses is used before it is made anew.
const KNOWN_TIME: Duration = Duration::from_secs(1);

/// The budget of strangers. Cardinality: one per device.
#[derive(Debug, Default)]
pub(super) struct Strangers {
    bucket: Bucket,
    /// Addresses of peers, at most one each. Made when the budget is used up, not before.
    known: HashSet<IpAddr>,
    known_at: Option<Instant>,
}

impl Strangers {
    /// Whether a message is to be looked at: within the budget, or from where a peer is. `identities`
    /// is how many may have to be tried; `peers` are the addresses of all peers.
    pub(super) fn admit(
        &mut self,
        from: IpAddr,
        identities: usize,
        peers: impl Iterator<Item = IpAddr>,
        now: Instant,
    ) -> bool {
        let tokens = u32::try_from(identities.div_ceil(IDENTITIES_PER_TOKEN)).unwrap_or(u32::MAX);
        let rate = Rate {
            interval: STRANGERS.interval.saturating_mul(tokens.max(1)),
            burst: (STRANGERS.burst / tokens.max(1)).max(1),
        };
        if self.bucket.take(rate, now) {
            return true;
        }
        if self
            .known_at
            .is_none_or(|at| now.saturating_duration_since(at) >= KNOWN_TIME)
        {
            self.known.clear();
            self.known.extend(peers);
            self.known_at = Some(now);
        }
        self.known.contains(&from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "the root of a test's time")]
    fn start() -> Instant {
        Instant::now()
    }

    fn ip(n: u32) -> IpAddr {
        IpAddr::from(n.to_be_bytes())
    }

    #[test]
    fn a_million_sources_get_ten_thousand_a_second_and_peers_are_still_heard() {
        let (start, mut strangers) = (start(), Strangers::default());
        let peer = ip(7);
        let mut admitted = 0;
        for n in 0..1_000_000_u32 {
            let now = start + Duration::from_micros(n.into());
            admitted += u32::from(strangers.admit(ip(n + 100), 1, [peer].into_iter(), now));
            if n % 1000 == 999 {
                assert!(strangers.admit(peer, 1, [peer].into_iter(), now));
            }
        }
        // A second's worth and the burst, less what the peer took when there was some.
        assert!((9_000..=11_000).contains(&admitted), "{admitted}");
    }

    #[test]
    fn more_identities_cost_more() {
        let (now, mut strangers) = (start(), Strangers::default());
        let admitted = (0..2000).filter(|n| strangers.admit(ip(*n), 160, [].into_iter(), now));
        assert_eq!(admitted.count(), 100);
    }

    #[test]
    fn a_peer_that_moved_is_known_a_second_later() {
        let (start, mut strangers) = (start(), Strangers::default());
        let fill = |strangers: &mut Strangers, now| {
            for n in 0..2000 {
                strangers.admit(ip(n), 1, [ip(9_001)].into_iter(), now);
            }
        };
        fill(&mut strangers, start);
        let soon = start + Duration::from_millis(1);
        fill(&mut strangers, soon);
        assert!(!strangers.admit(ip(9_002), 1, [ip(9_002)].into_iter(), soon));
        let later = start + Duration::from_millis(1001);
        fill(&mut strangers, later);
        strangers.known_at = Some(start);
        assert!(strangers.admit(ip(9_002), 1, [ip(9_002)].into_iter(), later));
    }
}
