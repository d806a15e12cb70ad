//! The IP header of a packet that is made here and not by smoltcp.

use std::net::IpAddr;

use super::table::Key;
use crate::wire::checksum::Sum;
use crate::wire::ip::put_word;

/// TTL of what is sent: what RFC 1700 advises and the kernel does.
const HOPS: u8 = 64;

/// Length of the IP header for an address.
pub(super) fn len(address: IpAddr) -> usize {
    match address {
        IpAddr::V4(_) => 20,
        IpAddr::V6(_) => 40,
    }
}

/// Writes the header of a packet of `packet_len` bytes from a flow's local to its remote side.
pub(super) fn write(key: &Key, protocol: u8, packet_len: usize, out: &mut [u8]) {
    let narrow = |len| u16::try_from(len).expect("a packet is not longer than 65535");
    match (key.local.ip(), key.remote.ip()) {
        (IpAddr::V4(source), IpAddr::V4(to)) => {
            out[..20].fill(0);
            out[0] = 0x45;
            put_word(out, 2, narrow(packet_len));
            // Don't fragment: then it needs no identification (RFC 6864 section 4.1).
            out[6] = 0x40;
            out[8] = HOPS;
            out[9] = protocol;
            out[12..16].copy_from_slice(&source.octets());
            out[16..20].copy_from_slice(&to.octets());
            let sum = Sum::new().bytes(&out[..20]).checksum();
            put_word(out, 10, sum);
        }
        (IpAddr::V6(source), IpAddr::V6(to)) => {
            out[..40].fill(0);
            out[0] = 0x60;
            put_word(out, 4, narrow(packet_len - 40));
            out[6] = protocol;
            out[7] = HOPS;
            out[8..24].copy_from_slice(&source.octets());
            out[24..40].copy_from_slice(&to.octets());
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {
            unreachable!("the table refuses flows between families")
        }
    }
}
