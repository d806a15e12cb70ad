//! `portcullis ctl`: a small client of the HTTP API: nouns, then verbs.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::ValueEnum;
use hyper::{Method, Uri};
use serde_json::{Map, Value};

use super::objects::{Api, Noun, complaint};
use super::{apply, audit, token};
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
  portcullis ctl hostname-route create hostname=wiki.corp.internal tunnel_id=<id> resolver_ips='[\"10.0.0.53\"]'
  portcullis ctl subnet set v4 network=10.240.0.0/12     another source range than 100.64.0.0/12
  portcullis ctl record create --zone example.com type=A name=app.example.com content=10.0.0.50 proxied=true
  portcullis ctl record create --zone example.com type=MX name=@ content=mail.example.com priority=10
  portcullis ctl record create --zone example.com type=CAA name=@ data='{\"flags\":0,\"tag\":\"issue\",\"value\":\"ca.example\"}'
  portcullis ctl record export --zone example.com         the zone as a BIND file
  portcullis ctl record import --zone example.com FILE    adds the records of one
  portcullis ctl certificate create --zone example.com certificate=@chain.pem private_key=@key.pem
  portcullis ctl setting set always_use_https on --zone example.com
  portcullis ctl nodes                       the edges that follow the control plane
  portcullis ctl route list --json
  portcullis ctl token create name=ci permissions=\"DNS Write, Zone Read\" --zone example.com     shown once
  portcullis ctl tunnel delete office --dry-run        what would go along
  portcullis ctl explain app.example.com               the record, routes and tunnels of a request, and why
  portcullis ctl audit zone.name=example.com           who changed what, when and from where
  portcullis ctl apply -f objects.toml                 shows the difference to a file, then asks

A field is KEY=VALUE; a VALUE that is JSON (true, 5, [\"a\"], {\"b\":1}) is sent as such.")]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
    /// The zone that records and apps belong to: its name or id.
    #[arg(long, global = true)]
    zone: Option<String>,
    /// The account, by name or id, where the token sees several.
    #[arg(long, global = true, env = "PORTCULLIS_ACCOUNT")]
    account: Option<String>,
    /// Print the API's result as JSON.
    #[arg(long, global = true)]
    json: bool,
    /// The API, without /client/v4.
    #[arg(
        long,
        global = true,
        env = "PORTCULLIS_API",
        default_value = "http://127.0.0.1:8787"
    )]
    api: Uri,
    /// For an https:// API: PEM file with its certificate, or with its authority's.
    #[arg(long, global = true, env = "PORTCULLIS_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The API token; the first one is in `data_dir/token`.
    #[arg(long, global = true, env = "PORTCULLIS_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// A file that holds the token.
    #[arg(long, global = true, env = "PORTCULLIS_TOKEN_FILE")]
    token_file: Option<PathBuf>,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Zones: domains.
    Zone(Words),
    /// DNS records of a zone (--zone).
    Record(Words),
    /// Virtual networks.
    Vnet(Words),
    /// Routes: prefixes behind tunnels.
    Route(Words),
    /// WireGuard tunnels.
    Tunnel(Words),
    /// GRE tunnels.
    Gre(Words),
    /// IPsec tunnels.
    Ipsec(Words),
    /// Direct links: interfaces of the edge.
    Interconnect(Words),
    /// Static routes: prefixes behind the customer's side of a tunnel, with priority and weight.
    StaticRoute(Words),
    /// Hostname routes: names that resolvers behind a tunnel know.
    HostnameRoute(Words),
    /// Where private networks see the edge's connections come from: list, set v4 network=10.240.0.0/12.
    Subnet(Words),
    /// TCP and UDP apps of a zone (--zone).
    App(Words),
    /// Certificates of your own for the names of a zone (--zone).
    Certificate(Words),
    /// Settings of a zone (--zone): list, get NAME, set NAME VALUE.
    Setting(Words),
    /// API tokens of the user; `create` shows the secret once.
    Token(Words),
    /// Edges that follow the control plane; `portcullis control enrol` makes them.
    #[command(alias = "nodes")]
    Node(Words),
    /// Which record, routes and tunnels a request for a host would take, and why.
    Explain {
        /// The host name.
        host: String,
    },
    /// Who changed what, when and from where.
    Audit(audit::Args),
    /// Bring what exists in line with a file of objects: shows the difference, then asks.
    Apply(apply::Args),
}

