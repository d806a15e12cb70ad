//! How the proxy's TCP sockets send on long, lossy paths, towards clients and towards origins.

use std::os::fd::AsFd;
use std::sync::Arc;

use nix::sys::socket::{setsockopt, sockopt};

use crate::counters::Counters;

/// What a connection may have under way, sent and not acknowledged. The kernel's own limit, 4 MiB
/// (tcp_wmem), is 0.5 Gb/s at 20 ms while BBR repairs 1 % loss: 56 % of the loss-free rate, with
/// this all of it (testbed/bench.sh wan). It is a limit: who acknowledges nothing is sent little.
const IN_FLIGHT_BYTES: usize = 16 << 20;

/// What a connection may hold besides that, not yet sent: enough for two milliseconds at 1 Gb/s until
/// the proxy writes again. Without it, every slow client would have its window and the limit above.
const UNSENT_BYTES: u32 = 256 << 10;

/// Sets the congestion control and the buffer of sockets. One per proxy, shared.
///
/// A long path that loses one packet in a hundred leaves cubic (RFC 9438) a few Mb/s; BBR takes its
/// rate from what arrives, not from what is lost. It is set on both sides of the proxy, because both
/// send: bodies of answers to clients, bodies of requests to origins.
#[derive(Clone, Debug)]
pub(crate) struct Congestion {
    /// `None` leaves sockets as the kernel makes them.
    name: Option<Arc<str>>,
    counters: Arc<Counters>,
}

impl Congestion {
    /// The control of that name if the kernel gives it to this process (`CAP_NET_ADMIN` loads its
    /// module), else the kernel's default, which is logged and counted.
    pub(crate) fn new(name: Option<&str>, counters: &Arc<Counters>) -> Self {
        let mut congestion = Self {
            name: name.map(Arc::from),
            counters: Arc::clone(counters),
        };
        let probe = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        if let (Some(name), Ok(probe)) = (name, probe)
            && !congestion.set(&probe)
        {
            tracing::warn!(
                congestion = name,
                "the kernel does not have it, or not for this process: its default is used"
            );
            congestion.name = None;
        }
        congestion
    }

    /// Sets it on one socket; accepted sockets have it from their listener. False, and counted, when
    /// the kernel refuses: the connection works all the same.
    pub(crate) fn set(&self, socket: &impl AsFd) -> bool {
        widen(socket);
        let Some(name) = self.name.as_deref() else {
            return true;
        };
        let is_set = setsockopt(socket, sockopt::TcpCongestion, &name.into()).is_ok();
        if !is_set {
            self.counters.congestion_refused_total.increment();
        }
        is_set
    }
}

/// Gives a socket its buffer, where this process may (`CAP_NET_ADMIN`): a smaller one would end the
/// kernel's own tuning for nothing.
fn widen(socket: &impl AsFd) {
    let is_limited = socket2::SockRef::from(socket).set_tcp_notsent_lowat(UNSENT_BYTES);
    if is_limited.is_ok() && setsockopt(socket, sockopt::SndBufForce, &IN_FLIGHT_BYTES).is_err() {
        tracing::trace!("a socket keeps the kernel's send buffer");
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use nix::sys::socket::getsockopt;

    use super::*;

    fn of(socket: &impl AsFd) -> String {
        let name = getsockopt(socket, sockopt::TcpCongestion).unwrap();
        let name = name.to_string_lossy();
        name.trim_end_matches('\0').to_owned()
    }

    /// Every kernel has reno (net/ipv4/tcp_cong.c registers it as its fallback).
    #[test]
    fn an_accepted_connection_has_the_congestion_control_of_its_listener() {
        let counters = Arc::new(Counters::default());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(Congestion::new(Some("reno"), &counters).set(&listener));
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        assert_eq!(of(&accepted), "reno");
        assert_eq!(counters.congestion_refused_total.value(), 0);
    }

    #[test]
    fn a_control_that_the_kernel_does_not_have_is_counted_once_and_leaves_its_default() {
        let counters = Arc::new(Counters::default());
        let congestion = Congestion::new(Some("no-such-control"), &counters);
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let default = of(&socket);
        assert!(congestion.set(&socket));
        assert_eq!(of(&socket), default);
        assert_eq!(counters.congestion_refused_total.value(), 1);
    }
}
