//! A DNS record, and when it makes its name private.

use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{HexId, Resource, Timestamp, address};

/// Code of a refused record; the chain says why.
pub const INVALID: u32 = 1004;

/// The record types that are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Kind {
    /// An IPv4 address.
    A,
    /// An IPv6 address.
    Aaaa,
    /// Another name.
    Cname,
    /// A mail exchanger.
    Mx,
    /// A name server.
    Ns,
    /// Text.
    Txt,
}

impl Kind {
    /// Whether the record's content is an address.
    pub fn is_address(self) -> bool {
        matches!(self, Kind::A | Kind::Aaaa)
    }

    /// Whether the edge can stand in for the record.
    pub fn is_proxiable(self) -> bool {
        self.is_address() || self == Kind::Cname
    }

    /// The type as DNS writes it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::A => "A",
            Kind::Aaaa => "AAAA",
            Kind::Cname => "CNAME",
            Kind::Mx => "MX",
            Kind::Ns => "NS",
            Kind::Txt => "TXT",
        }
    }
}

impl FromStr for Kind {
    type Err = ();

    fn from_str(s: &str) -> Result<Kind, ()> {
        let all = [
            Kind::A,
            Kind::Aaaa,
            Kind::Cname,
            Kind::Mx,
            Kind::Ns,
            Kind::Txt,
        ];
        all.into_iter().find(|kind| kind.name() == s).ok_or(())
    }
}

/// A DNS record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its id.
    pub id: HexId,
    /// The zone it is in.
    pub zone_id: HexId,
    /// Its full name, lower case.
    pub name: String,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// Its content in normal form.
    pub content: String,
    /// Seconds; 1 is automatic, and always so for a proxied record.
    pub ttl: u32,
    /// Whether the edge stands in for it.
    pub proxied: bool,
    /// Whether private routing was asked for; see [`Record::is_private`].
    pub asked_private: bool,
    /// The vnet of the name when it is private; `None` is the account's default.
    pub virtual_network_id: Option<Uuid>,
    /// MX preference.
    pub priority: Option<u16>,
    /// For people only.
    pub comment: Option<String>,
    /// For people only.
    pub tags: Vec<String>,
    /// When it was made.
    pub created_on: Timestamp,
    /// When it last changed.
    pub modified_on: Timestamp,
}

impl Record {
    /// The address of an A or AAAA record.
    pub fn ip(&self) -> Option<IpAddr> {
        self.kind
            .is_address()
            .then(|| self.content.parse().ok())
            .flatten()
    }

    /// Whether this record makes its name private: proxied, and asked for or in a private range.
    /// One such record makes every proxied A and AAAA record of the name private (api.md 2.3).
    pub fn is_private(&self) -> bool {
        let is_private_ip = self.ip().is_some_and(address::is_private);
        self.proxied && self.kind.is_address() && (self.asked_private || is_private_ip)
    }
}

impl Resource for Record {
    const KIND: &'static str = "record";
    type Id = HexId;

    fn id(&self) -> HexId {
        self.id
    }
}
