//! Packets that no honest origin sends, and those of another vnet.

use super::*;
use crate::wire::icmp::{ErrorKind, error};

pub(super) const FIN: u8 = 1;
pub(super) const SYN: u8 = 2;
pub(super) const RST: u8 = 4;
pub(super) const ACK: u8 = 16;

/// The other side of a TCP flow, by hand.
pub(super) struct Peer {
    local: SocketAddr,
    remote: SocketAddr,
    seq: u32,
    ack: u32,
}

impl Peer {
    /// Of a connected flow: a challenge tells the numbers.
    pub(super) fn of(bed: &mut Bed, flow: FlowId) -> Self {
        let remote = bed.flows.local(flow).unwrap();
        bed.flows.send(flow, b"?").unwrap();
        let sent = bed.take();
        Self::answering(&sent[0], remote)
    }

    /// To a packet of a flow.
    pub(super) fn answering(packet: &[u8], remote: SocketAddr) -> Self {
        let sliced = etherparse::SlicedPacket::from_ip(packet).unwrap();
        let Some(etherparse::TransportSlice::Tcp(tcp)) = sliced.transport else {
            panic!("not TCP");
        };
        let len = u32::try_from(tcp.payload().len()).unwrap() + u32::from(tcp.syn());
        let octets: [u8; 4] = packet[16..20].try_into().unwrap();
        Self {
            local: SocketAddr::new(octets.into(), tcp.destination_port()),
            remote,
            seq: tcp.acknowledgment_number(),
            ack: tcp.sequence_number().wrapping_add(len),
        }
    }

    pub(super) fn segment(&mut self, flags: u8, payload: &[u8]) -> Vec<u8> {
        let (IpAddr::V4(from), IpAddr::V4(to)) = (self.local.ip(), self.remote.ip()) else {
            panic!("IPv4 only");
        };
        let mut header =
            etherparse::TcpHeader::new(self.local.port(), self.remote.port(), self.seq, 60_000);
        header.acknowledgment_number = self.ack;
        header.ack = flags & ACK != 0;
        header.syn = flags & SYN != 0;
        header.rst = flags & RST != 0;
        header.fin = flags & FIN != 0;
        let builder = etherparse::PacketBuilder::ipv4(from.octets(), to.octets(), 64);
        let mut out = Vec::new();
        builder.tcp_header(header).write(&mut out, payload).unwrap();
        self.seq = self
            .seq
            .wrapping_add(u32::try_from(payload.len()).unwrap())
            .wrapping_add(u32::from(flags & SYN != 0));
        out
    }
}

/// A connected flow, and its other side.
fn connected(bed: &mut Bed, source: &str, origin: &str) -> (FlowId, Peer) {
    let flow = bed.connect(Protocol::Tcp, source, origin);
    let syn = bed.take();
    let local = bed.flows.local(flow).unwrap();
    let mut peer = Peer::answering(&syn[0], local);
    peer.seq = 77;
    let answer = peer.segment(SYN | ACK, &[]);
    bed.give(&answer);
    assert_eq!(bed.events(), [Happened::Connected]);
    bed.take();
    (flow, peer)
}

#[test]
fn two_vnets_with_the_same_origin_never_mix() {
    let mut bed = bed();
    let (one, mut peer_one) = connected(&mut bed, "100.64.0.2", "10.0.0.50:80");
    let (two, mut peer_two) = connected(&mut bed, "100.64.0.3", "10.0.0.50:80");
    let packet = peer_one.segment(ACK, b"for one");
    bed.give(&packet);
    assert_eq!(bed.read(two).0, b"");
    let packet = peer_two.segment(ACK, b"for two");
    bed.give(&packet);
    assert_eq!(bed.read(one).0, b"for one");
    assert_eq!(bed.read(two).0, b"for two");
    // The right ports and numbers from the wrong address are nobody's.
    peer_one.local = to("10.0.0.51:80");
    let packet = peer_one.segment(ACK, b"forged");
    bed.give(&packet);
    assert_eq!(bed.flows.counters().rx_unknown, 1);
    assert_eq!((bed.read(one).0, bed.read(two).0), (vec![], vec![]));
}

#[test]
fn a_damaged_packet_is_counted_and_nothing_else() {
    let mut bed = bed();
    let (flow, mut peer) = connected(&mut bed, "100.64.0.2", "10.0.0.50:80");
    let good = peer.segment(ACK, b"payload");
    for at in 20..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        bed.give(&bad);
    }
    let bits = u64::try_from(good.len() - 20).unwrap();
    assert_eq!(bed.flows.counters().rx_checksum, bits);
    assert_eq!(bed.take(), Vec::<Vec<u8>>::new());
    assert_eq!(bed.read(flow).0, b"");
    for len in 0..good.len() {
        bed.give(&good[..len]);
    }
    assert_eq!(bed.read(flow).0, b"");
    bed.give(&good);
    assert_eq!(bed.read(flow).0, b"payload");
}

#[test]
fn a_reset_outside_the_window_does_not_end_a_stream() {
    let mut bed = bed();
    let (_, mut peer) = connected(&mut bed, "100.64.0.2", "10.0.0.50:80");
    peer.seq = peer.seq.wrapping_add(1 << 24);
    let packet = peer.segment(RST, &[]);
    bed.give(&packet);
    bed.drain();
    assert_eq!(bed.events(), []);
}

