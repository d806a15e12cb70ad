//! Listen: sockets towards HTTP clients, TLS by host name, threads to serve them, and the end of all.
//!
//! In: addresses and a directory of certificates. Out: bound sockets, certificates
//! by name, and a drain. The state, who is connected, is the set of tasks that hold a `Running`.

mod certificates;
mod drain;
mod lanes;
mod sockets;

pub(crate) use certificates::Uploaded;
pub use certificates::{CertificateError, Certificates};
pub(crate) use drain::{Drain, Running};
pub(crate) use lanes::Lanes;
pub use sockets::BindError;
pub(crate) use sockets::{tcp, udp};
