//! Why a request was refused: whose fault, a stable number, a sentence to act on.

use std::fmt;

/// Whose fault it is and whether to try again; decides the HTTP status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The request is wrong; the same request is wrong again.
    Invalid,
    /// The token is missing, wrong or malformed.
    Forbidden,
    /// No such object, or not below this account or zone.
    NotFound,
    /// The path exists, the method does not.
    Method,
    /// The object clashes with one that exists.
    Conflict,
    /// The body is over the limit.
    TooLarge,
    /// The body did not arrive in time.
    TooSlow,
    /// Another control plane changed the state, to this revision, before the request could: it is to be
    /// looked at again, on that state.
    Stale(u64),
    /// Too many requests came.
    TooMany,
    /// Ours: the store failed. A retry is safe; nothing was acknowledged.
    Ours,
}

/// A refused request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Whose fault.
    pub fault: Fault,
    /// The stable number of the reason, at least 1000.
    pub code: u32,
    /// A sentence for the customer.
    pub message: String,
    /// JSON pointer to the field that is wrong.
    pub pointer: Option<String>,
    /// More exact reasons under the general one.
    pub chain: Vec<(u32, String)>,
}

impl Refusal {
    /// A refusal without pointer or chain.
    pub fn new(fault: Fault, code: u32, message: impl Into<String>) -> Refusal {
        Refusal {
            fault,
            code,
            message: message.into(),
            pointer: None,
            chain: Vec::new(),
        }
    }

    /// The request is wrong.
    pub fn invalid(code: u32, message: impl Into<String>) -> Refusal {
        Refusal::new(Fault::Invalid, code, message)
    }

    /// The object clashes with one that exists.
    pub fn conflict(code: u32, message: impl Into<String>) -> Refusal {
        Refusal::new(Fault::Conflict, code, message)
    }

    /// No such object.
    pub fn not_found(code: u32, message: impl Into<String>) -> Refusal {
        Refusal::new(Fault::NotFound, code, message)
    }

    /// The same, pointing at the field `name` of the body.
    #[must_use]
    pub fn at(mut self, name: &str) -> Refusal {
        self.pointer = Some(format!("/{name}"));
        self
    }

    /// The same, where the body is one of several in a larger one, at `path`.
    #[must_use]
    pub fn within(mut self, path: &str) -> Refusal {
        self.pointer = Some(format!("{path}{}", self.pointer.unwrap_or_default()));
        self
    }

    /// The same, with a more exact reason.
    #[must_use]
    pub fn because(mut self, code: u32, message: impl Into<String>) -> Refusal {
        self.chain.push((code, message.into()));
        self
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (code {})", self.message, self.code)?;
        self.chain
            .iter()
            .try_for_each(|(code, message)| write!(f, ": {message} (code {code})"))
    }
}

impl std::error::Error for Refusal {}
