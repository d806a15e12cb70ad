//! Token buckets: one for a single stream of events, and a bounded table of them keyed by source.

use std::net::IpAddr;
use std::time::{Duration, Instant};

/// How many events pass: one each `interval` in the long run, `burst` of them at once.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// Time that one event costs.
    pub interval: Duration,
    /// Events that pass at once after a pause; at least 1.
    pub burst: u32,
}

/// One token bucket, kept as the time at which it is full again (the virtual scheduling form of
/// the generic cell rate algorithm, ITU-T I.371 annex A). A new bucket is full.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bucket {
    full_at: Option<Instant>,
}

impl Bucket {
    /// Takes one token. False, and nothing taken, when there is none.
    #[must_use]
    pub fn take(&mut self, rate: Rate, now: Instant) -> bool {
        let full_at = self.full_at.map_or(now, |at| at.max(now));
        if full_at - now > rate.interval * rate.burst.saturating_sub(1) {
            return false;
        }
        self.full_at = Some(full_at + rate.interval);
        true
    }
}

/// Sets of the table. With [`WAYS`] entries each, 4096 sources in 192 KiB.
const SETS: usize = 1024;
/// Entries of a set.
const WAYS: usize = 4;

/// A bucket per source address (IPv4 address or IPv6 /64) in a table of fixed size. A source that
/// finds its set full takes the place of the one that was quiet for longest: forgetting lets more
/// through, never less, so no flooder can make this table refuse somebody else.
#[derive(Debug)]
pub struct SourceTable {
    rate: Rate,
    sets: Box<[[Entry; WAYS]]>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    /// The source; 0 (`::`, no possible source) marks a free entry.
    key: u128,
    bucket: Bucket,
}

impl SourceTable {
    /// An empty table; all its memory is allocated here.
    #[must_use]
    pub fn new(rate: Rate) -> Self {
        Self {
            rate,
            sets: vec![[Entry::default(); WAYS]; SETS].into_boxed_slice(),
        }
    }

    /// Takes one token of `source`. False when it has none left.
    #[must_use]
    pub fn take(&mut self, source: IpAddr, now: Instant) -> bool {
        let key = key(source);
        let set = &mut self.sets[set_index(key)];
        let at = set.iter().position(|entry| entry.key == key);
        let at = at.unwrap_or_else(|| {
            let quietest = (0..WAYS).min_by_key(|&way| set[way].bucket.full_at);
            let way = quietest.expect("a set has entries");
            set[way] = Entry {
                key,
                bucket: Bucket::default(),
            };
            way
        });
        set[at].bucket.take(self.rate, now)
    }
}

/// IPv4 addresses as they are, IPv6 addresses by their /64: that is what one customer gets.
fn key(source: IpAddr) -> u128 {
    match source.to_canonical() {
        IpAddr::V4(v4) => u128::from(v4.to_bits()) | 1 << 127,
        IpAddr::V6(v6) => v6.to_bits() >> 64 | 1 << 126,
    }
}

fn set_index(key: u128) -> usize {
    let bytes = key.to_le_bytes();
    let low = u64::from_le_bytes(*bytes.first_chunk().expect("sixteen bytes"));
    let high = u64::from_le_bytes(*bytes.last_chunk().expect("sixteen bytes"));
    // Fibonacci hashing (Knuth, TAOCP volume 3, section 6.4).
    let mixed = (low ^ high.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    usize::try_from(mixed >> 54).expect("ten bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate {
        interval: Duration::from_millis(100),
        burst: 3,
    };

    #[expect(clippy::disallowed_methods, reason = "the test's own start of time")]
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let start = start();
        let mut bucket = Bucket::default();
        let given = (0..10).filter(|_| bucket.take(RATE, start)).count();
        assert_eq!(given, 3);
        assert!(!bucket.take(RATE, start + Duration::from_millis(99)));
        assert!(bucket.take(RATE, start + Duration::from_millis(100)));
        assert!(!bucket.take(RATE, start + Duration::from_millis(101)));
        let later = start + Duration::from_secs(60);
        assert_eq!((0..10).filter(|_| bucket.take(RATE, later)).count(), 3);
    }

    #[test]
    fn a_flooding_source_takes_no_token_of_another() {
        let start = start();
        let mut table = SourceTable::new(RATE);
        let flooder = "192.0.2.1".parse().unwrap();
        let given = (0..100_000).filter(|_| table.take(flooder, start)).count();
        assert_eq!(given, 3);
        for last in 2..=255 {
            let other = IpAddr::from([192, 0, 2, last]);
            assert!(table.take(other, start), "{other}");
        }
    }

    #[test]
    fn addresses_of_one_ipv6_64_share_a_bucket() {
        let start = start();
        let mut table = SourceTable::new(RATE);
        let given = (0..100u16)
            .filter(|n| table.take(IpAddr::from([0x2001, 0xdb8, 0, 1, 0, 0, 0, *n]), start))
            .count();
        assert_eq!(given, 3);
        assert!(table.take("2001:db8:0:2::1".parse().unwrap(), start));
    }

    #[test]
    fn a_mapped_address_is_its_ipv4_address() {
        let start = start();
        let mut table = SourceTable::new(RATE);
        for _ in 0..3 {
            assert!(table.take("192.0.2.1".parse().unwrap(), start));
        }
        assert!(!table.take("::ffff:192.0.2.1".parse().unwrap(), start));
    }

    #[test]
    fn a_flood_from_a_million_sources_shuts_nobody_out() {
        let start = start();
        let mut table = SourceTable::new(RATE);
        for n in 0..1_000_000u32 {
            assert!(table.take(IpAddr::from(n.to_be_bytes()), start), "{n}");
        }
    }
}
