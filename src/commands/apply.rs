//! `portcullis ctl apply`: makes and changes objects until they are as a file says; deletes nothing.

use std::collections::HashMap;
use std::io::{BufRead as _, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use hyper::Method;
use serde_json::{Map, Value};

use super::objects::{Api, Noun};
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
  generate_peer_key = true
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
  vnet = \"lab\"

The kinds are zone, vnet, tunnel (WireGuard), gre, ipsec, interconnect, route, static_route, hostname_route, record and app.
zone, vnet and tunnel name other objects, of the file or not; all other fields are the API's. What the file does
not name stays as it is, and nothing is deleted. A record is the one of its name and type, of several that with
its content; a route is that of its network and vnet, a static route that of its prefix and nexthop.")]
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
const KINDS: [(&str, Noun); 11] = [
    ("zone", Noun::Zone),
    ("vnet", Noun::Vnet),
    ("tunnel", Noun::Tunnel),
    ("gre", Noun::Gre),
    ("ipsec", Noun::Ipsec),
    ("interconnect", Noun::Interconnect),
    ("route", Noun::Route),
    ("static_route", Noun::StaticRoute),
    ("hostname_route", Noun::HostnameRoute),
    ("record", Noun::Record),
    ("app", Noun::App),
];

/// Fields by which an object names another one, the API's field for its id, and where it is.
const REFERENCES: [(&str, &str, Noun); 2] = [
    ("vnet", "virtual_network_id", Noun::Vnet),
    ("tunnel", "tunnel_id", Noun::AnyTunnel),
];

/// Shows the difference, asks, and applies the file.
pub(super) async fn run(args: &Args, api: &Api, is_json: bool) -> anyhow::Result<()> {
    let wanted = read(&args.file)?;
    let shown = Run::new(api, &wanted, true).all().await?;
    if is_json {
        let lines = shown.iter().map(|line| Value::from(line.as_str()));
        table::json(&Value::Array(lines.collect()));
    } else if shown.is_empty() {
        table::say("nothing to do");
    } else {
        shown.iter().for_each(|line| table::say(line));
    }
    if shown.is_empty() || args.dry_run || !(args.yes || is_agreed()?) {
        return Ok(());
    }
    let done = Run::new(api, &wanted, false).all().await?;
    if !is_json {
        table::say(&format!("{} applied", done.len()));
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

/// The objects of a file, by kind.
type Wanted = Vec<(&'static str, Noun, Vec<Map<String, Value>>)>;

fn read(path: &Path) -> anyhow::Result<Wanted> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let is_json = path.extension().is_some_and(|end| end == "json");
    let parsed: anyhow::Result<Map<String, Value>> = match is_json {
        true => serde_json::from_str(&text).map_err(Into::into),
        false => toml::from_str(&text).map_err(Into::into),
    };
    let parsed = parsed.with_context(|| format!("{} is not right", path.display()))?;
    sorted(parsed).with_context(|| format!("{} is not right", path.display()))
}

fn sorted(mut parsed: Map<String, Value>) -> anyhow::Result<Wanted> {
    let mut wanted = Vec::new();
    for (kind, noun) in KINDS {
        let objects = match parsed.remove(kind) {
            None => continue,
            Some(Value::Array(list)) => list,
            Some(_) => bail!("'{kind}' must be a list of tables: [[{kind}]]"),
        };
        let objects = objects.into_iter().map(|object| {
            let Value::Object(fields) = object else {
                bail!("each '{kind}' must be a table: [[{kind}]]");
            };
            Ok(fields)
        });
        wanted.push((kind, noun, objects.collect::<anyhow::Result<Vec<_>>>()?));
    }
    match parsed.keys().next() {
        Some(key) => {
            let kinds = KINDS.map(|(kind, _)| kind).join(", ");
            bail!("'{key}' is none of {kinds}")
        }
        None => Ok(wanted),
    }
}

/// One pass over the file: to show what would be done, or to do it.
struct Run<'a> {
    api: &'a Api,
    wanted: &'a Wanted,
    is_shown: bool,
    /// What is in the collections that were asked for.
    there: HashMap<String, Arc<Vec<Value>>>,
}

/// An object of the file, with the ids of those that it names.
struct Resolved {
    fields: Map<String, Value>,
    collection: String,
}

impl<'a> Run<'a> {
    fn new(api: &'a Api, wanted: &'a Wanted, is_shown: bool) -> Run<'a> {
        Run {
            api,
            wanted,
            is_shown,
            there: HashMap::new(),
        }
    }

    /// One line for each object that is not as the file says.
    async fn all(&mut self) -> anyhow::Result<Vec<String>> {
        let mut lines = Vec::new();
        for (kind, noun, objects) in self.wanted {
            for object in objects {
                let name = named(*noun, object);
                let line = self.one(*noun, object).await;
                let line = line.with_context(|| format!("{kind} {name}"))?;
                lines.extend(line.map(|line| line.replacen("{}", &format!("{kind} {name}"), 1)));
            }
        }
        Ok(lines)
    }

    async fn one(
        &mut self,
        noun: Noun,
        object: &Map<String, Value>,
    ) -> anyhow::Result<Option<String>> {
        let Some(Resolved { fields, collection }) = self.resolved(noun, object).await? else {
            return Ok(Some("+ {}".to_owned()));
        };
        let there = self.list(&collection, noun).await?;
        let Some(old) = which(noun, &there, &fields, self.twins(noun, object))? else {
            if !self.is_shown {
                let body = Value::Object(fields);
                let made = self
                    .api
                    .call(Method::POST, &collection, Some(&body))
                    .await?;
                say_keys(&made);
                self.there.remove(&collection);
            }
            return Ok(Some("+ {}".to_owned()));
        };
        let changes = changes(old, &fields);
        if changes.is_empty() {
            return Ok(None);
        }
        let told = changes
            .iter()
            .map(|(field, new)| format!("{field}: {} -> {new}", old[field]));
        let line = format!("~ {{}}: {}", told.collect::<Vec<_>>().join(", "));
        if !self.is_shown {
            let path = format!("{collection}/{}", old["id"].as_str().unwrap_or_default());
            let method = noun.update_method();
            // What replaces an object says all of it.
            let body = if method == Method::PUT {
                fields
            } else {
                changes
            };
            self.api
                .call(method, &path, Some(&Value::Object(body)))
                .await?;
            self.there.remove(&collection);
        }
        Ok(Some(line))
    }

    /// Replaces names by ids; `None` when one is in the file and not made yet.
    async fn resolved(
        &mut self,
        noun: Noun,
        object: &Map<String, Value>,
    ) -> anyhow::Result<Option<Resolved>> {
        let mut fields = object.clone();
        let is_in_zone = matches!(noun, Noun::Record | Noun::App);
        let zone = match is_in_zone {
            true => text(&mut fields, "zone")?,
            false => None,
        };
        if is_in_zone && zone.is_none() {
            bail!("say which zone: zone = \"example.com\"");
        }
        for (by_name, field, of) in REFERENCES {
            let Some(name) = text(&mut fields, by_name)? else {
                continue;
            };
            let all = self.api.collection(of, None).await?;
            match self.id(&all, of, &name).await? {
                Some(id) => fields.insert(field.to_owned(), Value::String(id)),
                None => return Ok(None),
            };
        }
        let Some(zone) = zone else {
            let collection = self.api.collection(noun, None).await?;
            return Ok(Some(Resolved { fields, collection }));
        };
        let Some(id) = self.id("/zones", Noun::Zone, &zone).await? else {
            return Ok(None);
        };
        if noun == Noun::Record
            && let Some(Value::String(name)) = fields.get_mut("name")
        {
            *name = whole_name(name, &zone);
        }
        let leaf = match noun == Noun::App {
            true => "spectrum/apps",
            false => "dns_records",
        };
        let collection = format!("/zones/{id}/{leaf}");
        Ok(Some(Resolved { fields, collection }))
    }

    /// The id of what is called so; `None` when the file has it and it is not there yet.
    async fn id(&mut self, all: &str, of: Noun, name: &str) -> anyhow::Result<Option<String>> {
        let is_it = |one: &&Value| one["name"] == *name || one["id"] == *name;
        let there = self.list(all, of).await?;
        let mut found = there.iter().filter(is_it);
        match (found.next(), found.next()) {
            (Some(one), None) => Ok(one["id"].as_str().map(str::to_owned)),
            (Some(_), Some(_)) => bail!("several are called '{name}': say the id"),
            (None, _) if self.is_shown && self.names(of, name) => Ok(None),
            (None, _) => bail!("there is no '{name}', here or in the file"),
        }
    }

    /// Whether the file has an object of that name.
    fn names(&self, of: Noun, name: &str) -> bool {
        let tunnels = [Noun::Tunnel, Noun::Gre, Noun::Ipsec, Noun::Interconnect];
        let is_of = |noun: Noun| noun == of || (of == Noun::AnyTunnel && tunnels.contains(&noun));
        let lists = self.wanted.iter().filter(|(_, noun, _)| is_of(*noun));
        lists
            .flat_map(|(_, _, objects)| objects)
            .any(|object| object.get("name").is_some_and(|own| own == name))
    }

    /// How many objects of the file have the same name and type.
    fn twins(&self, noun: Noun, object: &Map<String, Value>) -> usize {
        let same = |other: &&Map<String, Value>| {
            ["zone", "name", "type"]
                .iter()
                .all(|field| other.get(*field) == object.get(*field))
        };
        let lists = self.wanted.iter().filter(|(_, of, _)| *of == noun);
        lists
            .flat_map(|(_, _, objects)| objects)
            .filter(same)
            .count()
    }

    async fn list(&mut self, collection: &str, noun: Noun) -> anyhow::Result<Arc<Vec<Value>>> {
        if let Some(there) = self.there.get(collection) {
            return Ok(Arc::clone(there));
        }
        let there = Arc::new(self.api.list(collection, noun).await?);
        self.there.insert(collection.to_owned(), Arc::clone(&there));
        Ok(there)
    }
}

/// Takes a field that must be text.
fn text(fields: &mut Map<String, Value>, name: &str) -> anyhow::Result<Option<String>> {
    match fields.remove(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => bail!("'{name}' must be a name, not {other}"),
    }
}

/// The name of a record as the API shows it.
fn whole_name(name: &str, zone: &str) -> String {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    match name.as_str() {
        "@" | "" => zone.to_owned(),
        name if name == zone || name.ends_with(&format!(".{zone}")) => name.to_owned(),
        name => format!("{name}.{zone}"),
    }
}

/// A key that was made for the peer is shown once: here.
fn say_keys(made: &Value) {
    if let Some(config) = made["config"].as_str() {
        table::say(config);
    }
    for key in ["peer_private_key", "preshared_key"] {
        if let (true, Some(secret)) = (made["config"].is_null(), made[key].as_str()) {
            table::say(&format!("{key} = {secret}"));
        }
    }
}

fn named(noun: Noun, object: &Map<String, Value>) -> String {
    let field = match noun == Noun::App {
        true => object.get("dns").map(|dns| &dns["name"]),
        false => object.get(noun.name_field()),
    };
    let name = field.and_then(Value::as_str);
    name.unwrap_or("without a name").to_owned()
}

/// The object that is meant; `None` when it is to be made.
fn which<'a>(
    noun: Noun,
    there: &'a [Value],
    fields: &Map<String, Value>,
    twins: usize,
) -> anyhow::Result<Option<&'a Value>> {
    let same: Vec<&Value> = there
        .iter()
        .filter(|old| is_same(noun, old, fields))
        .collect();
    if noun != Noun::Record {
        return match same[..] {
            [] => Ok(None),
            [one] => Ok(Some(one)),
            [_, _, ..] => bail!("several exist: say more, such as vnet = \"name\""),
        };
    }
    let has = |old: &&&Value| {
        let of = |field: &str| fields.get(field).is_some_and(|new| old[field] == *new);
        of("content") || of("data")
    };
    match (same.iter().find(has), &same[..]) {
        (Some(exact), _) => Ok(Some(*exact)),
        (None, [one]) if twins == 1 => Ok(Some(*one)),
        (None, [_, _, ..]) if twins == 1 => {
            bail!("several exist, none with this content: delete those that are not wanted")
        }
        (None, _) => Ok(None),
    }
}

