//! The parameters of SVCB and HTTPS records (RFC 9460, sections 7 and 14.3).

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::text::in_quotes;

/// The keys that have a name, by number.
const NAMES: [&str; 8] = [
    "mandatory",
    "alpn",
    "no-default-alpn",
    "port",
    "ipv4hint",
    "ech",
    "ipv6hint",
    "dohpath",
];

const MANDATORY: u16 = 0;
const ALPN: u16 = 1;
const NO_DEFAULT_ALPN: u16 = 2;
const PORT: u16 = 3;
const IPV4_HINT: u16 = 4;
const ECH: u16 = 5;
const IPV6_HINT: u16 = 6;

/// Values by key, each as the wire has it. The wire wants them in the order of their numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Params(BTreeMap<u16, Vec<u8>>);

impl Params {
    /// Reads `key` and `key=value` words.
    pub(super) fn parse(words: &[&[u8]]) -> Result<Params, String> {
        let mut params = BTreeMap::new();
        for word in words {
            let mut parts = word.splitn(2, |byte| *byte == b'=');
            let key = String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
            let value = parts.next();
            let number = number_of(&key).ok_or_else(|| {
                format!("'{}' is not a parameter", crate::model::fields::echo(&key))
            })?;
            let value = encode(number, value).map_err(|why| format!("{key}: {why}"))?;
            if params.insert(number, value).is_some() {
                return Err(format!("{key} is there twice"));
            }
        }
        check_mandatory(&params)?;
        if params.contains_key(&NO_DEFAULT_ALPN) && !params.contains_key(&ALPN) {
            return Err("no-default-alpn needs alpn beside it".to_owned());
        }
        Ok(Params(params))
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Appends key, length and value of each.
    pub(super) fn wire(&self, out: &mut Vec<u8>) {
        for (key, value) in &self.0 {
            // What is longer was refused by the bound on the whole.
            let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
            out.extend(key.to_be_bytes());
            out.extend(length.to_be_bytes());
            out.extend(&value[..usize::from(length)]);
        }
    }
}

impl fmt::Display for Params {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (key, value)) in self.0.iter().enumerate() {
            if index > 0 {
                write!(f, " ")?;
            }
            write!(f, "{}", name_of(*key))?;
            if *key != NO_DEFAULT_ALPN {
                write!(f, "={}", decode(*key, value))?;
            }
        }
        Ok(())
    }
}

fn number_of(key: &str) -> Option<u16> {
    if let Some(index) = NAMES.iter().position(|name| *name == key) {
        return u16::try_from(index).ok();
    }
    let digits = key.strip_prefix("key")?;
    let number: u16 = digits.parse().ok()?;
    // 65535 is reserved; leading zeros and signs are no form of a number.
    (number < u16::MAX && digits == number.to_string()).then_some(number)
}

fn name_of(key: u16) -> String {
    match NAMES.get(usize::from(key)) {
        Some(name) => (*name).to_owned(),
        None => format!("key{key}"),
    }
}

fn encode(key: u16, value: Option<&[u8]>) -> Result<Vec<u8>, String> {
    if key == NO_DEFAULT_ALPN {
        return match value {
            None => Ok(Vec::new()),
            Some(_) => Err("it has no value".to_owned()),
        };
    }
    let known = usize::from(key) < NAMES.len();
    let value = match value {
        Some(value) if !value.is_empty() => value,
        None | Some(_) if known => return Err("it needs a value".to_owned()),
        None | Some(_) => return Ok(Vec::new()),
    };
    let text = || String::from_utf8_lossy(value).into_owned();
    match key {
        MANDATORY => {
            let keys: Option<Vec<u16>> = text().split(',').map(number_of).collect();
            let mut keys = keys.ok_or("it must be names of parameters")?;
            keys.sort_unstable();
            Ok(keys.into_iter().flat_map(u16::to_be_bytes).collect())
        }
        ALPN => encode_alpn(value),
        PORT => match text().parse::<u16>() {
            Ok(port) => Ok(port.to_be_bytes().to_vec()),
            Err(_) => Err("it must be a port".to_owned()),
        },
        IPV4_HINT => {
            let ips: Result<Vec<Ipv4Addr>, _> = text().split(',').map(str::parse).collect();
            let ips = ips.map_err(|_wrong| "it must be IPv4 addresses")?;
            Ok(ips.iter().flat_map(Ipv4Addr::octets).collect())
        }
        IPV6_HINT => {
            let ips: Result<Vec<Ipv6Addr>, _> = text().split(',').map(str::parse).collect();
            let ips = ips.map_err(|_wrong| "it must be IPv6 addresses")?;
            Ok(ips.iter().flat_map(Ipv6Addr::octets).collect())
        }
        ECH => STANDARD
            .decode(value)
            .map_err(|_wrong| "it must be base64".to_owned()),
        _ => Ok(value.to_vec()),
    }
}

fn encode_alpn(value: &[u8]) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    for id in value.split(|byte| *byte == b',') {
        let length = u8::try_from(id.len()).ok().filter(|length| *length > 0);
        out.push(length.ok_or("each protocol must have 1 to 255 characters")?);
        out.extend(id);
    }
    Ok(out)
}

fn decode(key: u16, value: &[u8]) -> String {
    let list = |texts: Vec<String>| format!("\"{}\"", texts.join(","));
    match key {
        MANDATORY => {
            let keys = value
                .chunks_exact(2)
                .map(|two| u16::from_be_bytes([two[0], two[1]]));
            list(keys.map(name_of).collect())
        }
        ALPN => {
            let mut ids = Vec::new();
            let mut rest = value;
            while let Some((length, after)) = rest.split_first() {
                let (id, after) = after.split_at(usize::from(*length).min(after.len()));
                ids.extend(id);
                ids.push(b',');
                rest = after;
            }
            ids.pop();
            in_quotes(&ids)
        }
        PORT => {
            let port = <[u8; 2]>::try_from(value).map(u16::from_be_bytes);
            list(port.iter().map(ToString::to_string).collect())
        }
        IPV4_HINT => {
            let ips = value
                .chunks_exact(4)
                .filter_map(|ip| <[u8; 4]>::try_from(ip).ok());
            list(ips.map(|ip| Ipv4Addr::from(ip).to_string()).collect())
        }
        IPV6_HINT => {
            let ips = value
                .chunks_exact(16)
                .filter_map(|ip| <[u8; 16]>::try_from(ip).ok());
            list(ips.map(|ip| Ipv6Addr::from(ip).to_string()).collect())
        }
        ECH => list(vec![STANDARD.encode(value)]),
        _ => in_quotes(value),
    }
}

/// RFC 9460, section 8: not itself, nothing twice, nothing that is not there.
fn check_mandatory(params: &BTreeMap<u16, Vec<u8>>) -> Result<(), String> {
    let Some(listed) = params.get(&MANDATORY) else {
        return Ok(());
    };
    let keys = listed
        .chunks_exact(2)
        .map(|two| u16::from_be_bytes([two[0], two[1]]));
    let keys: Vec<u16> = keys.collect();
    let is_twice = keys.windows(2).any(|two| two[0] == two[1]);
    let is_absent = keys
        .iter()
        .any(|key| *key == MANDATORY || !params.contains_key(key));
    match is_twice || is_absent {
        true => Err("mandatory must name parameters that are there, each once".to_owned()),
        false => Ok(()),
    }
}
