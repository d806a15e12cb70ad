//! A DNS record as a request describes it, and the record that makes of an old one.

use std::net::IpAddr;

use serde_json::Value;
use uuid::Uuid;

use super::rdata::{Rdata, Wrong};
use super::record::{INVALID, Kind, Record, Settings, TTL_AUTO};
use super::zone::Zone;
use super::{Fields, HexId, Refusal, Timestamp, address, host_name};

/// Longest content in characters: base64 of [`super::rdata::RDATA_LEN_MAX`] bytes is longer, and
/// refused as such.
const CONTENT_CHARS_MAX: usize = 11_000;

/// Longest text of a TXT record (the product's own bound).
const TEXT_CHARS_MAX: usize = 4_096;

/// What a request to make or change a record says.
#[derive(Clone, Debug, Default)]
pub struct Draft {
    /// The name: full, relative to the zone, or `@`.
    pub name: Option<String>,
    /// The type.
    pub kind: Option<Kind>,
    /// What it says, as text.
    pub content: Option<String>,
    /// What it says, as fields.
    pub data: Option<Value>,
    /// Seconds; 1 is automatic.
    pub ttl: Option<u32>,
    /// Whether the edge stands in for it.
    pub proxied: Option<bool>,
    /// Whether private routing is asked for.
    pub private: Option<bool>,
    /// The preference of MX, SRV and URI.
    pub priority: Option<u16>,
    /// How it is answered.
    pub settings: Option<Settings>,
    /// The comment; `Some(None)` clears it.
    pub comment: Option<Option<String>>,
    /// The tags.
    pub tags: Option<Vec<String>>,
    /// The vnet for the record's name; `Some(None)` is the account's default.
    pub virtual_network_id: Option<Option<Uuid>>,
}

impl Draft {
    /// Reads the body of a create, overwrite or change.
    ///
    /// # Errors
    /// A field that is wrong or not carried.
    pub fn read(mut fields: Fields) -> Result<Draft, Refusal> {
        let is_comment_null = fields.is_null("comment");
        let is_vnet_null = fields.is_null("virtual_network_id");
        let comment = fields.string("comment", 500)?;
        let vnet = fields.uuid("virtual_network_id")?;
        let draft = Draft {
            name: fields.string("name", 255)?,
            kind: read_kind(&mut fields)?,
            content: fields.string("content", CONTENT_CHARS_MAX)?,
            data: read_data(&mut fields)?,
            ttl: read_ttl(&mut fields)?,
            proxied: fields.boolean("proxied")?,
            private: read_private(&mut fields)?,
            priority: fields.integer("priority", 0..=65535)?,
            settings: read_settings(&mut fields)?,
            comment: (comment.is_some() || is_comment_null).then_some(comment),
            tags: fields.strings("tags", 100)?,
            virtual_network_id: (vnet.is_some() || is_vnet_null).then_some(vnet),
        };
        fields.ignore(&[
            "id",
            "zone_id",
            "zone_name",
            "created_on",
            "modified_on",
            "proxiable",
        ]);
        fields.ignore(&["meta", "locked", "comment_modified_on", "tags_modified_on"]);
        fields.finish()?;
        Ok(draft)
    }

    /// Asks for the addresses behind a CNAME in its place.
    pub fn flatten(&mut self) {
        self.settings = Some(Settings {
            flatten_cname: true,
            ..Settings::default()
        });
    }

    /// A new record.
    ///
    /// # Errors
    /// A field that is missing, or does not fit another.
    pub fn create(self, id: HexId, zone: &Zone, now: Timestamp) -> Result<Record, Refusal> {
        let kind = required("type", self.kind)?;
        if self.data.is_none() {
            required("content", self.content.as_ref())?;
        }
        let record = Record {
            id,
            zone_id: zone.id,
            name: required("name", self.name.clone())?,
            kind,
            content: String::new(),
            ttl: TTL_AUTO,
            proxied: false,
            asked_private: false,
            virtual_network_id: None,
            priority: None,
            settings: Settings::default(),
            comment: None,
            tags: Vec::new(),
            created_on: now,
            modified_on: now,
            comment_modified_on: None,
            tags_modified_on: None,
        };
        self.apply(record, zone)
    }

