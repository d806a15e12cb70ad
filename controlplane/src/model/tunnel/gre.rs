//! A GRE tunnel (api.md 4.2). Keys, checksums, sequence numbers and keepalives are ours.

use std::net::IpAddr;

use dataplane::tunnel::gre;
use serde::{Deserialize, Serialize};

use super::outer;
use super::shared::{Defaults, Names};
use crate::model::{Fields, Refusal};

/// TTL of the outer header when none is given (api.md 4.2).
const TTL_DEFAULT: u8 = 64;

/// What all kinds share, for this kind. The MTU is of a tunnel without options: see [`Gre::mtu_default`].
pub const DEFAULTS: Defaults = Defaults {
    names: Names::Short,
    mtu: 1476,
    has_interface: true,
    has_health_check: true,
};

/// What only a GRE tunnel has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gre {
    /// The edge's outer address.
    pub local: IpAddr,
    /// The customer's outer address.
    pub remote: IpAddr,
    /// TTL of the outer header.
    pub ttl: u8,
    /// The key that the edge sends with (RFC 2890).
    pub key_tx: Option<u32>,
    /// The key that the customer sends with.
    pub key_rx: Option<u32>,
    /// Checksums are sent and wanted.
    pub is_checksummed: bool,
    /// Sequence numbers are sent, and late packets dropped.
    pub is_sequenced: bool,
    /// Keepalives that the edge sends.
    pub keepalive: Option<Keepalive>,
}

/// When the customer's side counts as gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keepalive {
    /// Seconds between keepalives.
    pub interval_secs: u16,
    /// Keepalives in a row without an answer.
    pub retries: u8,
}

impl Gre {
    /// The largest inner packet where the customer does not say: key, checksum and sequence number take room.
    #[must_use]
    pub fn mtu_default(&self) -> u16 {
        let has_key = self.key_tx.or(self.key_rx).is_some();
        gre::mtu_default(has_key, self.is_checksummed, self.is_sequenced)
    }

    /// Reads what only GRE has; what is not given stays as it was.
    ///
    /// # Errors
    /// A field that is wrong or missing.
    pub fn read(fields: &mut Fields, old: Option<&Gre>) -> Result<Gre, Refusal> {
        let (ours, theirs) = ("cloudflare_gre_endpoint", "customer_gre_endpoint");
        let local = outer::read(fields, ours, old.map(|old| old.local))?;
        let local = fields.required(ours, local)?;
        let remote = outer::read(fields, theirs, old.map(|old| old.remote))?;
        let remote = fields.required(theirs, remote)?;
        outer::check(fields, theirs, local, remote)?;
        let ttl = fields.integer("ttl", 1..=255_u8)?;
        let flag = |fields: &mut Fields, name, old: Option<bool>| {
            let given = fields.boolean(name)?;
            Ok::<bool, Refusal>(given.or(old).unwrap_or(false))
        };
        Ok(Gre {
            local,
            remote,
            ttl: ttl
                .or_else(|| old.map(|old| old.ttl))
                .unwrap_or(TTL_DEFAULT),
            key_tx: key(fields, "key_tx", old.and_then(|old| old.key_tx))?,
            key_rx: key(fields, "key_rx", old.and_then(|old| old.key_rx))?,
            is_checksummed: flag(fields, "checksum", old.map(|old| old.is_checksummed))?,
            is_sequenced: flag(fields, "sequence", old.map(|old| old.is_sequenced))?,
            keepalive: keepalive(fields, old.and_then(|old| old.keepalive))?,
        })
    }
}

/// A key; `null` removes it.
fn key(fields: &mut Fields, name: &str, old: Option<u32>) -> Result<Option<u32>, Refusal> {
    if fields.is_null(name) {
        return Ok(None);
    }
    Ok(fields.integer(name, 0..=u32::MAX)?.or(old))
}

fn keepalive(fields: &mut Fields, old: Option<Keepalive>) -> Result<Option<Keepalive>, Refusal> {
    if fields.is_null("keepalive") {
        return Ok(None);
    }
    let Some(mut inner) = fields.object("keepalive")? else {
        return Ok(old);
    };
    let interval = inner.integer("interval_secs", 1..=3600_u16)?;
    let retries = inner.integer("retries", 1..=60_u8)?;
    let given = Keepalive {
        interval_secs: interval
            .or_else(|| old.map(|old| old.interval_secs))
            .unwrap_or(10),
        retries: retries.or_else(|| old.map(|old| old.retries)).unwrap_or(3),
    };
    inner.finish()?;
    Ok(Some(given))
}
