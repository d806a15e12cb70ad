//! Longest-prefix match over IPv4 and IPv6 for one vnet: few prefixes in a line, many in a trie.
//!
//! In: prefixes and their values from the one [`Writer`], which keeps the RIB. Out: look-ups in the
//! [`Table`] by any pinned thread. Each address changes from its old answer to its new one in one
//! atomic store, so a look-up during a change gives one of the two and nothing else.
//!
//! Up to [`INLINE_MAX`] prefixes are a sorted array that is replaced as a whole; more are a trie that
//! is written in place. IPv4: strides of 8-8-8-8 bits, above [`WIDE_MIN`] prefixes 16-8-8. IPv6: a
//! root of 8 or 16 bits, then strides of 4 with skip nodes, so that memory follows the number of
//! prefixes and not their length.

mod family;
mod key;
#[cfg(not(portcullis_loom))]
#[cfg(test)]
mod tests;
mod trie;
mod writer;

use std::fmt;
use std::marker::PhantomData;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use self::family::{Family, Rib};
use super::Nexthop;
use super::publish::Guard;
use crate::id::TunnelId;

pub use self::family::{INLINE_MAX, WIDE_MIN};
pub use self::writer::{Full, TABLE_BYTES_MAX};

/// Highest number of a tunnel that a table can name: a word has 31 bits, and two words are taken.
pub const TUNNEL_MAX: TunnelId = TunnelId((1 << 31) - 1 - FIRST_TUNNEL);

/// The trie as loom's models see it.
#[cfg(portcullis_loom)]
pub(super) struct Model(Arc<trie::Trie<u16>>);

#[cfg(portcullis_loom)]
impl Model {
    pub(super) fn lookup(&self, key: u16) -> Option<u32> {
        self.0.lookup(key)
    }
}

/// The writer of a [`Model`].
#[cfg(portcullis_loom)]
pub(super) struct ModelWriter(writer::TrieWriter<u16>);

#[cfg(portcullis_loom)]
impl ModelWriter {
    pub(super) fn new() -> Self {
        let writer = writer::TrieWriter::new(<u16 as key::Key>::ROOT[0]);
        Self(writer.expect("a model is small"))
    }

    pub(super) fn table(&self) -> Model {
        Model(self.0.trie().clone())
    }

    pub(super) fn insert(&mut self, (key, len): (u16, u8), value: u32) {
        self.0.insert(key, len, value).expect("a model is small");
    }

    pub(super) fn remove(&mut self, (key, len): (u16, u8), covering: Option<(u8, u32)>) {
        self.0.remove(key, len, covering);
    }
}

/// What a prefix leads to, packed into one atomic word.
pub trait Value: Copy + PartialEq + fmt::Debug {
    /// The word: 31 bits, never 0.
    ///
    /// # Panics
    /// When the value names a tunnel above [`TUNNEL_MAX`].
    fn to_word(self) -> u32;

    /// The value of a word that [`Value::to_word`] made.
    fn from_word(word: u32) -> Self;
}

/// The word of `Nexthop::Local`.
const LOCAL: u32 = 1;
/// The word of tunnel 0.
const FIRST_TUNNEL: u32 = 2;

impl Value for Nexthop {
    fn to_word(self) -> u32 {
        match self {
            Nexthop::Local => LOCAL,
            Nexthop::Tunnel(id) => id.to_word(),
        }
    }

    fn from_word(word: u32) -> Self {
        match word {
            LOCAL => Nexthop::Local,
            tunnel => Nexthop::Tunnel(TunnelId::from_word(tunnel)),
        }
    }
}

impl Value for TunnelId {
    fn to_word(self) -> u32 {
        assert!(self <= TUNNEL_MAX, "{self} is above {TUNNEL_MAX}");
        self.0 + FIRST_TUNNEL
    }

    fn from_word(word: u32) -> Self {
        TunnelId(word - FIRST_TUNNEL)
    }
}