fn is_same(noun: Noun, old: &Value, wanted: &Map<String, Value>) -> bool {
    let is = |field: &str| wanted.get(field).is_some_and(|value| old[field] == *value);
    let is_unless_missing = |field: &str| !wanted.contains_key(field) || is(field);
    match noun {
        Noun::Record => is("name") && is("type"),
        Noun::App => {
            let name = wanted.get("dns").map(|dns| &dns["name"]);
            is("protocol") && name.is_some_and(|name| old["dns"]["name"] == *name)
        }
        Noun::Route => is("network") && is_unless_missing("virtual_network_id"),
        Noun::HostnameRoute => is("hostname"),
        Noun::StaticRoute => {
            is("prefix") && is("nexthop") && is_unless_missing("virtual_network_id")
        }
        Noun::Zone
        | Noun::Vnet
        | Noun::Tunnel
        | Noun::Gre
        | Noun::Ipsec
        | Noun::Interconnect
        | Noun::AnyTunnel
        | Noun::Token
        | Noun::Certificate
        | Noun::Setting
        | Noun::Subnet
        | Noun::Node => is("name"),
    }
}

/// The fields of which the object has another value. What it does not show cannot be compared: keys
/// that are made once.
fn changes(old: &Value, wanted: &Map<String, Value>) -> Map<String, Value> {
    let differs = |(field, value): &(&String, &Value)| {
        old.get(field.as_str())
            .is_some_and(|old| !is_as_wanted(old, value))
    };
    let changed = wanted.iter().filter(differs);
    changed
        .map(|(field, value)| (field.clone(), value.clone()))
        .collect()
}