#[derive(Debug, clap::Args)]
struct Words {
    /// What to do.
    #[arg(value_enum, default_value = "list")]
    verb: Verb,
    /// For show, update, delete and config: the object's id or name. For create and update: fields.
    #[arg(value_name = "ID | KEY=VALUE")]
    rest: Vec<String>,
    /// With delete: only list what would go along.
    #[arg(long)]
    dry_run: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Verb {
    /// All of them.
    List,
    /// One of them.
    #[value(alias = "get")]
    Show,
    /// Make one of KEY=VALUE fields.
    Create,
    /// Change KEY=VALUE fields of one.
    #[value(alias = "set")]
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

/// Runs one call and prints its result.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    super::admin_runtime()?.block_on(act(args))
}

async fn act(args: &Args) -> anyhow::Result<()> {
    let api = Api {
        base: args.api.clone(),
        caller: client::Caller {
            token: secret(args)?,
            authorities: args.ca.clone(),
        },
        account: args.account.clone(),
    };
    let (noun, words) = match &args.what {
        What::Zone(words) => (Noun::Zone, words),
        What::Record(words) => (Noun::Record, words),
        What::Vnet(words) => (Noun::Vnet, words),
        What::Route(words) => (Noun::Route, words),
        What::Tunnel(words) => (Noun::Tunnel, words),
        What::Gre(words) => (Noun::Gre, words),
        What::Ipsec(words) => (Noun::Ipsec, words),
        What::Interconnect(words) => (Noun::Interconnect, words),
        What::StaticRoute(words) => (Noun::StaticRoute, words),
        What::HostnameRoute(words) => (Noun::HostnameRoute, words),
        What::Subnet(words) => (Noun::Subnet, words),
        What::App(words) => (Noun::App, words),
        What::Certificate(words) => (Noun::Certificate, words),
        What::Setting(words) => (Noun::Setting, words),
        What::Token(words) => (Noun::Token, words),
        What::Node(words) => (Noun::Node, words),
        What::Explain { host } => return explain(args, &api, host).await,
        What::Audit(wanted) => return audit::run(wanted, &api, args.json).await,
        What::Apply(file) => return apply::run(file, &api, args.json).await,
    };
    if words.dry_run && words.verb != Verb::Delete {
        bail!("--dry-run goes with delete, and with apply");
    }
    let zone = args.zone.as_deref();
    let target = Target {
        noun,
        words,
        zone,
        collection: api.collection(noun, zone).await?,
    };
    match words.verb {
        Verb::Config => target.config(&api).await,
        Verb::Export => target.export(&api).await,
        Verb::Import => target.import(&api).await,
        Verb::List | Verb::Show | Verb::Create | Verb::Update | Verb::Delete | Verb::Psk => {
            let result = target.call(&api).await?;
            match (&result, args.json) {
                (_, true) => table::json(&result),
                (Value::Array(rows), false) => table::say(&table::rows(rows, noun.columns())),
                (one, false) => table::json(one),
            }
            Ok(())
        }
    }
}

/// What a verb is about.
struct Target<'a> {
    noun: Noun,
    words: &'a Words,
    zone: Option<&'a str>,
    collection: String,
}

