//! The payloads of a message, one enum; and the chain that they make (RFC 7296 section 3.2).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use super::proposal::{self, Proposal, Protocol, set_len};
use super::{Malformed, PAYLOAD_HEADER_LEN, u16_at};

/// Payloads of a message that are looked at: the longest exchange in use has about 20.
pub const PAYLOADS_MAX: usize = 64;
/// Traffic selectors of a payload that are looked at.
pub const SELECTORS_MAX: usize = 64;

/// Kinds of payloads, as the header before each names them.
pub mod kind {
    #![expect(missing_docs, reason = "they are the names of RFC 7296 section 3.2")]

    pub const NONE: u8 = 0;
    pub const SA: u8 = 33;
    pub const KE: u8 = 34;
    pub const ID_I: u8 = 35;
    pub const ID_R: u8 = 36;
    pub const AUTH: u8 = 39;
    pub const NONCE: u8 = 40;
    pub const NOTIFY: u8 = 41;
    pub const DELETE: u8 = 42;
    pub const VENDOR: u8 = 43;
    pub const TS_I: u8 = 44;
    pub const TS_R: u8 = 45;
    pub const SK: u8 = 46;
    pub const CP: u8 = 47;
    pub const EAP: u8 = 48;
    pub const SKF: u8 = 53;
}

/// An identity (RFC 7296 section 3.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Id<'a> {
    /// What `data` is: 1 an IPv4 address, 2 a domain name, 3 a mail address, 5 an IPv6 address, 11
    /// opaque.
    pub kind: u8,
    /// The identity.
    pub data: &'a [u8],
}

/// A notification (RFC 7296 section 3.10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notify<'a> {
    /// What SA it is about, if any.
    pub protocol: Protocol,
    /// The name of that SA, or nothing.
    pub spi: &'a [u8],
    /// What it says: below 16384 an error.
    pub kind: u16,
    /// More about it.
    pub data: &'a [u8],
}

/// A range of addresses, protocol and ports (RFC 7296 section 3.13.1). Both ends belong to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Selector {
    /// IP protocol, 0 for all.
    pub protocol: u8,
    /// First and last port.
    pub ports: (u16, u16),
    /// First and last address, of one family.
    pub addresses: (IpAddr, IpAddr),
}

