//! What fits the paths behind the tunnels of one vnet, as routers there say (RFC 1191, RFC 8201).
//!
//! The kernel keeps such things by destination alone, and a destination is another host in each vnet. So the edge
//! keeps them, and tells the kernel nothing: what does not fit is cut on its way out.

use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::wire::icmp::taken_by_all;

/// When a larger MTU is tried again (RFC 1191 section 6.3, RFC 8201 section 4).
pub(crate) const KEPT_FOR: Duration = Duration::from_secs(600);

/// Destinations with a place of their own in a vnet.
const PLACES: usize = 1024;
/// A destination is in one of so many places. What does not find one takes that of the oldest.
const WAYS: usize = 4;

/// The paths of one vnet: written by whichever worker hears of one, read by all, without a lock. A place is one
/// word, so that nobody reads half of a change; of two changes at once one is lost, and told again with the next
/// packet that does not fit.
#[derive(Debug, Default)]
pub struct Paths {
    hasher: RandomState,
    /// Made when the first router says something: few vnets ever need it.
    said: OnceLock<Said>,
}

#[derive(Debug)]
struct Said {
    /// When the first was said.
    start: Instant,
    /// When all is forgotten, in seconds from `start`.
    until: AtomicU32,
    places: Box<[AtomicU64]>,
}

impl Said {
    fn new(start: Instant) -> Self {
        Self {
            start,
            until: AtomicU32::new(0),
            places: (0..PLACES).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    fn seconds(&self, at: Instant) -> u32 {
        let since = at.saturating_duration_since(self.start);
        u32::try_from(since.as_secs()).unwrap_or(u32::MAX)
    }
}

/// One place: which destination (16 bits of its hash), what fits, and until when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    tag: u16,
    mtu: u16,
    until: u32,
}

impl Entry {
    fn read(place: &AtomicU64) -> Self {
        let [a, b, c, d, until @ ..] = place.load(Ordering::Relaxed).to_be_bytes();
        Self {
            tag: u16::from_be_bytes([a, b]),
            mtu: u16::from_be_bytes([c, d]),
            until: u32::from_be_bytes(until),
        }
    }

    fn write(self, place: &AtomicU64) {
        let word = u64::from(self.tag) << 48 | u64::from(self.mtu) << 32 | u64::from(self.until);
        place.store(word, Ordering::Relaxed);
    }
}

impl Paths {
    /// The longest packet that fits the path to `destination`, in bytes: [`u16::MAX`] when nobody said anything.
    #[inline]
    pub fn fits(&self, destination: IpAddr, now: Instant) -> u16 {
        self.said
            .get()
            .map_or(u16::MAX, |said| self.known(said, destination, now))
    }

    fn known(&self, said: &Said, destination: IpAddr, now: Instant) -> u16 {
        let now = said.seconds(now);
        if said.until.load(Ordering::Relaxed) <= now {
            return u16::MAX;
        }
        let (set, tag) = self.place(destination);
        let mut found = said.places[set..set + WAYS].iter().map(Entry::read);
        let found = found.find(|entry| entry.tag == tag && entry.until > now);
        found.map_or(u16::MAX, |entry| entry.mtu)
    }

    /// A router says that `mtu` bytes fit the path to `destination`. Never less than every host takes counts, and
    /// nothing larger than what is known already.
    pub fn learn(&self, destination: IpAddr, mtu: u16, now: Instant) {
        let said = self.said.get_or_init(|| Said::new(now));
        let (now, until) = (said.seconds(now), said.seconds(now + KEPT_FOR));
        let (set, tag) = self.place(destination);
        let places = &said.places[set..set + WAYS];
        let own = places.iter().find(|place| {
            let entry = Entry::read(place);
            entry.tag == tag && entry.until > now
        });
        let oldest = places.iter().min_by_key(|place| Entry::read(place).until);
        let Some(place) = own.or(oldest) else {
            return;
        };
        let known = own.map_or(u16::MAX, |place| Entry::read(place).mtu);
        let mtu = mtu.max(taken_by_all(destination.is_ipv4())).min(known);
        Entry { tag, mtu, until }.write(place);
        said.until.fetch_max(until, Ordering::Relaxed);
    }

    /// The first of its places, and what tells it from others there. The hash has a key of its own for each vnet:
    /// nobody can choose destinations that meet.
    fn place(&self, destination: IpAddr) -> (usize, u16) {
        let [a, b, c, d, ..] = self.hasher.hash_one(destination).to_be_bytes();
        let set = usize::from(u16::from_be_bytes([a, b])) % (PLACES / WAYS);
        (set * WAYS, u16::from_be_bytes([c, d]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "the root of a test's time")]
    fn start() -> Instant {
        Instant::now()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn what_is_said_holds_for_its_destination_for_ten_minutes() {
        let (paths, now) = (Paths::default(), start());
        assert_eq!(paths.fits(ip("10.0.0.50"), now), u16::MAX);
        paths.learn(ip("10.0.0.50"), 1300, now);
        paths.learn(ip("fd00::50"), 1350, now + Duration::from_secs(100));
        assert_eq!(paths.fits(ip("10.0.0.50"), now), 1300);
        assert_eq!(paths.fits(ip("fd00::50"), now), 1350);
        assert_eq!(paths.fits(ip("10.0.0.51"), now), u16::MAX);
        let last = now + Duration::from_secs(599);
        assert_eq!(paths.fits(ip("10.0.0.50"), last), 1300);
        let after = now + Duration::from_secs(601);
        assert_eq!(paths.fits(ip("10.0.0.50"), after), u16::MAX);
        assert_eq!(paths.fits(ip("fd00::50"), after), 1350);
        // And anew.
        paths.learn(ip("10.0.0.50"), 1400, after);
        assert_eq!(paths.fits(ip("10.0.0.50"), after), 1400);
    }

    #[test]
    fn it_only_gets_smaller_but_not_smaller_than_every_host_takes() {
        let (paths, now) = (Paths::default(), start());
        paths.learn(ip("10.0.0.50"), 1300, now);
        paths.learn(ip("10.0.0.50"), 1400, now);
        assert_eq!(paths.fits(ip("10.0.0.50"), now), 1300);
        paths.learn(ip("10.0.0.50"), 0, now);
        assert_eq!(paths.fits(ip("10.0.0.50"), now), 576);
        paths.learn(ip("fd00::50"), 68, now);
        assert_eq!(paths.fits(ip("fd00::50"), now), 1280);
    }

    /// However many a vnet's routers speak of: the memory is what it was, and the newest are known.
    #[test]
    fn many_destinations_take_the_places_of_the_oldest() {
        let (paths, now) = (Paths::default(), start());
        let at = |n: u32| IpAddr::from((0x0a00_0000 + n).to_be_bytes());
        for n in 0..100_000 {
            let now = now + Duration::from_secs(u64::from(n / 100));
            paths.learn(at(n), 1300, now);
            assert_eq!(paths.fits(at(n), now), 1300);
        }
        let now = now + Duration::from_secs(1000);
        let known = (0..100_000).filter(|n| paths.fits(at(*n), now) == 1300);
        // Tags of 16 bits: of 100,000 strangers a few have the tag of one of four.
        assert!(known.count() < PLACES + 50);
        assert_eq!(paths.said.get().unwrap().places.len(), PLACES);
        let late = (99_900..100_000).filter(|n| paths.fits(at(*n), now) == 1300);
        assert!(late.count() > 90);
    }
}
