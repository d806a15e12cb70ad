//! What is configured of an IPsec tunnel, and which worker owns it.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::id::{TunnelId, WorkerId, Workers};
use crate::wire::esp::Spi;
use crate::wire::ikev2::payload::Selector;

use super::cipher::Transform;
use super::ike::{self, EspOffer, FURTHER_MAX, Identity, IkeOffer, Pair, Psk, Times};
use super::sad::ClaimError;

/// The port of IKE (RFC 7296 section 2), where a conversation begins.
const IKE_PORT: u16 = 500;

/// An IPsec tunnel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Our address: one of those that the router listens on for IPsec.
    pub local: IpAddr,
    /// The peer's, of the same family: it may come from nowhere else. `None` when it comes from
    /// anywhere; then it has to begin, and its identity alone says who it is. Peers from anywhere
    /// come from an address that no tunnel has as its remote.
    pub remote: Option<IpAddr>,
    /// Where the keys come from.
    pub keying: Keying,
    /// What ESP packets go in.
    pub encapsulation: Encapsulation,
    /// Whether a packet that came before is dropped. Without it peers may send by several machines
    /// that number their packets each for itself.
    pub has_replay_protection: bool,
}

/// Where the keys of a tunnel come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Keying {
    /// From IKEv2.
    Ike(Box<IkeKeying>),
    /// From both operators. They are never changed: an SA ends with its sequence numbers. Numbers begin
    /// anew with the process, so a peer that drops replays has to begin anew as well.
    Static(Box<StaticKeying>),
}

/// How keys are agreed on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IkeKeying {
    /// What both know.
    pub psk: Psk,
    /// Who we are to the peer.
    pub local_identity: Identity,
    /// Who the peer is: any of these, the first when we ask for it. None belongs to another tunnel of
    /// the same worker.
    pub remote_identities: Vec<Identity>,
    /// Whether we begin, and begin again after a failure. Needs [`Config::remote`].
    pub is_initiator: bool,
    /// What may protect IKE messages.
    pub ike: IkeOffer,
    /// What may protect packets.
    pub esp: EspOffer,
    /// Traffic of our side.
    pub local_traffic: Vec<Selector>,
    /// Traffic of the peer's side.
    pub remote_traffic: Vec<Selector>,
    /// What has a child SA of its own besides; [`FURTHER_MAX`] at most. The peer may begin with any of
    /// them.
    #[serde(default)]
    pub further: Vec<Pair>,
    /// When things are done without being asked.
    pub times: Times,
}

/// Keys that are configured.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StaticKeying {
    /// How packets are protected.
    pub transform: Transform,
    /// Whether sequence numbers have 64 bits.
    pub has_esn: bool,
    /// Our name of the SA that we receive on, 256 or more; unique on this node.
    pub spi_in: u32,
    /// The peer's name of the SA that we send on, 256 or more.
    pub spi_out: u32,
    /// [`Transform::key_len`] bytes: key and salt, or cipher key and MAC key.
    pub key_in: Vec<u8>,
    /// The same for what we send.
    pub key_out: Vec<u8>,
}

impl fmt::Debug for StaticKeying {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StaticKeying")
            .field("transform", &self.transform)
            .field("has_esn", &self.has_esn)
            .field("spi_in", &Spi(self.spi_in))
            .field("spi_out", &Spi(self.spi_out))
            .finish_non_exhaustive()
    }
}

/// What ESP packets go in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encapsulation {
    /// UDP where IKE finds a NAT, else IP. With static keys: IP.
    #[default]
    Auto,
    /// UDP port 4500, where packets get the kernel's segmentation offload.
    Udp,
    /// IP. With IKE it cannot be had: a NAT may be found.
    Raw,
}

