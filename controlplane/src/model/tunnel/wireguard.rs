//! A WireGuard tunnel, and the account's identity towards its peers.

use std::net::SocketAddr;

use dataplane::tunnel::wireguard::{PresharedKey, PrivateKey, PublicKey};
use ring::rand::SecureRandom;
use serde::{Deserialize, Serialize};

use super::shared::{Defaults, Names, Shared};
use super::{Kind, Tunnel};
use crate::model::{Fields, HexId, Refusal, Resource};

/// Inner MTU when none is given: 1500 less 80 for WireGuard over IPv6.
pub const MTU_DEFAULT: u16 = 1420;

/// What all kinds share, for this kind.
const DEFAULTS: Defaults = Defaults {
    names: Names::Free,
    mtu: MTU_DEFAULT,
    has_interface: false,
    has_health_check: false,
};

/// The edge's X25519 identity in one account. Tunnels of an account share it, accounts never do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The account.
    pub account_id: HexId,
    /// The private half; never leaves the store but to the node.
    pub private_key: PrivateKey,
}

impl Resource for Identity {
    const KIND: &'static str = "identity";
    const SECRETS: &'static [&'static str] = &["/private_key"];
    const ON_NODES: bool = true;
    type Id = HexId;

    fn id(&self) -> HexId {
        self.account_id
    }
}

/// What only a WireGuard tunnel has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireGuard {
    /// The peer; unique in the account.
    pub peer_public_key: PublicKey,
    /// The key both sides add, if any.
    pub preshared_key: Option<PresharedKey>,
    /// Where the peer is; `None` waits for it.
    pub endpoint: Option<SocketAddr>,
    /// Seconds between keepalives of ours; 0 is none.
    pub persistent_keepalive: u16,
}

/// A key that the customer gives, or asks us to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted<K> {
    /// This one.
    Given(K),
    /// Make one and show it once.
    Generate,
}

/// What a request to make or change a tunnel says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// What all kinds share.
    pub shared: Shared,
    /// The peer's key.
    pub peer: Option<Wanted<PublicKey>>,
    /// The preshared key; `Some(None)` removes it.
    pub preshared_key: Option<Option<Wanted<PresharedKey>>>,
    /// The endpoint.
    pub endpoint: Option<SocketAddr>,
    /// The keepalive in seconds.
    pub persistent_keepalive: u16,
}

impl Draft {
    /// Reads the body of a create, or of a change to `old`.
    ///
    /// # Errors
    /// A field that is wrong or not carried.
    pub fn read(mut fields: Fields, old: Option<&Tunnel>) -> Result<Draft, Refusal> {
        let before = match old.map(|old| &old.kind) {
            Some(Kind::WireGuard(before)) => Some(before),
            Some(Kind::Gre(_) | Kind::Ipsec(_) | Kind::Interconnect(_)) | None => None,
        };
        let shared = Shared::read(&mut fields, old, &DEFAULTS)?;
        let peer = read_peer(&mut fields)?;
        if peer.is_none() && before.is_none() {
            let why = "Give 'peer_public_key', or 'generate_peer_key': true.";
            return Err(fields.refuse("peer_public_key", why));
        }
        let keepalive = fields.integer("persistent_keepalive", 0..=65535)?;
        let keepalive = keepalive.or_else(|| before.map(|before| before.persistent_keepalive));
        let draft = Draft {
            shared,
            peer,
            preshared_key: read_preshared_key(&mut fields)?,
            endpoint: read_endpoint(&mut fields, before)?,
            persistent_keepalive: keepalive.unwrap_or(0),
        };
        fields.finish()?;
        Ok(draft)
    }
}

/// A new X25519 private key.
///
/// # Errors
/// When the system has no randomness to give.
pub fn private_key(random: &dyn SecureRandom) -> Result<PrivateKey, ring::error::Unspecified> {
    let mut bytes = [0; 32];
    random.fill(&mut bytes)?;
    // Clamped as `wg genkey` does (RFC 7748, section 5), so that every tool shows the same key.
    bytes[0] &= 248;
    bytes[31] = (bytes[31] & 127) | 64;
    Ok(PrivateKey(bytes))
}

/// A new preshared key.
///
/// # Errors
/// When the system has no randomness to give.
pub fn preshared_key(random: &dyn SecureRandom) -> Result<PresharedKey, ring::error::Unspecified> {
    let mut bytes = [0; 32];
    random.fill(&mut bytes)?;
    Ok(PresharedKey(bytes))
}

fn read_peer(fields: &mut Fields) -> Result<Option<Wanted<PublicKey>>, Refusal> {
    // The text of a bad key is not shown back: it may be a private key in the wrong field.
    let given = match fields.string("peer_public_key", 64)? {
        Some(text) => Some(text.parse::<PublicKey>().map_err(|why| {
            fields.refuse("peer_public_key", format!("'peer_public_key': {why}."))
        })?),
        None => None,
    };
    if given.is_some_and(|key| key.0 == [0; 32]) {
        return Err(fields.refuse("peer_public_key", "'peer_public_key' is all zeros."));
    }
    match (given, fields.boolean("generate_peer_key")?.unwrap_or(false)) {
        (Some(_), true) => Err(fields.refuse(
            "generate_peer_key",
            "Give 'peer_public_key' or 'generate_peer_key', not both.",
        )),
        (Some(key), false) => Ok(Some(Wanted::Given(key))),
        (None, true) => Ok(Some(Wanted::Generate)),
        (None, false) => Ok(None),
    }
}

fn read_preshared_key(
    fields: &mut Fields,
) -> Result<Option<Option<Wanted<PresharedKey>>>, Refusal> {
    let is_cleared = fields.is_null("preshared_key");
    let given =
        match fields.string("preshared_key", 64)? {
            Some(text) => Some(text.parse::<PresharedKey>().map_err(|why| {
                fields.refuse("preshared_key", format!("'preshared_key': {why}."))
            })?),
            None => None,
        };
    match (
        given,
        fields.boolean("generate_preshared_key")?.unwrap_or(false),
    ) {
        (Some(_), true) => Err(fields.refuse(
            "generate_preshared_key",
            "Give 'preshared_key' or 'generate_preshared_key', not both.",
        )),
        (Some(key), false) => Ok(Some(Some(Wanted::Given(key)))),
        (None, true) => Ok(Some(Some(Wanted::Generate))),
        (None, false) if is_cleared => Ok(Some(None)),
        (None, false) => Ok(None),
    }
}

fn read_endpoint(
    fields: &mut Fields,
    before: Option<&WireGuard>,
) -> Result<Option<SocketAddr>, Refusal> {
    if fields.is_null("endpoint") {
        return Ok(None);
    }
    let wanted = "ADDRESS:PORT with an IP address, such as 198.51.100.11:51820";
    let Some(endpoint) = fields.parsed::<SocketAddr>("endpoint", wanted)? else {
        return Ok(before.and_then(|before| before.endpoint));
    };
    let ip = endpoint.ip();
    if endpoint.port() == 0 || ip.is_unspecified() || ip.is_multicast() {
        let message = format!("{endpoint} cannot be sent to: 'endpoint' must be {wanted}.");
        return Err(fields.refuse("endpoint", message));
    }
    Ok(Some(endpoint))
}
