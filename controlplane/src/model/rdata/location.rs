//! A place on the Earth (RFC 1876).

use std::fmt;

use serde_json::{Map, Value, json};

use super::{Fields, Refusal};

/// The equator and the prime meridian, in thousandths of a second of arc.
const CENTER: i64 = 1 << 31;

/// The reference of the altitude: 100,000 m below the spheroid, in centimetres.
const ALTITUDE_BASE: i64 = 10_000_000;

/// What a size or precision has when it is not given: 1 m, 10 km, 10 m (RFC 1876, section 3).
const DEFAULTS: [u8; 3] = [0x12, 0x16, 0x13];

/// What the wire has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Location {
    /// Size, horizontal and vertical precision: mantissa and power of ten, in centimetres.
    sizes: [u8; 3],
    latitude: u32,
    longitude: u32,
    altitude: u32,
}

/// Degrees, minutes and thousandths of a second on one axis, and the letter of the side.
struct Angle {
    degrees: i64,
    minutes: i64,
    millis: i64,
    side: String,
}

/// One axis: its letters, and its most degrees.
struct Axis {
    name: &'static str,
    letters: [&'static str; 2],
    degrees_max: i64,
}

const LATITUDE: Axis = Axis {
    name: "lat",
    letters: ["N", "S"],
    degrees_max: 90,
};

const LONGITUDE: Axis = Axis {
    name: "long",
    letters: ["E", "W"],
    degrees_max: 180,
};

impl Location {
    /// Reads `d [m [s]] N|S d [m [s]] E|W alt[m] [size[m] [hp[m] [vp[m]]]]`.
    pub(super) fn parse(words: &[&str]) -> Result<Location, String> {
        let (latitude, rest) = read_angle(words, &LATITUDE)?;
        let (longitude, rest) = read_angle(rest, &LONGITUDE)?;
        let (altitude, rest) = rest.split_first().ok_or("the altitude is missing")?;
        let mut sizes = DEFAULTS;
        if rest.len() > sizes.len() {
            return Err("it has more words than a place has".to_owned());
        }
        for (size, word) in sizes.iter_mut().zip(rest) {
            *size = packed(hundredths(word)?)?;
        }
        Ok(Location {
            sizes,
            latitude: latitude.encode(&LATITUDE)?,
            longitude: longitude.encode(&LONGITUDE)?,
            altitude: encode_altitude(hundredths(altitude)?)?,
        })
    }

    /// Reads the fields of `data`.
    pub(super) fn from_data(data: &mut Fields) -> Result<Location, Refusal> {
        let mut words = Vec::new();
        for axis in [&LATITUDE, &LONGITUDE] {
            for part in ["degrees", "minutes", "seconds"] {
                words.push(number(data, &format!("{}_{part}", axis.name), "0")?);
            }
            let at = format!("{}_direction", axis.name);
            let side = data.string(&at, 1)?;
            words.push(data.required(&at, side)?);
        }
        for (at, default) in [
            ("altitude", "0"),
            ("size", "1"),
            ("precision_horz", "10000"),
            ("precision_vert", "10"),
        ] {
            words.push(number(data, at, default)?);
        }
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        Location::parse(&words).map_err(|why| data.refuse("", format!("'data': {why}.")))
    }

    /// The fields of `data`.
    pub(super) fn data(self) -> Map<String, Value> {
        let mut data = Map::new();
        for (axis, value) in [(&LATITUDE, self.latitude), (&LONGITUDE, self.longitude)] {
            let angle = Angle::decode(value, axis);
            data.insert(format!("{}_degrees", axis.name), json!(angle.degrees));
            data.insert(format!("{}_minutes", axis.name), json!(angle.minutes));
            data.insert(
                format!("{}_seconds", axis.name),
                decimal(angle.millis, 1_000),
            );
            data.insert(format!("{}_direction", axis.name), json!(angle.side));
        }
        let centimetres = i64::from(self.altitude) - ALTITUDE_BASE;
        data.insert("altitude".to_owned(), decimal(centimetres, 100));
        let names = ["size", "precision_horz", "precision_vert"];
        for (name, size) in names.into_iter().zip(self.sizes) {
            data.insert(name.to_owned(), decimal(unpacked(size), 100));
        }
        data
    }

    /// RFC 1876, section 2.
    pub(super) fn wire(self) -> [u8; 16] {
        let mut out = [0; 16];
        out[1..4].copy_from_slice(&self.sizes);
        out[4..8].copy_from_slice(&self.latitude.to_be_bytes());
        out[8..12].copy_from_slice(&self.longitude.to_be_bytes());
        out[12..].copy_from_slice(&self.altitude.to_be_bytes());
        out
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (axis, value) in [(&LATITUDE, self.latitude), (&LONGITUDE, self.longitude)] {
            let angle = Angle::decode(value, axis);
            let (seconds, millis) = (angle.millis / 1_000, angle.millis % 1_000);
            write!(f, "{} {} ", angle.degrees, angle.minutes)?;
            write!(f, "{seconds}.{millis:03} {} ", angle.side)?;
        }
        let altitude = i64::from(self.altitude) - ALTITUDE_BASE;
        write!(f, "{}", Metres(altitude))?;
        self.sizes
            .iter()
            .try_for_each(|size| write!(f, " {}", Metres(unpacked(*size))))
    }
}

/// Centimetres, shown as metres.
struct Metres(i64);

impl fmt::Display for Metres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let cm = self.0.unsigned_abs();
        write!(f, "{sign}{}.{:02}m", cm / 100, cm % 100)
    }
}