/// A payload in clear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload<'a> {
    /// Proposals, or the one that was chosen.
    Sa(Vec<Proposal>),
    /// A public value of a key exchange group.
    Ke {
        /// Which group.
        group: u16,
        /// The value.
        data: &'a [u8],
    },
    /// Who the initiator is.
    IdI(Id<'a>),
    /// Who the responder is, or should be.
    IdR(Id<'a>),
    /// The proof of an identity.
    Auth {
        /// How it is proved: 2 by a shared key.
        method: u8,
        /// The proof.
        data: &'a [u8],
    },
    /// Fresh randomness, 16..=256 bytes.
    Nonce(&'a [u8]),
    /// A notification.
    Notify(Notify<'a>),
    /// SAs that are gone.
    Delete {
        /// Of what protocol.
        protocol: Protocol,
        /// Their names, each of `spi_len` bytes, one behind the other.
        spis: &'a [u8],
        /// Bytes of a name.
        spi_len: u8,
    },
    /// Who made the sender.
    Vendor(&'a [u8]),
    /// The initiator's traffic.
    TsI(Vec<Selector>),
    /// The responder's traffic.
    TsR(Vec<Selector>),
    /// Configuration, uninterpreted: its type and attributes.
    Cp(&'a [u8]),
    /// A payload of RFC 7296 that we have no use for (certificates, EAP).
    Unused {
        /// Its kind.
        kind: u8,
        /// Its body.
        data: &'a [u8],
    },
}

/// Reads a chain of payloads that begins with one of kind `first` and fills `bytes`. Payloads that
/// nobody knows are left out, unless they are critical.
///
/// # Errors
/// [`Malformed`].
pub fn parse(first: u8, bytes: &[u8]) -> Result<Vec<Payload<'_>>, Malformed> {
    let mut payloads = Vec::new();
    for raw in Raws::new(first, bytes) {
        let raw = raw?;
        if let Some(payload) = parse_one(&raw)? {
            payloads.push(payload);
        }
    }
    Ok(payloads)
}

/// A payload that has not been looked into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Raw<'a> {
    /// Its kind.
    pub kind: u8,
    /// Whether its sender wants the message refused by who does not know it.
    pub is_critical: bool,
    /// The kind that its header announces. In an encrypted payload, that of the first one inside.
    pub next: u8,
    /// What it holds.
    pub body: &'a [u8],
}

/// Walks the headers of a chain, [`PAYLOADS_MAX`] at most. An encrypted payload ends it.
#[derive(Clone, Debug)]
pub struct Raws<'a> {
    kind: u8,
    rest: &'a [u8],
    count: usize,
}

impl<'a> Raws<'a> {
    /// The chain that begins with a payload of kind `first` and fills `bytes`.
    #[must_use]
    pub fn new(first: u8, bytes: &'a [u8]) -> Self {
        Self {
            kind: first,
            rest: bytes,
            count: 0,
        }
    }

    fn step(&mut self) -> Result<Raw<'a>, Malformed> {
        let head: &[u8; PAYLOAD_HEADER_LEN] = self.rest.first_chunk().ok_or(Malformed::Length)?;
        let len = usize::from(u16_at(head, 2));
        if len < PAYLOAD_HEADER_LEN || len > self.rest.len() {
            return Err(Malformed::Length);
        }
        if self.count == PAYLOADS_MAX {
            return Err(Malformed::TooMany);
        }
        let (part, rest) = self.rest.split_at(len);
        let raw = Raw {
            kind: self.kind,
            is_critical: head[1] & 0x80 != 0,
            next: head[0],
            body: &part[PAYLOAD_HEADER_LEN..],
        };
        let is_sealed = matches!(self.kind, kind::SK | kind::SKF);
        if is_sealed && !rest.is_empty() {
            return Err(Malformed::Length);
        }
        self.count += 1;
        self.rest = rest;
        self.kind = if is_sealed { kind::NONE } else { raw.next };
        Ok(raw)
    }
}

impl<'a> Iterator for Raws<'a> {
    type Item = Result<Raw<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.kind == kind::NONE && self.rest.is_empty() {
            return None;
        }
        let step = match self.kind {
            kind::NONE => Err(Malformed::Length),
            _ => self.step(),
        };
        if step.is_err() {
            self.kind = kind::NONE;
            self.rest = &[];
        }
        Some(step)
    }
}

fn parse_one<'a>(raw: &Raw<'a>) -> Result<Option<Payload<'a>>, Malformed> {
    let body = raw.body;
    let payload = match raw.kind {
        kind::SA => Payload::Sa(proposal::parse(body)?),
        kind::KE => {
            let (head, data) = body.split_first_chunk::<4>().ok_or(Malformed::Length)?;
            let group = u16_at(head, 0);
            Payload::Ke { group, data }
        }
        kind::ID_I => Payload::IdI(parse_id(body)?),
        kind::ID_R => Payload::IdR(parse_id(body)?),
        kind::AUTH => {
            let (head, data) = body.split_first_chunk::<4>().ok_or(Malformed::Length)?;
            let method = head[0];
            Payload::Auth { method, data }
        }
        kind::NONCE if (16..=256).contains(&body.len()) => Payload::Nonce(body),
        kind::NONCE => return Err(Malformed::Length),
        kind::NOTIFY => Payload::Notify(parse_notify(body)?),
        kind::DELETE => parse_delete(body)?,
        kind::VENDOR => Payload::Vendor(body),
        kind::TS_I => Payload::TsI(parse_selectors(body)?),
        kind::TS_R => Payload::TsR(parse_selectors(body)?),
        kind::CP if body.len() >= 4 => Payload::Cp(body),
        kind::CP => return Err(Malformed::Length),
        // An encrypted payload inside of another, or where none may be.
        kind::SK | kind::SKF => return Err(Malformed::Value),
        known @ kind::SA..=kind::EAP => Payload::Unused {
            kind: known,
            data: body,
        },
        unknown if raw.is_critical => return Err(Malformed::UnknownCritical(unknown)),
        _ => return Ok(None),
    };
    Ok(Some(payload))
}

