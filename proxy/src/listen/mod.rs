//! Listen: sockets towards HTTP clients, TLS by host name, and the end of both.
//!
//! In: addresses and a directory of certificates. Out: connections, handed to the HTTP engine. The
//! state, who is connected, is the set of tasks that hold a `Running`.

mod accept;
mod certificates;
mod drain;
mod sockets;

pub(crate) use accept::{Door, serve};
pub use certificates::{CertificateError, Certificates};
pub(crate) use drain::{Drain, Running};
pub use sockets::BindError;
pub(crate) use sockets::{tcp, udp};
