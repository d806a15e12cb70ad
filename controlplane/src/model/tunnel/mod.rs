//! A tunnel to a private network, of any kind.
//!
//! What every kind has is in [`Tunnel`]; what only one has is in its [`Kind`], one file each. All
//! share one table, one run of numbers and one name space per account.

mod gre;
mod health_check;
mod interconnect;
mod interface;
mod ipsec;
mod outer;
mod proposals;
mod psk;
mod shared;
mod stored;
mod wireguard;

use std::net::IpAddr;

use dataplane::id::TunnelId;
use dataplane::program::health::Direction;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{HexId, Resource, Timestamp};

pub use gre::{Gre, Keepalive};
pub use health_check::{HealthCheck, TargetForm};
pub use interconnect::Interconnect;
pub use interface::Interface;
pub use ipsec::{Encapsulation, Ipsec, Role};
pub use proposals::{Cipher, EspOffer, Group, IkeOffer, Prf};
pub use psk::Psk;
pub use shared::{Defaults, Shared};
pub use wireguard::{Draft, Identity, MTU_DEFAULT, Wanted, WireGuard, preshared_key, private_key};

/// What a tunnel of a kind has when nothing is said of it.
pub mod defaults {
    pub use super::gre::DEFAULTS as GRE;
    pub use super::interconnect::DEFAULTS as INTERCONNECT;
    pub use super::ipsec::DEFAULTS as IPSEC;
}

/// Code of a refused tunnel field.
pub const INVALID: u32 = 1003;

/// A tunnel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "stored::Stored")]
pub struct Tunnel {
    /// Its id.
    pub id: Uuid,
    /// Whose it is.
    pub account_id: HexId,
    /// How nodes call it; unique over all accounts.
    pub number: TunnelId,
    /// Its name, unique in the account over all kinds.
    pub name: String,
    /// For people only.
    pub description: String,
    /// Its only vnet; never changes.
    pub virtual_network_id: Uuid,
    /// Our addresses inside the tunnel.
    pub interface: Interface,
    /// Inner sources the peer may use; empty means: its routes, and its interface addresses.
    pub allowed_prefixes: Vec<IpNet>,
    /// Largest inner packet in bytes.
    pub mtu: u16,
    /// How it is probed; `None`: not at all.
    pub health_check: Option<HealthCheck>,
    /// What it is made of.
    pub kind: Kind,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was changed last.
    pub modified_at: Timestamp,
}

/// What a tunnel is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// WireGuard.
    WireGuard(WireGuard),
    /// GRE.
    Gre(Gre),
    /// IPsec.
    Ipsec(Box<Ipsec>),
    /// An interface of the edge, without encapsulation.
    Interconnect(Interconnect),
}

impl Tunnel {
    /// The kind in the product's word, as in lists of routes (api.md 3.2); `wireguard` is ours.
    pub fn tun_type(&self) -> &'static str {
        match self.kind {
            Kind::WireGuard(_) => "wireguard",
            Kind::Gre(_) => "gre",
            Kind::Ipsec(_) => "ip_sec",
            Kind::Interconnect(_) => "cni",
        }
    }

    /// Where probes go that travel inside the tunnel, if not to its other end.
    pub fn inner_target(&self) -> Option<IpAddr> {
        let check = self.health_check?;
        let is_inside = check.direction == Direction::Bidirectional;
        check.target.filter(|_| is_inside)
    }

    /// Whether a node can be told of it: IPsec without a key cannot speak with anybody.
    pub fn is_ready(&self) -> bool {
        match &self.kind {
            Kind::Ipsec(ipsec) => ipsec.psk.is_some(),
            Kind::WireGuard(_) | Kind::Gre(_) | Kind::Interconnect(_) => true,
        }
    }
}

impl Resource for Tunnel {
    const KIND: &'static str = "tunnel";
    // The last is where the version before kinds had it.
    const SECRETS: &'static [&'static str] = &[
        "/kind/ipsec/psk",
        "/kind/wire_guard/preshared_key",
        "/preshared_key",
    ];
    const ON_NODES: bool = true;
    type Id = Uuid;

    fn id(&self) -> Uuid {
        self.id
    }
}