fn parse_id(body: &[u8]) -> Result<Id<'_>, Malformed> {
    let (head, data) = body.split_first_chunk::<4>().ok_or(Malformed::Length)?;
    let kind = head[0];
    Ok(Id { kind, data })
}

fn parse_notify(body: &[u8]) -> Result<Notify<'_>, Malformed> {
    let (head, rest) = body.split_first_chunk::<4>().ok_or(Malformed::Length)?;
    let (spi, data) = rest
        .split_at_checked(usize::from(head[1]))
        .ok_or(Malformed::Length)?;
    Ok(Notify {
        protocol: Protocol(head[0]),
        spi,
        kind: u16_at(head, 2),
        data,
    })
}

fn parse_delete(body: &[u8]) -> Result<Payload<'_>, Malformed> {
    let (head, spis) = body.split_first_chunk::<4>().ok_or(Malformed::Length)?;
    if spis.len() != usize::from(head[1]) * usize::from(u16_at(head, 2)) {
        return Err(Malformed::Length);
    }
    Ok(Payload::Delete {
        protocol: Protocol(head[0]),
        spis,
        spi_len: head[1],
    })
}

/// Kinds of traffic selectors (RFC 7296 section 3.13.1).
const RANGE_V4: u8 = 7;
const RANGE_V6: u8 = 8;

fn parse_selectors(body: &[u8]) -> Result<Vec<Selector>, Malformed> {
    let (head, mut rest) = body.split_first_chunk::<4>().ok_or(Malformed::Length)?;
    let count = usize::from(head[0]);
    if count == 0 || count > SELECTORS_MAX {
        return Err(Malformed::TooMany);
    }
    let mut selectors = Vec::with_capacity(count);
    for _ in 0..count {
        let head: &[u8; 8] = rest.first_chunk().ok_or(Malformed::Length)?;
        let len = usize::from(u16_at(head, 2));
        let (part, behind) = rest.split_at_checked(len).ok_or(Malformed::Length)?;
        rest = behind;
        let addresses = match (head[0], part.get(8..)) {
            (RANGE_V4, Some(ends)) if len == 16 => (v4(ends, 0), v4(ends, 4)),
            (RANGE_V6, Some(ends)) if len == 40 => (v6(ends, 0), v6(ends, 16)),
            (RANGE_V4 | RANGE_V6, _) | (_, None) => return Err(Malformed::Length),
            // Another kind of range: ours can never meet it.
            (_, Some(_)) => continue,
        };
        selectors.push(Selector {
            protocol: head[1],
            ports: (u16_at(head, 4), u16_at(head, 6)),
            addresses,
        });
    }
    rest.is_empty()
        .then_some(selectors)
        .ok_or(Malformed::Length)
}

fn v4(bytes: &[u8], at: usize) -> IpAddr {
    let octets: [u8; 4] = bytes[at..at + 4].try_into().expect("four bytes");
    Ipv4Addr::from(octets).into()
}

fn v6(bytes: &[u8], at: usize) -> IpAddr {
    let octets: [u8; 16] = bytes[at..at + 16].try_into().expect("sixteen bytes");
    Ipv6Addr::from(octets).into()
}

/// Payloads as they are sent, one behind the other.
#[derive(Clone, Debug, Default)]
pub struct Chain {
    first: u8,
    bytes: Vec<u8>,
    /// Where the header of the last payload is.
    last: Option<usize>,
}

impl Chain {
    /// No payload.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes that need be no payloads, as a peer may send them.
    #[cfg(test)]
    pub(crate) fn raw(first: u8, bytes: Vec<u8>) -> Self {
        Self {
            first,
            bytes,
            last: None,
        }
    }

    /// The kind of the first payload.
    #[must_use]
    pub fn first(&self) -> u8 {
        self.first
    }