/// The read side, shared by all workers.
#[derive(Debug)]
pub struct Table<V> {
    v4: Family<u32>,
    v6: Family<u128>,
    value: PhantomData<fn() -> V>,
}

impl<V: Value> Table<V> {
    /// The value of the longest prefix that contains `address`. Lock-free; allocates nothing.
    #[inline]
    pub fn lookup(&self, address: IpAddr, guard: &Guard) -> Option<V> {
        match address {
            IpAddr::V4(address) => self.v4.lookup(address.to_bits(), guard),
            IpAddr::V6(address) => self.v6.lookup(address.to_bits(), guard),
        }
        .map(V::from_word)
    }
}

/// The only writer of one [`Table`]; keeps the RIB, so that a removal restores the covering prefix.
#[derive(Debug)]
pub struct Writer<V> {
    table: Arc<Table<V>>,
    v4: Rib<u32>,
    v6: Rib<u128>,
}

impl<V: Value> Writer<V> {
    /// A writer with its own empty table.
    pub fn new() -> Self {
        Self {
            table: Arc::new(Table {
                v4: Family::new(),
                v6: Family::new(),
                value: PhantomData,
            }),
            v4: Rib::new(),
            v6: Rib::new(),
        }
    }

    /// The table to read from.
    pub fn table(&self) -> &Arc<Table<V>> {
        &self.table
    }

    /// Makes `prefix` (host bits are ignored) lead to `value`. Where it led
    /// elsewhere before, each address changes in one store.
    ///
    /// # Errors
    /// [`Full`] when the table has no room; it is as it was.
    ///
    /// # Panics
    /// When the value has no word, see [`Value::to_word`].
    pub fn insert(&mut self, prefix: IpNet, value: V) -> Result<(), Full> {
        let (len, word) = (prefix.prefix_len(), value.to_word());
        match prefix.network() {
            IpAddr::V4(key) => self.v4.insert(&self.table.v4, key.to_bits(), len, word),
            IpAddr::V6(key) => self.v6.insert(&self.table.v6, key.to_bits(), len, word),
        }
    }

    /// Takes `prefix` out; its addresses lead where the next shorter prefix says. Gives its value.
    pub fn remove(&mut self, prefix: IpNet) -> Option<V> {
        let len = prefix.prefix_len();
        match prefix.network() {
            IpAddr::V4(key) => self.v4.remove(&self.table.v4, key.to_bits(), len),
            IpAddr::V6(key) => self.v6.remove(&self.table.v6, key.to_bits(), len),
        }
        .map(V::from_word)
    }

    /// The value of exactly this prefix.
    pub fn get(&self, prefix: IpNet) -> Option<V> {
        let len = prefix.prefix_len();
        match prefix.network() {
            IpAddr::V4(key) => self.v4.get(key.to_bits(), len),
            IpAddr::V6(key) => self.v6.get(key.to_bits(), len),
        }
        .map(V::from_word)
    }

    /// All prefixes and their values, IPv4 first, by address and length.
    pub fn iter(&self) -> impl Iterator<Item = (IpNet, V)> + '_ {
        let v4 = self
            .v4
            .iter()
            .map(|(key, len, word)| (IpAddr::V4(key.into()), len, word));
        let v6 = self
            .v6
            .iter()
            .map(|(key, len, word)| (IpAddr::V6(key.into()), len, word));
        v4.chain(v6).map(|(address, len, word)| {
            let prefix = IpNet::new(address, len).expect("the RIB's lengths came from an IpNet");
            (prefix, V::from_word(word))
        })
    }

    /// Number of prefixes.
    pub fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    /// Bytes of the tries that look-ups read; 0 as long as the prefixes are in a line.
    pub fn trie_bytes(&self) -> usize {
        self.v4.trie_bytes() + self.v6.trie_bytes()
    }

    /// Whether there is no prefix.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<V: Value> Default for Writer<V> {
    fn default() -> Self {
        Self::new()
    }
}
