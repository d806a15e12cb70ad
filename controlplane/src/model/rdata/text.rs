//! The words of a zone file (RFC 1035, section 5.1), and fields as such words.

use std::net::{Ipv4Addr, Ipv6Addr};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::Item;
use super::layout::{Field, Form};

/// Longest character string (RFC 1035, section 3.3).
pub(super) const STRING_LEN_MAX: usize = 255;

/// Most words of one record; a text of [`super::RDATA_LEN_MAX`] in quoted letters stays below it.
const TOKENS_MAX: usize = 2_048;

/// One word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Its bytes, without quotes and escapes.
    pub bytes: Vec<u8>,
    /// Whether it stood in quotes.
    pub is_quoted: bool,
}

/// Splits text into words: at white space, with quotes, `\X` and `\DDD`.
///
/// # Errors
/// A sentence that says what is wrong.
pub fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut rest = text.as_bytes();
    loop {
        rest = rest.trim_ascii_start();
        let Some(&first) = rest.first() else {
            return Ok(tokens);
        };
        if tokens.len() == TOKENS_MAX {
            return Err(format!("it has more than {TOKENS_MAX} words"));
        }
        let (token, after) = match first {
            b'"' => quoted(&rest[1..])?,
            _ => bare(rest)?,
        };
        tokens.push(token);
        rest = after;
    }
}

/// Text that is not in quotes, as it is: one string after another.
pub(super) fn raw(text: &str) -> Vec<Token> {
    let strings = text.as_bytes().chunks(STRING_LEN_MAX);
    strings
        .map(|bytes| Token {
            bytes: bytes.to_vec(),
            is_quoted: true,
        })
        .collect()
}

fn quoted(mut rest: &[u8]) -> Result<(Token, &[u8]), String> {
    let mut bytes = Vec::new();
    loop {
        match rest.split_first() {
            None => return Err("a quotation mark is not closed".to_owned()),
            Some((b'"', after)) => {
                let is_quoted = true;
                return Ok((Token { bytes, is_quoted }, after));
            }
            Some(_) => rest = push_byte(&mut bytes, rest)?,
        }
    }
}

fn bare(mut rest: &[u8]) -> Result<(Token, &[u8]), String> {
    let mut bytes = Vec::new();
    // A quotation mark may follow an equals sign: key="value" is one word (RFC 9460, appendix A).
    while let Some(&byte) = rest.first() {
        if byte.is_ascii_whitespace() {
            break;
        }
        if byte == b'"' {
            let (inner, after) = quoted(&rest[1..])?;
            bytes.extend(inner.bytes);
            rest = after;
        } else {
            rest = push_byte(&mut bytes, rest)?;
        }
    }
    let is_quoted = false;
    Ok((Token { bytes, is_quoted }, rest))
}

/// Takes one byte, or the one that an escape stands for; what follows it.
fn push_byte<'a>(bytes: &mut Vec<u8>, rest: &'a [u8]) -> Result<&'a [u8], String> {
    let broken = || "a backslash needs a character or three digits up to 255 after it".to_owned();
    let Some((b'\\', escape)) = rest.split_first() else {
        bytes.push(rest[0]);
        return Ok(&rest[1..]);
    };
    let digits = escape.iter().take(3).take_while(|b| b.is_ascii_digit());
    match (digits.count(), escape.first()) {
        (3, _) => {
            let value = escape[..3]
                .iter()
                .fold(0_u16, |v, d| v * 10 + u16::from(d - b'0'));
            bytes.push(u8::try_from(value).map_err(|_too_large| broken())?);
            Ok(&escape[3..])
        }
        (0, Some(byte)) => {
            bytes.push(*byte);
            Ok(&escape[1..])
        }
        _ => Err(broken()),
    }
}

/// A field's value as content shows it.
pub(super) fn show(field: &Field, item: &Item) -> String {
    match item {
        Item::Byte(number) => number.to_string(),
        Item::Number(number) => number.to_string(),
        Item::Name(name) if name.is_empty() => ".".to_owned(),
        Item::Name(name) => name.clone(),
        Item::Bytes(bytes) => show_bytes(field.form, bytes),
        Item::Strings(strings) => {
            let quoted: Vec<String> = strings.iter().map(|bytes| in_quotes(bytes)).collect();
            quoted.join(" ")
        }
        Item::Params(params) => params.to_string(),
        Item::Location(location) => location.to_string(),
    }
}

fn show_bytes(form: Form, bytes: &[u8]) -> String {
    match form {
        Form::Ipv4 => <[u8; 4]>::try_from(bytes)
            .map(|bytes| Ipv4Addr::from(bytes).to_string())
            .unwrap_or_default(),
        Form::Ipv6 => <[u8; 16]>::try_from(bytes)
            .map(|bytes| Ipv6Addr::from(bytes).to_string())
            .unwrap_or_default(),
        Form::Word => String::from_utf8_lossy(bytes).into_owned(),
        Form::Quoted | Form::QuotedRest | Form::Strings => in_quotes(bytes),
        Form::Base64 => STANDARD.encode(bytes),
        Form::Hex => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
        Form::U8 | Form::U16 | Form::Name | Form::NameOrRoot | Form::Params | Form::Location => {
            String::new()
        }
    }
}

/// Bytes in quotes; what is not printable ASCII becomes `\DDD`.
pub(super) fn in_quotes(bytes: &[u8]) -> String {
    let mut shown = String::from("\"");
    for &byte in bytes {
        match byte {
            b'"' | b'\\' => {
                shown.push('\\');
                shown.push(char::from(byte));
            }
            b' '..=b'~' => shown.push(char::from(byte)),
            _ => shown += &format!("\\{byte:03}"),
        }
    }
    shown.push('"');
    shown
}
