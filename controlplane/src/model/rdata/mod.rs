//! What a record says, by its type: one table of fields ([`layout`]) for reading, showing and sending.
//!
//! In: the text of a zone file, or the fields of `data`. Out: both of them in normal form, and the
//! bytes that DNS carries. State: none.

mod layout;
mod location;
mod params;
mod read;
mod text;

use serde_json::{Map, Value, json};

use super::record::Kind;
use super::{Fields, Refusal};
use layout::Form;
use location::Location;
use params::Params;

pub use text::{Token, tokens};

/// Longest RDATA, in bytes. Far below what DNS allows (65,535): an answer with a few records of a
/// name has to fit into a message over TCP.
pub const RDATA_LEN_MAX: usize = 8_192;

/// Why text is not the content of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// The field of the type.
    pub field: &'static str,
    /// What the field must be.
    pub why: String,
}

/// What a record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rdata {
    kind: Kind,
    priority: Option<u16>,
    items: Vec<Item>,
}

/// The value of one field.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Item {
    Byte(u8),
    Number(u16),
    /// Lower case, no trailing dot; empty for the root.
    Name(String),
    /// Characters, or what hex and base64 stand for.
    Bytes(Vec<u8>),
    /// Strings of up to 255 bytes each.
    Strings(Vec<Vec<u8>>),
    Params(Params),
    Location(Location),
}

impl Rdata {
    /// Reads content as the API has it. MX, SRV and URI may begin with their priority.
    ///
    /// # Errors
    /// The field that is wrong, and why.
    pub fn parse(kind: Kind, content: &str) -> Result<Rdata, Wrong> {
        let is_raw = kind == Kind::Txt && !content.starts_with('"');
        let words = match is_raw {
            true => text::raw(content),
            false => tokens(content).map_err(|why| Wrong {
                field: "content",
                why,
            })?,
        };
        Rdata::from_tokens(kind, &words, None)
    }

    /// Reads the words of a zone file; names without a final dot are below `origin`.
    ///
    /// # Errors
    /// As [`Rdata::parse`].
    pub fn from_tokens(kind: Kind, words: &[Token], origin: Option<&str>) -> Result<Rdata, Wrong> {
        let mut words = read::Words::new(words, origin);
        let mut priority = None;
        if kind.has_priority() && words.left() > layout::of(kind).len() {
            let Item::Number(number) = words.item("priority", Form::U16)? else {
                unreachable!("a U16 is read as a number");
            };
            priority = Some(number);
        }
        let mut items = Vec::with_capacity(layout::of(kind).len());
        for field in layout::of(kind) {
            items.push(words.item(field.name, field.form)?);
        }
        words.finish(kind)?;
        Rdata {
            kind,
            priority,
            items,
        }
        .checked()
    }

    /// Reads the fields of `data`. Only SRV has its priority there.
    ///
    /// # Errors
    /// A field that is missing, wrong or unknown.
    pub fn from_data(kind: Kind, mut data: Fields) -> Result<Rdata, Refusal> {
        let mut priority = None;
        if kind == Kind::Srv {
            let given = data.integer("priority", 0..=u16::MAX)?;
            priority = Some(data.required("priority", given)?);
            // Once part of the data, today of the name: sent by older clients.
            data.ignore(&["service", "proto", "name"]);
        }
        let mut items = Vec::with_capacity(layout::of(kind).len());
        for field in layout::of(kind) {
            items.push(read::from_data(&mut data, field)?);
        }
        let rdata = Rdata {
            kind,
            priority,
            items,
        };
        let rdata = rdata
            .checked()
            .map_err(|Wrong { field, why }| data.refuse(field, format!("'{field}': {why}.")))?;
        data.finish()?;
        Ok(rdata)
    }

    /// Whether the type is described by `data` too.
    pub fn has_data(kind: Kind) -> bool {
        use Kind::{Caa, Cert, Dnskey, Ds, Https, Loc, Naptr, Smimea, Srv, Sshfp, Svcb, Tlsa, Uri};
        matches!(
            kind,
            Caa | Cert
                | Dnskey
                | Ds
                | Https
                | Loc
                | Naptr
                | Smimea
                | Srv
                | Sshfp
                | Svcb
                | Tlsa
                | Uri
        )
    }

    /// The priority that came with the content or the data.
    pub fn priority(&self) -> Option<u16> {
        self.priority
    }

    /// The same, with this priority.
    #[must_use]
    pub fn with_priority(mut self, priority: Option<u16>) -> Rdata {
        self.priority = priority.filter(|_| self.kind.has_priority());
        self
    }

    /// The content in normal form, without the priority.
    pub fn content(&self) -> String {
        let shown = layout::of(self.kind).iter().zip(&self.items);
        let words: Vec<String> = shown.map(|(field, item)| text::show(field, item)).collect();
        words.join(" ")
    }

    /// The content as a customer would write it: text without quotes where that says the same.
    pub fn plain_content(&self) -> String {
        let [Item::Strings(strings)] = self.items.as_slice() else {
            return self.content();
        };
        let text = String::from_utf8(strings.concat());
        let text = text.ok().filter(|text| !text.chars().any(char::is_control));
        let is_same = |text: &String| {
            Rdata::parse(self.kind, text).is_ok_and(|again| again.items == self.items)
        };
        text.filter(is_same).unwrap_or_else(|| self.content())
    }

