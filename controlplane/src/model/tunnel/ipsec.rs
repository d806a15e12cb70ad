//! An IPsec tunnel: IKEv2 with a pre-shared key (api.md 4.2 and 4.3).
//!
//! Role, encapsulation and proposals are ours; the product answers only, and chooses itself.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use super::proposals::{EspOffer, IkeOffer};
use super::shared::{Defaults, Names};
use super::{Psk, outer};
use crate::model::{Fields, HexId, Refusal, Timestamp};

/// What all kinds share, for this kind. 1400 bytes fit into ESP in UDP over IPv6 with every cipher.
pub const DEFAULTS: Defaults = Defaults {
    names: Names::Free,
    mtu: 1400,
    has_interface: true,
    has_health_check: true,
};

/// What only an IPsec tunnel has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ipsec {
    /// The edge's outer address.
    pub local: IpAddr,
    /// The customer's outer address; `None`: it comes from anywhere.
    pub remote: Option<IpAddr>,
    /// The key; without one nobody can speak with us.
    pub psk: Option<Psk>,
    /// When the key was set.
    pub psk_set_at: Option<Timestamp>,
    /// Whether packets that come twice are dropped.
    pub has_replay_protection: bool,
    /// An identity that the customer chose, beside those that follow from ids.
    pub fqdn_id: Option<String>,
    /// Whether its address is an identity: no tunnel had both its ends before.
    pub has_address_identity: bool,
    /// Who begins.
    pub role: Role,
    /// What packets travel in.
    pub encapsulation: Encapsulation,
    /// Protection of IKE messages.
    pub ike: IkeOffer,
    /// Protection of packets.
    pub esp: EspOffer,
}

/// Who begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The customer.
    Responder,
    /// We, and again after a failure.
    Initiator,
}

/// What packets travel in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encapsulation {
    /// UDP where there is a NAT, ESP else.
    Auto,
    /// UDP in any case.
    Udp,
}

impl Ipsec {
    /// Reads what only IPsec has; what is not given stays as it was.
    ///
    /// # Errors
    /// A field that is wrong or missing.
    pub fn read(
        fields: &mut Fields,
        old: Option<&Ipsec>,
        (account, now): (HexId, Timestamp),
    ) -> Result<Ipsec, Refusal> {
        let (ours, theirs) = ("cloudflare_endpoint", "customer_endpoint");
        let local = outer::read(fields, ours, old.map(|old| old.local))?;
        let local = fields.required(ours, local)?;
        let remote = remote(fields, theirs, old.and_then(|old| old.remote))?;
        if let Some(remote) = remote {
            outer::check(fields, theirs, local, remote)?;
        }
        if fields.boolean("allow_null_cipher")? == Some(true) {
            let why = "There is no NULL encryption here: leave 'allow_null_cipher' out, or false.";
            return Err(fields.refuse("allow_null_cipher", why));
        }
        let given = read_psk(fields)?;
        let psk_set_at = match &given {
            Some(_) => Some(now),
            None => old.and_then(|old| old.psk_set_at),
        };
        let replay = fields.boolean("replay_protection")?;
        let replay = replay.or_else(|| old.map(|old| old.has_replay_protection));
        let role = role(fields, old.map(|old| old.role))?;
        if role == Role::Initiator && remote.is_none() {
            let why = "An initiator needs to know where the customer is: give 'customer_endpoint'.";
            return Err(fields.refuse("role", why));
        }
        fields.ignore(&["psk_metadata", "ike_identities", "ipsec_status"]);
        Ok(Ipsec {
            local,
            remote,
            psk: given.or_else(|| old.and_then(|old| old.psk.clone())),
            psk_set_at,
            has_replay_protection: replay.unwrap_or(false),
            fqdn_id: fqdn_id(fields, old.and_then(|old| old.fqdn_id.clone()), account)?,
            has_address_identity: false,
            role,
            encapsulation: encapsulation(fields, old.map(|old| old.encapsulation))?,
            ike: IkeOffer::read(
                fields,
                old.map_or_else(IkeOffer::default, |o| o.ike.clone()),
            )?,
            esp: EspOffer::read(
                fields,
                old.map_or_else(EspOffer::default, |o| o.esp.clone()),
            )?,
        })
    }

