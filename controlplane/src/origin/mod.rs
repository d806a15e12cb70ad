//! The Origin API: what a proxy asks about a host, and which layer-4 apps it serves.
//!
//! In: a snapshot of what exists. Out: plain answers, serialized as JSON. State: none.

mod answer;
mod lookup;

pub use answer::{
    App, Apps, Certificate, Certificates, HostAnswer, NamedOrigin, PrivateName, Transport,
};
pub(crate) use lookup::{apps, certificates, host, records_of};
