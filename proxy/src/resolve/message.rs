//! A question to a resolver, and what comes back (RFC 1035, section 4; RFC 6891).

use std::net::IpAddr;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, RecordType};

use super::Family;

/// Longest answer over UDP that we ask for: fits every path without fragments.
pub(super) const UDP_BYTES_MAX: u16 = 1_232;

/// Longest chain of CNAMEs in an answer that is followed: what resolvers commonly do.
const CNAMES_MAX: usize = 8;

/// Most addresses of one answer that are used: a request tries two of them.
const ADDRESSES_MAX: usize = 16;

/// A question on its way.
#[derive(Debug)]
pub(super) struct Question {
    id: u16,
    query: Query,
}

/// What a message that came back is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// Not the answer to this question, whoever sent it.
    NotOurs,
    /// The answer, but for what did not fit: it is to be asked for over TCP.
    Truncated,
    /// The answer.
    Answer(Answer),
}

/// What a resolver says of a name.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It has these addresses of the family, at least one; kept for so many seconds.
    Addresses(Vec<IpAddr>, u32),
    /// It exists, and has none.
    None,
    /// There is no such name.
    NoSuchName,
    /// The resolver does not say.
    Failed,
}

impl Question {
    /// The question for a name's addresses of one family; `None` for a name that DNS cannot carry.
    pub(super) fn new(id: u16, name: &str, family: Family) -> Option<Self> {
        let labels = name.split('.').map(str::as_bytes);
        let mut name = Name::from_labels(labels).ok()?;
        name.set_fqdn(true);
        let kind = match family {
            Family::V4 => RecordType::A,
            Family::V6 => RecordType::AAAA,
        };
        Some(Self {
            id,
            query: Query::query(name, kind),
        })
    }

    /// As it is sent; `None` never for a name of a zone.
    pub(super) fn bytes(&self) -> Option<Vec<u8>> {
        let mut message = Message::new(self.id, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(self.query.clone());
        let mut edns = Edns::new();
        edns.set_max_payload(UDP_BYTES_MAX);
        message.set_edns(edns);
        message.to_vec().ok()
    }

    /// Reads what came back. Anything that does not repeat the identifier and the question is not
    /// believed (RFC 5452, section 9.1).
    pub(super) fn read(&self, bytes: &[u8]) -> Read {
        let Ok(message) = Message::from_vec(bytes) else {
            return Read::NotOurs;
        };
        let about = &message.metadata;
        let is_ours = about.id == self.id
            && about.message_type == MessageType::Response
            && about.op_code == OpCode::Query
            && matches!(&message.queries[..], [asked] if self.is_question(asked));
        if !is_ours {
            return Read::NotOurs;
        }
        if about.truncation {
            return Read::Truncated;
        }
        Read::Answer(self.answer(&message))
    }

    fn is_question(&self, asked: &Query) -> bool {
        asked.name() == self.query.name()
            && asked.query_type() == self.query.query_type()
            && asked.query_class() == DNSClass::IN
    }

    fn answer(&self, message: &Message) -> Answer {
        let code = message.metadata.response_code;
        if code == ResponseCode::NXDomain {
            return Answer::NoSuchName;
        }
        if code != ResponseCode::NoError {
            return Answer::Failed;
        }
        let mut name = self.query.name();
        let mut ttl = u32::MAX;
        for _ in 0..CNAMES_MAX {
            let own = message.answers.iter().filter(|record| record.name == *name);
            let mut aliases = own.filter_map(|record| {
                let RData::CNAME(target) = &record.data else {
                    return None;
                };
                Some((&target.0, record.ttl))
            });
            let Some((target, seconds)) = aliases.next() else {
                break;
            };
            (name, ttl) = (target, ttl.min(seconds));
        }
        let mut addresses = Vec::new();
        for record in message.answers.iter().filter(|record| record.name == *name) {
            let ip = match (self.query.query_type(), &record.data) {
                (RecordType::A, RData::A(a)) => IpAddr::V4(a.0),
                (RecordType::AAAA, RData::AAAA(aaaa)) => IpAddr::V6(aaaa.0),
                _ => continue,
            };
            if addresses.len() < ADDRESSES_MAX && !addresses.contains(&ip) {
                addresses.push(ip);
                ttl = ttl.min(record.ttl);
            }
        }
        match addresses.is_empty() {
            true => Answer::None,
            false => Answer::Addresses(addresses, ttl),
        }
    }
}
