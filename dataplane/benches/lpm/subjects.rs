//! The tables that are compared, their prefixes and their keys.

use std::fmt::Debug;
use std::marker::PhantomData;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use dataplane::fib::{Guard, lpm};
use dataplane::id::TunnelId;
use ip_network::{Ipv4Network, Ipv6Network};
use ip_network_table::IpNetworkTable;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use poptrie::Poptrie;
use prefix_trie::PrefixMap;

/// The number of keys: more than any cache near a core holds answers for.
const KEYS: usize = 1 << 20;
/// What a miss adds up to.
const MISS: u32 = u32::MAX;

/// Numbers that look random and are the same in every run (SplitMix64).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).expect("less than a usize")
    }

    /// One of the values, as often as its weight says.
    fn weighted(&mut self, weights: &[(u8, u32)]) -> u8 {
        let sum: u32 = weights.iter().map(|(_, weight)| weight).sum();
        let mut at = u32::try_from(self.below(sum as usize)).expect("below 32 bits");
        for (value, weight) in weights {
            if at < *weight {
                return *value;
            }
            at -= weight;
        }
        unreachable!("what is drawn is below the sum")
    }
}

/// An address family.
pub(crate) trait Address: Copy + Debug + Ord + Into<IpAddr> + Send + Sync + 'static {
    /// Some address that is used on the Internet, and the length of a prefix for it.
    fn draw(random: &mut Random, blocks: &[u32]) -> (u128, u8);
    /// Bits of an address.
    const WIDTH: u8;
    /// The address with these bits, in the lowest.
    fn of(bits: u128) -> Self;
    /// Its bits, in the lowest.
    fn to(self) -> u128;
    /// Builds each peer in turn.
    fn with_peers(prefixes: &[(Self, u8)], peers: &mut impl Peers<Self>);
}

/// What is done with each peer.
pub(crate) trait Peers<A> {
    fn peer<S: Subject<A>>(&mut self, peer: &S);
}

/// A table under test.
pub(crate) trait Subject<A> {
    const NAME: &'static str;
    fn build(prefixes: &[(A, u8)]) -> Self;
    fn find(&self, key: A, guard: &Guard) -> u32;
}

/// Shares of lengths in the tables of the Internet, rounded, in tenths of a percent; a few are
/// longer than networks announce to each other, as inside of one.
const LENGTHS_V4: [(u8, u32); 16] = [
    (24, 600),
    (23, 98),
    (22, 110),
    (21, 50),
    (20, 44),
    (19, 26),
    (18, 14),
    (17, 9),
    (16, 14),
    (15, 3),
    (14, 2),
    (13, 1),
    (12, 1),
    (28, 1),
    (30, 1),
    (32, 1),
];
const LENGTHS_V6: [(u8, u32); 12] = [
    (48, 460),
    (32, 130),
    (44, 110),
    (40, 90),
    (36, 50),
    (29, 30),
    (47, 20),
    (46, 30),
    (33, 20),
    (38, 20),
    (56, 30),
    (64, 10),
];

impl Address for Ipv4Addr {
    const WIDTH: u8 = 32;

    fn draw(random: &mut Random, _: &[u32]) -> (u128, u8) {
        loop {
            let bits = random.next() >> 32;
            // Unicast, and not this host.
            if (1..224).contains(&(bits >> 24)) && bits >> 24 != 127 {
                return (bits.into(), random.weighted(&LENGTHS_V4));
            }
        }
    }

    fn of(bits: u128) -> Self {
        Self::from_bits(u32::try_from(bits).expect("32 bits"))
    }

    fn to(self) -> u128 {
        self.to_bits().into()
    }

    fn with_peers(prefixes: &[(Self, u8)], peers: &mut impl Peers<Self>) {
        peers.peer(&IpNetworkTable::build(prefixes));
        peers.peer(&PrefixMap::<Ipv4Net, u32>::build(prefixes));
        peers.peer(&Poptrie::<(u32, u8), u32>::build(prefixes));
    }
}

impl Address for Ipv6Addr {
    const WIDTH: u8 = 128;

    /// Inside of one of the blocks that registries gave away.
    fn draw(random: &mut Random, blocks: &[u32]) -> (u128, u8) {
        let block = blocks[random.below(blocks.len())] >> 3 | 1 << 29;
        let low = u128::from(random.next()) << 32;
        (u128::from(block) << 96 | low, random.weighted(&LENGTHS_V6))
    }

    fn of(bits: u128) -> Self {
        Self::from_bits(bits)
    }

    fn to(self) -> u128 {
        self.to_bits()
    }

    fn with_peers(prefixes: &[(Self, u8)], peers: &mut impl Peers<Self>) {
        peers.peer(&IpNetworkTable::build(prefixes));
        peers.peer(&PrefixMap::<Ipv6Net, u32>::build(prefixes));
        peers.peer(&Poptrie::<(u128, u8), u32>::build(prefixes));
    }
}

fn mask<A: Address>(len: u8) -> u128 {
    let ones = u128::MAX >> (128 - u32::from(A::WIDTH));
    ones & !(ones.checked_shr(len.into()).unwrap_or(0))
}

