//! `portcullis ctl`: a small client of the HTTP API: nouns, then verbs.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::ValueEnum;
use hyper::{Method, Uri};
use serde_json::{Map, Value};

use crate::{client, table};

/// Arguments of `portcullis ctl`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  portcullis ctl zone create name=example.com
  portcullis ctl tunnel create name=office generate_peer_key=true
  portcullis ctl tunnel config office          the peer's ready-made WireGuard configuration
  portcullis ctl route create network=10.0.0.0/24 tunnel_id=<id>
  portcullis ctl gre create name=lab cloudflare_gre_endpoint=198.51.100.1 \
      customer_gre_endpoint=203.0.113.7 interface_address=10.255.0.0/31
  portcullis ctl ipsec psk office             a new key, shown once
  portcullis ctl static-route create prefix=10.1.0.0/16 nexthop=10.255.0.1 priority=100
  portcullis ctl record create --zone example.com type=A name=app.example.com content=10.0.0.50 proxied=true
  portcullis ctl record create --zone example.com type=MX name=@ content=mail.example.com priority=10
  portcullis ctl record create --zone example.com type=CAA name=@ data='{\"flags\":0,\"tag\":\"issue\",\"value\":\"ca.example\"}'
  portcullis ctl record export --zone example.com         the zone as a BIND file
  portcullis ctl record import --zone example.com FILE    adds the records of one
  portcullis ctl route list --json

A field is KEY=VALUE; a VALUE that is JSON (true, 5, [\"a\"], {\"b\":1}) is sent as such.")]
pub(crate) struct Args {
    /// What to work on.
    #[arg(value_enum)]
    noun: Noun,
    /// What to do.
    #[arg(value_enum)]
    verb: Verb,
    /// For show, update, delete and config: the object's id or name. For create and update: fields.
    #[arg(value_name = "ID | KEY=VALUE")]
    rest: Vec<String>,
    /// The zone that records and apps belong to: its name or id.
    #[arg(long)]
    zone: Option<String>,
    /// Print the API's result as JSON.
    #[arg(long)]
    json: bool,
    /// The API, without /client/v4.
    #[arg(long, env = "PORTCULLIS_API", default_value = "http://127.0.0.1:8787")]
    api: Uri,
    /// The API token; the first one is in `data_dir/token`.
    #[arg(long, env = "PORTCULLIS_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// A file that holds the token.
    #[arg(long, env = "PORTCULLIS_TOKEN_FILE")]
    token_file: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Noun {
    /// Zones: domains.
    Zone,
    /// DNS records of a zone (--zone).
    Record,
    /// Virtual networks.
    Vnet,
    /// Routes: prefixes behind tunnels.
    Route,
    /// WireGuard tunnels.
    Tunnel,
    /// GRE tunnels.
    Gre,
    /// IPsec tunnels.
    Ipsec,
    /// Direct links: interfaces of the edge.
    Interconnect,
    /// Static routes: prefixes behind the customer's side of a tunnel, with priority and weight.
    StaticRoute,
    /// TCP and UDP apps of a zone (--zone).
    App,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Verb {
    /// All of them.
    List,
    /// One of them.
    Show,
    /// Make one of KEY=VALUE fields.
    Create,
    /// Change KEY=VALUE fields of one.
    Update,
    /// Remove one.
    Delete,
    /// A tunnel's ready-made configuration for the peer.
    Config,
    /// A zone's records as a BIND file.
    Export,
    /// Adds the records of a BIND file to a zone.
    Import,
    /// A new pre-shared key of an IPsec tunnel, shown once.
    Psk,
}

impl Noun {
    fn columns(self) -> &'static [&'static str] {
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
    fn list_key(self) -> Option<&'static str> {
        match self {
            Noun::Gre => Some("gre_tunnels"),
            Noun::Ipsec => Some("ipsec_tunnels"),
            Noun::Interconnect => Some("interconnects"),
            Noun::StaticRoute => Some("routes"),
            Noun::Zone | Noun::Record | Noun::Vnet | Noun::Route | Noun::Tunnel | Noun::App => None,
        }
    }

    /// How one of them is changed: in part, or by what is named over what was.
    fn update_method(self) -> Method {
        match self.list_key() {
            Some(_) => Method::PUT,
            None => Method::PATCH,
        }
    }

    /// What a person calls one of them by, beside its id.
    fn name_field(self) -> &'static str {
        match self {
            Noun::Zone | Noun::Record | Noun::Vnet | Noun::Tunnel => "name",
            Noun::Gre | Noun::Ipsec | Noun::Interconnect => "name",
            Noun::Route => "network",
            Noun::StaticRoute => "prefix",
            Noun::App => "protocol",
        }
    }
}

