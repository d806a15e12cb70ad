//! Fields from words and from JSON.

use std::net::{Ipv4Addr, Ipv6Addr};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::layout::{Field, Form};
use super::text::STRING_LEN_MAX;
use super::{Fields, Item, Kind, Location, Params, RDATA_LEN_MAX, Refusal, Token, Wrong, layout};
use crate::model::host_name;

/// The words of one record, read from the front.
pub(super) struct Words<'a> {
    rest: &'a [Token],
    origin: Option<&'a str>,
}

impl<'a> Words<'a> {
    pub(super) fn new(words: &'a [Token], origin: Option<&'a str>) -> Words<'a> {
        Words {
            rest: words,
            origin,
        }
    }

    /// How many words are left.
    pub(super) fn left(&self) -> usize {
        self.rest.len()
    }

    /// Reads a field's value.
    pub(super) fn item(&mut self, field: &'static str, form: Form) -> Result<Item, Wrong> {
        let wrong = |why: String| Wrong { field, why };
        match form {
            Form::Hex | Form::Base64 => {
                let joined: Vec<u8> = self
                    .take_rest()
                    .flat_map(|word| word.bytes.clone())
                    .collect();
                let text = String::from_utf8_lossy(&joined);
                decoded(form, &text).map_err(wrong)
            }
            Form::Strings => {
                let strings = self.take_rest().map(|word| word.bytes.clone());
                strings_of(strings.collect()).map_err(wrong)
            }
            Form::Params => {
                let words: Vec<&[u8]> = self.take_rest().map(|word| &word.bytes[..]).collect();
                Params::parse(&words).map(Item::Params).map_err(wrong)
            }
            Form::Location => {
                let words: Vec<_> = self.take_rest().map(utf8).collect();
                let words: Vec<&str> = words.iter().map(AsRef::as_ref).collect();
                Location::parse(&words).map(Item::Location).map_err(wrong)
            }
            Form::Word | Form::Quoted | Form::QuotedRest => {
                let word = self.next(field)?;
                characters(form, word.bytes.clone()).map_err(wrong)
            }
            Form::Name | Form::NameOrRoot => {
                let origin = self.origin;
                let word = self.next(field)?;
                name(form, &utf8(word), origin).map_err(wrong)
            }
            Form::U8 | Form::U16 | Form::Ipv4 | Form::Ipv6 => {
                plain(form, &utf8(self.next(field)?)).map_err(wrong)
            }
        }
    }

    /// Ends the reading: nothing may be left.
    pub(super) fn finish(&self, kind: Kind) -> Result<(), Wrong> {
        if self.rest.is_empty() {
            return Ok(());
        }
        let mut fields: Vec<&str> = layout::of(kind).iter().map(|field| field.name).collect();
        if kind.has_priority() {
            fields.insert(0, "priority");
        }
        Err(Wrong {
            field: "content",
            why: format!("it has more words than its fields: {}", fields.join(", ")),
        })
    }

    fn next(&mut self, field: &'static str) -> Result<&'a Token, Wrong> {
        let (first, rest) = self.rest.split_first().ok_or_else(|| Wrong {
            field,
            why: "it is missing".to_owned(),
        })?;
        self.rest = rest;
        Ok(first)
    }

    fn take_rest(&mut self) -> impl Iterator<Item = &'a Token> + use<'a> {
        std::mem::take(&mut self.rest).iter()
    }
}

/// Reads a field of `data`.
pub(super) fn from_data(data: &mut Fields, field: &Field) -> Result<Item, Refusal> {
    let Field { name: at, form } = *field;
    match form {
        Form::U8 => {
            let given = data.integer(at, 0..=u8::MAX)?;
            return data.required(at, given).map(Item::Byte);
        }
        Form::U16 => {
            let given = data.integer(at, 0..=u16::MAX)?;
            return data.required(at, given).map(Item::Number);
        }
        Form::Location => return Location::from_data(data).map(Item::Location),
        Form::Params => {
            let text = data.string(at, RDATA_LEN_MAX)?.unwrap_or_default();
            let words = super::tokens(&text).map_err(|why| refused(data, at, &why))?;
            let words: Vec<&[u8]> = words.iter().map(|word| &word.bytes[..]).collect();
            let params = Params::parse(&words).map_err(|why| refused(data, at, &why))?;
            return Ok(Item::Params(params));
        }
        Form::Ipv4
        | Form::Ipv6
        | Form::Name
        | Form::NameOrRoot
        | Form::Word
        | Form::Quoted
        | Form::QuotedRest
        | Form::Hex
        | Form::Base64
        | Form::Strings => {}
    }
    let given = data.string(at, RDATA_LEN_MAX)?;
    // Most rules of NAPTR leave one of these out, and clients do not send empty ones.
    let may_lack = form == Form::Quoted;
    let text = match given {
        None if may_lack => String::new(),
        given => data.required(at, given)?,
    };
    let item = if form.is_text() {
        characters(form, text.into_bytes())
    } else if matches!(form, Form::Hex | Form::Base64) {
        decoded(form, &text)
    } else {
        name(form, &text, None)
    };
    item.map_err(|why| refused(data, at, &why))
}

