//! Questions and answers, before and after they are bytes.

use std::net::IpAddr;

/// The types of records that are not stored: every zone has them by itself, or they only ask.
pub mod types {
    /// The start of a zone.
    pub const SOA: u16 = 6;
    /// A host's machine; what [`ANY`] is answered with (RFC 8482, section 4.2).
    pub const HINFO: u16 = 13;
    /// Whatever there is.
    pub const ANY: u16 = 255;
}

/// What is asked: IN is the only class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Lower case, no trailing dot; empty for the root. Bytes that no host name has are escaped.
    pub name: String,
    /// The number of the type.
    pub kind: u16,
}

/// What is answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    /// Whether there is such a name.
    pub rcode: Rcode,
    /// Whether the answer is of a zone of ours, and not only a hint who has it.
    pub is_authoritative: bool,
    /// What was asked for.
    pub answers: Vec<Rr>,
    /// The SOA when there is nothing, or the servers of a zone below.
    pub authorities: Vec<Rr>,
    /// Addresses of name servers that are named above.
    pub additionals: Vec<Rr>,
}

/// How it went (RFC 1035, section 4.1.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rcode {
    /// The name exists.
    #[default]
    NoError,
    /// The name does not exist.
    NxDomain,
    /// The name is in no zone of ours.
    Refused,
}

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rr {
    /// Whose it is.
    pub owner: Owner,
    /// The number of the type.
    pub kind: u16,
    /// Seconds.
    pub ttl: u32,
    /// The RDATA, names uncompressed.
    pub rdata: Vec<u8>,
}

/// Whose a record is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The name that was asked for, as it was written.
    Asked,
    /// This name.
    Name(String),
}

/// Who the edge is to the world.
#[derive(Clone, Copy, Debug)]
pub struct Edge<'a> {
    /// What proxied names and apps lead to.
    pub addresses: &'a [IpAddr],
    /// The name servers of every zone.
    pub name_servers: &'a [String],
}

/// Answers questions from the newest state. Called for each query, from several threads: it neither
/// blocks nor locks.
pub trait Authority: Send + Sync {
    /// The answer.
    fn answer(&self, question: &Question) -> Reply;
}
