//! The DNS server: queries from the world, answers of the zones, bounds on both.
//!
//! In: datagrams and TCP connections of strangers; answers through one trait,
//! `controlplane::dns::Authority`. Out: messages. State: a rate limit for each UDP socket, the count
//! of TCP connections. It is authoritative only: no recursion, no transfers, nothing for other zones.

mod limit;
mod message;
mod tcp;
mod udp;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;

use controlplane::dns::Authority;
use tokio::net::{TcpListener, UdpSocket};

use crate::config::DnsLimits;
use crate::congestion::Congestion;
use crate::counters::Counters;
use crate::listen::{self, BindError};

/// What every socket of the server needs.
pub(crate) struct Server {
    pub(crate) authority: Arc<dyn Authority>,
    pub(crate) limits: DnsLimits,
    pub(crate) counters: Arc<Counters>,
}

/// Sockets of one address that are bound and not yet served.
pub(crate) struct Bound {
    udp: std::net::UdpSocket,
    tcp: std::net::TcpListener,
    address: SocketAddr,
}

impl Bound {
    /// Binds UDP and TCP; with port 0 both get the one that the system chooses.
    ///
    /// # Errors
    /// Says which address cannot be listened on, and why.
    pub(crate) fn new(address: SocketAddr, counters: &Arc<Counters>) -> Result<Bound, BindError> {
        let udp = listen::udp(address, "DNS")?;
        let address = udp.local_addr().unwrap_or(address);
        // Answers are short: the kernel's congestion control is as good as any.
        let tcp = listen::tcp(address, "DNS", &Congestion::new(None, counters))?;
        Ok(Bound { udp, tcp, address })
    }

    /// Serves the sockets on the runtime that is entered, until that ends.
    ///
    /// # Errors
    /// When the runtime does not take them.
    pub(crate) fn serve(self, server: &Arc<Server>) -> std::io::Result<SocketAddr> {
        let udp = UdpSocket::from_std(self.udp)?;
        let tcp = TcpListener::from_std(self.tcp)?;
        tokio::spawn(udp::serve(udp, Arc::clone(server)));
        tokio::spawn(tcp::serve(tcp, Arc::clone(server)));
        Ok(self.address)
    }
}