/// Runs one call and prints its result.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    super::admin_runtime()?.block_on(act(args))
}

async fn act(args: &Args) -> anyhow::Result<()> {
    let token = token(args)?;
    let api = Api {
        base: &args.api,
        token: &token,
    };
    let collection = collection(args, &api).await?;
    let (id, fields) = match args.verb {
        Verb::List | Verb::Export | Verb::Import => (None, Map::new()),
        Verb::Create => (None, fields(&args.rest)?),
        Verb::Show | Verb::Update | Verb::Delete | Verb::Config | Verb::Psk => {
            let (name, rest) = args
                .rest
                .split_first()
                .context("say which one: its id or name")?;
            (
                Some(find(&api, &collection, args.noun, name).await?),
                fields(rest)?,
            )
        }
    };
    let path = id.map_or_else(|| collection.clone(), |id| format!("{collection}/{id}"));
    let result = match args.verb {
        Verb::List => Value::Array(api.list(&collection, args.noun).await?),
        Verb::Show => api.call(Method::GET, &path, None).await?,
        Verb::Create => {
            api.call(Method::POST, &path, Some(&Value::Object(fields)))
                .await?
        }
        Verb::Update => {
            api.call(
                args.noun.update_method(),
                &path,
                Some(&Value::Object(fields)),
            )
            .await?
        }
        Verb::Delete => api.call(Method::DELETE, &path, None).await?,
        Verb::Config => return config(args.noun, &api, &path).await,
        Verb::Export | Verb::Import => return zone_file(args, &api, &collection).await,
        Verb::Psk if args.noun != Noun::Ipsec => bail!("only an IPsec tunnel has a key like this"),
        Verb::Psk => {
            let path = format!("{path}/psk_generate");
            api.call(Method::POST, &path, None).await?
        }
    };
    match (&result, args.json) {
        (_, true) => table::json(&result),
        (Value::Array(rows), false) => table::say(&table::rows(rows, args.noun.columns())),
        (one, false) => table::json(one),
    }
    Ok(())
}

async fn zone_file(args: &Args, api: &Api<'_>, collection: &str) -> anyhow::Result<()> {
    if args.noun != Noun::Record {
        bail!("only records are in a zone file: portcullis ctl record export --zone example.com");
    }
    if args.verb == Verb::Export {
        let uri = api.uri(&format!("{collection}/export"))?;
        let answer = client::api(Method::GET, &uri, Some(api.token), None).await?;
        if !answer.status.is_success() {
            bail!("{}", complaint(&answer.json()?));
        }
        table::say(&String::from_utf8_lossy(&answer.body));
        return Ok(());
    }
    let path = args.rest.first().context("say which file")?;
    let file =
        std::fs::read_to_string(path).with_context(|| format!("cannot read the file {path}"))?;
    let uri = api.uri(&format!("{collection}/import"))?;
    let answer = client::upload(&uri, Some(api.token), &file).await?.json()?;
    if answer["success"] != true {
        bail!("{}", complaint(&answer));
    }
    table::json(&answer["result"]);
    Ok(())
}

async fn config(noun: Noun, api: &Api<'_>, path: &str) -> anyhow::Result<()> {
    if noun != Noun::Tunnel {
        bail!("only a tunnel has a ready-made configuration");
    }
    let answer = client::api(
        Method::GET,
        &api.uri(&format!("{path}/config"))?,
        Some(api.token),
        None,
    )
    .await?;
    if !answer.status.is_success() {
        bail!("{}", complaint(&answer.json()?));
    }
    table::say(&String::from_utf8_lossy(&answer.body));
    Ok(())
}

