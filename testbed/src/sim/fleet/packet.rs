//! Packets that say which vnet they were sent in.

use std::net::{IpAddr, Ipv4Addr};

use dataplane::id::VnetId;
use dataplane::source;
use dataplane::wire::checksum::Sum;

/// What every packet's payload begins with.
const MAGIC: [u8; 8] = *b"pcfleet!";

/// The vnet that a packet was sent in, also if it is only quoted.
pub(super) fn stamp(packet: &[u8]) -> Option<VnetId> {
    packet.windows(MAGIC.len() + 2).find_map(|window| {
        let number = window.strip_prefix(&MAGIC)?;
        Some(VnetId(u16::from_be_bytes([number[0], number[1]])))
    })
}

/// A UDP packet that says which vnet it was sent in.
pub(super) fn stamped(from: IpAddr, to: IpAddr, vnet: VnetId, port: u16) -> Vec<u8> {
    let mut udp = vec![0; 8];
    udp[..2].copy_from_slice(&port.to_be_bytes());
    udp[3] = 53;
    udp.extend(MAGIC);
    udp.extend(vnet.0.to_be_bytes());
    udp[5] = u8::try_from(udp.len()).expect("a few bytes");
    let len = udp.len();
    let mut packet;
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            packet = vec![0; 20 + len];
            crate::load::stamp::write_headers(&mut packet[..28], from, to);
            let total = u16::try_from(20 + len).expect("a few bytes");
            packet[2..4].copy_from_slice(&total.to_be_bytes());
            packet[10..12].fill(0);
            let sum = Sum::new().bytes(&packet[..20]);
            packet[10..12].copy_from_slice(&sum.checksum().to_be_bytes());
            packet[20..].copy_from_slice(&udp);
        }
        (from, to) => {
            packet = vec![0; 40];
            let total = u16::try_from(len).expect("a few bytes");
            (packet[0], packet[6], packet[7]) = (0x60, 17, 64);
            packet[4..6].copy_from_slice(&total.to_be_bytes());
            for (at, address) in [(8, from), (24, to)] {
                if let IpAddr::V6(address) = address {
                    packet[at..at + 16].copy_from_slice(&address.octets());
                }
            }
            packet.extend(udp);
        }
    }
    packet
}

pub(super) fn destination(packet: &[u8]) -> Option<IpAddr> {
    let v6 = || {
        packet
            .get(24..40)?
            .try_into()
            .ok()
            .map(|to: [u8; 16]| IpAddr::from(to))
    };
    let v4 = || {
        packet
            .get(16..20)?
            .try_into()
            .ok()
            .map(|to: [u8; 4]| IpAddr::from(to))
    };
    if packet.first()? >> 4 == 6 {
        v6()
    } else {
        v4()
    }
}

pub(super) fn host(network: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, network, 9).into()
}

pub(super) fn host_v6(network: u8) -> IpAddr {
    IpAddr::from([0xfd00, 0, 0, u16::from(network), 0, 0, 0, 9])
}

pub(super) fn v6_of(source: IpAddr) -> IpAddr {
    match source {
        IpAddr::V4(source) => source::to_v6(source).into(),
        IpAddr::V6(_) => source,
    }
}
