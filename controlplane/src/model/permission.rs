//! What a token may do: permission groups, read or write, on the user, accounts and zones.

use ring::digest;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{Fields, HexId, Refusal};

/// Resources are named as the product does, so that people's policies carry over.
const ACCOUNT: &str = "com.cloudflare.api.account.";
const ZONE: &str = "com.cloudflare.api.account.zone.";
const USER: &str = "com.cloudflare.api.user.";

/// Most policies of a token.
const POLICIES_MAX: usize = 64;
/// Most resources of a policy.
const RESOURCES_MAX: usize = 256;

/// What belongs together when rights are given. Every route names the one that it needs (`api/mod.rs`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Group {
    /// Tokens of the user, who may have any right.
    UserTokens,
    /// The account itself.
    Accounts,
    /// Tokens that an account owns.
    AccountTokens,
    /// Who changed what.
    AuditLogs,
    /// Virtual networks and routes.
    Networks,
    /// Tunnels.
    Tunnels,
    /// Magic tunnels and their routes.
    MagicWan,
    /// Edges that follow the control plane; ours.
    Nodes,
    /// Zones.
    Zones,
    /// Settings of zones.
    ZoneSettings,
    /// Certificates of zones.
    Certificates,
    /// DNS records.
    Dns,
    /// Layer-4 apps.
    Spectrum,
}

impl Group {
    /// Every group.
    pub const ALL: [Group; 13] = [
        Group::UserTokens,
        Group::Accounts,
        Group::AccountTokens,
        Group::AuditLogs,
        Group::Networks,
        Group::Tunnels,
        Group::MagicWan,
        Group::Nodes,
        Group::Zones,
        Group::ZoneSettings,
        Group::Certificates,
        Group::Dns,
        Group::Spectrum,
    ];

    fn name(self) -> &'static str {
        match self {
            Group::UserTokens => "API Tokens",
            Group::Accounts => "Account Settings",
            Group::AccountTokens => "Account API Tokens",
            Group::AuditLogs => "Audit Logs",
            Group::Networks => "Cloudflare One Networks",
            Group::Tunnels => "Cloudflare Tunnel",
            Group::MagicWan => "Magic WAN",
            Group::Nodes => "Portcullis Nodes",
            Group::Zones => "Zone",
            Group::ZoneSettings => "Zone Settings",
            Group::Certificates => "SSL and Certificates",
            Group::Dns => "DNS",
            Group::Spectrum => "Spectrum",
        }
    }

    /// The kind of resource that the group is about.
    pub fn scope(self) -> &'static str {
        let kind = match self {
            Group::UserTokens => USER,
            Group::Zones
            | Group::ZoneSettings
            | Group::Certificates
            | Group::Dns
            | Group::Spectrum => ZONE,
            Group::Accounts
            | Group::AccountTokens
            | Group::AuditLogs
            | Group::Networks
            | Group::Tunnels
            | Group::MagicWan
            | Group::Nodes => ACCOUNT,
        };
        kind.trim_end_matches('.')
    }
}

/// Looking or changing; who may change may look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// Looking.
    Read,
    /// Changing, and looking.
    Write,
}

/// One right, which the product calls a permission group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Permission {
    /// On what.
    pub group: Group,
    /// To do what.
    pub access: Access,
}

impl Permission {
    /// Every right there is.
    pub fn all() -> impl Iterator<Item = Permission> {
        let both = |group| [Access::Read, Access::Write].map(|access| Permission { group, access });
        Group::ALL.into_iter().flat_map(both)
    }

    /// What people call it.
    pub fn name(self) -> String {
        let access = match self.access {
            Access::Read => "Read",
            Access::Write => "Write",
        };
        format!("{} {access}", self.group.name())
    }

    /// Its id, which follows from its name.
    pub fn id(self) -> HexId {
        let hash = digest::digest(&digest::SHA256, self.name().as_bytes());
        let bytes = hash.as_ref().first_chunk().expect("SHA-256 has 32 bytes");
        HexId::from_bytes(*bytes)
    }
}