#[test]
fn an_unreachable_error_ends_a_connect_only_if_it_is_about_us() {
    let mut bed = bed();
    let flow = bed.connect(Protocol::Tcp, "100.64.0.2", "10.0.0.50:80");
    let syn = bed.take();
    let mut out = [0; 1300];
    let len = error(ErrorKind::NetUnreachable, &syn[0], ip("10.0.0.1"), &mut out).unwrap();
    // Sent to another vnet's address, but about this one's flow.
    let mut forged = out[..len].to_vec();
    forged[19] = 3;
    fix_ip(&mut forged);
    bed.give(&forged);
    assert_eq!(bed.events(), []);
    // A damaged one.
    let mut damaged = out[..len].to_vec();
    damaged[len - 1] ^= 1;
    bed.give(&damaged);
    assert_eq!(bed.events(), []);
    bed.give(&out[..len]);
    assert_eq!(bed.events(), [Happened::Ended(Ended::Unreachable)]);
    assert_eq!(bed.read(flow).1, RecvError::Ended(Ended::Unreachable));
}

#[test]
fn an_unreachable_error_does_not_end_a_connection() {
    let mut bed = bed();
    let (flow, _) = connected(&mut bed, "100.64.0.2", "10.0.0.50:80");
    bed.flows.send(flow, b"data").unwrap();
    let sent = bed.take();
    let mut out = [0; 1300];
    let len = error(
        ErrorKind::NetUnreachable,
        &sent[0],
        ip("10.0.0.1"),
        &mut out,
    )
    .unwrap();
    bed.give(&out[..len]);
    assert_eq!(bed.events(), []);
}

#[test]
fn a_segment_that_no_flow_is_for_is_answered_by_a_reset_and_a_reset_is_not() {
    let mut bed = bed();
    let (_, mut peer) = connected(&mut bed, "100.64.0.2", "10.0.0.50:80");
    peer.remote.set_port(1);
    let lost = peer.segment(ACK, b"lost");
    bed.give(&lost);
    let sent = bed.take();
    assert_eq!(sent.len(), 1);
    let sliced = etherparse::SlicedPacket::from_ip(&sent[0]).unwrap();
    let Some(etherparse::TransportSlice::Tcp(tcp)) = sliced.transport else {
        panic!("not TCP");
    };
    // RFC 9293 section 3.10.7.1: the reset takes its sequence number from the segment's ACK.
    assert!(tcp.rst() && !tcp.ack());
    assert_eq!(tcp.sequence_number(), peer.ack);
    let reset = peer.segment(RST, &[]);
    bed.give(&reset);
    assert_eq!(bed.take(), Vec::<Vec<u8>>::new());
}

#[test]
fn a_flood_of_strays_takes_no_memory() {
    let mut bed = bed();
    let (_, mut peer) = connected(&mut bed, "100.64.0.2", "10.0.0.50:80");
    for port in 1..=5000 {
        peer.remote.set_port(port);
        let stray = peer.segment(ACK, b"stray");
        bed.give(&stray);
    }
    let counters = bed.flows.counters();
    assert_eq!(counters.tx_replies_lost, counters.rx_unknown - 1024);
    assert_eq!(counters.open, 1);
    assert_eq!(bed.take().len(), 1024);
}

#[test]
fn pieces_and_other_protocols_are_dropped() {
    let mut bed = bed();
    let (flow, mut peer) = connected(&mut bed, "100.64.0.2", "10.0.0.50:80");
    let mut piece = peer.segment(ACK, b"piece");
    piece[6] = 0x20;
    fix_ip(&mut piece);
    bed.give(&piece);
    let mut other = peer.segment(ACK, b"other");
    other[9] = 47;
    fix_ip(&mut other);
    bed.give(&other);
    bed.give(&[]);
    bed.give(&[0x45]);
    assert_eq!(bed.flows.counters().rx_malformed, 4);
    assert_eq!(bed.read(flow).0, b"");
}

#[test]
fn sequence_numbers_cannot_be_told_from_those_of_other_flows() {
    let mut seen = std::collections::HashSet::new();
    for secret in 0..8 {
        let mut bed = with(|config| config.secret = [secret, 1]);
        for _ in 0..64 {
            bed.connect(Protocol::Tcp, "100.64.0.2", "10.0.0.50:80");
        }
        for syn in bed.take() {
            assert!(seen.insert(syn[24..28].to_vec()));
        }
    }
}

fn fix_ip(packet: &mut [u8]) {
    packet[10..12].fill(0);
    let header = etherparse::Ipv4Header::from_slice(packet).unwrap().0;
    packet[10..12].copy_from_slice(&header.calc_header_checksum().to_be_bytes());
}

/// A transaction for the scaling test: a request, an answer, both small.
pub(super) struct Client {
    pub(super) flow: FlowId,
    peer: Peer,
}

impl Client {
    pub(super) fn connected(bed: &mut Bed, source: &str, origin: &str) -> Self {
        let (flow, peer) = connected(bed, source, origin);
        Self { flow, peer }
    }

    pub(super) fn transact(&mut self, bed: &mut Bed) {
        bed.flows.send(self.flow, &[1; 64]).unwrap();
        while bed.flows.poll_transmit(bed.now).is_some() {}
        self.peer.ack = self.peer.ack.wrapping_add(64);
        let answer = self.peer.segment(ACK, &[2; 64]);
        bed.flows.handle_packet(&answer, Offload::NONE, bed.now);
        assert_eq!(bed.events(), [Happened::Readable]);
        let mut buffer = [0; 128];
        assert_eq!(bed.flows.recv(self.flow, &mut buffer, bed.now), Ok(64));
        while bed.flows.poll_transmit(bed.now).is_some() {}
    }
}
