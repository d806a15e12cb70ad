//! What `ctl` and `apply` work on: kinds of objects, where the API has them, and how it is asked.

use anyhow::{Context as _, bail};
use hyper::{Method, Uri};
use serde_json::Value;

use crate::client;

/// A kind of object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Noun {
    Zone,
    Record,
    Vnet,
    Route,
    Tunnel,
    Gre,
    Ipsec,
    Interconnect,
    StaticRoute,
    HostnameRoute,
    Subnet,
    App,
    Certificate,
    Setting,
    Token,
    Node,
    /// A tunnel of whatever kind: to be looked up only.
    AnyTunnel,
}

/// What a table of nodes shows.
const NODE_COLUMNS: [&str; 9] = [
    "name",
    "connected",
    "slice",
    "relay",
    "acknowledged_revision",
    "revision",
    "acknowledged_secs",
    "rejected_total",
    "address",
];

impl Noun {
    pub(super) fn columns(self) -> &'static [&'static str] {
        match self {
            Noun::Zone => &["id", "name", "status"],
            Noun::Record => &[
                "id",
                "type",
                "name",
                "content",
                "priority",
                "ttl",
                "proxied",
                "private_routing",
            ],
            Noun::Vnet => &["id", "name", "is_default_network", "comment"],
            Noun::Route => &[
                "id",
                "network",
                "virtual_network_name",
                "tunnel_name",
                "comment",
            ],
            Noun::Tunnel => &["id", "name", "status", "endpoint", "virtual_network_id"],
            Noun::Gre => &[
                "id",
                "name",
                "status",
                "customer_gre_endpoint",
                "interface_address",
                "virtual_network_id",
            ],
            Noun::Ipsec => &[
                "id",
                "name",
                "status",
                "customer_endpoint",
                "interface_address",
                "virtual_network_id",
            ],
            Noun::Interconnect => &[
                "id",
                "name",
                "status",
                "device",
                "interface_address",
                "virtual_network_id",
            ],
            Noun::StaticRoute => &[
                "id",
                "prefix",
                "nexthop",
                "priority",
                "weight",
                "tunnel_name",
            ],
            Noun::HostnameRoute => &["id", "hostname", "tunnel_name", "resolver_ips", "comment"],
            Noun::Subnet => &["name", "network", "comment"],
            Noun::Certificate => &["id", "hosts", "status", "issuer", "expires_on"],
            Noun::Setting => &["id", "value", "editable", "modified_on"],
            Noun::Token => &["id", "name", "status", "expires_on", "last_used_on"],
            Noun::Node => &NODE_COLUMNS,
            Noun::AnyTunnel => &["id", "name", "tun_type", "status"],
            Noun::App => &[
                "id",
                "protocol",
                "dns",
                "origin_direct",
                "virtual_network_id",
            ],
        }
    }

    /// The key of the list in the answer; `None` where the answer is the list, in pages.
    pub(super) fn list_key(self) -> Option<&'static str> {
        match self {
            Noun::Gre => Some("gre_tunnels"),
            Noun::Ipsec => Some("ipsec_tunnels"),
            Noun::Interconnect => Some("interconnects"),
            Noun::StaticRoute => Some("routes"),
            Noun::Zone | Noun::Record | Noun::Vnet | Noun::Route | Noun::Tunnel => None,
            Noun::AnyTunnel | Noun::App | Noun::Token | Noun::Node | Noun::HostnameRoute => None,
            Noun::Certificate | Noun::Setting | Noun::Subnet => None,
        }
    }

    /// How one of them is changed: in part, or by what is named over what was.
    pub(super) fn update_method(self) -> Method {
        match (self.list_key(), self) {
            (Some(_), _) | (None, Noun::Token | Noun::App) => Method::PUT,
            (None, _) => Method::PATCH,
        }
    }

    /// What a person calls one of them by, beside its id.
    pub(super) fn name_field(self) -> &'static str {
        match self {
            Noun::Zone | Noun::Record | Noun::Vnet | Noun::Tunnel => "name",
            Noun::Gre | Noun::Ipsec | Noun::Interconnect | Noun::AnyTunnel | Noun::Token => "name",
            Noun::Node | Noun::Subnet => "name",
            Noun::Route => "network",
            Noun::StaticRoute => "prefix",
            Noun::HostnameRoute => "hostname",
            Noun::App => "protocol",
            Noun::Certificate | Noun::Setting => "id",
        }
    }
}

/// Where the API is, and who asks.
pub(super) struct Api {
    pub(super) base: Uri,
    pub(super) caller: client::Caller,
    /// The account that is meant, by id or name; `None` is the only one that the token sees.
    pub(super) account: Option<String>,
}

impl Api {
    pub(super) fn uri(&self, path: &str) -> anyhow::Result<Uri> {
        let base = self.base.to_string();
        let uri = format!("{}/client/v4{path}", base.trim_end_matches('/'));
        uri.parse()
            .with_context(|| format!("{uri} is not an address"))
    }

    /// One call; an error of the API becomes one sentence.
    pub(super) async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Value> {
        let answer = client::api(method, &self.uri(path)?, &self.caller, body).await?;
        let mut envelope = answer.json()?;
        if envelope["success"] != true {
            bail!("{}", complaint(&envelope));
        }
        Ok(envelope["result"].take())
    }