/// What a policy is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// The user.
    User,
    /// Every account, with its zones.
    Accounts,
    /// One account, with its zones.
    Account(HexId),
    /// Every zone.
    Zones,
    /// Every zone of an account.
    ZonesOf(HexId),
    /// One zone, and the account that it is of.
    Zone(HexId, HexId),
}

impl Scope {
    /// Whether all that is in `other` is in this one.
    pub fn contains(self, other: Scope) -> bool {
        match (self, other) {
            (Scope::User, _) => other == Scope::User,
            (Scope::Accounts, _) => other != Scope::User,
            (Scope::Account(id), Scope::Account(of) | Scope::ZonesOf(of) | Scope::Zone(_, of))
            | (Scope::ZonesOf(id), Scope::ZonesOf(of) | Scope::Zone(_, of))
            | (Scope::Zone(id, _), Scope::Zone(of, _)) => id == of,
            (Scope::Zones, Scope::Zones | Scope::ZonesOf(_) | Scope::Zone(..)) => true,
            (Scope::Account(_) | Scope::Zones | Scope::ZonesOf(_) | Scope::Zone(..), _) => false,
        }
    }

    /// Whether something is in both: of two scopes that meet, one contains the other.
    pub fn meets(self, other: Scope) -> bool {
        self.contains(other) || other.contains(self)
    }

    /// The account that all of it is of.
    pub fn account(self) -> Option<HexId> {
        match self {
            Scope::Account(id) | Scope::ZonesOf(id) | Scope::Zone(_, id) => Some(id),
            Scope::User | Scope::Accounts | Scope::Zones => None,
        }
    }
}

/// Rights on some scopes, given or taken away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Its id.
    pub id: HexId,
    /// Given; else taken away, whatever other policies give.
    pub is_allowed: bool,
    /// The rights.
    pub permissions: Vec<Permission>,
    /// On what.
    pub scopes: Vec<Scope>,
}

impl Policy {
    /// Whether the policy says something of the right on all of the scope.
    fn covers(&self, wanted: Permission, scope: Scope) -> bool {
        // Who may change may look. Who may not look may not change either: a change shows the object.
        let has = |own: &Permission| {
            own.group == wanted.group
                && match self.is_allowed {
                    true => own.access >= wanted.access,
                    false => own.access <= wanted.access,
                }
        };
        let is_there = |own: &Scope| match self.is_allowed {
            true => own.contains(scope),
            false => own.meets(scope),
        };
        self.permissions.iter().any(has) && self.scopes.iter().any(is_there)
    }

    /// As the product shows it.
    pub fn show(&self) -> Value {
        let group = |one: &Permission| json!({"id": one.id(), "name": one.name()});
        let groups: Vec<Value> = self.permissions.iter().map(group).collect();
        let mut resources = Map::new();
        for scope in &self.scopes {
            let all = Value::from("*");
            let (name, value) = match scope {
                Scope::User => (format!("{USER}*"), all),
                Scope::Accounts => (format!("{ACCOUNT}*"), all),
                Scope::Account(id) => (format!("{ACCOUNT}{id}"), all),
                Scope::Zones => (format!("{ZONE}*"), all),
                Scope::ZonesOf(id) => (format!("{ACCOUNT}{id}"), json!({format!("{ZONE}*"): "*"})),
                Scope::Zone(id, _) => (format!("{ZONE}{id}"), all),
            };
            resources.insert(name, value);
        }
        let effect = if self.is_allowed { "allow" } else { "deny" };
        json!({"id": self.id, "effect": effect, "permission_groups": groups, "resources": resources})
    }
}

/// Whether policies give a right on all of a scope.
pub fn allow(policies: &[Policy], wanted: Permission, scope: Scope) -> bool {
    let covers = |is_allowed: bool| {
        policies
            .iter()
            .any(|policy| policy.is_allowed == is_allowed && policy.covers(wanted, scope))
    };
    covers(true) && !covers(false)
}

