//! How many answers a network gets over UDP: a forged source must not turn us against somebody.

use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::time::Duration;

use crate::config::DnsLimits;

/// Buckets of a limiter: 16,384 of 16 bytes. Networks that share one by chance share their answers;
/// which do is not for a stranger to know, since the hash has a key.
const BUCKETS: usize = 1 << 14;

/// A token is an answer; a bucket counts them in thousandths.
const TOKEN: u64 = 1_000;

/// Every so many answers over the limit, one says that the question may come again over TCP, where
/// sources cannot be forged.
const SLIP: u32 = 2;

/// What to do with a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Answer.
    Answer,
    /// Say that the answer is too long.
    Truncate,
    /// Nothing.
    Drop,
}

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    /// Milliseconds since the start of the limiter.
    at: u64,
    /// Thousandths of a token that are used up.
    used: u32,
    /// Queries over the limit.
    over: u32,
}

/// Token buckets, one for each network, or a few.
#[derive(Debug)]
pub(super) struct Limiter {
    buckets: Box<[Bucket]>,
    hash: RandomState,
    per_second: u64,
    burst: u64,
}

impl Limiter {
    pub(super) fn new(limits: &DnsLimits) -> Limiter {
        Limiter {
            buckets: vec![Bucket::default(); BUCKETS].into(),
            hash: RandomState::new(),
            per_second: u64::from(limits.answers_per_second),
            burst: u64::from(limits.answers_burst),
        }
    }

    /// Takes a token of the client's network. `now` is the time since the limiter's start.
    pub(super) fn check(&mut self, client: IpAddr, now: Duration) -> Verdict {
        let place = usize::try_from(self.hash.hash_one(network(client)) % BUCKETS as u64);
        let Some(bucket) = place.ok().and_then(|place| self.buckets.get_mut(place)) else {
            return Verdict::Drop;
        };
        let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        let back = now
            .saturating_sub(bucket.at)
            .saturating_mul(self.per_second);
        let used = u64::from(bucket.used).saturating_sub(back);
        bucket.at = now;
        if used + TOKEN <= self.burst * TOKEN {
            bucket.used = u32::try_from(used + TOKEN).unwrap_or(u32::MAX);
            return Verdict::Answer;
        }
        bucket.used = u32::try_from(used).unwrap_or(u32::MAX);
        bucket.over = bucket.over.wrapping_add(1);
        match bucket.over % SLIP {
            0 => Verdict::Truncate,
            _ => Verdict::Drop,
        }
    }
}

/// Who shares a limit: an IPv4 /24, an IPv6 /56; what one customer has.
pub(super) fn network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V4(ip) => IpAddr::V4((u32::from(ip) & !0xff).into()),
        IpAddr::V6(ip) => IpAddr::V6((u128::from(ip) & !(u128::MAX >> 56)).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_gets_its_burst_then_its_rate_and_others_are_not_touched() {
        let mut limiter = Limiter::new(&DnsLimits {
            answers_per_second: 10,
            answers_burst: 20,
            ..DnsLimits::default()
        });
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let mut answered = |client: &str, queries: usize, ms: u64| {
            let now = Duration::from_millis(ms);
            let verdicts = (0..queries).map(|_| limiter.check(ip(client), now));
            verdicts
                .filter(|verdict| *verdict == Verdict::Answer)
                .count()
        };
        assert_eq!(answered("192.0.2.1", 100, 0), 20);
        // Of the same /24: nothing is left.
        assert_eq!(answered("192.0.2.200", 100, 0), 0);
        assert_eq!(answered("192.0.2.1", 100, 500), 5);
        assert_eq!(answered("198.51.100.1", 5, 500), 5);
        // No more than the burst is saved up.
        assert_eq!(answered("192.0.2.1", 100, 1_000_000), 20);
        assert_eq!(
            network(ip("2001:db8:1:2ff::1")),
            network(ip("2001:db8:1:200::2"))
        );
        assert_ne!(
            network(ip("2001:db8:1:2ff::1")),
            network(ip("2001:db8:1:3ff::1"))
        );
        assert_eq!(network(ip("::ffff:192.0.2.1")), ip("192.0.2.0"));
    }

    #[test]
    fn over_the_limit_every_second_query_is_sent_to_tcp() {
        let mut limiter = Limiter::new(&DnsLimits {
            answers_per_second: 1,
            answers_burst: 1,
            ..DnsLimits::default()
        });
        let client = "192.0.2.1".parse().unwrap();
        let mut check = || limiter.check(client, Duration::ZERO);
        assert_eq!(check(), Verdict::Answer);
        let rest = [check(), check(), check(), check()];
        assert_eq!(
            rest,
            [
                Verdict::Drop,
                Verdict::Truncate,
                Verdict::Drop,
                Verdict::Truncate
            ]
        );
    }
}