fn token(args: &Args) -> anyhow::Result<String> {
    match (&args.token, &args.token_file) {
        (Some(token), _) => Ok(token.clone()),
        (None, Some(path)) => Ok(std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the token file {}", path.display()))?
            .trim()
            .to_owned()),
        (None, None) => bail!("no token: set PORTCULLIS_TOKEN or PORTCULLIS_TOKEN_FILE"),
    }
}

/// `KEY=VALUE` words as a JSON object.
fn fields(words: &[String]) -> anyhow::Result<Map<String, Value>> {
    words
        .iter()
        .map(|word| {
            let (key, text) = word
                .split_once('=')
                .with_context(|| format!("'{word}' is not KEY=VALUE"))?;
            let value = serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.into()));
            Ok((key.to_owned(), value))
        })
        .collect()
}

/// The path of the collection that a noun names.
async fn collection(args: &Args, api: &Api<'_>) -> anyhow::Result<String> {
    let in_account = async |leaf: &str| {
        let accounts = api.all("/accounts").await?;
        let id = accounts.first().and_then(|account| account["id"].as_str());
        let id = id.context("the token sees no account")?;
        anyhow::Ok(format!("/accounts/{id}/{leaf}"))
    };
    let in_zone = async |leaf: &str| {
        let zone = args
            .zone
            .as_deref()
            .context("say which zone: --zone example.com")?;
        let id = find(api, "/zones", Noun::Zone, zone).await?;
        anyhow::Ok(format!("/zones/{id}/{leaf}"))
    };
    match args.noun {
        Noun::Zone => Ok("/zones".into()),
        Noun::Record => in_zone("dns_records").await,
        Noun::App => in_zone("spectrum/apps").await,
        Noun::Vnet => in_account("teamnet/virtual_networks").await,
        Noun::Route => in_account("teamnet/routes").await,
        Noun::Tunnel => in_account("wireguard_tunnels").await,
        Noun::Gre => in_account("magic/gre_tunnels").await,
        Noun::Ipsec => in_account("magic/ipsec_tunnels").await,
        Noun::Interconnect => in_account("magic/cf_interconnects").await,
        Noun::StaticRoute => in_account("magic/routes").await,
    }
}

/// The id of the one object whose id or name is `wanted`.
async fn find(api: &Api<'_>, collection: &str, noun: Noun, wanted: &str) -> anyhow::Result<String> {
    let all = api.list(collection, noun).await?;
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
struct Api<'a> {
    base: &'a Uri,
    token: &'a str,
}

impl Api<'_> {
    fn uri(&self, path: &str) -> anyhow::Result<Uri> {
        let base = self.base.to_string();
        let uri = format!("{}/client/v4{path}", base.trim_end_matches('/'));
        uri.parse()
            .with_context(|| format!("{uri} is not an address"))
    }

    /// One call; an error of the API becomes one sentence.
    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Value> {
        let answer = client::api(method, &self.uri(path)?, Some(self.token), body).await?;
        let mut envelope = answer.json()?;
        if envelope["success"] != true {
            bail!("{}", complaint(&envelope));
        }
        Ok(envelope["result"].take())
    }

    /// Every one of a collection, however its answer is shaped.
    async fn list(&self, path: &str, noun: Noun) -> anyhow::Result<Vec<Value>> {
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
    async fn all(&self, path: &str) -> anyhow::Result<Vec<Value>> {
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
fn complaint(envelope: &Value) -> String {
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
    fn a_value_that_is_json_is_sent_as_json_and_anything_else_as_text() {
        let words = [
            "proxied=true",
            "name=a.example.com",
            "list=[\"x\"]",
            "ip=10.0.0.1",
        ];
        let words: Vec<String> = words.iter().map(ToString::to_string).collect();
        let object = Value::Object(fields(&words).expect("four fields"));
        let wanted =
            json!({"proxied": true, "name": "a.example.com", "list": ["x"], "ip": "10.0.0.1"});
        assert_eq!(object, wanted);
    }

    #[test]
    fn a_complaint_names_code_sentence_and_field() {
        let envelope = json!({"success": false, "errors": [
            {"code": 1004, "message": "DNS Validation Error", "source": {"pointer": "/content"}}]});
        assert_eq!(complaint(&envelope), "1004 DNS Validation Error (/content)");
    }
}