/// Of an object, only what the file names counts.
fn is_as_wanted(old: &Value, wanted: &Value) -> bool {
    match (old, wanted) {
        (Value::Object(old), Value::Object(wanted)) => wanted
            .iter()
            .all(|(field, wanted)| old.get(field).is_some_and(|old| is_as_wanted(old, wanted))),
        (old, wanted) => old == wanted,
    }
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
        let old = json!({"id": "1", "name": "office", "mtu": 1420, "dns": {"type": "CNAME", "name": "a"}});
        let wanted = fields(json!({"name": "office", "mtu": 1380, "generate_peer_key": true}));
        assert_eq!(changes(&old, &wanted), fields(json!({"mtu": 1380})));
        assert!(changes(&old, &fields(json!({"mtu": 1420, "dns": {"name": "a"}}))).is_empty());
        assert!(!changes(&old, &fields(json!({"dns": {"name": "b"}}))).is_empty());
    }

    #[test]
    fn of_several_records_the_one_with_the_content_is_meant() {
        let one = |content: &str| json!({"name": "a.b", "type": "A", "content": content});
        let wanted = fields(one("192.0.2.2"));
        let there = [one("192.0.2.1"), one("192.0.2.2")];
        let found = which(Noun::Record, &there, &wanted, 2).expect("one has it");
        assert_eq!(found, Some(&there[1]));
        // A single one changes its content, one of two twins is another record.
        let found = which(Noun::Record, &there[..1], &wanted, 1).expect("one is there");
        assert_eq!(found, Some(&there[0]));
        let found = which(Noun::Record, &there[..1], &wanted, 2).expect("none is meant");
        assert_eq!(found, None);
        let other = fields(one("192.0.2.3"));
        assert!(which(Noun::Record, &there, &other, 1).is_err());
    }

    #[test]
    fn a_route_is_known_by_network_and_vnet_and_two_vnets_are_asked_about() {
        let there = [
            json!({"network": "10.0.0.0/8", "virtual_network_id": "v"}),
            json!({"network": "10.0.0.0/8", "virtual_network_id": "w"}),
        ];
        let wanted = fields(json!({"network": "10.0.0.0/8", "virtual_network_id": "w"}));
        let found = which(Noun::Route, &there, &wanted, 1).expect("one is in w");
        assert_eq!(found, Some(&there[1]));
        let anywhere = fields(json!({"network": "10.0.0.0/8"}));
        assert!(which(Noun::Route, &there, &anywhere, 1).is_err());
    }

    #[test]
    fn a_file_with_a_kind_that_is_none_is_refused_by_name() {
        let parsed = fields(json!({"zone": [{"name": "a"}], "tunel": []}));
        let why = sorted(parsed)
            .expect_err("there is no such kind")
            .to_string();
        assert!(
            why.contains("'tunel'") && why.contains("static_route"),
            "{why}"
        );
        assert_eq!(whole_name("@", "example.com"), "example.com");
        assert_eq!(whole_name("App", "example.com"), "app.example.com");
        assert_eq!(whole_name("a.example.com.", "example.com"), "a.example.com");
    }
}
