//! An API token: shown once, stored as a keyed hash, with what it may do, when and from where.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ipnet::IpNet;
use ring::hmac;
use ring::rand::SecureRandom;
use serde::{Deserialize, Serialize};

use super::permission::{self, Permission, Policy, Scope};
use super::{Fields, HexId, Refusal, Resource, Timestamp, address};

/// Code of a refused token field.
pub const INVALID: u32 = 1001;

/// A token as it is stored: enough to recognise it, not enough to use it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// Its id, which is no secret.
    pub id: HexId,
    /// Its name; for people only.
    pub name: String,
    /// The account that owns it; `None` is the user's.
    #[serde(default)]
    pub account_id: Option<HexId>,
    /// The key of the hash, base64, of a token from before there was a server key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub salt: Option<String>,
    /// HMAC-SHA256 of the token under the server's key, or under the salt; base64.
    pub hash: String,
    /// When it was made.
    pub issued_on: Timestamp,
    /// When it was changed.
    #[serde(default)]
    pub modified_on: Option<Timestamp>,
    /// What it may do; `None`, of the first token only, is everything.
    #[serde(default)]
    pub policies: Option<Vec<Policy>>,
    /// When and from where it is good.
    #[serde(default)]
    pub bounds: Bounds,
}

/// When and from where a token is good.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bounds {
    /// Not at all.
    pub is_disabled: bool,
    /// From then on.
    pub not_before: Option<Timestamp>,
    /// Until then.
    pub expires_on: Option<Timestamp>,
    /// From these addresses only; empty is any.
    pub request_ip_in: Vec<IpNet>,
    /// Not from these addresses.
    pub request_ip_not_in: Vec<IpNet>,
}

impl Token {
    /// One that may do everything, for ever, from anywhere: the first.
    pub fn unrestricted(name: &str, hash: String, now: Timestamp) -> Token {
        Token {
            id: HexId::random(),
            name: name.to_owned(),
            account_id: None,
            salt: None,
            hash,
            issued_on: now,
            modified_on: None,
            policies: None,
            bounds: Bounds::default(),
        }
    }

    /// Whether `secret` is this token of old; takes as long for a near miss as for a far one.
    pub fn is_salted(&self, secret: &str) -> bool {
        let decoded = |text: &str| URL_SAFE_NO_PAD.decode(text).ok();
        let salt = self.salt.as_deref().and_then(decoded);
        let (Some(salt), Some(hash)) = (salt, decoded(&self.hash)) else {
            return false;
        };
        let key = hmac::Key::new(hmac::HMAC_SHA256, &salt);
        hmac::verify(&key, secret.as_bytes(), &hash).is_ok()
    }

    /// Whether it gives a right on all of a scope.
    pub fn may(&self, wanted: Permission, scope: Scope) -> bool {
        match &self.policies {
            None => true,
            Some(policies) => permission::allow(policies, wanted, scope),
        }
    }

    /// Whether it gives any right on something of the account, or on one of its zones.
    pub fn knows(&self, account: HexId) -> bool {
        let Some(policies) = &self.policies else {
            return true;
        };
        let in_account = Scope::Account(account);
        let given = policies.iter().filter(|policy| policy.is_allowed);
        given
            .flat_map(|policy| &policy.scopes)
            .any(|scope| scope.meets(in_account))
    }

    /// Whether it gives all that these policies give: nobody passes on what he does not have.
    pub fn may_give(&self, policies: &[Policy]) -> bool {
        if self.policies.is_none() {
            return true;
        }
        let given = policies.iter().filter(|policy| policy.is_allowed);
        given
            .flat_map(|policy| {
                let each = policy.permissions.iter();
                each.flat_map(|one| policy.scopes.iter().map(|scope| (*one, *scope)))
            })
            .all(|(permission, scope)| self.may(permission, scope))
    }

    /// The product's word for its state.
    pub fn status(&self, now: Timestamp) -> &'static str {
        if self.bounds.is_disabled {
            return "disabled";
        }
        match self.bounds.expires_on {
            Some(end) if end <= now => "expired",
            Some(_) | None => "active",
        }
    }
}

