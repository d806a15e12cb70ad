//! The objects customers name: pure data and the rules on it, one file per resource.
//!
//! In: JSON fields of a request. Out: a valid object, or a [`Refusal`]. State: none. A rule that
//! needs a second object is the API's (`api/`), which sees a whole snapshot.

pub mod account;
pub mod address;
pub mod asked;
pub mod audit;
pub mod certificate;
pub mod counter;
pub mod fields;
pub mod host_name;
pub mod hostname_route;
pub mod id;
pub mod key_check;
pub mod lease;
pub mod node;
pub mod origin_dns;
pub mod permission;
pub mod rdata;
pub mod record;
pub mod record_draft;
pub mod refusal;
pub mod route;
pub mod setting;
pub mod soa;
pub mod spectrum;
pub mod static_route;
pub mod subnet;
pub mod token;
pub mod token_use;
pub mod tunnel;
pub mod vnet;
pub mod zone;
pub mod zone_file;

use std::fmt::{Debug, Display};
use std::str::FromStr;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use fields::Fields;
pub use id::{HexId, Timestamp};
pub use refusal::{Fault, Refusal};

/// An object that is stored, by itself, under its kind and id.
pub trait Resource: Clone + Debug + Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The first part of the object's key in the store; never changes once released.
    const KIND: &'static str;
    /// JSON pointers to what is secret in the object: sealed in the store, and not in the audit log.
    const SECRETS: &'static [&'static str] = &[];
    /// Whether changes of it are in the audit log.
    const IS_AUDITED: bool = true;
    /// Whether nodes are told of it. What they need not know stays where it is.
    const ON_NODES: bool = false;
    /// What names the object among its kind.
    type Id: Ord + Clone + Debug + Display + FromStr + Send + Sync;
    /// The object's name among its kind.
    fn id(&self) -> Self::Id;
}
