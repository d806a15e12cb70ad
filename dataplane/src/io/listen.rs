//! The ports of a router: which carrier is bound where.

use std::io;
use std::net::{IpAddr, SocketAddr};

use nix::libc;

use crate::id::Workers;
use crate::packet::Carrier;

use super::port::Port;
use super::raw;
use super::setup::{Overlay, RouterConfig, SetupError};
use super::udp::Socket;

/// Whether the addresses can be had, before anything is made.
pub(super) fn check(config: &RouterConfig) -> Result<(), SetupError> {
    let RouterConfig {
        listen,
        ipsec,
        gre,
        relay,
        ..
    } = config;
    let v4 = listen.iter().filter(|address| address.is_ipv4()).count();
    let is_nothing = listen.is_empty() && ipsec.is_empty() && gre.is_empty();
    if is_nothing || v4 > 1 || listen.len() - v4 > 1 {
        return Err(SetupError::Listen(listen.len()));
    }
    let relay_ip = relay.map(|address| address.ip());
    let mut ends = ipsec.iter().chain(gre).chain(&relay_ip);
    if let Some(address) = ends.find(|one| one.is_unspecified()) {
        return Err(SetupError::Wildcard(*address));
    }
    // Before anything is made: this says more than that a second router is one too many.
    let wireguard = listen.iter().map(|address| (Carrier::WireGuard, *address));
    let shared = ipsec.iter().flat_map(|address| ipsec_ports(*address));
    let relay = relay.map(|address| (Carrier::Relay, address));
    for (carrier, address) in wireguard.chain(shared).chain(relay) {
        drop(bind(carrier, address, Workers::ONE)?);
    }
    Ok(())
}

/// The UDP ports of IPsec: IKE, and what is behind a NAT (RFC 7296 section 2).
pub(super) const IKE_PORTS: [u16; 2] = [500, 4500];

/// Those of an IPsec address.
fn ipsec_ports(address: IpAddr) -> [(Carrier, SocketAddr); 2] {
    let port = |carrier, number| (carrier, SocketAddr::new(address, number));
    let [ike, nat_t] = IKE_PORTS;
    [port(Carrier::Ike, ike), port(Carrier::NatT, nat_t)]
}

/// The ports of every carrier, for each worker.
pub(super) fn ports(config: &RouterConfig, workers: Workers) -> Result<Vec<Vec<Port>>, SetupError> {
    let mut ports: Vec<Vec<Port>> = workers.iter().map(|_| Vec::new()).collect();
    let wireguard = config.listen.iter();
    let wireguard = wireguard.map(|address| (Carrier::WireGuard, *address));
    let shared = config
        .ipsec
        .iter()
        .flat_map(|address| ipsec_ports(*address));
    let relay = config.relay.map(|address| (Carrier::Relay, address));
    for (carrier, address) in wireguard.chain(shared).chain(relay) {
        for (of_worker, socket) in ports.iter_mut().zip(bind(carrier, address, workers)?) {
            if carrier == Carrier::Relay {
                let cut = socket.cut_always();
                cut.map_err(|source| SetupError::Socket { address, source })?;
            }
            of_worker.push(Port::udp(carrier, socket));
        }
    }
    let esp = config.ipsec.iter().map(|address| (Carrier::Esp, *address));
    let gre = config.gre.iter().map(|address| (Carrier::Gre, *address));
    let mut ends = [&config.ipsec[..], &config.gre].concat();
    ends.sort_unstable();
    ends.dedup();
    let echo = ends.into_iter().map(|address| (Carrier::Echo, address));
    for (carrier, address) in esp.chain(gre).chain(echo) {
        let sockets = match raw::Socket::open_all(carrier, address, workers) {
            Ok(sockets) => sockets,
            Err(error) if is_optional(config, carrier, &error) => {
                tracing::warn!(%address, ?carrier, "not without CAP_NET_RAW: ESP goes in UDP only, and no probe comes back past its tunnel");
                continue;
            }
            Err(source) => return Err(raw_error(carrier, address, source)),
        };
        for (of_worker, socket) in ports.iter_mut().zip(sockets) {
            of_worker.push(Port::raw(carrier, socket));
        }
    }
    Ok(ports)
}

/// Userspace flows need no privilege, and IPsec has UDP.
fn is_optional(config: &RouterConfig, carrier: Carrier, error: &io::Error) -> bool {
    matches!(config.overlay, Overlay::Userspace { .. })
        && matches!(carrier, Carrier::Esp | Carrier::Echo)
        && error.raw_os_error() == Some(libc::EPERM)
}

fn raw_error(carrier: Carrier, address: IpAddr, source: io::Error) -> SetupError {
    match source.raw_os_error() {
        Some(libc::EADDRNOTAVAIL) => SetupError::NoSuchAddress(address),
        Some(libc::EPERM) => SetupError::RawNotPermitted(carrier),
        _ => SetupError::Raw {
            carrier,
            address,
            source,
        },
    }
}

fn bind(
    carrier: Carrier,
    address: SocketAddr,
    workers: Workers,
) -> Result<Vec<Socket>, SetupError> {
    Socket::bind_all(carrier, address, workers).map_err(|source| match source.raw_os_error() {
        Some(libc::EADDRINUSE) => SetupError::PortInUse(address),
        Some(libc::EADDRNOTAVAIL) => SetupError::NoSuchAddress(address.ip()),
        _ => SetupError::Socket { address, source },
    })
}
