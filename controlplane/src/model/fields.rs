//! Reads a JSON object field by field: wrong types, lengths and unknown names are refused by name.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde_json::{Map, Value};
use uuid::Uuid;

use super::asked::{Form, Log};
use super::refusal::Refusal;

/// Longest text shown back to the customer in a refusal; bounds what a stranger makes us repeat.
const ECHO_CHARS_MAX: usize = 64;

/// Most entries of any list in a request; the largest list in use is a tunnel's prefixes.
pub const LIST_LEN_MAX: usize = 1_000;

/// The fields of one JSON object that have not been read yet. `null` counts as absent.
#[derive(Debug)]
pub struct Fields {
    fields: Map<String, Value>,
    path: String,
    code: u32,
    log: Option<Log>,
}

impl Fields {
    /// Takes the body apart; refusals will carry `code`.
    ///
    /// # Errors
    /// When the body is not an object.
    pub fn new(body: Value, code: u32) -> Result<Fields, Refusal> {
        match body {
            Value::Object(fields) => Ok(Fields {
                fields,
                path: String::new(),
                code,
                log: None,
            }),
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_) => Err(Refusal::invalid(
                code,
                format!("The body must be a JSON object, not {}.", kind_of(&body)),
            )),
        }
    }

    /// The same, of an example: what is asked for is written down in `log`.
    #[must_use]
    pub fn logged(mut self, log: &Log) -> Fields {
        self.log = Some(log.clone());
        self
    }

    /// A refusal that points at the field.
    pub fn refuse(&self, name: &str, message: impl Into<String>) -> Refusal {
        let mut refusal = Refusal::invalid(self.code, message);
        refusal.pointer = Some(format!("{}/{name}", self.path));
        refusal
    }

    /// Whether the field is there and `null`: the customer clears it.
    pub fn is_null(&self, name: &str) -> bool {
        self.fields.get(name).is_some_and(Value::is_null)
    }

    /// The value of a field that is read later.
    pub fn peek(&self, name: &str) -> Option<&Value> {
        self.fields.get(name)
    }

    /// Whether the field is there with a value.
    pub fn has(&self, name: &str) -> bool {
        self.fields.get(name).is_some_and(|value| !value.is_null())
    }

    /// A string of at most `chars_max` characters, none of them a control character.
    ///
    /// # Errors
    /// Any other value.
    pub fn string(&mut self, name: &str, chars_max: usize) -> Result<Option<String>, Refusal> {
        self.note(name, || Form::Text { chars_max });
        match self.pull(name) {
            None => Ok(None),
            Some(Value::String(text)) => self.checked_text(name, text, chars_max).map(Some),
            Some(other) => Err(self.wrong_type(name, "a string", &other)),
        }
    }

    /// A text of lines, such as PEM, of at most `chars_max` characters; no other control characters.
    ///
    /// # Errors
    /// Any other value. The text is not shown back: it may be a key.
    pub fn lines(&mut self, name: &str, chars_max: usize) -> Result<Option<String>, Refusal> {
        self.note(name, || Form::Lines { chars_max });
        match self.pull(name) {
            None => Ok(None),
            Some(Value::String(text)) => {
                let is_fine = |c: char| !c.is_control() || matches!(c, '\n' | '\r' | '\t');
                if !text.chars().all(is_fine) {
                    let why =
                        format!("'{name}' must not contain control characters but ends of lines.");
                    return Err(self.refuse(name, why));
                }
                if text.chars().count() > chars_max {
                    let why = format!("'{name}' may have at most {chars_max} characters.");
                    return Err(self.refuse(name, why));
                }
                Ok(Some(text))
            }
            Some(other) => Err(self.wrong_type(name, "a string", &other)),
        }
    }

    /// A boolean.
    ///
    /// # Errors
    /// Any other value.
    pub fn boolean(&mut self, name: &str) -> Result<Option<bool>, Refusal> {
        self.note(name, || Form::Boolean);
        match self.pull(name) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(value)),
            Some(other) => Err(self.wrong_type(name, "true or false", &other)),
        }
    }

    /// A whole number within `range`; `1.0` counts as 1, since the official client sends ttl so.
    ///
    /// # Errors
    /// Any other value.
    pub fn integer<T>(&mut self, name: &str, range: RangeInclusive<T>) -> Result<Option<T>, Refusal>
    where
        T: TryFrom<u64> + PartialOrd + Display,
    {
        self.note(name, || Form::Integer {
            min: range.start().to_string().parse().unwrap_or(0),
            max: range.end().to_string().parse().unwrap_or(u64::MAX),
        });
        let Some(value) = self.pull(name) else {
            return Ok(None);
        };
        let number = match &value {
            Value::Number(number) => whole(number),
            Value::Null
            | Value::Bool(_)
            | Value::String(_)
            | Value::Array(_)
            | Value::Object(_) => {
                return Err(self.wrong_type(name, "a whole number", &value));
            }
        };
        let within = number
            .and_then(|number| T::try_from(number).ok())
            .filter(|number| range.contains(number));
        match within {
            Some(number) => Ok(Some(number)),
            None => {
                let message = format!(
                    "'{name}' must be a whole number from {} to {}, not {value}.",
                    range.start(),
                    range.end()
                );
                Err(self.refuse(name, message))
            }
        }
    }

    /// A string that parses as `T`; `wanted` says in words what that is.
    ///
    /// # Errors
    /// Any other value.
    pub fn parsed<T: FromStr>(&mut self, name: &str, wanted: &str) -> Result<Option<T>, Refusal> {
        let text = self.string(name, 256)?;
        self.note(name, || Form::Parsed(wanted.to_owned()));
        let Some(text) = text else {
            return Ok(None);
        };
        text.parse().map(Some).map_err(|_why| {
            self.refuse(
                name,
                format!("'{name}' must be {wanted}, not '{}'.", echo(&text)),
            )
        })
    }

    /// One of a few words, each with its meaning.
    ///
    /// # Errors
    /// Any other value.
    pub fn choice<T: Copy>(
        &mut self,
        name: &str,
        words: &[(&str, T)],
    ) -> Result<Option<T>, Refusal> {
        let text = self.string(name, 64)?;
        let all = || words.iter().map(|(word, _)| (*word).to_owned());
        self.note(name, || Form::Words(all().collect()));
        let Some(text) = text else {
            return Ok(None);
        };
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
            return Ok(Some(*value));
        }
        let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let message = format!(
            "'{name}' must be one of {}, not '{}'.",
            words.join(", "),
            echo(&text)
        );
        Err(self.refuse(name, message))
    }

    /// A UUID.
    ///
    /// # Errors
    /// Any other value.
    pub fn uuid(&mut self, name: &str) -> Result<Option<Uuid>, Refusal> {
        let uuid = self.parsed(name, "a UUID")?;
        self.note(name, || Form::Uuid);
        Ok(uuid)
    }

    /// A list of strings of at most `chars_max` characters each.
    ///
    /// # Errors
    /// Any other value, or more than [`LIST_LEN_MAX`] entries.
    pub fn strings(
        &mut self,
        name: &str,
        chars_max: usize,
    ) -> Result<Option<Vec<String>>, Refusal> {
        self.note(name, || Form::Texts { chars_max });
        let list = match self.pull(name) {
            None => return Ok(None),
            Some(Value::Array(list)) if list.len() <= LIST_LEN_MAX => list,
            Some(Value::Array(_)) => {
                let message = format!("'{name}' may have at most {LIST_LEN_MAX} entries.");
                return Err(self.refuse(name, message));
            }
            Some(other) => return Err(self.wrong_type(name, "a list of strings", &other)),
        };
        let mut texts = Vec::with_capacity(list.len());
        for (index, value) in list.into_iter().enumerate() {
            let entry = format!("{name}/{index}");
            let Value::String(text) = value else {
                return Err(self.wrong_type(&entry, "a string", &value));
            };
            texts.push(self.checked_text(&entry, text, chars_max)?);
        }
        Ok(Some(texts))
    }

    /// An object, whose refusals point below this field.
    ///
    /// # Errors
    /// Any other value.
    pub fn object(&mut self, name: &str) -> Result<Option<Fields>, Refusal> {
        let is_there = self.has(name);
        self.note(name, || Form::Object { is_there });
        match self.pull(name) {
            None => Ok(None),
            Some(Value::Object(fields)) => Ok(Some(Fields {
                fields,
                path: format!("{}/{name}", self.path),
                code: self.code,
                log: self.log.clone(),
            })),
            Some(other) => Err(self.wrong_type(name, "an object", &other)),
        }
    }

    /// A list of at most `max` objects, whose refusals point below their places in it.
    ///
    /// # Errors
    /// Any other value.
    pub fn objects(&mut self, name: &str, max: usize) -> Result<Option<Vec<Fields>>, Refusal> {
        let is_there = self.has(name);
        self.note(name, || Form::Objects { max, is_there });
        let list = match self.pull(name) {
            None => return Ok(None),
            Some(Value::Array(list)) if list.len() <= max => list,
            Some(Value::Array(_)) => {
                return Err(self.refuse(name, format!("'{name}' may have at most {max} entries.")));
            }
            Some(other) => return Err(self.wrong_type(name, "a list of objects", &other)),
        };
        let mut objects = Vec::with_capacity(list.len());
        for (index, value) in list.into_iter().enumerate() {
            let entry = format!("{name}/{index}");
            let Value::Object(fields) = value else {
                return Err(self.wrong_type(&entry, "an object", &value));
            };
            objects.push(Fields {
                fields,
                path: format!("{}/{entry}", self.path),
                code: self.code,
                log: self.log.clone(),
            });
        }
        Ok(Some(objects))
    }

    /// The value, or a refusal that says that the field is missing.
    ///
    /// # Errors
    /// When the value is `None`.
    pub fn required<T>(&self, name: &str, value: Option<T>) -> Result<T, Refusal> {
        value.ok_or_else(|| self.refuse(name, format!("'{name}' is required.")))
    }

    /// Takes the value of a field whose form the caller checks, whatever it is.
    pub fn take(&mut self, name: &str) -> Option<Value> {
        self.note(name, || Form::Any);
        self.pull(name)
    }

    /// Drops fields that a client sends back as it got them, and that cannot be set.
    pub fn ignore(&mut self, names: &[&str]) {
        for name in names {
            self.note(name, || Form::Ignored);
            self.fields.remove(*name);
        }
    }

    /// Ends the reading: what is left over is not known here, and is refused rather than lost.
    ///
    /// # Errors
    /// When a field with a value is left.
    pub fn finish(self) -> Result<(), Refusal> {
        let unknown = self.fields.iter().find(|(_, value)| !value.is_null());
        match unknown {
            None => Ok(()),
            Some((name, _)) => {
                let message = format!("'{}' is not a field that is carried here.", echo(name));
                Err(self.refuse(&echo(name), message))
            }
        }
    }

    fn pull(&mut self, name: &str) -> Option<Value> {
        self.fields.remove(name).filter(|value| !value.is_null())
    }

    fn note(&self, name: &str, form: impl FnOnce() -> Form) {
        if let Some(log) = &self.log {
            // Entries of a list are alike.
            let is_index =
                |part: &&str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
            let path = format!("{}/{name}", self.path);
            let parts: Vec<&str> = path.split('/').collect();
            let parts: Vec<&str> = parts
                .into_iter()
                .map(|p| if is_index(&p) { "*" } else { p })
                .collect();
            log.note(parts.join("/"), form());
        }
    }

    fn checked_text(&self, name: &str, text: String, max: usize) -> Result<String, Refusal> {
        if text.chars().any(char::is_control) {
            let message = format!("'{name}' must not contain control characters.");
            return Err(self.refuse(name, message));
        }
        if text.chars().count() > max {
            let message = format!("'{name}' may have at most {max} characters.");
            return Err(self.refuse(name, message));
        }
        Ok(text)
    }

    fn wrong_type(&self, name: &str, wanted: &str, got: &Value) -> Refusal {
        let message = format!("'{name}' must be {wanted}, not {}.", kind_of(got));
        self.refuse(name, message)
    }
}

/// The text as it may be shown back: bounded, without control characters.
pub fn echo(text: &str) -> String {
    let shown = text.chars().filter(|c| !c.is_control());
    shown.take(ECHO_CHARS_MAX).collect()
}

/// The same of a path, which is longer.
pub fn echo_long(text: &str) -> String {
    let shown = text.chars().filter(|c| !c.is_control());
    shown.take(4 * ECHO_CHARS_MAX).collect()
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

fn whole(number: &serde_json::Number) -> Option<u64> {
    if let Some(number) = number.as_u64() {
        return Some(number);
    }
    // Written as a float: exact below 2^53, and no field here goes so far.
    let float = number
        .as_f64()
        .filter(|f| f.fract() == 0.0 && (0.0..=4_294_967_295.0).contains(f));
    float.and_then(|f| format!("{f:.0}").parse().ok())
}
