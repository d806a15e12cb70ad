//! A DNS record as a request describes it, and the record that makes of an old one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use uuid::Uuid;

use super::record::{INVALID, Kind, Record};
use super::zone::Zone;
use super::{Fields, HexId, Refusal, Timestamp, address, host_name};

/// What a request to make or change a record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    name: Option<String>,
    kind: Option<Kind>,
    content: Option<String>,
    ttl: Option<u32>,
    proxied: Option<bool>,
    private: Option<bool>,
    priority: Option<u16>,
    comment: Option<Option<String>>,
    tags: Option<Vec<String>>,
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
            content: fields.string("content", 2048)?,
            ttl: read_ttl(&mut fields)?,
            proxied: fields.boolean("proxied")?,
            private: read_private(&mut fields)?,
            priority: fields.integer("priority", 0..=65535)?,
            comment: (comment.is_some() || is_comment_null).then_some(comment),
            tags: fields.strings("tags", 100)?,
            virtual_network_id: (vnet.is_some() || is_vnet_null).then_some(vnet),
        };
        read_settings(&mut fields)?;
        if fields.has("data") {
            return Err(fields.refuse("data", "'data' is not carried here: give 'content'."));
        }
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

    /// A new record.
    ///
    /// # Errors
    /// A field that is missing, or does not fit another.
    pub fn create(self, id: HexId, zone: &Zone, now: Timestamp) -> Result<Record, Refusal> {
        let record = Record {
            id,
            zone_id: zone.id,
            name: required("name", self.name.clone())?,
            kind: required("type", self.kind)?,
            content: required("content", self.content.clone())?,
            ttl: 1,
            proxied: false,
            asked_private: false,
            virtual_network_id: None,
            priority: None,
            comment: None,
            tags: Vec::new(),
            created_on: now,
            modified_on: now,
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
        if let Some(name) = self.name {
            record.name = full_name(&name, &zone.name)?;
        }
        record.kind = self.kind.unwrap_or(record.kind);
        let content = self.content.unwrap_or(record.content);
        record.content = content_of(record.kind, &content)?;
        record.proxied = self.proxied.unwrap_or(record.proxied);
        record.ttl = self.ttl.unwrap_or(record.ttl);
        record.priority = self.priority.or(record.priority);
        record.comment = self.comment.unwrap_or(record.comment);
        record.tags = self.tags.unwrap_or(record.tags);
        record.virtual_network_id = self.virtual_network_id.unwrap_or(record.virtual_network_id);
        check_proxied(&record)?;
        settle_private(&mut record, self.private)?;
        if record.proxied {
            record.ttl = 1;
        }
        match (record.kind, record.priority) {
            (Kind::Mx, None) => {
                return Err(refuse("priority", 9000, "'priority' is required for MX."));
            }
            (Kind::Mx, Some(_)) => {}
            (Kind::A | Kind::Aaaa | Kind::Cname | Kind::Ns | Kind::Txt, _) => {
                record.priority = None
            }
        }
        Ok(record)
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
        let why = format!(
            "Records of type '{shown}' are not carried here; A, AAAA, CNAME, MX, NS and TXT are."
        );
        refuse("type", 9000, why)
    })
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

fn read_settings(fields: &mut Fields) -> Result<(), Refusal> {
    let Some(mut settings) = fields.object("settings")? else {
        return Ok(());
    };
    for name in ["ipv4_only", "ipv6_only", "flatten_cname"] {
        if settings.boolean(name)? == Some(true) {
            return Err(settings.refuse(name, format!("'{name}' is not carried here.")));
        }
    }
    settings.finish()
}

fn full_name(name: &str, zone: &str) -> Result<String, Refusal> {
    let name = if name == "@" { zone } else { name };
    let normal = host_name::normal(name).map_err(|why| refuse("name", 9000, why))?;
    if host_name::is_within(&normal, zone) {
        return Ok(normal);
    }
    host_name::normal(&format!("{normal}.{zone}")).map_err(|why| refuse("name", 9000, why))
}

fn content_of(kind: Kind, text: &str) -> Result<String, Refusal> {
    match kind {
        Kind::A => match text.parse::<Ipv4Addr>() {
            Ok(ip) => Ok(ip.to_string()),
            Err(_) => Err(refuse(
                "content",
                9005,
                "Content for A record must be a valid IPv4 address.",
            )),
        },
        Kind::Aaaa => match text.parse::<Ipv6Addr>() {
            Ok(ip) if ip.to_ipv4_mapped().is_none() => Ok(ip.to_string()),
            Ok(_) | Err(_) => Err(refuse(
                "content",
                9006,
                "Content for AAAA record must be a valid IPv6 address.",
            )),
        },
        Kind::Cname | Kind::Mx | Kind::Ns => host_name::normal(text).map_err(|why| {
            refuse(
                "content",
                9007,
                format!("Content for {} record: {why}", kind.name()),
            )
        }),
        Kind::Txt if text.is_empty() => Err(refuse("content", 9000, "Content is empty.")),
        Kind::Txt => Ok(text.to_owned()),
    }
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