    /// The names that the customer's side may go by (api.md 4.3).
    pub fn identities(&self, account: HexId, tunnel: Uuid) -> Identities {
        let tunnel = tunnel.simple();
        Identities {
            fqdn: format!("{tunnel}.{account}.ipsec.cloudflare.com"),
            mail: format!("ipsec@{tunnel}.{account}.ipsec.cloudflare.com"),
            key_id: format!("{account}_{tunnel}"),
            custom_fqdn: self.fqdn_id.clone(),
            address: self.remote.filter(|_| self.has_address_identity),
        }
    }
}

/// The names that the customer's side may go by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identities {
    /// FQDN.
    pub fqdn: String,
    /// RFC822_ADDR.
    pub mail: String,
    /// KEY_ID.
    pub key_id: String,
    /// FQDN that the customer chose.
    pub custom_fqdn: Option<String>,
    /// IPV4_ADDR or IPV6_ADDR.
    pub address: Option<IpAddr>,
}

impl Identities {
    /// As the API shows them.
    pub fn show(&self) -> Value {
        json!({
            "fqdn": self.fqdn,
            "rfc822": self.mail,
            "key_id": self.key_id,
            "custom_fqdn": self.custom_fqdn,
            "address": self.address,
        })
    }
}

impl Role {
    /// Every role by its name.
    const NAMES: [(&'static str, Role); 2] = [
        ("responder", Role::Responder),
        ("initiator", Role::Initiator),
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Role::Responder => "responder",
            Role::Initiator => "initiator",
        }
    }
}

impl Encapsulation {
    /// Every encapsulation by its name.
    const NAMES: [(&'static str, Encapsulation); 2] =
        [("auto", Encapsulation::Auto), ("udp", Encapsulation::Udp)];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Encapsulation::Auto => "auto",
            Encapsulation::Udp => "udp",
        }
    }
}

/// The customer's address; `null` and an empty text remove it.
fn remote(fields: &mut Fields, name: &str, old: Option<IpAddr>) -> Result<Option<IpAddr>, Refusal> {
    if fields.is_null(name) || fields.peek(name) == Some(&json!("")) {
        fields.ignore(&[name]);
        return Ok(None);
    }
    outer::read(fields, name, old)
}

fn read_psk(fields: &mut Fields) -> Result<Option<Psk>, Refusal> {
    match fields.take("psk") {
        None => Ok(None),
        Some(Value::String(text)) => match Psk::new(text) {
            Ok(psk) => Ok(Some(psk)),
            Err(why) => Err(fields.refuse("psk", why)),
        },
        // The value is not shown back: it may be a key all the same.
        Some(_) => Err(fields.refuse("psk", "'psk' must be a string.")),
    }
}

fn role(fields: &mut Fields, old: Option<Role>) -> Result<Role, Refusal> {
    let given = fields.choice("role", &Role::NAMES)?;
    Ok(given.or(old).unwrap_or(Role::Responder))
}

fn encapsulation(
    fields: &mut Fields,
    old: Option<Encapsulation>,
) -> Result<Encapsulation, Refusal> {
    let given = fields.choice("encapsulation", &Encapsulation::NAMES)?;
    Ok(given.or(old).unwrap_or(Encapsulation::Auto))
}

/// `custom_remote_identities.fqdn_id`; `null` and an empty text remove it.
fn fqdn_id(
    fields: &mut Fields,
    old: Option<String>,
    account: HexId,
) -> Result<Option<String>, Refusal> {
    if fields.is_null("custom_remote_identities") {
        return Ok(None);
    }
    let Some(mut inner) = fields.object("custom_remote_identities")? else {
        return Ok(old);
    };
    let is_cleared = inner.is_null("fqdn_id");
    let Some(text) = inner.string("fqdn_id", 253)? else {
        inner.finish()?;
        return Ok(old.filter(|_| !is_cleared));
    };
    if text.is_empty() {
        inner.finish()?;
        return Ok(None);
    }
    let end = format!(".{account}.custom.ipsec.cloudflare.com");
    let is_label = |label: &str| {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        (1..=63).contains(&label.len())
            && label.bytes().all(is_plain)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let text = text.to_ascii_lowercase();
    if !text.strip_suffix(&end).is_some_and(is_label) {
        let why = format!("'fqdn_id' is LABEL{end}, with one label of yours.");
        return Err(inner.refuse("fqdn_id", why));
    }
    inner.finish()?;
    Ok(Some(text))
}
