//! Listen: sockets towards HTTP clients, TLS by host name, and the end of both.
//!
//! In: addresses and a directory of certificates. Out: bound sockets, certificates
//! by name, and a drain. The state, who is connected, is the set of tasks that hold a `Running`.

mod certificates;
mod drain;
mod sockets;

pub use certificates::{CertificateError, Certificates};
pub(crate) use drain::{Drain, Running};
pub use sockets::BindError;
pub(crate) use sockets::{tcp, udp};
