//! Zone files (RFC 1035, section 5): the records of one, and a zone as one.

use super::fields::echo;
use super::host_name;
use super::rdata::{Rdata, Token, tokens};
use super::record::{Kind, Record};
use super::record_draft::Draft;
use super::zone::Zone;

/// Most records of one file. Each is checked against those of its name; a mebibyte of text, the most
/// that a request may bring, has about as many.
pub const RECORDS_MAX: usize = 20_000;

/// What marks, in a comment, how the edge treats a record.
const TAGS: &str = "cf_tags=";

/// One record of a file.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The line it begins in, from 1 on.
    pub line: usize,
    /// The record; `None` for those that every zone has by itself: SOA, and NS at its own name.
    pub draft: Option<Draft>,
}

/// A line that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadLine {
    /// From 1 on.
    pub line: usize,
    /// A sentence without its full stop.
    pub why: String,
}

/// The records of a file. `is_proxied` is for those whose comment does not say.
///
/// # Errors
/// The first line that cannot be read.
pub fn parse(text: &str, zone: &str, is_proxied: bool) -> Result<Vec<Entry>, BadLine> {
    let mut reader = Reader {
        zone,
        origin: zone.to_owned(),
        ttl: None,
        owner: None,
        is_proxied,
    };
    let mut entries = Vec::new();
    for line in lines(text)? {
        let number = line.number;
        let entry = reader
            .read(&line)
            .map_err(|why| BadLine { line: number, why })?;
        if entries.len() == RECORDS_MAX {
            let why = format!("a file may have at most {RECORDS_MAX} records");
            return Err(BadLine { line: number, why });
        }
        entries.extend(entry);
    }
    Ok(entries)
}

/// The zone as a file; `apex` are the lines of SOA and NS.
pub fn print<'a>(zone: &Zone, apex: &str, records: impl Iterator<Item = &'a Record>) -> String {
    let mut file = format!(
        ";; Domain:     {}.\n;; Serial:     {}\n;; Proxied records have their origin as content.\n\n{apex}",
        zone.name, zone.serial
    );
    for record in records {
        let Some(rdata) = record.rdata() else {
            continue;
        };
        let kind = record.kind.name();
        file += &format!(
            "{}.\t{}\tIN\t{kind}\t{}",
            record.name,
            record.ttl,
            rdata.zone_file()
        );
        file += &remark(record);
        file.push('\n');
    }
    file
}

/// The comment of a record's line: the customer's own, then how the edge treats it.
fn remark(record: &Record) -> String {
    let mut tags = Vec::new();
    if record.kind.is_proxiable() {
        tags.push(format!("cf-proxied:{}", record.proxied));
    }
    if record.settings.flatten_cname {
        tags.push("cf-flatten-cname:true".to_owned());
    }
    tags.extend(record.tags.iter().cloned());
    let mut remark = String::new();
    if let Some(comment) = &record.comment {
        remark += &format!(" {comment}");
    }
    if !tags.is_empty() {
        remark += &format!(" {TAGS}{}", tags.join(","));
    }
    match remark.is_empty() {
        true => remark,
        false => format!(" ;{remark}"),
    }
}

/// A line of a file, with those that parentheses join to it, without its comment.
struct Line {
    number: usize,
    text: String,
    has_owner: bool,
    comment: String,
}

fn lines(text: &str) -> Result<Vec<Line>, BadLine> {
    let mut lines = Vec::new();
    let mut number = 0;
    let mut rest = text.lines();
    while let Some(first) = rest.next() {
        number += 1;
        let mut line = Line {
            number,
            text: String::new(),
            has_owner: !first.starts_with([' ', '\t']),
            comment: String::new(),
        };
        let mut depth = 0_i32;
        let mut next = Some(first);
        while let Some(physical) = next {
            depth = line.take(physical, depth);
            next = if depth > 0 { rest.next() } else { None };
            number += usize::from(next.is_some());
        }
        if depth != 0 {
            let why = "a parenthesis is not closed".to_owned();
            return Err(BadLine {
                line: line.number,
                why,
            });
        }
        if !line.text.trim().is_empty() {
            lines.push(line);
        }
    }
    Ok(lines)
}

impl Line {
    /// Takes one physical line in; returns how many parentheses are open after it.
    fn take(&mut self, physical: &str, mut depth: i32) -> i32 {
        let mut is_quoted = false;
        let mut chars = physical.char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '\\' => {
                    self.text.push(c);
                    self.text.extend(chars.next().map(|(_, c)| c));
                }
                '"' => {
                    is_quoted = !is_quoted;
                    self.text.push(c);
                }
                ';' if !is_quoted => {
                    self.comment = physical[at + 1..].trim().to_owned();
                    break;
                }
                '(' if !is_quoted => {
                    depth += 1;
                    self.text.push(' ');
                }
                ')' if !is_quoted => {
                    depth -= 1;
                    self.text.push(' ');
                }
                _ => self.text.push(c),
            }
        }
        self.text.push(' ');
        depth
    }
}

struct Reader<'a> {
    zone: &'a str,
    origin: String,
    ttl: Option<u32>,
    owner: Option<String>,
    is_proxied: bool,
}

