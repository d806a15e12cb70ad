//! Which flow a packet is for, and which port the next flow gets.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, SocketAddr};

use super::face::{Connect, ConnectError, FlowId, Protocol};

/// The first of the ports that flows get; those below are for servers (RFC 6335 section 6).
const PORT_FIRST: u16 = 1024;
/// How many there are.
const PORTS: u16 = u16::MAX - PORT_FIRST + 1;

/// A flow's 5-tuple, as seen from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) protocol: Protocol,
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
}

/// Who shares ports: flows of one source to one origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Pair {
    protocol: Protocol,
    source: IpAddr,
    to: SocketAddr,
}

#[derive(Clone, Copy, Debug)]
struct Ports {
    /// The next to try, counted from the first.
    next: u16,
    used: u16,
}

/// Flows by number and by 5-tuple. Cardinality: one per worker's flows.
#[derive(Debug)]
pub(super) struct Table<T> {
    max: usize,
    secret: [u64; 2],
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    index: HashMap<Key, u32>,
    ports: HashMap<Pair, Ports>,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    flow: Option<(Key, T)>,
}

impl<T> Table<T> {
    pub(super) fn new(max: usize, secret: [u64; 2]) -> Self {
        Self {
            max: max.min(usize::try_from(u32::MAX - 1).unwrap_or(usize::MAX)),
            secret,
            slots: Vec::new(),
            free: Vec::new(),
            index: HashMap::new(),
            ports: HashMap::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Adds a flow on a free port.
    pub(super) fn open(
        &mut self,
        connect: &Connect,
        make: impl FnOnce(Key) -> T,
    ) -> Result<FlowId, ConnectError> {
        let Connect {
            protocol,
            source,
            to,
            ..
        } = *connect;
        if to.port() == 0 || source.is_ipv4() != to.is_ipv4() || to.ip().is_unspecified() {
            return Err(ConnectError::Unaddressable(source, to));
        }
        if self.len() >= self.max {
            return Err(ConnectError::Full(self.max));
        }
        let key = self.take_port(Pair {
            protocol,
            source,
            to,
        })?;
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot {
                generation: 0,
                flow: None,
            });
            u32::try_from(self.slots.len() - 1).expect("the maximum is below 2^32")
        });
        let slot = &mut self.slots[place(index)];
        slot.flow = Some((key, make(key)));
        self.index.insert(key, index);
        Ok(FlowId {
            index,
            generation: slot.generation,
        })
    }

    /// Takes a flow out; its port is free again.
    pub(super) fn close(&mut self, index: u32) -> Option<T> {
        let slot = &mut self.slots[place(index)];
        let (key, flow) = slot.flow.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(index);
        self.index.remove(&key);
        let pair = Pair {
            protocol: key.protocol,
            source: key.local.ip(),
            to: key.remote,
        };
        if let Entry::Occupied(mut entry) = self.ports.entry(pair) {
            entry.get_mut().used -= 1;
            if entry.get().used == 0 {
                entry.remove();
            }
        }
        Some(flow)
    }

    pub(super) fn find(&self, key: &Key) -> Option<u32> {
        self.index.get(key).copied()
    }

    /// The flow at a place, if there is one.
    pub(super) fn at(&mut self, index: u32) -> Option<(&Key, &mut T)> {
        let (key, flow) = self.slots.get_mut(place(index))?.flow.as_mut()?;
        Some((key, flow))
    }

    /// The name of the flow at a place.
    pub(super) fn id(&self, index: u32) -> FlowId {
        FlowId {
            index,
            generation: self.slots[place(index)].generation,
        }
    }

    /// The flow with a name, if it is still there.
    pub(super) fn named(&mut self, id: FlowId) -> Option<(&Key, &mut T)> {
        let slot = self.slots.get_mut(place(id.index))?;
        if slot.generation != id.generation {
            return None;
        }
        let (key, flow) = slot.flow.as_mut()?;
        Some((key, flow))
    }

    /// Ports are taken in turn from a start that nobody can guess (RFC 6056, algorithm 3), so that
    /// one comes back as late as can be.
    fn take_port(&mut self, pair: Pair) -> Result<Key, ConnectError> {
        let secret = self.secret;
        let ports = self.ports.entry(pair).or_insert_with(|| Ports {
            next: u16::try_from(keyed(secret, &pair) % u64::from(PORTS)).expect("below 2^16"),
            used: 0,
        });
        if ports.used == PORTS {
            return Err(ConnectError::PortsExhausted {
                ports: usize::from(PORTS),
                source_address: pair.source,
                to: pair.to,
            });
        }
        loop {
            let port = PORT_FIRST + ports.next;
            ports.next = (ports.next + 1) % PORTS;
            let key = Key {
                protocol: pair.protocol,
                local: SocketAddr::new(pair.source, port),
                remote: pair.to,
            };
            if !self.index.contains_key(&key) {
                ports.used += 1;
                return Ok(key);
            }
        }
    }
}

