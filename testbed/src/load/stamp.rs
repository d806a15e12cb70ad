//! What every packet of the load carries: trial, flow, sequence number, time.

use std::net::Ipv4Addr;

/// Bytes of a stamp.
pub const STAMP_LEN: usize = 24;
/// IPv4 header without options, and UDP header.
pub const HEADERS_LEN: usize = 28;
/// The port that both ends of every flow use: among those that sockets get by chance, as an edge takes datagrams
/// out of tunnels to no others.
pub const PORT: u16 = 40_100;

/// One packet's identity, in network order behind the UDP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Which trial: stragglers of another one are not counted.
    pub trial: u32,
    /// Which flow: the peer's number.
    pub flow: u32,
    /// Counts the packets of the flow from 0.
    pub sequence: u64,
    /// Nanoseconds since the process began.
    pub sent_at: u64,
}

impl Stamp {
    /// Writes the stamp to the first [`STAMP_LEN`] bytes of a payload.
    ///
    /// # Panics
    /// When the payload is shorter.
    pub fn write(&self, payload: &mut [u8]) {
        payload[..4].copy_from_slice(&self.trial.to_be_bytes());
        payload[4..8].copy_from_slice(&self.flow.to_be_bytes());
        payload[8..16].copy_from_slice(&self.sequence.to_be_bytes());
        payload[16..24].copy_from_slice(&self.sent_at.to_be_bytes());
    }

    /// Reads a stamp. `None` when the payload is too short for one.
    #[must_use]
    pub fn read(payload: &[u8]) -> Option<Self> {
        let (trial, rest) = payload.split_first_chunk()?;
        let (flow, rest) = rest.split_first_chunk()?;
        let (sequence, rest) = rest.split_first_chunk()?;
        Some(Self {
            trial: u32::from_be_bytes(*trial),
            flow: u32::from_be_bytes(*flow),
            sequence: u64::from_be_bytes(*sequence),
            sent_at: u64::from_be_bytes(*rest.first_chunk()?),
        })
    }
}

/// Writes IPv4 and UDP headers to the front of `packet`, for the whole of it. No UDP checksum,
/// which RFC 768 allows.
///
/// # Panics
/// When the packet is shorter than [`HEADERS_LEN`] or longer than 65,535 bytes.
pub fn write_headers(packet: &mut [u8], from: Ipv4Addr, to: Ipv4Addr) {
    let len = u16::try_from(packet.len()).expect("an IPv4 packet's length");
    packet[..HEADERS_LEN].fill(0);
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&len.to_be_bytes());
    packet[6] = 0x40;
    packet[8] = 64;
    packet[9] = 17;
    packet[12..16].copy_from_slice(&from.octets());
    packet[16..20].copy_from_slice(&to.octets());
    let checksum = checksum(&packet[..20]);
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    packet[20..22].copy_from_slice(&PORT.to_be_bytes());
    packet[22..24].copy_from_slice(&PORT.to_be_bytes());
    packet[24..26].copy_from_slice(&(len - 20).to_be_bytes());
}

/// RFC 1071.
fn checksum(header: &[u8]) -> u16 {
    let words = header
        .chunks_exact(2)
        .map(|w| u32::from(u16::from_be_bytes([w[0], w[1]])));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !u16::try_from((folded & 0xffff) + (folded >> 16)).expect("two folds leave sixteen bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_read_as_it_was_written() {
        let stamp = Stamp {
            trial: 1,
            flow: 0x0203_0405,
            sequence: u64::MAX - 1,
            sent_at: 1 << 60,
        };
        let mut payload = [0; 40];
        stamp.write(&mut payload);
        assert_eq!(Stamp::read(&payload), Some(stamp));
        assert_eq!(Stamp::read(&payload[..STAMP_LEN - 1]), None);
    }

    #[test]
    fn another_implementation_reads_the_headers() {
        let (from, to) = (Ipv4Addr::new(10, 64, 3, 1), Ipv4Addr::new(100, 64, 0, 2));
        let mut packet = [7; 64];
        write_headers(&mut packet, from, to);
        let read = etherparse::SlicedPacket::from_ip(&packet).unwrap();
        let Some(etherparse::NetSlice::Ipv4(ip)) = &read.net else {
            panic!("no IPv4: {read:?}");
        };
        assert_eq!(
            (ip.header().source_addr(), ip.header().destination_addr()),
            (from, to)
        );
        let computed = ip.header().to_header().calc_header_checksum();
        assert_eq!(ip.header().header_checksum(), computed);
        let Some(etherparse::TransportSlice::Udp(udp)) = &read.transport else {
            panic!("no UDP: {read:?}");
        };
        assert_eq!((udp.destination_port(), udp.length()), (PORT, 44));
    }
}