fn refused(data: &Fields, at: &str, why: &str) -> Refusal {
    data.refuse(at, format!("'{at}': {why}."))
}

fn utf8(word: &Token) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(&word.bytes)
}

fn plain(form: Form, text: &str) -> Result<Item, String> {
    let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let number = text.parse::<u16>().ok().filter(|_| is_number);
    let address = text.parse::<Ipv6Addr>().ok();
    let (item, wanted) = if form == Form::U8 {
        let byte = number.and_then(|number| u8::try_from(number).ok());
        (byte.map(Item::Byte), "a whole number from 0 to 255")
    } else if form == Form::U16 {
        (number.map(Item::Number), "a whole number from 0 to 65535")
    } else if form == Form::Ipv4 {
        let octets = text.parse().ok().map(|ip: Ipv4Addr| ip.octets().to_vec());
        (octets.map(Item::Bytes), "a valid IPv4 address")
    } else {
        let address = address.filter(|ip| ip.to_ipv4_mapped().is_none());
        let octets = address.map(|ip| ip.octets().to_vec());
        (octets.map(Item::Bytes), "a valid IPv6 address")
    };
    item.ok_or_else(|| format!("it must be {wanted}"))
}

fn name(form: Form, text: &str, origin: Option<&str>) -> Result<Item, String> {
    let root = || Ok(Item::Name(String::new()));
    let normal = match (text, origin) {
        (".", _) if form == Form::NameOrRoot => return root(),
        ("@", Some(origin)) => origin.to_owned(),
        (text, Some(origin)) if !text.ends_with('.') => format!("{text}.{origin}"),
        (text, _) => text.to_owned(),
    };
    let normal = host_name::normal(&normal).map_err(|why| why.trim_end_matches('.').to_owned())?;
    Ok(Item::Name(normal))
}

fn characters(form: Form, bytes: Vec<u8>) -> Result<Item, String> {
    if form.has_length() && bytes.len() > STRING_LEN_MAX {
        return Err(format!("it may have at most {STRING_LEN_MAX} bytes"));
    }
    let is_word = !bytes.is_empty() && bytes.iter().all(u8::is_ascii_alphanumeric);
    if form != Form::Word {
        return Ok(Item::Bytes(bytes));
    }
    // RFC 8659, section 4.1; upper and lower case mean the same.
    match is_word {
        true => Ok(Item::Bytes(bytes.to_ascii_lowercase())),
        false => Err("it must be letters and digits".to_owned()),
    }
}

fn strings_of(strings: Vec<Vec<u8>>) -> Result<Item, String> {
    match strings.iter().map(Vec::len).max() {
        None => Err("it is empty".to_owned()),
        Some(longest) if longest > STRING_LEN_MAX => Err(format!(
            "a string in quotes may have at most {STRING_LEN_MAX} bytes"
        )),
        Some(_) => Ok(Item::Strings(strings)),
    }
}

fn decoded(form: Form, text: &str) -> Result<Item, String> {
    let compact: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    let (bytes, wanted) = if form == Form::Hex {
        (from_hex(&compact), "pairs of hex digits")
    } else {
        (STANDARD.decode(&compact).ok(), "base64")
    };
    match bytes {
        Some(bytes) if !bytes.is_empty() => Ok(Item::Bytes(bytes)),
        Some(_) | None => Err(format!("it must be {wanted}")),
    }
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text
        .chars()
        .map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0)?;
    Some(
        digits
            .chunks(2)
            .map(|pair| pair[0] << 4 | pair[1])
            .collect(),
    )
}
