//! The three collections of tunnels, and how bodies and answers call what is in them.

use serde_json::Value;

use crate::model::tunnel::{
    Gre, INVALID, Interconnect, Ipsec, Kind, Shared, TargetForm, Tunnel, defaults,
};
use crate::model::{Fields, HexId, Refusal, Timestamp};
use crate::store::Snapshot;

use super::super::tunnels::claims_address;

/// A collection of tunnels of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::api) enum Collection {
    /// `gre_tunnels`.
    Gre,
    /// `ipsec_tunnels`.
    Ipsec,
    /// `cf_interconnects`.
    Interconnects,
}

/// Who asks, when, and how: what reading a body needs beside it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) account: HexId,
    pub(super) now: Timestamp,
    pub(super) form: TargetForm,
}

impl Collection {
    /// The last part of the path.
    pub(super) fn path(self) -> &'static str {
        match self {
            Collection::Gre => "gre_tunnels",
            Collection::Ipsec => "ipsec_tunnels",
            Collection::Interconnects => "cf_interconnects",
        }
    }

    /// The key of one in an answer.
    pub(super) fn one(self) -> &'static str {
        match self {
            Collection::Gre => "gre_tunnel",
            Collection::Ipsec => "ipsec_tunnel",
            Collection::Interconnects => "interconnect",
        }
    }

    /// The key of many in bodies and answers.
    pub(super) fn many(self) -> &'static str {
        match self {
            Collection::Gre => "gre_tunnels",
            Collection::Ipsec => "ipsec_tunnels",
            Collection::Interconnects => "interconnects",
        }
    }

    /// Whether the tunnel is one of them.
    pub(super) fn has(self, tunnel: &Tunnel) -> bool {
        match tunnel.kind {
            Kind::Gre(_) => self == Collection::Gre,
            Kind::Ipsec(_) => self == Collection::Ipsec,
            Kind::Interconnect(_) => self == Collection::Interconnects,
            Kind::WireGuard(_) => false,
        }
    }

    /// Reads the body of a create, or of a change to `old`.
    pub(super) fn read(
        self,
        snapshot: &Snapshot,
        body: Value,
        old: Option<&Tunnel>,
        asked: Asked,
    ) -> Result<(Shared, Kind), Refusal> {
        let fields = Fields::new(body, INVALID)?;
        let (shared, mut kind) = self.read_fields(fields, old, asked)?;
        if let Kind::Ipsec(ipsec) = &mut kind {
            ipsec.has_address_identity = claims_address(snapshot, old.map(|old| old.id), ipsec);
        }
        Ok((shared, kind))
    }

    /// The same, as far as the fields alone tell.
    pub(super) fn read_fields(
        self,
        mut fields: Fields,
        old: Option<&Tunnel>,
        asked: Asked,
    ) -> Result<(Shared, Kind), Refusal> {
        let defaults = match self {
            Collection::Gre => &defaults::GRE,
            Collection::Ipsec => &defaults::IPSEC,
            Collection::Interconnects => &defaults::INTERCONNECT,
        };
        let (is_said, is_reset) = (fields.has("mtu"), fields.is_null("mtu"));
        let mut shared = Shared::read_with(&mut fields, old, defaults, asked.form)?;
        let before = old.map(|old| &old.kind);
        let kind = match (self, before) {
            (Collection::Gre, before) => {
                let before = match before {
                    Some(Kind::Gre(old)) => Some(old),
                    Some(Kind::WireGuard(_) | Kind::Ipsec(_) | Kind::Interconnect(_)) | None => {
                        None
                    }
                };
                let gre = Gre::read(&mut fields, before)?;
                // Options take room: an MTU that nobody chose follows them.
                let was_default = before.is_none_or(|old| shared.mtu == old.mtu_default());
                if !is_said && (is_reset || was_default) {
                    shared.mtu = gre.mtu_default();
                }
                Kind::Gre(gre)
            }
            (Collection::Ipsec, before) => {
                let before = match before {
                    Some(Kind::Ipsec(old)) => Some(&**old),
                    Some(Kind::WireGuard(_) | Kind::Gre(_) | Kind::Interconnect(_)) | None => None,
                };
                let when = (asked.account, asked.now);
                Kind::Ipsec(Box::new(Ipsec::read(&mut fields, before, when)?))
            }
            (Collection::Interconnects, Some(Kind::Interconnect(old))) => {
                Kind::Interconnect(Interconnect::read(&mut fields, Some(old))?)
            }
            (Collection::Interconnects, _) => {
                Kind::Interconnect(Interconnect::read(&mut fields, None)?)
            }
        };
        fields.finish()?;
        Ok((shared, kind))
    }
}