impl Angle {
    fn encode(&self, axis: &Axis) -> Result<u32, String> {
        let total = (self.degrees * 60 + self.minutes) * 60_000 + self.millis;
        let is_fine =
            self.minutes < 60 && self.millis < 60_000 && total <= axis.degrees_max * 3_600_000;
        let signed = match self.side == axis.letters[0] {
            true => CENTER + total,
            false => CENTER - total,
        };
        match u32::try_from(signed) {
            Ok(value) if is_fine => Ok(value),
            Ok(_) | Err(_) => Err(format!(
                "an angle has up to {} degrees, 59 minutes and 59.999 seconds",
                axis.degrees_max
            )),
        }
    }

    fn decode(value: u32, axis: &Axis) -> Angle {
        let signed = i64::from(value) - CENTER;
        let total = signed.abs();
        Angle {
            degrees: total / 3_600_000,
            minutes: total / 60_000 % 60,
            millis: total % 60_000,
            side: axis.letters[usize::from(signed < 0)].to_owned(),
        }
    }
}

fn read_angle<'a>(words: &'a [&'a str], axis: &Axis) -> Result<(Angle, &'a [&'a str]), String> {
    let is_side = |word: &&str| axis.letters.iter().any(|l| l.eq_ignore_ascii_case(word));
    let place = words.iter().take(4).position(is_side);
    let place = place.filter(|place| *place > 0).ok_or_else(|| {
        let [plus, minus] = axis.letters;
        format!("it needs degrees, and then {plus} or {minus}")
    })?;
    let part = |index: usize, places: u32| match words[..place].get(index) {
        None => Ok(0),
        Some(word) => fixed(word, places)
            .filter(|value| *value >= 0)
            .ok_or_else(|| {
                let shown = crate::model::fields::echo(word);
                format!("'{shown}' is no part of an angle")
            }),
    };
    let angle = Angle {
        degrees: part(0, 0)?,
        minutes: part(1, 0)?,
        millis: part(2, 3)?,
        side: words[place].to_ascii_uppercase(),
    };
    Ok((angle, &words[place + 1..]))
}

fn hundredths(word: &str) -> Result<i64, String> {
    let number = word.strip_suffix('m').unwrap_or(word);
    fixed(number, 2).ok_or_else(|| {
        let shown = crate::model::fields::echo(word);
        format!("'{shown}' is not a number of metres with up to two decimals")
    })
}

fn encode_altitude(centimetres: i64) -> Result<u32, String> {
    u32::try_from(centimetres + ALTITUDE_BASE)
        .map_err(|_outside| "the altitude goes from -100000 to 42849672.95 m".to_owned())
}

/// Mantissa and power of ten, rounded down.
fn packed(centimetres: i64) -> Result<u8, String> {
    let (mut mantissa, mut power) = (centimetres, 0_u8);
    while mantissa > 9 {
        mantissa /= 10;
        power += 1;
    }
    match u8::try_from(mantissa) {
        Ok(mantissa) if power <= 9 => Ok(mantissa << 4 | power),
        Ok(_) | Err(_) => Err("sizes go from 0 to 90000000 m".to_owned()),
    }
}

fn unpacked(size: u8) -> i64 {
    i64::from(size >> 4) * 10_i64.pow(u32::from(size & 0xf))
}

/// A decimal number in units of 10^-`places`; `None` when it is none, or has more places.
fn fixed(text: &str, places: u32) -> Option<i64> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text),
    };
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    // JSON shows whole numbers with a decimal.
    let part = part.trim_end_matches('0');
    let is_fine = |text: &str| text.len() <= 9 && text.bytes().all(|b| b.is_ascii_digit());
    let short = u32::try_from(part.len())
        .ok()
        .filter(|length| *length <= places)?;
    if whole.is_empty() || !is_fine(whole) || !is_fine(part) {
        return None;
    }
    let whole: i64 = whole.parse().ok()?;
    let part: i64 = if part.is_empty() {
        0
    } else {
        part.parse().ok()?
    };
    Some(sign * (whole * 10_i64.pow(places) + part * 10_i64.pow(places - short)))
}

fn decimal(value: i64, unit: i64) -> Value {
    if value % unit == 0 {
        return json!(value / unit);
    }
    let places = if unit == 100 { 2 } else { 3 };
    let sign = if value < 0 { "-" } else { "" };
    let (whole, part) = (value.abs() / unit, value.abs() % unit);
    let text = format!("{sign}{whole}.{part:0places$}");
    text.parse::<f64>()
        .map_or(Value::Null, |number| json!(number))
}

fn number(data: &mut Fields, at: &str, default: &str) -> Result<String, Refusal> {
    match data.take(at) {
        None if at.ends_with("degrees") => Err(data.refuse(at, format!("'{at}' is required."))),
        None => Ok(default.to_owned()),
        Some(Value::Number(number)) => Ok(number.to_string()),
        Some(_) => Err(data.refuse(at, format!("'{at}' must be a number."))),
    }
}