impl Bounds {
    /// Why the token is not good at this time from this address; `None` when it is.
    pub fn obstacle(&self, now: Timestamp, from: Option<IpAddr>) -> Option<&'static str> {
        let is_in =
            |nets: &[IpNet]| from.is_some_and(|ip| nets.iter().any(|net| net.contains(&ip)));
        if self.is_disabled {
            return Some("the token is disabled");
        }
        if self.expires_on.is_some_and(|end| end <= now) {
            return Some("the token has expired");
        }
        if self.not_before.is_some_and(|begin| now < begin) {
            return Some("the token is not valid yet");
        }
        let is_elsewhere = !self.request_ip_in.is_empty() && !is_in(&self.request_ip_in);
        let is_unknown = from.is_none() && !self.request_ip_not_in.is_empty();
        if is_elsewhere || is_unknown || is_in(&self.request_ip_not_in) {
            return Some("the token is not for use from this address");
        }
        None
    }
}

impl Resource for Token {
    const KIND: &'static str = "token";
    const SECRETS: &'static [&'static str] = &["/hash", "/salt"];
    type Id = HexId;

    fn id(&self) -> HexId {
        self.id
    }
}

/// What a request to make or replace a token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// The name.
    pub name: String,
    /// What it may do.
    pub policies: Vec<Policy>,
    /// When and from where.
    pub bounds: Bounds,
}

impl Draft {
    /// Reads the body of a create or replace.
    ///
    /// # Errors
    /// A field that is missing, wrong or not carried.
    pub fn read(
        mut fields: Fields,
        account_of: &dyn Fn(HexId) -> Option<HexId>,
    ) -> Result<Draft, Refusal> {
        fields.ignore(&["id", "issued_on", "modified_on", "last_used_on"]);
        let name = fields.string("name", 120)?;
        let name = fields.required("name", name)?;
        if name.trim().is_empty() {
            return Err(fields.refuse("name", "'name' must not be empty."));
        }
        let policies = permission::read(&mut fields, account_of)?;
        let policies = fields.required("policies", policies)?;
        let is_disabled = match fields.string("status", 16)?.as_deref() {
            Some("disabled") => true,
            Some("active" | "expired") | None => false,
            Some(_) => return Err(fields.refuse("status", "'status' must be active or disabled.")),
        };
        let moment = "a time such as 2030-01-01T00:00:00Z";
        let mut bounds = Bounds {
            is_disabled,
            not_before: fields.parsed("not_before", moment)?,
            expires_on: fields.parsed("expires_on", moment)?,
            ..Bounds::default()
        };
        if let (Some(begin), Some(end)) = (bounds.not_before, bounds.expires_on)
            && end <= begin
        {
            return Err(fields.refuse("expires_on", "'expires_on' must be after 'not_before'."));
        }
        if let Some(mut condition) = fields.object("condition")? {
            if let Some(mut from) = condition.object("request_ip")? {
                bounds.request_ip_in = nets(&mut from, "in")?;
                bounds.request_ip_not_in = nets(&mut from, "not_in")?;
                from.finish()?;
            }
            condition.finish()?;
        }
        fields.finish()?;
        Ok(Draft {
            name,
            policies,
            bounds,
        })
    }
}

/// Prefixes, or single addresses.
fn nets(fields: &mut Fields, name: &str) -> Result<Vec<IpNet>, Refusal> {
    let texts = fields.strings(name, 64)?.unwrap_or_default();
    let net = |text: &String| match text.parse::<IpAddr>() {
        Ok(ip) => Ok(IpNet::from(ip)),
        Err(_) => address::parse_prefix(text).map_err(|why| fields.refuse(name, why)),
    };
    texts.iter().map(net).collect()
}

/// 32 random bytes in base64url.
///
/// # Errors
/// When the system has no randomness to give.
pub fn secret(random: &dyn SecureRandom) -> Result<String, ring::error::Unspecified> {
    let mut bytes = [0; 32];
    random.fill(&mut bytes)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}