impl Reader<'_> {
    fn read(&mut self, line: &Line) -> Result<Option<Entry>, String> {
        let words = tokens(&line.text)?;
        let texts: Vec<_> = words
            .iter()
            .map(|w| String::from_utf8_lossy(&w.bytes))
            .collect();
        let Some(first) = texts.first() else {
            return Ok(None);
        };
        if first.starts_with('$') {
            self.directive(first, texts.get(1).map(AsRef::as_ref))?;
            return Ok(None);
        }
        let mut at = 0;
        if line.has_owner {
            self.owner = Some(self.absolute(first)?);
            at = 1;
        }
        let owner = self
            .owner
            .clone()
            .ok_or("no line before it names an owner")?;
        let mut ttl = self.ttl;
        // TTL and class, in either order.
        while let Some(word) = texts.get(at) {
            match (duration(word), word.to_ascii_uppercase().as_str()) {
                (Some(secs), _) => ttl = Some(secs),
                (None, "IN") => {}
                (None, "CH" | "HS" | "CS") => return Err("only the class IN is carried".to_owned()),
                (None, _) => break,
            }
            at += 1;
        }
        let kind = texts
            .get(at)
            .ok_or("the type is missing")?
            .to_ascii_uppercase();
        let is_apex_ns = kind == "NS" && owner == self.zone;
        let draft = match kind == "SOA" || is_apex_ns {
            true => None,
            false => Some(self.draft(owner, ttl, &kind, &words[at + 1..], &line.comment)?),
        };
        Ok(Some(Entry {
            line: line.number,
            draft,
        }))
    }

    fn directive(&mut self, name: &str, value: Option<&str>) -> Result<(), String> {
        let value = value.ok_or_else(|| format!("{} needs a value", echo(name)))?;
        match name {
            "$ORIGIN" => self.origin = self.absolute(value)?,
            "$TTL" => {
                let secs = duration(value).ok_or("$TTL needs a number of seconds")?;
                self.ttl = Some(secs);
            }
            _ => return Err(format!("{} is not carried here", echo(name))),
        }
        Ok(())
    }

    fn absolute(&self, name: &str) -> Result<String, String> {
        let full = match name {
            "@" => self.origin.clone(),
            name if name.ends_with('.') => name.to_owned(),
            name => format!("{name}.{}", self.origin),
        };
        host_name::normal(&full).map_err(|why| why.trim_end_matches('.').to_owned())
    }

    fn draft(
        &self,
        owner: String,
        ttl: Option<u32>,
        kind: &str,
        words: &[Token],
        comment: &str,
    ) -> Result<Draft, String> {
        if !host_name::is_within(&owner, self.zone) {
            return Err(format!("{owner} is not in the zone {}", self.zone));
        }
        let known: Kind = kind
            .parse()
            .map_err(|()| format!("records of type '{}' are not carried here", echo(kind)))?;
        let rdata = Rdata::from_tokens(known, words, Some(&self.origin))
            .map_err(|wrong| format!("{kind}, {}: {}", wrong.field, wrong.why))?;
        if let Some(secs) = ttl.filter(|secs| *secs != 1 && !(60..=86_400).contains(secs)) {
            return Err(format!(
                "a TTL is 1 (automatic) or from 60 to 86400 seconds, not {secs}"
            ));
        }
        let mut draft = Draft {
            name: Some(format!("{owner}.")),
            kind: Some(known),
            content: Some(rdata.plain_content()),
            ttl,
            priority: rdata.priority(),
            proxied: known.is_proxiable().then_some(self.is_proxied),
            ..Draft::default()
        };
        read_remark(&mut draft, comment);
        Ok(draft)
    }
}

/// The comment of a line: what [`print`] wrote there.
fn read_remark(draft: &mut Draft, comment: &str) {
    let (text, tags) = comment.split_once(TAGS).unwrap_or((comment, ""));
    let text: String = text
        .trim()
        .chars()
        .filter(|c| !c.is_control())
        .take(500)
        .collect();
    draft.comment = (!text.is_empty()).then_some(Some(text));
    let mut own = Vec::new();
    for tag in tags.split(',').map(str::trim).filter(|tag| !tag.is_empty()) {
        match tag {
            "cf-proxied:true" if draft.proxied.is_some() => draft.proxied = Some(true),
            "cf-proxied:false" if draft.proxied.is_some() => draft.proxied = Some(false),
            "cf-flatten-cname:true" => draft.flatten(),
            tag if tag.starts_with("cf-") => {}
            tag => own.push(tag.chars().filter(|c| !c.is_control()).take(100).collect()),
        }
    }
    draft.tags = (!own.is_empty()).then_some(own);
}

/// Seconds as a number, or with the units of BIND: `1h30m`.
fn duration(text: &str) -> Option<u32> {
    if !text.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let mut total = 0_u32;
    let mut digits = String::new();
    for c in text.chars() {
        if c.is_ascii_digit() {
            digits.push(c);
            continue;
        }
        let unit = match c.to_ascii_lowercase() {
            's' => 1,
            'm' => 60,
            'h' => 3_600,
            'd' => 86_400,
            'w' => 604_800,
            _ => return None,
        };
        let count: u32 = digits.parse().ok()?;
        total = total.checked_add(count.checked_mul(unit)?)?;
        digits.clear();
    }
    match digits.is_empty() {
        true => Some(total),
        false => total.checked_add(digits.parse().ok()?),
    }
}
