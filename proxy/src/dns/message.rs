//! Messages: a query from bytes, an answer to bytes (RFC 1035, section 4; RFC 6891).

use controlplane::dns::{Authority, Owner, Question, Rcode, Reply, Rr};
use hickory_proto::op::{Edns, Message, OpCode, Query as Asked, ResponseCode};
use hickory_proto::rr::rdata::NULL;
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::{BinDecoder, Restrict};

/// Longest answer over UDP, and what clients are told to send at most: fits every path without
/// fragments (the "DNS flag day" of 2020).
pub(super) const UDP_BYTES_MAX: u16 = 1_232;

/// Longest answer over UDP to a client that says nothing (RFC 1035, section 2.3.4).
const PLAIN_BYTES_MAX: u16 = 512;

/// Longest query that is read: a name, and options that nobody needs.
pub(super) const QUERY_BYTES_MAX: usize = 1_232;

const HEADER_BYTES: usize = 12;

/// How the message travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    Udp,
    Tcp,
}

/// What a stranger's bytes are.
#[derive(Debug)]
pub(super) enum Parsed {
    /// Not to be answered: too short, or itself an answer, which would go back and forth.
    Silence,
    /// Not a query that is understood; the answer.
    Error(Vec<u8>),
    /// A query.
    Query(Box<Query>),
}

/// A query that can be answered.
#[derive(Debug)]
pub(super) struct Query {
    id: u16,
    is_recursion_desired: bool,
    asked: Asked,
    edns: Option<Edns>,
}

/// Reads a message.
pub(super) fn parse(bytes: &[u8]) -> Parsed {
    let Some((header, _)) = bytes.split_at_checked(HEADER_BYTES) else {
        return Parsed::Silence;
    };
    if header[2] & 0x80 != 0 {
        return Parsed::Silence;
    }
    let opcode = header[2] >> 3 & 0xf;
    if opcode != 0 {
        return Parsed::Error(bare(header, ResponseCode::NotImp));
    }
    let Ok(mut message) = Message::from_vec(bytes) else {
        return Parsed::Error(bare(header, ResponseCode::FormErr));
    };
    match (message.queries.pop(), message.queries.len()) {
        (Some(asked), 0) => Parsed::Query(Box::new(Query {
            id: message.metadata.id,
            is_recursion_desired: message.metadata.recursion_desired,
            asked,
            edns: message.edns,
        })),
        _ => Parsed::Error(bare(header, ResponseCode::FormErr)),
    }
}

/// A header alone: the query's id, opcode and RD, and how it went.
fn bare(header: &[u8], code: ResponseCode) -> Vec<u8> {
    let mut answer = vec![0; HEADER_BYTES];
    answer[..2].copy_from_slice(&header[..2]);
    answer[2] = 0x80 | header[2] & 0x79;
    answer[3] = code.low();
    answer
}

impl Query {
    /// The answer as it is sent.
    pub(super) fn answer(&self, authority: &dyn Authority, transport: Transport) -> Vec<u8> {
        let reply = match self.refusal() {
            Some(code) => self.message(Reply::default(), code),
            None => {
                let reply = authority.answer(&self.question());
                let code = match reply.rcode {
                    Rcode::NoError => ResponseCode::NoError,
                    Rcode::NxDomain => ResponseCode::NXDomain,
                    Rcode::Refused => ResponseCode::Refused,
                };
                self.message(reply, code)
            }
        };
        let bytes_max = match transport {
            Transport::Tcp => u16::MAX,
            Transport::Udp => self.edns.as_ref().map_or(PLAIN_BYTES_MAX, |edns| {
                edns.max_payload().clamp(PLAIN_BYTES_MAX, UDP_BYTES_MAX)
            }),
        };
        match reply.to_vec() {
            Ok(bytes) if bytes.len() <= usize::from(bytes_max) => bytes,
            Ok(_) | Err(_) => self.truncated(),
        }
    }

    /// The answer that sends the client to TCP.
    pub(super) fn truncated(&self) -> Vec<u8> {
        let mut message = self.message(Reply::default(), ResponseCode::NoError);
        message.metadata.truncation = true;
        message.to_vec().unwrap_or_default()
    }

    /// Whether the query asks for something that there is not for anybody.
    fn refusal(&self) -> Option<ResponseCode> {
        if self.edns.as_ref().is_some_and(|edns| edns.version() != 0) {
            return Some(ResponseCode::BADVERS);
        }
        let is_transfer = matches!(self.asked.query_type(), RecordType::AXFR | RecordType::IXFR);
        let is_elsewhere = self.asked.query_class() != DNSClass::IN;
        (is_transfer || is_elsewhere).then_some(ResponseCode::Refused)
    }

    fn question(&self) -> Question {
        Question {
            name: text(self.asked.name()),
            kind: self.asked.query_type().into(),
        }
    }

    fn message(&self, reply: Reply, code: ResponseCode) -> Message {
        let mut message = Message::response(self.id, OpCode::Query);
        message.metadata.recursion_desired = self.is_recursion_desired;
        message.metadata.authoritative = reply.is_authoritative;
        message.metadata.response_code = code;
        message.add_query(self.asked.clone());
        let records = |rrs: Vec<Rr>| rrs.into_iter().filter_map(|rr| self.record(rr));
        message.insert_answers(records(reply.answers).collect());
        message.insert_authorities(records(reply.authorities).collect());
        message.insert_additionals(records(reply.additionals).collect());
        if let Some(theirs) = &self.edns {
            let mut ours = Edns::new();
            ours.set_max_payload(UDP_BYTES_MAX);
            // RFC 3225, section 3.
            ours.set_dnssec_ok(theirs.flags().dnssec_ok);
            message.set_edns(ours);
        }
        message
    }

    fn record(&self, rr: Rr) -> Option<Record> {
        let owner = match rr.owner {
            Owner::Asked => self.asked.name().clone(),
            Owner::Name(name) => {
                let labels = name.split('.').filter(|label| !label.is_empty());
                Name::from_labels(labels.map(str::as_bytes)).ok()?
            }
        };
        Some(Record::from_rdata(owner, rr.ttl, rdata(rr.kind, rr.rdata)))
    }
}

/// The bytes as they are; taken apart only where names in them may be compressed (RFC 3597,
/// section 4).
fn rdata(kind: u16, bytes: Vec<u8>) -> RData {
    let kind = RecordType::from(kind);
    let is_compressed = matches!(
        kind,
        RecordType::CNAME | RecordType::MX | RecordType::NS | RecordType::PTR | RecordType::SOA
    );
    if let (true, Ok(length)) = (is_compressed, u16::try_from(bytes.len()))
        && let Ok(data) = RData::read(&mut BinDecoder::new(&bytes), kind, Restrict::new(length))
    {
        return data;
    }
    RData::Unknown {
        code: kind,
        rdata: NULL::with(bytes),
    }
}

/// A name as the zones write it: lower case, without the root's dot. A label with other characters
/// than they have is escaped: it is no name of theirs, but a wildcard may stand for it.
fn text(name: &Name) -> String {
    let mut text = String::new();
    for label in name.iter() {
        if !text.is_empty() {
            text.push('.');
        }
        let is_plain = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        let is_wildcard = label == b"*";
        for byte in label {
            match is_plain(byte) || is_wildcard {
                true => text.push(char::from(byte.to_ascii_lowercase())),
                false => text += &format!("\\{byte:03}"),
            }
        }
    }
    text
}