/// Reads the field `policies`. `account_of` knows a zone's account, where there is such a zone.
///
/// # Errors
/// A policy that is malformed, or names what does not exist.
pub fn read(
    fields: &mut Fields,
    account_of: &dyn Fn(HexId) -> Option<HexId>,
) -> Result<Option<Vec<Policy>>, Refusal> {
    let Some(list) = fields.objects("policies", POLICIES_MAX)? else {
        return Ok(None);
    };
    if list.is_empty() {
        return Err(fields.refuse(
            "policies",
            "A token needs a policy: it may do nothing else.",
        ));
    }
    let policies = list.into_iter().map(|policy| read_one(policy, account_of));
    policies.collect::<Result<_, _>>().map(Some)
}

fn read_one(
    mut fields: Fields,
    account_of: &dyn Fn(HexId) -> Option<HexId>,
) -> Result<Policy, Refusal> {
    fields.ignore(&["id"]);
    let effect = fields.string("effect", 16)?;
    let is_allowed = match effect.as_deref() {
        Some("allow") | None => true,
        Some("deny") => false,
        Some(_) => return Err(fields.refuse("effect", "'effect' must be allow or deny.")),
    };
    let groups = fields.objects("permission_groups", 64)?.unwrap_or_default();
    let mut permissions = Vec::with_capacity(groups.len());
    for mut group in groups {
        group.ignore(&["name", "meta"]);
        let id: Option<HexId> = group.parsed("id", "the id of a permission group")?;
        let known = id.and_then(|id| Permission::all().find(|one| one.id() == id));
        let why =
            "There is no such permission group: GET /user/tokens/permission_groups lists them.";
        permissions.push(known.ok_or_else(|| group.refuse("id", why))?);
        group.finish()?;
    }
    let scopes = read_resources(&mut fields, account_of)?;
    if permissions.is_empty() {
        let why = "'permission_groups' must name one at least.";
        return Err(fields.refuse("permission_groups", why));
    }
    fields.finish()?;
    Ok(Policy {
        id: HexId::random(),
        is_allowed,
        permissions,
        scopes,
    })
}

fn read_resources(
    fields: &mut Fields,
    account_of: &dyn Fn(HexId) -> Option<HexId>,
) -> Result<Vec<Scope>, Refusal> {
    let wrong = |fields: &Fields, why: &str| Err(fields.refuse("resources", why));
    let resources = match fields.take("resources") {
        Some(Value::Object(resources)) if !resources.is_empty() => resources,
        Some(_) | None => {
            return wrong(
                fields,
                "'resources' must be an object that names one at least.",
            );
        }
    };
    if resources.len() > RESOURCES_MAX {
        return wrong(fields, "'resources' may name at most 256.");
    }
    let mut scopes = Vec::with_capacity(resources.len());
    for (name, value) in &resources {
        match scope(name, value, account_of) {
            Some(scope) => scopes.push(scope),
            None => {
                return wrong(
                    fields,
                    "A resource is com.cloudflare.api.account.ID, com.cloudflare.api.account.zone.ID or \
                     com.cloudflare.api.user.ID with the value \"*\", or an account with \
                     {\"com.cloudflare.api.account.zone.*\": \"*\"}; ID exists or is *.",
                );
            }
        }
    }
    Ok(scopes)
}

fn scope(name: &str, value: &Value, account_of: &dyn Fn(HexId) -> Option<HexId>) -> Option<Scope> {
    let is_all = value.as_str() == Some("*");
    if name.starts_with(USER) {
        return is_all.then_some(Scope::User);
    }
    if let Some(zone) = name.strip_prefix(ZONE) {
        return match zone {
            _ if !is_all => None,
            "*" => Some(Scope::Zones),
            zone => {
                let zone = zone.parse().ok()?;
                Some(Scope::Zone(zone, account_of(zone)?))
            }
        };
    }
    let account = name.strip_prefix(ACCOUNT)?;
    let all_zones = value.as_object().is_some_and(|nested| {
        nested.len() == 1
            && nested
                .get(&format!("{ZONE}*"))
                .is_some_and(|all| all == "*")
    });
    match (account, is_all, all_zones) {
        ("*", true, _) => Some(Scope::Accounts),
        ("*", _, true) => Some(Scope::Zones),
        (account, true, _) => account.parse().ok().map(Scope::Account),
        (account, _, true) => account.parse().ok().map(Scope::ZonesOf),
        (_, false, false) => None,
    }
}
