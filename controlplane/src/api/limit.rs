//! How many requests one token, or one address, may make: a token bucket each, in a bounded table.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::model::HexId;

/// Most buckets. A full one is forgotten first, and a stranger with more addresses than this does
/// not cost more than 4 MB.
const BUCKETS_MAX: usize = 1 << 16;

/// How often a table without room is searched for buckets that are full again.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// A bucket holds what comes in that time: a burst.
const BURST_SECS: f64 = 5.0;

/// What a failed authentication costs: guessing is slow.
const FAILURE_COST: f64 = 50.0;

/// Who is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Who {
    /// A token.
    Token(HexId),
    /// An address; of IPv6 the /64, which is one customer's.
    Address(IpAddr),
}

impl Who {
    /// The address that is counted for a client's.
    pub(crate) fn address(ip: IpAddr) -> Who {
        match ip.to_canonical() {
            IpAddr::V4(ip) => Who::Address(IpAddr::V4(ip)),
            IpAddr::V6(ip) => {
                let net = u128::from(ip) >> 64 << 64;
                Who::Address(IpAddr::V6(Ipv6Addr::from(net)))
            }
        }
    }
}

/// The buckets, shared by all requests.
pub(crate) struct Limits {
    per_sec: Option<f64>,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    buckets: HashMap<Who, Bucket>,
    /// When full buckets were looked for last: walking the table has a bound, too.
    swept: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    left: f64,
    at: Instant,
}

impl Limits {
    /// Each may make `per_sec` requests a second for long; `None` is no limit.
    pub(crate) fn new(per_sec: Option<u32>) -> Limits {
        Limits {
            per_sec: per_sec.map(f64::from),
            table: Mutex::default(),
        }
    }

    /// Takes a request out of the bucket.
    ///
    /// # Errors
    /// How long to wait when there is none left.
    pub(crate) fn take(&self, who: Who, now: Instant) -> Result<(), Duration> {
        self.spend(who, 1.0, now)
    }

    /// Takes the price of a failed authentication.
    pub(crate) fn punish(&self, who: Who, now: Instant) {
        // The next request is refused when the bucket is empty.
        let _is_answered_anyway = self.spend(who, FAILURE_COST, now);
    }

    fn spend(&self, who: Who, cost: f64, now: Instant) -> Result<(), Duration> {
        let Some(per_sec) = self.per_sec else {
            return Ok(());
        };
        let full = per_sec * BURST_SECS;
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if table.buckets.len() >= BUCKETS_MAX && !table.buckets.contains_key(&who) {
            table.sweep(per_sec, full, now);
            if table.buckets.len() >= BUCKETS_MAX {
                // Everybody is busy: that many clients are an attack, and a new one waits.
                return Err(SWEEP_EVERY);
            }
        }
        let bucket = table.buckets.entry(who).or_insert(Bucket {
            left: full,
            at: now,
        });
        let left = bucket.filled(per_sec, full, now);
        *bucket = Bucket {
            left: if left >= 1.0 {
                (left - cost).max(0.0)
            } else {
                left
            },
            at: now,
        };
        match left >= 1.0 {
            true => Ok(()),
            false => Err(Duration::from_secs_f64((1.0 - left) / per_sec)),
        }
    }
}

impl Table {
    fn sweep(&mut self, per_sec: f64, full: f64, now: Instant) {
        let is_soon = |last: Instant| now.saturating_duration_since(last) < SWEEP_EVERY;
        if self.swept.is_some_and(is_soon) {
            return;
        }
        self.swept = Some(now);
        self.buckets
            .retain(|_, bucket| bucket.filled(per_sec, full, now) < full);
    }
}

impl Bucket {
    fn filled(self, per_sec: f64, full: f64, now: Instant) -> f64 {
        let since = now.saturating_duration_since(self.at).as_secs_f64();
        (self.left + since * per_sec).min(full)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Who {
        Who::address(text.parse().unwrap())
    }

    #[test]
    fn a_burst_passes_then_the_rate_and_each_has_a_bucket_of_its_own() {
        let limits = Limits::new(Some(10));
        let start = tokio::time::Instant::now().into_std();
        let one = address("192.0.2.1");
        let passed = (0..100).filter(|_| limits.take(one, start).is_ok()).count();
        assert_eq!(passed, 50);
        let wait = limits.take(one, start).unwrap_err();
        assert!(wait > Duration::ZERO && wait <= Duration::from_millis(100));
        assert_eq!(limits.take(address("192.0.2.2"), start), Ok(()));
        let later = start + Duration::from_secs(1);
        let passed = (0..100).filter(|_| limits.take(one, later).is_ok()).count();
        assert_eq!(passed, 10);
    }

    #[test]
    fn a_failed_authentication_costs_fifty_and_addresses_of_one_slash_64_are_one() {
        let limits = Limits::new(Some(10));
        let now = tokio::time::Instant::now().into_std();
        limits.punish(address("2001:db8::1"), now);
        assert!(limits.take(address("2001:db8::2"), now).is_err());
        assert_eq!(limits.take(address("2001:db8:0:1::1"), now), Ok(()));
        limits.punish(address("192.0.2.1"), now);
        assert!(limits.take(address("::ffff:192.0.2.1"), now).is_err());
    }

    #[test]
    fn a_table_that_is_full_forgets_those_who_wait_for_nothing() {
        let limits = Limits::new(Some(1));
        let now = tokio::time::Instant::now().into_std();
        let nth = |n: u32| Who::address(IpAddr::V4(n.into()));
        for n in 0..u32::try_from(BUCKETS_MAX).unwrap() {
            limits.take(nth(n), now).unwrap();
        }
        assert!(limits.take(nth(u32::MAX), now).is_err());
        let later = now + Duration::from_secs(10);
        assert_eq!(limits.take(nth(u32::MAX), later), Ok(()));
        assert_eq!(limits.table.lock().unwrap().buckets.len(), 1);
    }
}
