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
    App,
    Token,
}

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
            Noun::Token => &["id", "name", "status", "expires_on"],
            Noun::App => &[
                "id",
                "protocol",
                "dns",
                "origin_direct",
                "virtual_network_id",
            ],
        }
    }

    /// What a person calls one of them by, beside its id.
    pub(super) fn name_field(self) -> &'static str {
        match self {
            Noun::Zone | Noun::Record | Noun::Vnet | Noun::Tunnel | Noun::Token => "name",
            Noun::Route => "network",
            Noun::App => "protocol",
        }
    }
}

/// The path of something of the account that the token sees.
pub(super) async fn in_account(api: &Api, leaf: &str) -> anyhow::Result<String> {
    let accounts = api.all("/accounts").await?;
    let id = accounts.first().and_then(|account| account["id"].as_str());
    let id = id.context("the token sees no account")?;
    Ok(format!("/accounts/{id}/{leaf}"))
}

/// The path of the collection that a noun names.
pub(super) async fn collection(
    noun: Noun,
    zone: Option<&str>,
    api: &Api,
) -> anyhow::Result<String> {
    let in_zone = async |leaf: &str| {
        let zone = zone.context("say which zone: --zone example.com")?;
        let id = find(api, "/zones", Noun::Zone, zone).await?;
        anyhow::Ok(format!("/zones/{id}/{leaf}"))
    };
    match noun {
        Noun::Zone => Ok("/zones".into()),
        Noun::Token => Ok("/user/tokens".into()),
        Noun::Record => in_zone("dns_records").await,
        Noun::App => in_zone("spectrum/apps").await,
        Noun::Vnet => in_account(api, "teamnet/virtual_networks").await,
        Noun::Route => in_account(api, "teamnet/routes").await,
        Noun::Tunnel => in_account(api, "wireguard_tunnels").await,
    }
}

/// The id of the one object whose id or name is `wanted`.
pub(super) async fn find(
    api: &Api,
    collection: &str,
    noun: Noun,
    wanted: &str,
) -> anyhow::Result<String> {
    let all = api.all(collection).await?;
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

/// Where the API is, and who asks.
pub(super) struct Api {
    pub(super) base: Uri,
    pub(super) caller: client::Caller,
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

    /// Every page of a list. Fifty rows a page is what every list allows.
    pub(super) async fn all(&self, path: &str) -> anyhow::Result<Vec<Value>> {
        let mut rows = Vec::new();
        for page in 1.. {
            let page = format!("{path}?page={page}&per_page=50");
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