/// Why a tunnel cannot be made as configured.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PutError {
    /// Two families.
    #[error("local is {local} and remote {remote}: give two addresses of one family")]
    Families {
        /// Ours.
        local: IpAddr,
        /// The peer's.
        remote: IpAddr,
    },
    /// Nobody to begin with, or to send to.
    #[error("remote is missing: {0} needs the peer's address")]
    NoRemote(&'static str),
    /// A list with nothing in it.
    #[error("{0} is empty: give at least one")]
    Empty(&'static str),
    /// Raw ESP with IKE.
    #[error("encapsulation is raw: with IKE give auto or udp, because there may be a NAT")]
    Raw,
    /// A key of the wrong length.
    #[error("{field} has {len} bytes: {transform:?} takes {wanted}, the salt included")]
    KeyLen {
        /// Which.
        field: &'static str,
        /// Its length.
        len: usize,
        /// The transform.
        transform: Transform,
        /// What it takes.
        wanted: usize,
    },
    /// More child SAs than there can be.
    #[error("{0} child SAs: give {max} at most", max = FURTHER_MAX + 1)]
    TooManyChildren(usize),
    /// Two peers with one name.
    #[error("{0} has a peer with the same identity: give one of them another")]
    IdentityTaken(TunnelId),
    /// Two SAs with one name.
    #[error("spi_in belongs to {0}: give one of them another")]
    SpiTaken(TunnelId),
    /// No SPI.
    #[error(transparent)]
    Spi(#[from] ClaimError),
    /// Too many tunnels.
    #[error("this worker has {0} IPsec tunnels, which is all it can have")]
    Full(usize),
}

impl Config {
    /// The worker that owns the tunnel, its IKE SA and its children. A first request of a peer names no
    /// tunnel, only where it comes from: so that decides. Peers from anywhere are the first worker's.
    #[must_use]
    pub fn owner(&self, workers: Workers) -> WorkerId {
        let bits = match self.remote {
            None => return WorkerId(0),
            Some(IpAddr::V4(address)) => u128::from(address.to_bits()),
            Some(IpAddr::V6(address)) => address.to_bits(),
        };
        // Both halves count, as the network's half does in IPv6; the golden ratio spreads neighbours.
        let folded = (bits ^ (bits >> 64)) & u128::from(u64::MAX);
        let place = ((folded * 0x9e37_79b9_7f4a_7c15) >> 32) % u128::from(workers.count());
        WorkerId(u8::try_from(place).expect("a remainder of at most 64 fits into 8 bits"))
    }

    /// Whether it can be carried out.
    pub(super) fn check(&self) -> Result<(), PutError> {
        let Self { local, remote, .. } = *self;
        if let Some(remote) = remote
            && remote.is_ipv4() != local.is_ipv4()
        {
            return Err(PutError::Families { local, remote });
        }
        match &self.keying {
            Keying::Ike(ike) => ike.check(remote, self.encapsulation),
            Keying::Static(keys) => keys.check(remote),
        }
    }
}

impl IkeKeying {
    fn check(&self, remote: Option<IpAddr>, encapsulation: Encapsulation) -> Result<(), PutError> {
        if self.is_initiator && remote.is_none() {
            return Err(PutError::NoRemote("an initiator"));
        }
        if encapsulation == Encapsulation::Raw {
            return Err(PutError::Raw);
        }
        let lists = [
            ("psk", self.psk.0.is_empty()),
            ("remote_identities", self.remote_identities.is_empty()),
            ("ike.ciphers", self.ike.ciphers.is_empty()),
            ("ike.prfs", self.ike.prfs.is_empty()),
            ("ike.groups", self.ike.groups.is_empty()),
            ("esp.ciphers", self.esp.ciphers.is_empty()),
            ("esp.esn", self.esp.esn.is_empty()),
            ("local_traffic", self.local_traffic.is_empty()),
            ("remote_traffic", self.remote_traffic.is_empty()),
            (
                "further.local",
                self.further.iter().any(|pair| pair.local.is_empty()),
            ),
            (
                "further.remote",
                self.further.iter().any(|pair| pair.remote.is_empty()),
            ),
        ];
        if self.further.len() > FURTHER_MAX {
            return Err(PutError::TooManyChildren(self.further.len() + 1));
        }
        match lists.iter().find(|(_, is_empty)| *is_empty) {
            Some((name, _)) => Err(PutError::Empty(name)),
            None => Ok(()),
        }
    }

    /// What the endpoint is told of the peer. `None` without an identity of it.
    pub(super) fn peer(&self, config: &Config) -> Option<ike::Config> {
        let (first, others) = self.remote_identities.split_first()?;
        Some(ike::Config {
            local_id: self.local_identity.clone(),
            remote_id: first.clone(),
            other_ids: others.to_vec(),
            psk: self.psk.clone(),
            local: config.local,
            remote: config
                .remote
                .map(|remote| SocketAddr::new(remote, IKE_PORT)),
            initiates: self.is_initiator,
            forces_udp: config.encapsulation == Encapsulation::Udp,
            has_replay_check: config.has_replay_protection,
            ike: self.ike.clone(),
            esp: self.esp.clone(),
            local_ts: self.local_traffic.clone(),
            remote_ts: self.remote_traffic.clone(),
            further: self.further.clone(),
            times: self.times,
        })
    }
}

impl StaticKeying {
    fn check(&self, remote: Option<IpAddr>) -> Result<(), PutError> {
        if remote.is_none() {
            return Err(PutError::NoRemote("a tunnel with static keys"));
        }
        if Spi(self.spi_in) < Spi::MIN || Spi(self.spi_out) < Spi::MIN {
            return Err(PutError::Spi(ClaimError::Reserved));
        }
        let (transform, wanted) = (self.transform, self.transform.key_len());
        for (field, key) in [("key_in", &self.key_in), ("key_out", &self.key_out)] {
            let len = key.len();
            if len != wanted {
                return Err(PutError::KeyLen {
                    field,
                    len,
                    transform,
                    wanted,
                });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keyed(remote: Option<[u8; 4]>) -> Config {
        Config {
            local: [192, 0, 2, 1].into(),
            remote: remote.map(IpAddr::from),
            keying: Keying::Static(Box::new(StaticKeying {
                transform: Transform::Aes128Gcm16,
                has_esn: false,
                spi_in: 256,
                spi_out: 256,
                key_in: vec![1; 20],
                key_out: vec![2; 20],
            })),
            encapsulation: Encapsulation::Auto,
            has_replay_protection: true,
        }
    }

    #[test]
    fn peers_are_spread_over_workers_by_where_they_are_and_those_from_anywhere_are_the_firsts() {
        let workers = Workers::new(4).unwrap();
        let mut counts = [0; 4];
        for host in 0..=255 {
            let owner = keyed(Some([203, 0, 113, host])).owner(workers);
            counts[usize::from(owner.0)] += 1;
        }
        assert!(counts.iter().all(|count| *count > 30), "{counts:?}");
        assert_eq!(keyed(None).owner(workers), WorkerId(0));
    }

    #[test]
    fn what_cannot_be_is_refused_by_field() {
        assert_eq!(keyed(Some([192, 0, 2, 2])).check(), Ok(()));
        let says = |config: &Config, words: &str| {
            let error = config.check().unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        };
        says(&keyed(None), "remote is missing");
        let mut other = keyed(None);
        other.remote = Some("2001:db8::1".parse().unwrap());
        says(&other, "one family");
        let mut short = keyed(Some([192, 0, 2, 2]));
        if let Keying::Static(keys) = &mut short.keying {
            keys.key_out.pop();
        }
        says(&short, "key_out has 19 bytes: Aes128Gcm16 takes 20");
        let mut reserved = keyed(Some([192, 0, 2, 2]));
        if let Keying::Static(keys) = &mut reserved.keying {
            keys.spi_in = 255;
        }
        says(&reserved, "below 256");
    }
}
