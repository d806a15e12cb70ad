//! A DNS record, and when it makes its name private.

use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::rdata::Rdata;
use super::{HexId, Resource, Timestamp, address};

/// Code of a refused record; the chain says why.
pub const INVALID: u32 = 1004;

/// The TTL that means automatic.
pub const TTL_AUTO: u32 = 1;

macro_rules! kinds {
    ($($(#[$doc:meta])* $variant:ident = $code:literal,)*) => {
        /// The record types that are stored.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "UPPERCASE")]
        pub enum Kind {
            $($(#[$doc])* $variant,)*
        }

        impl Kind {
            /// Every type, in the order of the alphabet.
            pub const ALL: &[Kind] = &[$(Kind::$variant,)*];

            /// The type's number in DNS (IANA, "Resource Record (RR) TYPEs").
            pub fn code(self) -> u16 {
                match self {
                    $(Kind::$variant => $code,)*
                }
            }
        }
    };
}

kinds! {
    /// An IPv4 address.
    A = 1,
    /// An IPv6 address.
    Aaaa = 28,
    /// Who may issue certificates.
    Caa = 257,
    /// A certificate.
    Cert = 37,
    /// Another name.
    Cname = 5,
    /// A key of a signed zone.
    Dnskey = 48,
    /// The digest of a key of a zone below.
    Ds = 43,
    /// How a name's HTTPS is reached.
    Https = 65,
    /// A place on the Earth.
    Loc = 29,
    /// A mail exchanger.
    Mx = 15,
    /// A rule that rewrites names.
    Naptr = 35,
    /// A name server.
    Ns = 2,
    /// An OpenPGP key.
    Openpgpkey = 61,
    /// The name of an address.
    Ptr = 12,
    /// The certificate of a mail address.
    Smimea = 53,
    /// The host and port of a service.
    Srv = 33,
    /// The fingerprint of a host's SSH key.
    Sshfp = 44,
    /// How a name's service is reached.
    Svcb = 64,
    /// The certificate of a TLS server.
    Tlsa = 52,
    /// Text.
    Txt = 16,
    /// Where a service is on the web.
    Uri = 256,
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

    /// Whether `priority` is a field of its own, beside the content.
    pub fn has_priority(self) -> bool {
        matches!(self, Kind::Mx | Kind::Srv | Kind::Uri)
    }

    /// The type as DNS writes it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::A => "A",
            Kind::Aaaa => "AAAA",
            Kind::Caa => "CAA",
            Kind::Cert => "CERT",
            Kind::Cname => "CNAME",
            Kind::Dnskey => "DNSKEY",
            Kind::Ds => "DS",
            Kind::Https => "HTTPS",
            Kind::Loc => "LOC",
            Kind::Mx => "MX",
            Kind::Naptr => "NAPTR",
            Kind::Ns => "NS",
            Kind::Openpgpkey => "OPENPGPKEY",
            Kind::Ptr => "PTR",
            Kind::Smimea => "SMIMEA",
            Kind::Srv => "SRV",
            Kind::Sshfp => "SSHFP",
            Kind::Svcb => "SVCB",
            Kind::Tlsa => "TLSA",
            Kind::Txt => "TXT",
            Kind::Uri => "URI",
        }
    }
}

impl FromStr for Kind {
    type Err = ();

    fn from_str(s: &str) -> Result<Kind, ()> {
        let mut all = Kind::ALL.iter().copied();
        all.find(|kind| kind.name() == s).ok_or(())
    }
}

/// What changes how a record is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// Of a proxied record: only A is answered.
    pub ipv4_only: bool,
    /// Of a proxied record: only AAAA is answered.
    pub ipv6_only: bool,
    /// Of a CNAME that is not proxied: the addresses behind it are answered in its place.
    pub flatten_cname: bool,
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
    /// Its content in normal form, without the priority of MX, SRV and URI.
    pub content: String,
    /// Seconds; 1 is automatic, and always so for a proxied record.
    pub ttl: u32,
    /// Whether the edge stands in for it.
    pub proxied: bool,
    /// Whether private routing was asked for; see [`Record::is_private`].
    pub asked_private: bool,
    /// The vnet of the name when it is private; `None` is the account's default.
    pub virtual_network_id: Option<Uuid>,
    /// The preference of MX, SRV and URI.
    pub priority: Option<u16>,
    /// How it is answered.
    #[serde(default)]
    pub settings: Settings,
    /// For people only.
    pub comment: Option<String>,
    /// For people only.
    pub tags: Vec<String>,
    /// When it was made.
    pub created_on: Timestamp,
    /// When it last changed.
    pub modified_on: Timestamp,
    /// When the comment last changed; `None` if it never was set.
    #[serde(default)]
    pub comment_modified_on: Option<Timestamp>,
    /// When the tags last changed; `None` if there never were any.
    #[serde(default)]
    pub tags_modified_on: Option<Timestamp>,
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

    /// What the record says, taken apart; `None` only if an older version stored what this one
    /// would refuse.
    pub fn rdata(&self) -> Option<Rdata> {
        let rdata = Rdata::parse(self.kind, &self.content).ok()?;
        Some(rdata.with_priority(self.priority))
    }

    /// Whether a CNAME is answered as the addresses behind it: asked for, or because nothing else
    /// may be beside a CNAME and the zone's own name has SOA and NS.
    pub fn is_flattened(&self, zone: &str) -> bool {
        self.kind == Kind::Cname && (self.settings.flatten_cname || self.name == zone)
    }
}

impl Resource for Record {
    const KIND: &'static str = "record";
    const ON_NODES: bool = true;
    type Id = HexId;

    fn id(&self) -> HexId {
        self.id
    }
}