/// A number that only who knows the secret can tell.
pub(super) fn keyed(secret: [u64; 2], of: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    secret.hash(&mut hasher);
    of.hash(&mut hasher);
    secret.hash(&mut hasher);
    hasher.finish()
}

fn place(index: u32) -> usize {
    usize::try_from(index).expect("usize has at least 32 bits")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::time::Duration;

    use super::*;

    fn connect(to: &str) -> Connect {
        Connect {
            protocol: Protocol::Tcp,
            source: "100.64.0.2".parse().unwrap(),
            to: to.parse().unwrap(),
            mtu: 1420,
            within: Duration::from_secs(1),
        }
    }

    #[test]
    fn one_source_has_64512_ports_to_one_origin_and_as_many_to_another() {
        let mut table = Table::new(200_000, [1, 2]);
        let mut seen = HashSet::new();
        let to = connect("10.0.0.50:80");
        let mut last = None;
        for _ in 0..64_512 {
            let id = table.open(&to, |key| seen.insert(key)).unwrap();
            last = Some(id);
        }
        assert_eq!(seen.len(), 64_512);
        assert!(seen.iter().all(|key| key.local.port() >= 1024));
        let refused = table.open(&to, |_| false).unwrap_err();
        assert!(
            refused
                .to_string()
                .contains("from 100.64.0.2 to 10.0.0.50:80")
        );
        table.open(&connect("10.0.0.51:80"), |_| false).unwrap();
        table.open(&connect("10.0.0.50:81"), |_| false).unwrap();
        table.close(last.unwrap().index).unwrap();
        table.open(&to, |_| false).unwrap();
    }

    #[test]
    fn flows_have_a_maximum_and_names_are_not_used_again() {
        let mut table = Table::new(2, [1, 2]);
        let to = connect("10.0.0.50:80");
        let first = table.open(&to, |_| 1).unwrap();
        table.open(&to, |_| 2).unwrap();
        assert_eq!(table.open(&to, |_| 3), Err(ConnectError::Full(2)));
        assert_eq!(table.close(first.index), Some(1));
        let third = table.open(&to, |_| 3).unwrap();
        assert_eq!(third.index, first.index);
        assert!(table.named(first).is_none());
        assert_eq!(table.named(third).map(|(_, flow)| *flow), Some(3));
    }

    #[test]
    fn the_first_port_depends_on_the_secret() {
        let port = |secret| {
            let mut table = Table::new(1, secret);
            let mut port = 0;
            let to = connect("10.0.0.50:80");
            table.open(&to, |key| port = key.local.port()).unwrap();
            port
        };
        let ports: HashSet<u16> = (0..64).map(|i| port([i, 7])).collect();
        assert!(ports.len() > 60);
        assert_eq!(port([5, 7]), port([5, 7]));
    }
}
