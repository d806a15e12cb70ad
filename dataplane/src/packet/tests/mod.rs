//! Packets made and judged by etherparse, for the tests of this room.

use etherparse::{
    IpHeaders, IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6Header, NetHeaders, PacketBuilder,
    PacketHeaders, TcpHeader, TransportHeader,
};

use super::{Outbox, Segmentation, Segments, Transmit};

mod coalesce;
mod fragment;
mod offload;
mod split;
mod train;

/// One packet of a flow, as the sender's stack would make it.
#[derive(Clone, Debug, PartialEq)]
struct Packet {
    is_v6: bool,
    id: u16,
    has_df: bool,
    ttl: u8,
    port: u16,
    l4: L4,
    payload: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq)]
enum L4 {
    Udp,
    Tcp {
        seq: u32,
        ack: u32,
        window: u16,
        flags: &'static str,
        options: Vec<u8>,
    },
}

impl Packet {
    fn tcp(seq: u32, flags: &'static str, payload: &[u8]) -> Self {
        let l4 = L4::Tcp {
            seq,
            ack: 77,
            window: 500,
            flags,
            options: vec![1; 12],
        };
        Self {
            is_v6: false,
            id: 9,
            has_df: true,
            ttl: 64,
            port: 443,
            l4,
            payload: payload.into(),
        }
    }

    fn udp(id: u16, payload: &[u8]) -> Self {
        let has_df = false;
        Self {
            is_v6: false,
            id,
            has_df,
            ttl: 64,
            port: 53,
            l4: L4::Udp,
            payload: payload.into(),
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let protocol = if self.l4 == L4::Udp {
            IpNumber::UDP
        } else {
            IpNumber::TCP
        };
        let ip = if self.is_v6 {
            let header = Ipv6Header {
                traffic_class: 0x0b,
                flow_label: Ipv6FlowLabel::try_new(0x12345).unwrap(),
                payload_length: 0,
                next_header: protocol,
                hop_limit: self.ttl,
                source: [0xfd; 16],
                destination: [0x26; 16],
            };
            IpHeaders::Ipv6(header, Default::default())
        } else {
            let (src, dst) = ([10, 0, 0, 50], [100, 64, 0, 2]);
            let mut header = Ipv4Header::new(0, self.ttl, protocol, src, dst).unwrap();
            header.identification = self.id;
            header.dont_fragment = self.has_df;
            IpHeaders::Ipv4(header, Default::default())
        };
        let mut bytes = Vec::new();
        let builder = PacketBuilder::ip(ip);
        match &self.l4 {
            L4::Udp => builder
                .udp(9999, self.port)
                .write(&mut bytes, &self.payload),
            L4::Tcp {
                seq,
                ack,
                window,
                flags,
                options,
            } => {
                let mut header = TcpHeader::new(9999, self.port, *seq, *window);
                header.acknowledgment_number = *ack;
                header.set_options_raw(options).unwrap();
                header.ack = flags.contains('A');
                header.psh = flags.contains('P');
                header.fin = flags.contains('F');
                header.syn = flags.contains('S');
                header.rst = flags.contains('R');
                header.urg = flags.contains('U');
                header.ece = flags.contains('E');
                header.cwr = flags.contains('C');
                builder.tcp_header(header).write(&mut bytes, &self.payload)
            }
        }
        .unwrap();
        bytes
    }
}

/// Fails unless etherparse finds every length and checksum of the packet right.
fn assert_valid(packet: &[u8]) {
    let seen = PacketHeaders::from_ip_slice(packet).unwrap();
    let payload = seen.payload.slice();
    let l4_len = seen.transport.as_ref().unwrap().header_len() + payload.len();
    let mut transport = seen.transport.clone().unwrap();
    if let TransportHeader::Udp(udp) = &transport {
        assert_eq!(usize::from(udp.length), l4_len);
        assert_ne!(udp.checksum, 0);
    }
    match seen.net.unwrap() {
        NetHeaders::Ipv4(ip, _) => {
            assert_eq!(ip.header_checksum, ip.calc_header_checksum());
            assert_eq!(usize::from(ip.total_len), packet.len());
            transport.update_checksum_ipv4(&ip, payload).unwrap();
        }
        NetHeaders::Ipv6(ip, _) => {
            assert_eq!(usize::from(ip.payload_length), packet.len() - 40);
            transport.update_checksum_ipv6(&ip, payload).unwrap();
        }
        NetHeaders::Arp(_) => panic!("not IP"),
    }
    assert_eq!(Some(transport), seen.transport, "transport checksum");
}

fn drain_segments(mut segments: Segments<'_>) -> Vec<Vec<u8>> {
    let mut out = vec![0xee; segments.len_max()];
    let mut all = Vec::new();
    let announced = segments.remaining();
    while let Some(len) = segments.next_into(&mut out) {
        all.push(out[..len].to_vec());
    }
    assert_eq!(all.len(), announced);
    assert_eq!(segments.remaining(), 0);
    all
}

/// Everything for the overlay: each packet, and what it is cut into.
fn drain_overlay(outbox: &mut Outbox) -> Vec<(Segmentation, Vec<Vec<u8>>)> {
    let mut all = Vec::new();
    while let Some(transmit) = outbox.poll_transmit() {
        let Transmit::Device {
            offload, packet, ..
        } = transmit
        else {
            panic!("nothing was reserved");
        };
        let segments = Segments::new(packet, offload).unwrap();
        all.push((offload.segmentation, drain_segments(segments)));
    }
    all
}
