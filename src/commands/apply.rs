//! `portcullis ctl apply`: makes and changes objects until they are as a file says; deletes nothing.

use std::io::{BufRead as _, IsTerminal as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use hyper::Method;
use serde_json::{Map, Value};

use super::objects::{Api, Noun, collection, find};
use crate::table;

/// Arguments of `portcullis ctl apply`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example of a file, TOML or JSON:
  [[zone]]
  name = \"example.com\"
  [[vnet]]
  name = \"lab\"
  [[tunnel]]
  name = \"office\"
  vnet = \"lab\"
  peer_public_key = \"…\"
  [[route]]
  network = \"10.0.0.0/24\"
  vnet = \"lab\"
  tunnel = \"office\"
  [[record]]
  zone = \"example.com\"
  type = \"A\"
  name = \"app.example.com\"
  content = \"10.0.0.50\"
  proxied = true

zone, vnet and tunnel are names of objects; all other fields are the API's. What the file does not name
stays as it is. A record is the one of its name and type, a route that of its network and vnet.")]
pub(crate) struct Args {
    /// The file: TOML, or JSON when its name ends in .json.
    #[arg(short, long)]
    file: PathBuf,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    /// Only show the difference.
    #[arg(long)]
    dry_run: bool,
}

/// The kinds in the order in which one may name another.
const KINDS: [(&str, Noun); 5] = [
    ("zone", Noun::Zone),
    ("vnet", Noun::Vnet),
    ("tunnel", Noun::Tunnel),
    ("route", Noun::Route),
    ("record", Noun::Record),
];

/// Fields that say which other object is meant.
const ZONE: &str = "zone";

/// Applies the file. The difference is found kind by kind, so what a new object refers to exists by
/// then; with `--dry-run` a reference to an object that is yet to be made is shown by its name.
pub(super) async fn run(args: &Args, api: &Api, is_json: bool) -> anyhow::Result<()> {
    let wanted = read(&args.file)?;
    let shown = step(&wanted, api, true).await?;
    if is_json {
        table::json(&Value::from(shown.clone()));
    } else {
        shown.iter().for_each(|line| table::say(line));
    }
    if shown.is_empty() {
        if !is_json {
            table::say("nothing to do");
        }
        return Ok(());
    }
    if args.dry_run || !(args.yes || is_agreed()?) {
        return Ok(());
    }
    let done = step(&wanted, api, false).await?;
    if !is_json {
        table::say(&format!("{} changed", done.len()));
    }
    Ok(())
}

fn is_agreed() -> anyhow::Result<bool> {
    if !std::io::stdin().is_terminal() {
        bail!("nothing was changed: nobody is there to ask, so say --yes");
    }
    table::say("apply? [y/N]");
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    Ok(line.trim().eq_ignore_ascii_case("y"))
}

fn read(path: &Path) -> anyhow::Result<Map<String, Value>> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let is_json = path
        .extension()
        .is_some_and(|extension| extension == "json");
    let wrong = || format!("{} is not right", path.display());
    let wanted: Map<String, Value> = match is_json {
        true => serde_json::from_str(&text).with_context(wrong)?,
        false => toml::from_str(&text).with_context(wrong)?,
    };
    let is_known = |key: &&String| KINDS.iter().any(|(name, _)| name == key);
    if let Some(key) = wanted.keys().find(|key| !is_known(key)) {
        bail!(
            "{}: '{key}' is none of zone, vnet, tunnel, route, record",
            path.display()
        );
    }
    Ok(wanted)
}

/// The difference, one line for each object; carried out unless it is only to be shown.
async fn step(
    wanted: &Map<String, Value>,
    api: &Api,
    is_shown: bool,
) -> anyhow::Result<Vec<String>> {
    let mut lines = Vec::new();
    for (kind, noun) in KINDS {
        let list = wanted.get(kind).and_then(Value::as_array);
        for object in list.into_iter().flatten() {
            let object = object
                .as_object()
                .with_context(|| format!("a {kind} must be a table"))?;
            let one = one(kind, noun, object, api, is_shown).await;
            lines.extend(one.with_context(|| format!("{kind} {}", named(noun, object)))?);
        }
    }
    Ok(lines)
}

