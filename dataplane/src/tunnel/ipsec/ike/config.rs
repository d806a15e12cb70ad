//! What is configured of an IKE peer: identities, the key, algorithms, traffic, times.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::tunnel::ipsec::cipher::Transform;
use crate::wire::ikev2::payload::{Id, Selector};

use super::dh::Group;
use super::keys::Prf;

/// Who somebody is (RFC 7296 section 3.5).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Identity {
    /// An IPv4 or IPv6 address.
    Address(IpAddr),
    /// A domain name.
    Fqdn(String),
    /// A mail address.
    Mail(String),
    /// Anything.
    KeyId(Vec<u8>),
}

impl Identity {
    /// The identity of a payload; `None` for kinds that only certificates use, and for bytes that
    /// are none.
    #[must_use]
    pub fn parse(id: Id<'_>) -> Option<Self> {
        let text = || String::from_utf8(id.data.to_vec()).ok();
        match id.kind {
            1 => {
                let octets: [u8; 4] = id.data.try_into().ok()?;
                Some(Self::Address(Ipv4Addr::from(octets).into()))
            }
            2 => text().map(Self::Fqdn),
            3 => text().map(Self::Mail),
            5 => {
                let octets: [u8; 16] = id.data.try_into().ok()?;
                Some(Self::Address(Ipv6Addr::from(octets).into()))
            }
            11 => Some(Self::KeyId(id.data.to_vec())),
            _ => None,
        }
    }

    /// Its kind and bytes in a payload.
    #[must_use]
    pub fn to_parts(&self) -> (u8, Vec<u8>) {
        match self {
            Self::Address(IpAddr::V4(address)) => (1, address.octets().to_vec()),
            Self::Address(IpAddr::V6(address)) => (5, address.octets().to_vec()),
            Self::Fqdn(name) => (2, name.as_bytes().to_vec()),
            Self::Mail(name) => (3, name.as_bytes().to_vec()),
            Self::KeyId(bytes) => (11, bytes.clone()),
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Fqdn(name) | Self::Mail(name) => f.write_str(name),
            Self::KeyId(bytes) => f.write_str(&String::from_utf8_lossy(bytes)),
        }
    }
}

/// A name as people write it: an address; `name@host`; `keyid:anything`; else a domain name.
impl FromStr for Identity {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() {
            return Err("an identity is an address, name@host, keyid:anything or a domain name");
        }
        Ok(if let Ok(address) = text.parse() {
            Self::Address(address)
        } else if let Some(id) = text.strip_prefix("keyid:") {
            Self::KeyId(id.as_bytes().to_vec())
        } else if text.contains('@') {
            Self::Mail(text.to_owned())
        } else {
            Self::Fqdn(text.to_owned())
        })
    }
}

/// A pre-shared key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Psk(pub Vec<u8>);

impl fmt::Debug for Psk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Psk(..)")
    }
}

/// Algorithms that may protect IKE messages, best first of each kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IkeOffer {
    /// Encryption.
    pub ciphers: Vec<Transform>,
    /// Key derivation.
    pub prfs: Vec<Prf>,
    /// Key exchange.
    pub groups: Vec<Group>,
}

impl Default for IkeOffer {
    fn default() -> Self {
        Self {
            ciphers: vec![
                Transform::Aes256Gcm16,
                Transform::Aes128Gcm16,
                Transform::Aes256CbcSha256,
            ],
            prfs: vec![Prf::Sha256, Prf::Sha384],
            groups: vec![Group::X25519, Group::P384, Group::P256, Group::Modp2048],
        }
    }
}

/// Algorithms that may protect packets, best first of each kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EspOffer {
    /// Encryption.
    pub ciphers: Vec<Transform>,
    /// Key exchange of rekeys; none for keys that come from those of the IKE SA.
    pub groups: Vec<Group>,
    /// Whether sequence numbers of 64 bits are wanted, and whether those of 32 are taken.
    pub esn: Vec<bool>,
}

impl Default for EspOffer {
    fn default() -> Self {
        Self {
            ciphers: vec![
                Transform::Aes128Gcm16,
                Transform::Aes256Gcm16,
                Transform::Chacha20Poly1305,
                Transform::Aes256CbcSha256,
            ],
            groups: Vec::new(),
            esn: vec![false],
        }
    }
}

/// When things are done without being asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Times {
    /// Age of an IKE SA at which we rekey it.
    pub ike: Duration,
    /// Age of a child SA at which we rekey it.
    pub child: Duration,
    /// Silence after which we ask whether the peer lives.
    pub dpd: Duration,
}

impl Default for Times {
    /// Four hours, an hour, half a minute.
    fn default() -> Self {
        Self {
            ike: Duration::from_secs(4 * 3600),
            child: Duration::from_secs(3600),
            dpd: Duration::from_secs(30),
        }
    }
}

/// An IKE peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Who we are to it.
    pub local_id: Identity,
    /// Who it is. Unique among the peers of an endpoint.
    pub remote_id: Identity,
    /// Who else it may say it is, likewise.
    pub other_ids: Vec<Identity>,
    /// What both know.
    pub psk: Psk,
    /// Our address, for what we begin.
    pub local: IpAddr,
    /// Where it is, and may come from; `None` when it comes from anywhere. Port 500 moves to 4500 when there is a NAT.
    pub remote: Option<SocketAddr>,
    /// Whether we begin, and begin again after a failure. Needs `remote`.
    pub initiates: bool,
    /// Whether packets go in UDP also where there is no NAT: they get segmentation offload there.
    pub forces_udp: bool,
    /// Whether packets that came before are dropped.
    pub has_replay_check: bool,
    /// Protection of IKE messages.
    pub ike: IkeOffer,
    /// Protection of packets.
    pub esp: EspOffer,
    /// Traffic of our side.
    pub local_ts: Vec<Selector>,
    /// Traffic of the peer's side.
    pub remote_ts: Vec<Selector>,
    /// What has a child SA of its own besides.
    pub further: Vec<Pair>,
    /// When things are done.
    pub times: Times,
}

/// What one child SA carries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pair {
    /// Traffic of our side.
    pub local: Vec<Selector>,
    /// Traffic of the peer's side.
    pub remote: Vec<Selector>,
}

/// Child SAs of a tunnel besides the first one. With their successors they are fewer than the SAs that an
/// IKE SA may have.
pub const FURTHER_MAX: usize = 31;

impl Config {
    /// What each child carries: of our side, and of the peer's. The first one comes with the IKE SA.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (&[Selector], &[Selector])> {
        let further = self.further.iter();
        let further = further.map(|pair| (&pair.local[..], &pair.remote[..]));
        std::iter::once((&self.local_ts[..], &self.remote_ts[..])).chain(further)
    }

    /// Everybody that the peer may be.
    pub(super) fn identities(&self) -> impl Iterator<Item = &Identity> {
        std::iter::once(&self.remote_id).chain(&self.other_ids)
    }

    /// Whether the peer may say that it is this.
    pub(super) fn is_peer(&self, identity: &Identity) -> bool {
        self.identities().any(|known| known == identity)
    }
}

/// The selectors of all IPv4 and all IPv6 traffic.
#[must_use]
pub fn everything() -> Vec<Selector> {
    let all = |first: IpAddr, last: IpAddr| Selector {
        protocol: 0,
        ports: (0, u16::MAX),
        addresses: (first, last),
    };
    vec![
        all(Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::BROADCAST.into()),
        all(
            Ipv6Addr::UNSPECIFIED.into(),
            Ipv6Addr::from(u128::MAX).into(),
        ),
    ]
}