    /// The record after PUT: what is absent gets its default.
    ///
    /// # Errors
    /// As [`Draft::create`].
    pub fn replace(self, old: &Record, zone: &Zone, now: Timestamp) -> Result<Record, Refusal> {
        let mut record = self.create(old.id, zone, now)?;
        record.created_on = old.created_on;
        if record.comment == old.comment {
            record.comment_modified_on = old.comment_modified_on;
        }
        if record.tags == old.tags {
            record.tags_modified_on = old.tags_modified_on;
        }
        Ok(record)
    }

    /// The record after PATCH: what is absent stays.
    ///
    /// # Errors
    /// A field that does not fit another.
    pub fn patch(self, old: &Record, zone: &Zone, now: Timestamp) -> Result<Record, Refusal> {
        let mut record = old.clone();
        record.modified_on = now;
        self.apply(record, zone)
    }

    fn apply(self, mut record: Record, zone: &Zone) -> Result<Record, Refusal> {
        if let Some(name) = &self.name {
            record.name = full_name(name, &zone.name)?;
        }
        record.kind = self.kind.unwrap_or(record.kind);
        self.apply_content(&mut record)?;
        record.proxied = self.proxied.unwrap_or(record.proxied);
        record.ttl = self.ttl.unwrap_or(record.ttl);
        record.settings = self
            .settings
            .unwrap_or_else(|| fitting(&record, &zone.name));
        if let Some(comment) = self.comment.filter(|comment| *comment != record.comment) {
            record.comment = comment;
            record.comment_modified_on = Some(record.modified_on);
        }
        if let Some(tags) = self.tags.filter(|tags| *tags != record.tags) {
            record.tags = tags;
            record.tags_modified_on = Some(record.modified_on);
        }
        record.virtual_network_id = self.virtual_network_id.unwrap_or(record.virtual_network_id);
        check_proxied(&record)?;
        settle_private(&mut record, self.private)?;
        check_settings(&record, &zone.name)?;
        if record.proxied {
            record.ttl = TTL_AUTO;
        }
        if record.kind == Kind::Ds && record.name == zone.name {
            let why =
                "A DS record is of a zone below: the one of this zone belongs into the zone above.";
            return Err(refuse("name", 9000, why));
        }
        Ok(record)
    }

    /// Sets content and priority from `content` or `data`, or keeps what there is.
    fn apply_content(&self, record: &mut Record) -> Result<(), Refusal> {
        let kind = record.kind;
        let rdata = match (&self.content, &self.data) {
            (Some(given), Some(data)) => {
                // A client sends back what it got; both must then say the same.
                let rdata = of_data(kind, data)?;
                if of_content(kind, given)?.content() != rdata.content() {
                    let why = "'content' and 'data' say different things: give one of them.";
                    return Err(refuse("data", 9000, why));
                }
                rdata
            }
            (None, Some(data)) => of_data(kind, data)?,
            (Some(given), None) => of_content(kind, given)?,
            (None, None) => of_content(kind, &record.content)?,
        };
        let text = self.content.as_ref().unwrap_or(&record.content);
        // Text stays as it was written.
        record.content = if kind == Kind::Txt {
            text.clone()
        } else {
            rdata.content()
        };
        let inside = rdata.priority();
        if let (Some(inside), Some(beside)) = (inside, self.priority)
            && kind.has_priority()
            && inside != beside
        {
            let why = format!("'priority' is {beside}, but {inside} in the content.");
            return Err(refuse("priority", 9000, why));
        }
        let priority = inside.or(self.priority).or(record.priority);
        record.priority = priority.filter(|_| kind.has_priority());
        if kind.has_priority() && record.priority.is_none() {
            let why = format!("'priority' is required for {}.", kind.name());
            return Err(refuse("priority", 9000, why));
        }
        Ok(())
    }
}