impl Target<'_> {
    /// The path of the object that the first word names, and the other words.
    async fn one(&self, api: &Api) -> anyhow::Result<(String, &[String])> {
        let (name, rest) = self
            .words
            .rest
            .split_first()
            .context("say which one: its id or name")?;
        if self.noun == Noun::Subnet {
            // There is one of each family, and no way to read it alone.
            return Ok((
                format!("{}/cloudflare_source/{name}", self.collection),
                rest,
            ));
        }
        let id = api.find(&self.collection, self.noun, name).await?;
        Ok((format!("{}/{id}", self.collection), rest))
    }

    async fn call(&self, api: &Api) -> anyhow::Result<Value> {
        match self.words.verb {
            Verb::List => Ok(Value::Array(api.list(&self.collection, self.noun).await?)),
            Verb::Create => {
                let mut fields = fields(&self.words.rest)?;
                if self.noun == Noun::Token {
                    fields = token::spelled_out(api, self.zone, fields).await?;
                }
                if self.noun == Noun::Certificate {
                    from_files(&mut fields)?;
                }
                let body = Value::Object(fields);
                api.call(Method::POST, &self.collection, Some(&body)).await
            }
            Verb::Update => {
                let (path, rest) = self.one(api).await?;
                let mut fields = match (self.noun, rest) {
                    (Noun::Setting, [value]) if !value.contains('=') => {
                        fields(&[format!("value={value}")])?
                    }
                    _ => fields(rest)?,
                };
                if self.noun == Noun::Certificate {
                    from_files(&mut fields)?;
                }
                let body = Value::Object(fields);
                api.call(self.noun.update_method(), &path, Some(&body))
                    .await
            }
            Verb::Delete => {
                let (path, _) = self.one(api).await?;
                let query = if self.words.dry_run {
                    "?dry_run=true"
                } else {
                    ""
                };
                api.call(Method::DELETE, &format!("{path}{query}"), None)
                    .await
            }
            Verb::Psk if self.noun != Noun::Ipsec => {
                bail!("only an IPsec tunnel has a key like this")
            }
            Verb::Psk => {
                let (path, _) = self.one(api).await?;
                api.call(Method::POST, &format!("{path}/psk_generate"), None)
                    .await
            }
            Verb::Show | Verb::Config | Verb::Export | Verb::Import => {
                let (path, _) = self.one(api).await?;
                api.call(Method::GET, &path, None).await
            }
        }
    }

    async fn config(&self, api: &Api) -> anyhow::Result<()> {
        if self.noun != Noun::Tunnel {
            bail!("only a WireGuard tunnel has a ready-made configuration: ctl tunnel config NAME");
        }
        let (path, _) = self.one(api).await?;
        say_text(api, &format!("{path}/config")).await
    }

    async fn export(&self, api: &Api) -> anyhow::Result<()> {
        self.must_be_records()?;
        say_text(api, &format!("{}/export", self.collection)).await
    }

    async fn import(&self, api: &Api) -> anyhow::Result<()> {
        self.must_be_records()?;
        let path = self.words.rest.first().context("say which file")?;
        let file = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the file {path}"))?;
        let uri = api.uri(&format!("{}/import", self.collection))?;
        let answer = client::upload(&uri, &api.caller, &file).await?.json()?;
        if answer["success"] != true {
            bail!("{}", complaint(&answer));
        }
        table::json(&answer["result"]);
        Ok(())
    }

    fn must_be_records(&self) -> anyhow::Result<()> {
        if self.noun != Noun::Record {
            bail!(
                "only records are in a zone file: portcullis ctl record export --zone example.com"
            );
        }
        Ok(())
    }
}

/// Prints an answer that is text and not in the envelope.
async fn say_text(api: &Api, path: &str) -> anyhow::Result<()> {
    let answer = client::api(Method::GET, &api.uri(path)?, &api.caller, None).await?;
    if !answer.status.is_success() {
        bail!("{}", complaint(&answer.json()?));
    }
    table::say(&String::from_utf8_lossy(&answer.body));
    Ok(())
}

async fn explain(args: &Args, api: &Api, host: &str) -> anyhow::Result<()> {
    if host.is_empty()
        || !host
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-._*".contains(&b))
    {
        bail!("'{host}' is not a host name: write app.example.com, and IDNs as xn--...");
    }
    let path = api.in_account(&format!("explain/{host}")).await?;
    let result = api.call(Method::GET, &path, None).await?;
    if args.json {
        table::json(&result);
        return Ok(());
    }
    let steps = result["steps"].as_array().into_iter().flatten();
    for step in steps.filter_map(Value::as_str) {
        table::say(step);
    }
    table::say(match result["is_served"].as_bool() {
        Some(true) => "The edge serves it.",
        Some(false) | None => "As it is, the edge serves nothing there.",
    });
    Ok(())
}

fn secret(args: &Args) -> anyhow::Result<String> {
    match (&args.token, &args.token_file) {
        (Some(token), _) => Ok(token.clone()),
        (None, Some(path)) => Ok(std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the token file {}", path.display()))?
            .trim()
            .to_owned()),
        (None, None) => bail!("no token: set PORTCULLIS_TOKEN or PORTCULLIS_TOKEN_FILE"),
    }
}

/// Of a certificate: `certificate=@FILE` and `private_key=@FILE` are what is in the files. The chain is
/// served as it is, unless something else is said.
fn from_files(fields: &mut Map<String, Value>) -> anyhow::Result<()> {
    for name in ["certificate", "private_key"] {
        let path = fields.get(name).and_then(Value::as_str);
        let Some(path) = path.and_then(|text| text.strip_prefix('@')) else {
            continue;
        };
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the file {path}"))?;
        fields.insert(name.to_owned(), Value::String(text));
    }
    let bundle = fields.entry("bundle_method");
    bundle.or_insert_with(|| Value::String("force".to_owned()));
    Ok(())
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
}
