//! `portcullis ctl`: a small client of the HTTP API: nouns, then verbs.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::ValueEnum;
use hyper::{Method, Uri};
use serde_json::{Map, Value};

use super::objects::{Api, Noun, collection, complaint, find, in_account};
use crate::{client, table};

/// Arguments of `portcullis ctl`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  portcullis ctl zone create name=example.com
  portcullis ctl tunnel create name=office generate_peer_key=true
  portcullis ctl tunnel config office          the peer's ready-made WireGuard configuration
  portcullis ctl route create network=10.0.0.0/24 tunnel_id=<id>
  portcullis ctl record create --zone example.com type=A name=app.example.com content=10.0.0.50 proxied=true
  portcullis ctl record create --zone example.com type=MX name=@ content=mail.example.com priority=10
  portcullis ctl record create --zone example.com type=CAA name=@ data='{\"flags\":0,\"tag\":\"issue\",\"value\":\"ca.example\"}'
  portcullis ctl record export --zone example.com         the zone as a BIND file
  portcullis ctl record import --zone example.com FILE    adds the records of one
  portcullis ctl route list --json
  portcullis ctl tunnel delete office --dry-run        what would go along
  portcullis ctl explain app.example.com               record, route and tunnel of a request
  portcullis ctl apply -f edge-objects.toml

A field is KEY=VALUE; a VALUE that is JSON (true, 5, [\"a\"], {\"b\":1}) is sent as such.")]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
    /// The zone that records and apps belong to: its name or id.
    #[arg(long, global = true)]
    zone: Option<String>,
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
    /// TCP and UDP apps of a zone (--zone).
    App(Words),
    /// API tokens.
    Token(Words),
    /// Which record, route and tunnel a request for a host would take, and why.
    Explain {
        /// The host name.
        host: String,
    },
    /// Bring what exists in line with a file of objects: shows the difference, then asks.
    Apply(super::apply::Args),
}

#[derive(Debug, clap::Args)]
struct Words {
    /// What to do.
    #[arg(value_enum)]
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
}

/// Runs one call and prints its result.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    super::admin_runtime()?.block_on(act(args))
}

async fn act(args: &Args) -> anyhow::Result<()> {
    let api = Api {
        base: args.api.clone(),
        caller: client::Caller {
            token: token(args)?,
            authorities: args.ca.clone(),
        },
    };
    let zone = args.zone.as_deref();
    match &args.what {
        What::Zone(words) => objects(args, &api, Noun::Zone, words).await,
        What::Record(words) => objects(args, &api, Noun::Record, words).await,
        What::Vnet(words) => objects(args, &api, Noun::Vnet, words).await,
        What::Route(words) => objects(args, &api, Noun::Route, words).await,
        What::Tunnel(words) => objects(args, &api, Noun::Tunnel, words).await,
        What::App(words) => objects(args, &api, Noun::App, words).await,
        What::Token(words) => objects(args, &api, Noun::Token, words).await,
        What::Explain { host } => explain(args, &api, host).await,
        What::Apply(file) => {
            anyhow::ensure!(
                zone.is_none(),
                "each record and app of the file names its zone"
            );
            super::apply::run(file, &api, args.json).await
        }
    }
}

async fn objects(args: &Args, api: &Api, noun: Noun, words: &Words) -> anyhow::Result<()> {
    let collection = collection(noun, args.zone.as_deref(), api).await?;
    let (id, fields) = match words.verb {
        Verb::List | Verb::Export | Verb::Import => (None, Map::new()),
        Verb::Create => (None, fields(&words.rest)?),
        Verb::Show | Verb::Update | Verb::Delete | Verb::Config => {
            let (name, rest) = words
                .rest
                .split_first()
                .context("say which one: its id or name")?;
            let id = find(api, &collection, noun, name).await?;
            (Some(id), fields(rest)?)
        }
    };
    let path = id.map_or_else(|| collection.clone(), |id| format!("{collection}/{id}"));
    let body = Value::Object(fields);
    let result = match words.verb {
        Verb::List => Value::Array(api.all(&collection).await?),
        Verb::Show => api.call(Method::GET, &path, None).await?,
        Verb::Create => api.call(Method::POST, &path, Some(&body)).await?,
        Verb::Update => api.call(Method::PATCH, &path, Some(&body)).await?,
        Verb::Delete if words.dry_run => {
            let asked = format!("{path}?dry_run=true");
            api.call(Method::DELETE, &asked, None).await?
        }
        Verb::Delete => api.call(Method::DELETE, &path, None).await?,
        Verb::Config => return config(noun, api, &path).await,
        Verb::Export | Verb::Import => return zone_file(noun, words, api, &collection).await,
    };
    match (&result, args.json) {
        (_, true) => table::json(&result),
        (Value::Array(rows), false) => table::say(&table::rows(rows, noun.columns())),
        (one, false) => table::json(one),
    }
    Ok(())
}

async fn zone_file(noun: Noun, words: &Words, api: &Api, collection: &str) -> anyhow::Result<()> {
    if noun != Noun::Record {
        bail!("only records are in a zone file: portcullis ctl record export --zone example.com");
    }
    if words.verb == Verb::Export {
        let uri = api.uri(&format!("{collection}/export"))?;
        let answer = client::api(Method::GET, &uri, &api.caller, None).await?;
        if !answer.status.is_success() {
            bail!("{}", complaint(&answer.json()?));
        }
        table::say(&String::from_utf8_lossy(&answer.body));
        return Ok(());
    }
    let path = words.rest.first().context("say which file")?;
    let file =
        std::fs::read_to_string(path).with_context(|| format!("cannot read the file {path}"))?;
    let uri = api.uri(&format!("{collection}/import"))?;
    let answer = client::upload(&uri, &api.caller, &file).await?.json()?;
    if answer["success"] != true {
        bail!("{}", complaint(&answer));
    }
    table::json(&answer["result"]);
    Ok(())
}

async fn explain(args: &Args, api: &Api, host: &str) -> anyhow::Result<()> {
    let path = in_account(api, &format!("explain/{host}")).await?;
    let result = api.call(Method::GET, &path, None).await?;
    if args.json {
        table::json(&result);
        return Ok(());
    }
    let steps = result["steps"].as_array().into_iter().flatten();
    for step in steps.filter_map(Value::as_str) {
        table::say(step);
    }
    Ok(())
}

async fn config(noun: Noun, api: &Api, path: &str) -> anyhow::Result<()> {
    if noun != Noun::Tunnel {
        bail!("only a tunnel has a ready-made configuration");
    }
    let answer = client::api(
        Method::GET,
        &api.uri(&format!("{path}/config"))?,
        &api.caller,
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