    /// The content as a zone file has it: names with a final dot, the priority first.
    pub fn zone_file(&self) -> String {
        let priority = self.priority.filter(|_| self.kind.has_priority());
        let mut words: Vec<String> = priority.iter().map(ToString::to_string).collect();
        let shown = layout::of(self.kind).iter().zip(&self.items);
        words.extend(shown.map(|(field, item)| {
            let dot = if matches!(item, Item::Name(name) if !name.is_empty()) {
                "."
            } else {
                ""
            };
            text::show(field, item) + dot
        }));
        words.join(" ")
    }

    /// The fields as `data`; `None` for types that have none.
    pub fn data(&self) -> Option<Value> {
        if !Rdata::has_data(self.kind) {
            return None;
        }
        let mut data = Map::new();
        if self.kind == Kind::Srv {
            data.insert("priority".to_owned(), json!(self.priority.unwrap_or(0)));
        }
        for (field, item) in layout::of(self.kind).iter().zip(&self.items) {
            match item {
                Item::Byte(number) => data.insert(field.name.to_owned(), json!(number)),
                Item::Number(number) => data.insert(field.name.to_owned(), json!(number)),
                Item::Bytes(bytes) if field.form.is_text() => {
                    let text = String::from_utf8_lossy(bytes).into_owned();
                    data.insert(field.name.to_owned(), json!(text))
                }
                Item::Location(location) => {
                    data.extend(location.data());
                    None
                }
                Item::Name(_) | Item::Bytes(_) | Item::Strings(_) | Item::Params(_) => {
                    data.insert(field.name.to_owned(), json!(text::show(field, item)))
                }
            };
        }
        Some(Value::Object(data))
    }

    /// The RDATA. Names are not compressed.
    pub fn wire(&self) -> Vec<u8> {
        let mut out = Vec::new();
        if self.kind.has_priority() {
            out.extend(self.priority.unwrap_or(0).to_be_bytes());
        }
        for (field, item) in layout::of(self.kind).iter().zip(&self.items) {
            match item {
                Item::Byte(number) => out.push(*number),
                Item::Number(number) => out.extend(number.to_be_bytes()),
                Item::Name(name) => push_name(&mut out, name),
                Item::Bytes(bytes) if field.form.has_length() => push_string(&mut out, bytes),
                Item::Bytes(bytes) => out.extend(bytes),
                Item::Strings(strings) => strings.iter().for_each(|s| push_string(&mut out, s)),
                Item::Params(params) => params.wire(&mut out),
                Item::Location(location) => out.extend(location.wire()),
            }
        }
        out
    }

    /// The name that the record leads to, if it is of such a type; empty for the root.
    pub fn target(&self) -> Option<&str> {
        self.items.iter().find_map(|item| match item {
            Item::Name(name) => Some(name.as_str()),
            Item::Byte(_)
            | Item::Number(_)
            | Item::Bytes(_)
            | Item::Strings(_)
            | Item::Params(_)
            | Item::Location(_) => None,
        })
    }

    /// Rules on more than one field.
    fn checked(self) -> Result<Rdata, Wrong> {
        let wrong = |field, why: &str| {
            Err(Wrong {
                field,
                why: why.to_owned(),
            })
        };
        if let (Kind::Https | Kind::Svcb, [Item::Number(0), _, Item::Params(params)]) =
            (self.kind, self.items.as_slice())
            && !params.is_empty()
        {
            // RFC 9460, section 2.4.2.
            return wrong(
                "value",
                "a record of priority 0 is an alias and has no parameters",
            );
        }
        if let Some((field, made_by, wanted, bytes)) = self.digest()
            && bytes != wanted
        {
            let why = format!("a digest of type {made_by} has {wanted} bytes, not {bytes}");
            return Err(Wrong { field, why });
        }
        if self.wire().len() > RDATA_LEN_MAX {
            return wrong("content", "it is longer than 8192 bytes");
        }
        Ok(self)
    }
}

impl Rdata {
    /// The digest in it, if it is of an algorithm whose length is known: its field, the algorithm's number,
    /// how many bytes it must have, and how many it has.
    fn digest(&self) -> Option<(&'static str, u8, usize, usize)> {
        let (Some(&Item::Byte(made_by)), Some(Item::Bytes(bytes))) =
            (self.items.iter().rev().nth(1), self.items.last())
        else {
            return None;
        };
        let (field, wanted) = match (self.kind, made_by) {
            // IANA, "DS RR Type Digest Algorithms": SHA-1, SHA-256, GOST, SHA-384, GOST 2012, SM3.
            (Kind::Ds, 1) => ("digest", 20),
            (Kind::Ds, 2 | 3 | 5 | 6) => ("digest", 32),
            (Kind::Ds, 4) => ("digest", 48),
            // RFC 4255, section 3.1.2; RFC 6594, section 4.1.
            (Kind::Sshfp, 1) => ("fingerprint", 20),
            (Kind::Sshfp, 2) => ("fingerprint", 32),
            // RFC 6698, section 2.1.3.
            (Kind::Tlsa | Kind::Smimea, 1) => ("certificate", 32),
            (Kind::Tlsa | Kind::Smimea, 2) => ("certificate", 64),
            _ => return None,
        };
        Some((field, made_by, wanted, bytes.len()))
    }
}

/// Appends a name as labels, without compression.
pub fn push_name(out: &mut Vec<u8>, name: &str) {
    for label in name.split('.').filter(|label| !label.is_empty()) {
        push_string(out, label.as_bytes());
    }
    out.push(0);
}

/// A length and that many bytes. What is longer was refused when it was read.
fn push_string(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = u8::try_from(bytes.len()).unwrap_or(u8::MAX);
    out.push(length);
    out.extend(&bytes[..usize::from(length)]);
}

#[cfg(test)]
mod tests;