    /// The payloads.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Adds a payload.
    ///
    /// # Panics
    /// When it is longer than 64 KiB, or has more than 255 of something.
    pub fn push(&mut self, payload: &Payload<'_>) -> &mut Self {
        let kind = payload.kind();
        match self.last {
            Some(at) => self.bytes[at] = kind,
            None => self.first = kind,
        }
        let start = self.bytes.len();
        self.last = Some(start);
        self.bytes.extend([kind::NONE, 0, 0, 0]);
        write_body(payload, &mut self.bytes);
        set_len(&mut self.bytes, start);
        self
    }

    /// Adds a notification about no SA in particular.
    ///
    /// # Panics
    /// When `data` is longer than 64 KiB.
    pub fn notify(&mut self, kind: u16, data: &[u8]) -> &mut Self {
        self.push(&Payload::Notify(Notify {
            protocol: Protocol::NONE,
            spi: &[],
            kind,
            data,
        }))
    }
}

impl Payload<'_> {
    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> u8 {
        match self {
            Self::Sa(_) => kind::SA,
            Self::Ke { .. } => kind::KE,
            Self::IdI(_) => kind::ID_I,
            Self::IdR(_) => kind::ID_R,
            Self::Auth { .. } => kind::AUTH,
            Self::Nonce(_) => kind::NONCE,
            Self::Notify(_) => kind::NOTIFY,
            Self::Delete { .. } => kind::DELETE,
            Self::Vendor(_) => kind::VENDOR,
            Self::TsI(_) => kind::TS_I,
            Self::TsR(_) => kind::TS_R,
            Self::Cp(_) => kind::CP,
            Self::Unused { kind, .. } => *kind,
        }
    }
}

fn write_body(payload: &Payload<'_>, out: &mut Vec<u8>) {
    match payload {
        Payload::Sa(proposals) => proposal::write(proposals, out),
        Payload::Ke { group, data } => {
            out.extend(group.to_be_bytes());
            out.extend([0, 0]);
            out.extend(*data);
        }
        Payload::IdI(id) | Payload::IdR(id) => {
            out.extend([id.kind, 0, 0, 0]);
            out.extend(id.data);
        }
        Payload::Auth { method, data } => {
            out.extend([*method, 0, 0, 0]);
            out.extend(*data);
        }
        Payload::Notify(notify) => {
            let spi_len = u8::try_from(notify.spi.len()).expect("an SPI has 0, 4 or 8 bytes");
            out.extend([notify.protocol.0, spi_len]);
            out.extend(notify.kind.to_be_bytes());
            out.extend(notify.spi);
            out.extend(notify.data);
        }
        Payload::Delete {
            protocol,
            spis,
            spi_len,
        } => {
            let count = spis.len().checked_div(usize::from(*spi_len)).unwrap_or(0);
            let count = u16::try_from(count).expect("an SA has at most 100 children");
            out.extend([protocol.0, *spi_len]);
            out.extend(count.to_be_bytes());
            out.extend(*spis);
        }
        Payload::TsI(selectors) | Payload::TsR(selectors) => write_selectors(selectors, out),
        Payload::Nonce(data)
        | Payload::Vendor(data)
        | Payload::Cp(data)
        | Payload::Unused { data, .. } => out.extend(*data),
    }
}

fn write_selectors(selectors: &[Selector], out: &mut Vec<u8>) {
    let count = u8::try_from(selectors.len()).expect("at most 64 selectors");
    out.extend([count, 0, 0, 0]);
    for selector in selectors {
        let start = out.len();
        let (first, last) = selector.addresses;
        out.extend([
            if first.is_ipv4() { RANGE_V4 } else { RANGE_V6 },
            selector.protocol,
            0,
            0,
        ]);
        out.extend(selector.ports.0.to_be_bytes());
        out.extend(selector.ports.1.to_be_bytes());
        for address in [first, last] {
            match address {
                IpAddr::V4(address) => out.extend(address.octets()),
                IpAddr::V6(address) => out.extend(address.octets()),
            }
        }
        set_len(out, start);
    }
}