    /// The path of something in the account.
    pub(super) async fn in_account(&self, leaf: &str) -> anyhow::Result<String> {
        let accounts = self.all("/accounts").await?;
        let wanted = accounts.iter().filter(|account| match &self.account {
            Some(name) => account["id"] == **name || account["name"] == **name,
            None => true,
        });
        let ids: Vec<&str> = wanted.filter_map(|one| one["id"].as_str()).collect();
        match (&ids[..], &self.account) {
            ([id], _) => Ok(format!("/accounts/{id}/{leaf}")),
            ([], Some(name)) => bail!("the token sees no account with the id or name {name}"),
            ([], None) => bail!("the token sees no account"),
            (_, _) => bail!(
                "the token sees {} accounts: say which, --account ID",
                ids.len()
            ),
        }
    }

    /// The path of the collection of a noun.
    pub(super) async fn collection(
        &self,
        noun: Noun,
        zone: Option<&str>,
    ) -> anyhow::Result<String> {
        let in_zone = async |leaf: &str| {
            let zone = zone.context("say which zone: --zone example.com")?;
            let id = self.find("/zones", Noun::Zone, zone).await?;
            anyhow::Ok(format!("/zones/{id}/{leaf}"))
        };
        match noun {
            Noun::Zone => Ok("/zones".into()),
            Noun::Token => Ok("/user/tokens".into()),
            Noun::Record => in_zone("dns_records").await,
            Noun::App => in_zone("spectrum/apps").await,
            Noun::Certificate => in_zone("custom_certificates").await,
            Noun::Setting => in_zone("settings").await,
            Noun::Vnet => self.in_account("teamnet/virtual_networks").await,
            Noun::Route => self.in_account("teamnet/routes").await,
            Noun::Tunnel => self.in_account("wireguard_tunnels").await,
            Noun::Gre => self.in_account("magic/gre_tunnels").await,
            Noun::Ipsec => self.in_account("magic/ipsec_tunnels").await,
            Noun::Interconnect => self.in_account("magic/cf_interconnects").await,
            Noun::StaticRoute => self.in_account("magic/routes").await,
            Noun::HostnameRoute => self.in_account("zerotrust/routes/hostname").await,
            Noun::Subnet => self.in_account("zerotrust/subnets").await,
            Noun::AnyTunnel => self.in_account("tunnels").await,
            Noun::Node => self.in_account("nodes").await,
        }
    }

    /// The id of the one object whose id or name is `wanted`.
    pub(super) async fn find(
        &self,
        collection: &str,
        noun: Noun,
        wanted: &str,
    ) -> anyhow::Result<String> {
        let all = self.list(collection, noun).await?;
        let field = noun.name_field();
        let mut found = all
            .iter()
            .filter(|one| one["id"] == wanted || one[field] == wanted);
        let one = found
            .next()
            .with_context(|| format!("there is none with the id or {field} {wanted}"))?;
        if found.next().is_some() {
            bail!("several have the {field} {wanted}: say the id");
        }
        Ok(one["id"].as_str().unwrap_or_default().to_owned())
    }

    /// Every one of a collection, however its answer is shaped.
    pub(super) async fn list(&self, path: &str, noun: Noun) -> anyhow::Result<Vec<Value>> {
        let Some(key) = noun.list_key() else {
            return self.all(path).await;
        };
        match self.call(Method::GET, path, None).await?[key].take() {
            Value::Array(rows) => Ok(rows),
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Object(_) => bail!("{path} has no {key}"),
        }
    }

    /// Every page of a list. Fifty rows a page is what every list allows.
    pub(super) async fn all(&self, path: &str) -> anyhow::Result<Vec<Value>> {
        let mut rows = Vec::new();
        let joint = if path.contains('?') { '&' } else { '?' };
        for page in 1.. {
            let page = format!("{path}{joint}page={page}&per_page=50");
            let Value::Array(mut more) = self.call(Method::GET, &page, None).await? else {
                bail!("{path} is not a list")
            };
            // A list of one page answers every page alike.
            if more.is_empty() || rows.first() == more.first() {
                break;
            }
            rows.append(&mut more);
        }
        Ok(rows)
    }
}

/// The API's errors in one line: code, sentence, field.
pub(super) fn complaint(envelope: &Value) -> String {
    let one = |error: &Value| {
        let field = error["source"]["pointer"]
            .as_str()
            .map_or(String::new(), |p| format!(" ({p})"));
        format!(
            "{} {}{field}",
            error["code"],
            error["message"].as_str().unwrap_or("no message")
        )
    };
    let errors = envelope["errors"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let chain = errors
        .iter()
        .flat_map(|e| e["error_chain"].as_array().into_iter().flatten());
    errors
        .iter()
        .chain(chain)
        .map(one)
        .collect::<Vec<_>>()
        .join("; ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_complaint_names_code_sentence_and_field() {
        let envelope = json!({"success": false, "errors": [
            {"code": 1004, "message": "DNS Validation Error", "source": {"pointer": "/content"}}]});
        assert_eq!(complaint(&envelope), "1004 DNS Validation Error (/content)");
    }
}