async fn one(
    kind: &str,
    noun: Noun,
    object: &Map<String, Value>,
    api: &Api,
    is_shown: bool,
) -> anyhow::Result<Option<String>> {
    let mut fields = object.clone();
    let zone = match noun {
        Noun::Record => fields.remove(ZONE),
        Noun::Zone | Noun::Vnet | Noun::Route | Noun::Tunnel | Noun::App | Noun::Token => None,
    };
    let zone = zone.as_ref().and_then(Value::as_str);
    let name = named(noun, object);
    for (by_name, field, of) in [
        ("vnet", "virtual_network_id", Noun::Vnet),
        ("tunnel", "tunnel_id", Noun::Tunnel),
    ] {
        let Some(Value::String(text)) = fields.remove(by_name) else {
            continue;
        };
        let all = collection(of, None, api).await?;
        let id = match find(api, &all, of, &text).await {
            Ok(id) => id,
            // It is in the file before this one, and not made yet.
            Err(_) if is_shown => return Ok(Some(format!("+ {kind} {name}"))),
            Err(why) => return Err(why),
        };
        fields.insert(field.to_owned(), Value::String(id));
    }
    let all = match collection(noun, zone, api).await {
        Ok(all) => all,
        Err(_) if is_shown && zone.is_some() => return Ok(Some(format!("+ {kind} {name}"))),
        Err(why) => return Err(why),
    };
    let there = api.all(&all).await?;
    let Some(old) = there.iter().find(|old| is_same(noun, old, &fields)) else {
        if !is_shown {
            let body = Value::Object(fields);
            let made = api.call(Method::POST, &all, Some(&body)).await?;
            say_keys(&made);
        }
        return Ok(Some(format!("+ {kind} {name}")));
    };
    let changes = changes(old, &fields);
    if changes.is_empty() {
        return Ok(None);
    }
    let told = changes
        .iter()
        .map(|(field, new)| format!("{field}: {} -> {new}", old[field]));
    let line = format!("~ {kind} {name}: {}", told.collect::<Vec<_>>().join(", "));
    if !is_shown {
        let path = format!("{all}/{}", old["id"].as_str().unwrap_or_default());
        let body = Value::Object(changes);
        api.call(Method::PATCH, &path, Some(&body)).await?;
    }
    Ok(Some(line))
}

/// A key that was made for the peer is shown once: here.
fn say_keys(made: &Value) {
    if let Some(config) = made["config"].as_str() {
        table::say(config);
    }
}

fn named(noun: Noun, object: &Map<String, Value>) -> String {
    let field = object.get(noun.name_field()).and_then(Value::as_str);
    field.unwrap_or("without a name").to_owned()
}

fn is_same(noun: Noun, old: &Value, wanted: &Map<String, Value>) -> bool {
    let is = |field: &str| wanted.get(field).is_some_and(|value| old[field] == *value);
    match noun {
        Noun::Zone | Noun::Vnet | Noun::Tunnel | Noun::Token => is("name"),
        Noun::Record => is("name") && is("type"),
        Noun::App => is("protocol"),
        Noun::Route => {
            is("network")
                && (!wanted.contains_key("virtual_network_id") || is("virtual_network_id"))
        }
    }
}

/// The fields of which the object has another value. What it does not show cannot be compared: keys
/// that are made once.
fn changes(old: &Value, wanted: &Map<String, Value>) -> Map<String, Value> {
    let differs = |(field, value): &(&String, &Value)| {
        old.get(field.as_str()).is_some_and(|old| old != *value)
    };
    let changed = wanted.iter().filter(differs);
    changed
        .map(|(field, value)| (field.clone(), value.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(value: Value) -> Map<String, Value> {
        value.as_object().cloned().unwrap_or_default()
    }

    #[test]
    fn only_what_differs_and_is_shown_is_a_change() {
        let old = json!({"id": "1", "name": "office", "mtu": 1420, "comment": ""});
        let wanted = fields(json!({"name": "office", "mtu": 1380, "generate_peer_key": true}));
        assert_eq!(changes(&old, &wanted), fields(json!({"mtu": 1380})));
        assert!(changes(&old, &fields(json!({"mtu": 1420}))).is_empty());
    }

    #[test]
    fn a_record_is_known_by_name_and_type_a_route_by_network_and_vnet() {
        let record = json!({"name": "a.b", "type": "A"});
        assert!(is_same(
            Noun::Record,
            &record,
            &fields(json!({"name": "a.b", "type": "A"}))
        ));
        assert!(!is_same(
            Noun::Record,
            &record,
            &fields(json!({"name": "a.b", "type": "TXT"}))
        ));
        let route = json!({"network": "10.0.0.0/8", "virtual_network_id": "v"});
        let other = fields(json!({"network": "10.0.0.0/8", "virtual_network_id": "w"}));
        assert!(!is_same(Noun::Route, &route, &other));
        assert!(is_same(
            Noun::Route,
            &route,
            &fields(json!({"network": "10.0.0.0/8"}))
        ));
    }
}