/// A refused record field: 1004 with the exact reason in the chain.
pub fn refuse(name: &str, code: u32, why: impl Into<String>) -> Refusal {
    Refusal::invalid(INVALID, "DNS Validation Error")
        .at(name)
        .because(code, why)
}

fn required<T>(name: &str, value: Option<T>) -> Result<T, Refusal> {
    value.ok_or_else(|| refuse(name, 9000, format!("'{name}' is required.")))
}

fn read_kind(fields: &mut Fields) -> Result<Option<Kind>, Refusal> {
    let Some(text) = fields.string("type", 16)? else {
        return Ok(None);
    };
    text.to_ascii_uppercase().parse().map(Some).map_err(|()| {
        let shown = super::fields::echo(&text);
        let all: Vec<&str> = Kind::ALL.iter().map(|kind| kind.name()).collect();
        let why = format!(
            "Records of type '{shown}' are not carried here; these are: {}.",
            all.join(", ")
        );
        refuse("type", 9000, why)
    })
}

/// The type decides what is in it, and may only be known from the old record.
fn read_data(fields: &mut Fields) -> Result<Option<Value>, Refusal> {
    match fields.take("data") {
        None => Ok(None),
        Some(data @ Value::Object(_)) => Ok(Some(data)),
        Some(_) => Err(fields.refuse("data", "'data' must be an object.")),
    }
}

fn read_ttl(fields: &mut Fields) -> Result<Option<u32>, Refusal> {
    let ttl = fields.integer("ttl", 1..=86_400)?;
    match ttl {
        Some(ttl) if (2..60).contains(&ttl) => Err(refuse(
            "ttl",
            9021,
            format!("TTL must be 1 (automatic) or from 60 to 86400 seconds, not {ttl}."),
        )),
        ttl => Ok(ttl),
    }
}

/// Both spellings are the same field (api.md 0, row 1).
fn read_private(fields: &mut Fields) -> Result<Option<bool>, Refusal> {
    let documented = fields.boolean("private_routing")?;
    let announced = fields.boolean("use_private_routing")?;
    match (documented, announced) {
        (Some(a), Some(b)) if a != b => Err(refuse(
            "use_private_routing",
            9000,
            "'private_routing' and 'use_private_routing' are the same field and must not differ.",
        )),
        (documented, announced) => Ok(documented.or(announced)),
    }
}

fn read_settings(fields: &mut Fields) -> Result<Option<Settings>, Refusal> {
    let Some(mut given) = fields.object("settings")? else {
        return Ok(None);
    };
    let settings = Settings {
        ipv4_only: given.boolean("ipv4_only")?.unwrap_or(false),
        ipv6_only: given.boolean("ipv6_only")?.unwrap_or(false),
        flatten_cname: given.boolean("flatten_cname")?.unwrap_or(false),
    };
    given.finish()?;
    Ok(Some(settings))
}

fn of_data(kind: Kind, data: &Value) -> Result<Rdata, Refusal> {
    if !Rdata::has_data(kind) {
        let why = format!("A {} record has no 'data': give 'content'.", kind.name());
        return Err(refuse("data", 9000, why));
    }
    let fields = Fields::new(data.clone(), INVALID)?;
    Rdata::from_data(kind, fields).map_err(|refusal| {
        let pointer = refusal.pointer.unwrap_or_default();
        let pointer = format!("data{}", pointer.trim_end_matches('/'));
        refuse(&pointer, 9000, refusal.message)
    })
}

fn of_content(kind: Kind, text: &str) -> Result<Rdata, Refusal> {
    if kind == Kind::Txt && text.chars().count() > TEXT_CHARS_MAX {
        let why = format!("Content for TXT record may have at most {TEXT_CHARS_MAX} characters.");
        return Err(refuse("content", 9000, why));
    }
    Rdata::parse(kind, text).map_err(|Wrong { field, why }| {
        let name = kind.name();
        let (code, why) = if kind == Kind::A {
            (9005, "must be a valid IPv4 address".to_owned())
        } else if kind == Kind::Aaaa {
            (9006, "must be a valid IPv6 address".to_owned())
        } else if matches!(kind, Kind::Cname | Kind::Mx | Kind::Ns | Kind::Ptr) {
            (9007, format!("is wrong: {why}"))
        } else {
            (9000, format!("is wrong in its field {field}: {why}"))
        };
        refuse("content", code, format!("Content for {name} record {why}."))
    })
}

