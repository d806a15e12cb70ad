//! A hostname route: a name, or all names below one, that resolvers behind a tunnel know.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::fields::echo;
use super::{Fields, HexId, Refusal, Resource, Timestamp, address, host_name};

/// Code of a refused hostname route field.
pub const INVALID: u32 = 1020;

/// Longest comment.
const COMMENT_LEN_MAX: usize = 256;

/// Most resolvers of one route: what resolv.conf(5) takes (MAXNS).
pub const RESOLVERS_MAX: usize = 3;

/// A hostname route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostnameRoute {
    /// Its id.
    pub id: Uuid,
    /// Whose it is.
    pub account_id: HexId,
    /// The name, lower case; `*.` and a name is all names below that.
    pub hostname: String,
    /// The tunnel behind which the resolvers are, and what they answer.
    pub tunnel_id: Uuid,
    /// Whom the edge asks, best first: one to [`RESOLVERS_MAX`], all behind the tunnel.
    pub resolver_ips: Vec<IpAddr>,
    /// For people only.
    pub comment: String,
    /// When it was made.
    pub created_at: Timestamp,
}

impl HostnameRoute {
    /// Whether the two have a name in common.
    pub fn overlaps(&self, hostname: &str) -> bool {
        covers(&self.hostname, hostname) || covers(hostname, &self.hostname)
    }
}

/// Whether every name that `inner` stands for is one that `outer` stands for.
fn covers(outer: &str, inner: &str) -> bool {
    match outer.strip_prefix("*.") {
        None => outer == inner,
        Some(above) => inner
            .strip_suffix(above)
            .is_some_and(|rest| rest.ends_with('.')),
    }
}

/// What a request to make or change a hostname route says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// The name.
    pub hostname: Option<String>,
    /// The tunnel.
    pub tunnel_id: Option<Uuid>,
    /// The resolvers.
    pub resolver_ips: Option<Vec<IpAddr>>,
    /// The comment.
    pub comment: Option<String>,
}

impl Draft {
    /// Reads the body of a create or change.
    ///
    /// # Errors
    /// A field that is wrong or not carried.
    pub fn read(mut fields: Fields) -> Result<Draft, Refusal> {
        let hostname = match fields.string("hostname", host_name::NAME_LEN_MAX + 1)? {
            None => None,
            Some(text) => {
                let name =
                    host_name::normal(&text).map_err(|why| fields.refuse("hostname", why))?;
                if name == "*" {
                    let why = "'hostname' must say below which name: *.internal.example.";
                    return Err(fields.refuse("hostname", why));
                }
                Some(name)
            }
        };
        let draft = Draft {
            hostname,
            tunnel_id: fields.uuid("tunnel_id")?,
            resolver_ips: read_resolvers(&mut fields)?,
            comment: fields.string("comment", COMMENT_LEN_MAX)?,
        };
        fields.ignore(&["id", "created_at", "deleted_at", "tun_type", "tunnel_name"]);
        fields.finish()?;
        Ok(draft)
    }

    /// What a new hostname route needs: its name, its tunnel and its resolvers.
    ///
    /// # Errors
    /// When one of them is missing.
    pub fn whole(self) -> Result<(String, Uuid, Vec<IpAddr>), Refusal> {
        let hostname = self.hostname.ok_or_else(|| missing("hostname"))?;
        let tunnel = self.tunnel_id.ok_or_else(|| missing("tunnel_id"))?;
        let resolvers = self.resolver_ips.ok_or_else(|| {
            let why = format!(
                "'resolver_ips' is required: nothing at the far end of the tunnel resolves names, so \
                 give one to {RESOLVERS_MAX} addresses of DNS servers behind it (a field of ours)."
            );
            Refusal::invalid(INVALID, why).at("resolver_ips")
        })?;
        Ok((hostname, tunnel, resolvers))
    }
}

fn missing(name: &str) -> Refusal {
    Refusal::invalid(INVALID, format!("'{name}' is required.")).at(name)
}

fn read_resolvers(fields: &mut Fields) -> Result<Option<Vec<IpAddr>>, Refusal> {
    let Some(texts) = fields.strings("resolver_ips", 64)? else {
        return Ok(None);
    };
    if !(1..=RESOLVERS_MAX).contains(&texts.len()) {
        let why = format!("'resolver_ips' must have one to {RESOLVERS_MAX} addresses.");
        return Err(fields.refuse("resolver_ips", why));
    }
    let mut resolvers = Vec::with_capacity(texts.len());
    for (index, text) in texts.iter().enumerate() {
        let at = format!("resolver_ips/{index}");
        let ip = address::parse_origin(text).map_err(|_why| {
            let why = format!("'{}' cannot be the address of a DNS server.", echo(text));
            fields.refuse(&at, why)
        })?;
        if resolvers.contains(&ip) {
            return Err(fields.refuse(&at, format!("{ip} is named twice.")));
        }
        resolvers.push(ip);
    }
    Ok(Some(resolvers))
}

impl Resource for HostnameRoute {
    const KIND: &'static str = "hostname_route";
    const ON_NODES: bool = true;
    type Id = Uuid;

    fn id(&self) -> Uuid {
        self.id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_is_every_name_below_and_not_the_name_itself() {
        for (outer, inner, is_covered) in [
            ("wiki.corp", "wiki.corp", true),
            ("wiki.corp", "a.wiki.corp", false),
            ("*.corp", "wiki.corp", true),
            ("*.corp", "a.wiki.corp", true),
            ("*.corp", "*.wiki.corp", true),
            ("*.corp", "*.corp", true),
            ("*.corp", "corp", false),
            ("*.corp", "notcorp", false),
            ("*.wiki.corp", "*.corp", false),
        ] {
            assert_eq!(covers(outer, inner), is_covered, "{outer} {inner}");
        }
    }
}
