//! What a request says of any kind of tunnel.

use ipnet::IpNet;
use uuid::Uuid;

use super::{HealthCheck, Interface, TargetForm, Tunnel};
use crate::model::{Fields, Refusal, address};

/// Longest name of a GRE tunnel (api.md 4.2): that of a network interface.
const SHORT_LEN_MAX: usize = 15;
/// Longest name of others.
const NAME_LEN_MAX: usize = 100;
/// Longest description.
const DESCRIPTION_LEN_MAX: usize = 1024;

/// What differs from kind to kind.
#[derive(Clone, Copy, Debug)]
pub struct Defaults {
    /// Which names there may be.
    pub(super) names: Names,
    /// Largest inner packet when none is given.
    pub(super) mtu: u16,
    /// Whether addresses inside the tunnel must be given.
    pub(super) has_interface: bool,
    /// Whether a tunnel is probed when nothing is said of it.
    pub(super) has_health_check: bool,
}

/// Which names a tunnel may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Names {
    /// Any text.
    Free,
    /// At most 15 letters, digits, `-` and `_`.
    Short,
}

/// What a request says of any kind, or what was before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shared {
    /// The name.
    pub name: String,
    /// For people only.
    pub description: String,
    /// The vnet that the request names.
    pub virtual_network_id: Option<Uuid>,
    /// Addresses inside.
    pub interface: Interface,
    /// Inner sources that the peer may use.
    pub allowed_prefixes: Vec<IpNet>,
    /// Largest inner packet.
    pub mtu: u16,
    /// How it is probed.
    pub health_check: Option<HealthCheck>,
}

impl Shared {
    /// Reads what all kinds share, with the target of the health check as text; what is not given
    /// stays as it was.
    ///
    /// # Errors
    /// A field that is wrong or missing.
    pub fn read(
        fields: &mut Fields,
        old: Option<&Tunnel>,
        defaults: &Defaults,
    ) -> Result<Shared, Refusal> {
        Shared::read_with(fields, old, defaults, TargetForm::Text)
    }

    /// The same, with the target of the health check in this form.
    ///
    /// # Errors
    /// A field that is wrong or missing.
    pub fn read_with(
        fields: &mut Fields,
        old: Option<&Tunnel>,
        defaults: &Defaults,
        form: TargetForm,
    ) -> Result<Shared, Refusal> {
        let name = name(fields, defaults.names)?;
        let name = fields.required("name", name.or_else(|| old.map(|old| old.name.clone())))?;
        let is_cleared = fields.is_null("description");
        let description = fields.string("description", DESCRIPTION_LEN_MAX)?;
        let before = old
            .filter(|_| !is_cleared)
            .map(|old| old.description.clone());
        let known = old.filter(|_| !fields.is_null("mtu")).map(|old| old.mtu);
        let mtu = fields.integer("mtu", 576..=9000)?;
        let prefixes = prefixes(fields)?;
        let checked = match old {
            Some(old) => old.health_check,
            None => defaults.has_health_check.then(HealthCheck::default),
        };
        let interface = old.map_or_else(Interface::default, |old| old.interface);
        not_carried(fields)?;
        // What a client sends back as it got it.
        fields.ignore(&[
            "id",
            "created_on",
            "modified_on",
            "created_at",
            "deleted_at",
            "bgp_status",
            "tun_type",
            "status",
            "health",
            "rejected",
            "traffic",
            "customer_interface_address",
            "customer_interface_address6",
        ]);
        Ok(Shared {
            name,
            description: description.or(before).unwrap_or_default(),
            virtual_network_id: fields.uuid("virtual_network_id")?,
            interface: Interface::read(fields, interface, defaults.has_interface)?,
            allowed_prefixes: prefixes
                .or_else(|| old.map(|old| old.allowed_prefixes.clone()))
                .unwrap_or_default(),
            mtu: mtu.or(known).unwrap_or(defaults.mtu),
            health_check: HealthCheck::read(fields, checked, form)?,
        })
    }
}

fn name(fields: &mut Fields, names: Names) -> Result<Option<String>, Refusal> {
    let Some(name) = fields.string("name", NAME_LEN_MAX)? else {
        return Ok(None);
    };
    if name.trim().is_empty() {
        return Err(fields.refuse("name", "'name' must not be empty."));
    }
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let is_short = name.len() <= SHORT_LEN_MAX && name.bytes().all(is_plain);
    if names == Names::Short && !is_short {
        let why =
            "'name' is 1 to 15 letters, digits, '-' and '_': no spaces or special characters.";
        return Err(fields.refuse("name", why));
    }
    Ok(Some(name))
}

/// Fields of the product that have no effect here: set, they are refused rather than lost.
fn not_carried(fields: &mut Fields) -> Result<(), Refusal> {
    if fields.boolean("automatic_return_routing")? == Some(true) {
        let why = "Automatic return routing is not carried here: routes say where packets go. \
                   Leave 'automatic_return_routing' out, or false.";
        return Err(fields.refuse("automatic_return_routing", why));
    }
    if let Some(bgp) = fields.object("bgp")? {
        let why = "BGP over tunnels is not carried here: make static routes, and leave 'bgp' out.";
        bgp.finish().map_err(|_why| fields.refuse("bgp", why))?;
    }
    Ok(())
}

fn prefixes(fields: &mut Fields) -> Result<Option<Vec<IpNet>>, Refusal> {
    if fields.is_null("allowed_prefixes") {
        return Ok(Some(Vec::new()));
    }
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