fn full_name(name: &str, zone: &str) -> Result<String, Refusal> {
    let name = if name == "@" { zone } else { name };
    let normal = host_name::normal(name).map_err(|why| refuse("name", 9000, why))?;
    if host_name::is_within(&normal, zone) {
        return Ok(normal);
    }
    if name.ends_with('.') {
        return Err(refuse(
            "name",
            9000,
            format!("{normal} is not in the zone {zone}."),
        ));
    }
    host_name::normal(&format!("{normal}.{zone}")).map_err(|why| refuse("name", 9000, why))
}

fn check_proxied(record: &Record) -> Result<(), Refusal> {
    if record.proxied && !record.kind.is_proxiable() {
        let why = format!("A {} record cannot be proxied.", record.kind.name());
        return Err(refuse("proxied", 9041, why));
    }
    match record.ip() {
        Some(ip) if record.proxied && address::is_impossible(ip) => Err(refuse(
            "content",
            9041,
            format!("{ip} cannot be the address of an origin."),
        )),
        Some(_) | None => Ok(()),
    }
}

/// The settings that still have an effect on a record that changed in other ways.
fn fitting(record: &Record, zone: &str) -> Settings {
    let can_flatten = record.kind == Kind::Cname && !record.proxied && record.name != zone;
    Settings {
        ipv4_only: record.settings.ipv4_only && record.proxied,
        ipv6_only: record.settings.ipv6_only && record.proxied,
        flatten_cname: record.settings.flatten_cname && can_flatten,
    }
}

/// A setting that would change nothing is refused.
fn check_settings(record: &Record, zone: &str) -> Result<(), Refusal> {
    let Settings {
        ipv4_only,
        ipv6_only,
        flatten_cname,
    } = record.settings;
    let no = |name: &str, why: &str| {
        let why = format!("'{name}' would have no effect: {why}.");
        Err(refuse(&format!("settings/{name}"), 9000, why))
    };
    if (ipv4_only || ipv6_only) && !record.proxied {
        let name = if ipv4_only { "ipv4_only" } else { "ipv6_only" };
        return no(name, "it is for proxied records");
    }
    if ipv4_only && ipv6_only {
        let why = "'ipv4_only' and 'ipv6_only' exclude each other.";
        return Err(refuse("settings/ipv6_only", 9000, why));
    }
    if flatten_cname && record.kind != Kind::Cname {
        return no("flatten_cname", "it is for CNAME records");
    }
    if flatten_cname && (record.proxied || record.name == zone) {
        let why =
            "a proxied CNAME, and one at the zone's own name, is always answered with addresses";
        return no("flatten_cname", why);
    }
    Ok(())
}

/// The table of api.md 2.3.
fn settle_private(record: &mut Record, given: Option<bool>) -> Result<(), Refusal> {
    let at = "private_routing";
    if !record.kind.is_address() {
        if given.is_some() {
            return Err(refuse(
                at,
                9000,
                "'private_routing' is a field of A and AAAA records only.",
            ));
        }
        record.asked_private = false;
        return Ok(());
    }
    match (given, record.proxied) {
        (Some(true), false) => {
            return Err(refuse(
                at,
                9000,
                "A record must be proxied for private routing.",
            ));
        }
        (Some(false), true) if is_private_content(record) => {
            let why = format!(
                "{} is a private address: a proxied record of it cannot have private_routing false.",
                record.content
            );
            return Err(refuse(at, 9000, why));
        }
        (Some(given), _) => record.asked_private = given,
        (None, false) => record.asked_private = false,
        (None, true) => {}
    }
    Ok(())
}

fn is_private_content(record: &Record) -> bool {
    record
        .content
        .parse::<IpAddr>()
        .is_ok_and(address::is_private)
}