/// Different prefixes, in no order.
pub(crate) fn prefixes<A: Address>(count: usize) -> Vec<(A, u8)> {
    let mut random = Random::new(1);
    let blocks: Vec<u32> = (0..1 << 16)
        .map(|_| u32::try_from(random.next() >> 32).expect("32 bits"))
        .collect();
    let mut seen = std::collections::HashSet::new();
    let mut prefixes = Vec::with_capacity(count);
    while prefixes.len() < count {
        let (bits, len) = A::draw(&mut random, &blocks);
        let prefix = (A::of(bits & mask::<A>(len)), len);
        if seen.insert((prefix.0.to(), len)) {
            prefixes.push(prefix);
        }
    }
    prefixes
}

/// Random addresses in random prefixes.
pub(crate) fn keys<A: Address>(prefixes: &[(A, u8)]) -> Vec<A> {
    let mut random = Random::new(2);
    (0..KEYS)
        .map(|_| {
            let (prefix, len) = prefixes[random.below(prefixes.len())];
            let host = u128::from(random.next()) << 64 | u128::from(random.next());
            let inside = !mask::<A>(len) & u128::MAX >> (128 - u32::from(A::WIDTH));
            A::of(prefix.to() | host & inside)
        })
        .collect()
}

/// Ours, as a vnet has it.
pub(crate) struct Ours<A> {
    pub(crate) writer: lpm::Writer<TunnelId>,
    pub(crate) table: Arc<lpm::Table<TunnelId>>,
    pub(crate) family: PhantomData<A>,
}

impl<A: Address> Subject<A> for Ours<A> {
    const NAME: &'static str = "portcullis";

    fn build(prefixes: &[(A, u8)]) -> Self {
        let mut writer = lpm::Writer::new();
        for ((address, len), value) in prefixes.iter().zip(0..) {
            let prefix = IpNet::new((*address).into(), *len).expect("a length of its family");
            writer
                .insert(prefix, TunnelId(value))
                .expect("room for a million prefixes");
        }
        let table = super::shared(&writer);
        Self {
            writer,
            table,
            family: PhantomData,
        }
    }

    #[inline]
    fn find(&self, key: A, guard: &Guard) -> u32 {
        self.table
            .lookup(key.into(), guard)
            .map_or(MISS, |tunnel| tunnel.0)
    }
}

impl Subject<Ipv4Addr> for IpNetworkTable<u32> {
    const NAME: &'static str = "ip_network_table";

    fn build(prefixes: &[(Ipv4Addr, u8)]) -> Self {
        let mut table = Self::new();
        for ((address, len), value) in prefixes.iter().zip(0..) {
            table.insert(
                Ipv4Network::new(*address, *len).expect("no host bits"),
                value,
            );
        }
        table
    }

    #[inline]
    fn find(&self, key: Ipv4Addr, _: &Guard) -> u32 {
        self.longest_match_ipv4(key)
            .map_or(MISS, |(_, value)| *value)
    }
}

impl Subject<Ipv6Addr> for IpNetworkTable<u32> {
    const NAME: &'static str = "ip_network_table";

    fn build(prefixes: &[(Ipv6Addr, u8)]) -> Self {
        let mut table = Self::new();
        for ((address, len), value) in prefixes.iter().zip(0..) {
            table.insert(
                Ipv6Network::new(*address, *len).expect("no host bits"),
                value,
            );
        }
        table
    }

    #[inline]
    fn find(&self, key: Ipv6Addr, _: &Guard) -> u32 {
        self.longest_match_ipv6(key)
            .map_or(MISS, |(_, value)| *value)
    }
}

macro_rules! more_peers {
    ($address:ty, $bits:ty, $net:ty) => {
        impl Subject<$address> for PrefixMap<$net, u32> {
            const NAME: &'static str = "prefix-trie";

            fn build(prefixes: &[($address, u8)]) -> Self {
                let net = |(address, len): &($address, u8)| <$net>::new_assert(*address, *len);
                prefixes.iter().map(net).zip(0..).collect()
            }

            #[inline]
            fn find(&self, key: $address, _: &Guard) -> u32 {
                let host = <$net>::new_assert(key, <$address as Address>::WIDTH);
                self.get_lpm(&host).map_or(MISS, |(_, value)| *value)
            }
        }

        impl Subject<$address> for Poptrie<($bits, u8), u32> {
            const NAME: &'static str = "poptrie";

            fn build(prefixes: &[($address, u8)]) -> Self {
                let prefix = |(address, len): &($address, u8)| (address.to_bits(), *len);
                prefixes.iter().map(prefix).zip(0..).collect()
            }

            #[inline]
            fn find(&self, key: $address, _: &Guard) -> u32 {
                self.lookup(key.to_bits()).copied().unwrap_or(MISS)
            }
        }
    };
}

more_peers!(Ipv4Addr, u32, Ipv4Net);
more_peers!(Ipv6Addr, u128, Ipv6Net);
