//! Ids of 32 hex digits, and times.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

/// The id of an account, zone, record or app: 16 bytes, written as 32 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HexId([u8; 16]);

impl HexId {
    /// The first of all ids.
    pub const MIN: HexId = HexId([0; 16]);
    /// The last of all ids.
    pub const MAX: HexId = HexId([0xff; 16]);

    /// The id of these bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> HexId {
        HexId(bytes)
    }

    /// A new id: 122 random bits.
    pub fn random() -> HexId {
        HexId(*uuid::Uuid::new_v4().as_bytes())
    }
}

impl HexId {
    /// The same 16 bytes, where the product writes an id with dashes.
    pub fn uuid(self) -> uuid::Uuid {
        uuid::Uuid::from_bytes(self.0)
    }
}

impl fmt::Display for HexId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for HexId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Not 32 lower-case hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an id is 32 lower-case hex digits")]
pub struct ParseIdError;

impl FromStr for HexId {
    type Err = ParseIdError;

    fn from_str(s: &str) -> Result<HexId, ParseIdError> {
        let is_hex = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
        if s.len() != 32 || !s.bytes().all(is_hex) {
            return Err(ParseIdError);
        }
        let value = u128::from_str_radix(s, 16).ok().ok_or(ParseIdError)?;
        Ok(HexId(value.to_be_bytes()))
    }
}

impl TryFrom<String> for HexId {
    type Error = ParseIdError;

    fn try_from(s: String) -> Result<HexId, ParseIdError> {
        s.parse()
    }
}

impl From<HexId> for String {
    fn from(id: HexId) -> String {
        id.to_string()
    }
}

/// A moment, to the microsecond; RFC 3339 in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(#[serde(with = "time::serde::rfc3339")] OffsetDateTime);

impl Timestamp {
    /// The moment, cut to whole microseconds.
    pub fn new(at: OffsetDateTime) -> Timestamp {
        let nanos = at.nanosecond() / 1_000 * 1_000;
        Timestamp(at.replace_nanosecond(nanos).unwrap_or(at))
    }

    /// The whole seconds since 1970.
    pub fn unix_secs(self) -> i64 {
        self.0.unix_timestamp()
    }

    /// This moment, that many seconds earlier.
    pub fn before(self, secs: u64) -> Timestamp {
        let secs = i64::try_from(secs).unwrap_or(i64::MAX);
        let earlier = self.0.checked_sub(time::Duration::seconds(secs));
        Timestamp(earlier.unwrap_or(OffsetDateTime::UNIX_EPOCH))
    }

    /// This moment, that much later.
    #[must_use]
    pub fn after(self, by: std::time::Duration) -> Timestamp {
        let by = time::Duration::try_from(by).unwrap_or(time::Duration::MAX);
        Timestamp(self.0.saturating_add(by))
    }

    /// How many seconds later this is.
    pub fn seconds_since(self, earlier: Timestamp) -> f64 {
        (self.0 - earlier.0).as_seconds_f64()
    }
}

impl FromStr for Timestamp {
    type Err = time::error::Parse;

    /// RFC 3339; a date alone is its first moment in UTC.
    fn from_str(text: &str) -> Result<Timestamp, time::error::Parse> {
        let whole = match text.len() {
            10 => format!("{text}T00:00:00Z"),
            _ => text.to_owned(),
        };
        let at = OffsetDateTime::parse(&whole, &time::format_description::well_known::Rfc3339)?;
        Ok(Timestamp::new(at.to_offset(time::UtcOffset::UTC)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_back_as_it_was_written() {
        let text = "023e105f4ecef8ad9ca31a8372d0c353";
        assert_eq!(text.parse::<HexId>().unwrap().to_string(), text);
        for bad in [
            "",
            "023E105f4ecef8ad9ca31a8372d0c353",
            "+23e105f4ecef8ad9ca31a8372d0c353",
        ] {
            assert_eq!(bad.parse::<HexId>(), Err(ParseIdError), "{bad}");
        }
    }
}
