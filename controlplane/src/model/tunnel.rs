//! A WireGuard tunnel to a private network, and the account's identity towards its peers.

use std::net::SocketAddr;

use dataplane::id::TunnelId;
use dataplane::tunnel::wireguard::{PresharedKey, PrivateKey, PublicKey};
use ipnet::IpNet;
use ring::rand::SecureRandom;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Fields, HexId, Refusal, Resource, Timestamp, address};

/// Code of a refused tunnel field.
pub const INVALID: u32 = 1003;

/// Inner MTU when none is given: 1500 less 80 for WireGuard over IPv6.
pub const MTU_DEFAULT: u16 = 1420;

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
    type Id = HexId;

    fn id(&self) -> HexId {
        self.account_id
    }
}

/// A WireGuard tunnel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tunnel {
    /// Its id.
    pub id: Uuid,
    /// Whose it is.
    pub account_id: HexId,
    /// How nodes call it; unique over all accounts.
    pub number: TunnelId,
    /// Its name, unique in the account.
    pub name: String,
    /// Its only vnet; never changes.
    pub virtual_network_id: Uuid,
    /// The peer; unique in the account.
    pub peer_public_key: PublicKey,
    /// The key both sides add, if any.
    pub preshared_key: Option<PresharedKey>,
    /// Where the peer is; `None` waits for it.
    pub endpoint: Option<SocketAddr>,
    /// Inner sources the peer may use; empty means: its routes.
    pub allowed_prefixes: Vec<IpNet>,
    /// Largest inner packet in bytes.
    pub mtu: u16,
    /// Seconds between keepalives of ours; 0 is none.
    pub persistent_keepalive: u16,
    /// When it was made.
    pub created_at: Timestamp,
}

impl Resource for Tunnel {
    const KIND: &'static str = "tunnel";
    const SECRETS: &'static [&'static str] = &["/preshared_key"];
    type Id = Uuid;

    fn id(&self) -> Uuid {
        self.id
    }
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
    /// The name.
    pub name: Option<String>,
    /// The vnet.
    pub virtual_network_id: Option<Uuid>,
    /// The peer's key.
    pub peer: Option<Wanted<PublicKey>>,
    /// The preshared key; `Some(None)` removes it.
    pub preshared_key: Option<Option<Wanted<PresharedKey>>>,
    /// The endpoint; `Some(None)` removes it.
    pub endpoint: Option<Option<SocketAddr>>,
    /// The allowed prefixes.
    pub allowed_prefixes: Option<Vec<IpNet>>,
    /// The MTU.
    pub mtu: Option<u16>,
    /// The keepalive in seconds.
    pub persistent_keepalive: Option<u16>,
}

impl Draft {
    /// Reads the body of a create or change.
    ///
    /// # Errors
    /// A field that is wrong or not carried.
    pub fn read(mut fields: Fields) -> Result<Draft, Refusal> {
        let name = fields.string("name", 100)?;
        if name.as_deref().is_some_and(|name| name.trim().is_empty()) {
            return Err(fields.refuse("name", "'name' must not be empty."));
        }
        let draft = Draft {
            name,
            virtual_network_id: fields.uuid("virtual_network_id")?,
            peer: read_peer(&mut fields)?,
            preshared_key: read_preshared_key(&mut fields)?,
            endpoint: read_endpoint(&mut fields)?,
            allowed_prefixes: read_prefixes(&mut fields)?,
            mtu: fields.integer("mtu", 576..=9000)?,
            persistent_keepalive: fields.integer("persistent_keepalive", 0..=65535)?,
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

fn read_endpoint(fields: &mut Fields) -> Result<Option<Option<SocketAddr>>, Refusal> {
    if fields.is_null("endpoint") {
        return Ok(Some(None));
    }
    let wanted = "ADDRESS:PORT with an IP address, such as 198.51.100.11:51820";
    let Some(endpoint) = fields.parsed::<SocketAddr>("endpoint", wanted)? else {
        return Ok(None);
    };
    let ip = endpoint.ip();
    if endpoint.port() == 0 || ip.is_unspecified() || ip.is_multicast() {
        let message = format!("{endpoint} cannot be sent to: 'endpoint' must be {wanted}.");
        return Err(fields.refuse("endpoint", message));
    }
    Ok(Some(Some(endpoint)))
}

fn read_prefixes(fields: &mut Fields) -> Result<Option<Vec<IpNet>>, Refusal> {
    let Some(texts) = fields.strings("allowed_prefixes", 64)? else {
        return Ok(None);
    };
    let mut prefixes = Vec::with_capacity(texts.len());
    for (index, text) in texts.iter().enumerate() {
        let at = format!("allowed_prefixes/{index}");
        let prefix = address::parse_prefix(text).map_err(|why| fields.refuse(&at, why))?;
        if let Some((range, purpose)) = address::reserved(&prefix) {
            let why = format!("{prefix} lies inside {range}, which is reserved for {purpose}.");
            return Err(fields.refuse(&at, why));
        }
        prefixes.push(prefix);
    }
    prefixes.sort();
    prefixes.dedup();
    Ok(Some(prefixes))
}
