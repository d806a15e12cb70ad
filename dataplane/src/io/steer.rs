//! Programs for the kernel: which worker's queue or socket a packet goes to.
//!
//! Those of workers only save a hand-over: a packet that arrives at another worker is handed to its owner. That of a
//! VLAN keeps networks apart.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::libc::sock_filter;
use socket2::SockFilter;

use crate::id::{WorkerId, Workers};
use crate::packet::Carrier;
use crate::source::Slice;
use crate::wire::neighbour;

use super::sys;

/// Lets the kernel give each WireGuard message to the socket of the worker that its receiver index
/// names ([`crate::tunnel::wireguard::addressee`]), and initiations, which name nobody, by a hash of
/// their addresses. The sockets share one address, and were bound in the order of their workers.
///
/// # Errors
/// Those of setsockopt(2).
pub(super) fn by_receiver_index(socket: &impl AsRawFd) -> io::Result<()> {
    sys::set_reuseport_filter(socket, &RECEIVER_INDEX)
}

/// Lets the kernel give each ESP packet in UDP to the socket of the worker that the first byte of its
/// SPI names, and each IKE message, here and on IKE's own port, to that of our SPI's first byte; a
/// first request, which names nobody, by a hash. See [`by_receiver_index`].
///
/// # Errors
/// Those of setsockopt(2).
pub(super) fn by_spi(socket: &impl AsRawFd, carrier: Carrier) -> io::Result<()> {
    match carrier {
        Carrier::NatT => sys::set_reuseport_filter(socket, &SPI_OR_MARKER),
        Carrier::Ike => sys::set_reuseport_filter(socket, &ike(0)),
        // Whoever it comes to may deliver what another node sends: one node's goes to one worker.
        Carrier::WireGuard | Carrier::Esp | Carrier::Gre | Carrier::Echo | Carrier::Relay => Ok(()),
    }
}

/// Lets a raw socket have only what is its worker's: ESP packets by the first byte of their SPI,
/// where the first worker has those that name none; echo replies by the first byte of their identifier;
/// and of GRE the first has all.
///
/// # Errors
/// Those of setsockopt(2).
pub(super) fn by_spi_of_packet(
    socket: &socket2::Socket,
    carrier: Carrier,
    is_ipv4: bool,
    (worker, workers): (WorkerId, Workers),
) -> io::Result<()> {
    if carrier == Carrier::Echo {
        return socket.attach_filter(&echo_replies(is_ipv4, worker));
    }
    let is_first = worker == WorkerId(0);
    if carrier != Carrier::Esp || workers == Workers::ONE {
        let verdict = if is_first { u32::MAX } else { 0 };
        return socket.attach_filter(&[filter(op(RETURN, 0, 0, verdict))]);
    }
    // A filter sees a packet from its IPv4 header on, or from behind that of IPv6.
    let (x, load) = if is_ipv4 {
        (op(LOAD_HEADER_LEN, 0, 0, 0), LOAD_BYTE_AT_X)
    } else {
        (op(LOAD_X, 0, 0, 0), LOAD_BYTE)
    };
    let (worker, count) = (worker.0.into(), workers.count().into());
    let others = u8::from(!is_first);
    socket.attach_filter(&[
        filter(x),
        filter(op(load, 0, 0, 0)),
        filter(op(JUMP_EQUAL, 1, 0, worker)),
        filter(op(JUMP_LEAST, others, 1, count)),
        filter(op(RETURN, 0, 0, u32::MAX)),
        filter(op(RETURN, 0, 0, 0)),
    ])
}

/// Echo replies of ICMP or ICMPv6 whose identifier begins with the worker, and nothing else: a flood of
/// other ICMP ends here.
fn echo_replies(is_ipv4: bool, worker: WorkerId) -> [SockFilter; 7] {
    let (x, load, reply) = if is_ipv4 {
        (op(LOAD_HEADER_LEN, 0, 0, 0), LOAD_BYTE_AT_X, 0)
    } else {
        (op(LOAD_X, 0, 0, 0), LOAD_BYTE, 129)
    };
    [
        filter(x),
        filter(op(load, 0, 0, 0)),
        filter(op(JUMP_EQUAL, 0, 3, reply)),
        filter(op(load, 0, 0, 4)),
        filter(op(JUMP_EQUAL, 0, 1, worker.0.into())),
        filter(op(RETURN, 0, 0, u32::MAX)),
        filter(op(RETURN, 0, 0, 0)),
    ]
}

/// Has a raw ICMP socket get only what says that a packet was too big. A filter sees a packet from its IPv4
/// header on, or from behind that of IPv6.
///
/// # Errors
/// Those of setsockopt(2).
pub(super) fn only_too_big(socket: &socket2::Socket, is_ipv4: bool) -> io::Result<()> {
    let (x, load, kind) = if is_ipv4 {
        (op(LOAD_HEADER_LEN, 0, 0, 0), LOAD_HALF_AT_X, 0x0304)
    } else {
        (op(LOAD_X, 0, 0, 0), LOAD_HALF, 0x0200)
    };
    socket.attach_filter(&[
        filter(x),
        filter(op(load, 0, 0, 0)),
        filter(op(JUMP_EQUAL, 0, 1, kind)),
        filter(op(RETURN, 0, 0, u32::MAX)),
        filter(op(RETURN, 0, 0, 0)),
    ])
}

/// Has a packet socket get only the frames of one VLAN, or those without, that are IPv4, IPv6 or ARP
/// and for `mac` or a group. The kernel has taken the tag off and keeps it beside the frame
/// (`skb_vlan_untag`); a second tag is a protocol of its own, and gets nowhere.
///
/// # Errors
/// Those of setsockopt(2).
pub(super) fn by_vlan(socket: &socket2::Socket, vlan: Option<u16>, mac: [u8; 6]) -> io::Result<()> {
    // linux/filter.h: what the kernel knows beside the frame is behind SKF_AD_OFF.
    const BESIDE: u32 = 0xffff_f000;
    const TAG: u32 = BESIDE + 44;
    const IS_TAGGED: u32 = BESIDE + 48;
    const TAG_PROTOCOL: u32 = BESIDE + 60;
    let [a, b, c, d, e, f] = mac;
    let (high, low) = (
        u32::from_be_bytes([a, b, c, d]),
        u32::from(u16::from_be_bytes([e, f])),
    );
    // Priority tags name VLAN 0: they are of no VLAN (IEEE 802.1Q section 6.9.1). With a VLAN, what has no
    // tag is refused; without, what has none is taken.
    let untagged = if vlan.is_some() { 15 } else { 5 };
    socket.attach_filter(&[
        filter(op(LOAD_WORD, 0, 0, IS_TAGGED)),
        filter(op(JUMP_EQUAL, untagged, 0, 0)),
        filter(op(LOAD_WORD, 0, 0, TAG_PROTOCOL)),
        filter(op(JUMP_EQUAL, 0, 13, neighbour::TAG.into())),
        filter(op(LOAD_WORD, 0, 0, TAG)),
        filter(op(AND, 0, 0, 0x0fff)),
        filter(op(JUMP_EQUAL, 0, 10, vlan.unwrap_or(0).into())),
        filter(op(LOAD_HALF, 0, 0, 12)),
        filter(op(JUMP_EQUAL, 2, 0, neighbour::IPV4.into())),
        filter(op(JUMP_EQUAL, 1, 0, neighbour::IPV6.into())),
        filter(op(JUMP_EQUAL, 0, 6, neighbour::ARP.into())),
        filter(op(LOAD_BYTE, 0, 0, 0)),
        filter(op(JUMP_SET, 5, 0, 1)),
        filter(op(LOAD_WORD, 0, 0, 0)),
        filter(op(JUMP_EQUAL, 0, 2, high)),
        filter(op(LOAD_HALF, 0, 0, 4)),
        filter(op(JUMP_EQUAL, 1, 0, low)),
        filter(op(RETURN, 0, 0, 0)),
        filter(op(RETURN, 0, 0, u32::MAX)),
    ])
}

fn filter(op: sock_filter) -> SockFilter {
    SockFilter::new(op.code, op.jt, op.jf, op.k)
}

const LOAD_BYTE: u16 = 0x30; // BPF_LD | BPF_B | BPF_ABS
const LOAD_BYTE_AT_X: u16 = 0x50; // BPF_LD | BPF_B | BPF_IND
const LOAD_HALF: u16 = 0x28; // BPF_LD | BPF_H | BPF_ABS
const LOAD_HALF_AT_X: u16 = 0x48; // BPF_LD | BPF_H | BPF_IND
const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
const LOAD_WORD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const LOAD_HEADER_LEN: u16 = 0xb1; // BPF_LDX | BPF_B | BPF_MSH
const LOAD_X: u16 = 0x01; // BPF_LDX | BPF_IMM
const JUMP_LEAST: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
const JUMP_SET: u16 = 0x45; // BPF_JMP | BPF_JSET | BPF_K
const JUMP_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const RETURN: u16 = 0x06; // BPF_RET | BPF_K
const RETURN_A: u16 = 0x16; // BPF_RET | BPF_A

const fn op(code: u16, yes: u8, no: u8, k: u32) -> sock_filter {
    sock_filter {
        code,
        jt: yes,
        jf: no,
        k,
    }
}

/// A load past the end ends the program with 0: what is that short is no message for anybody.
const RECEIVER_INDEX: [sock_filter; 9] = [
    op(LOAD_BYTE, 0, 0, 0),
    op(JUMP_EQUAL, 4, 0, 2), // response
    op(JUMP_EQUAL, 1, 0, 4), // data
    op(JUMP_EQUAL, 0, 4, 3), // cookie reply
    op(LOAD_BYTE, 0, 0, 7),
    op(RETURN_A, 0, 0, 0),
    op(LOAD_BYTE, 0, 0, 11),
    op(RETURN_A, 0, 0, 0),
    op(RETURN, 0, 0, u32::MAX), // no such socket: by hash
];

/// The initiator of an IKE SA says so (flag 0x08, RFC 7296 section 3.1): then we are the responder.
const fn ike(at: u32) -> [sock_filter; 9] {
    [
        op(LOAD_BYTE, 0, 0, at + 19),
        op(JUMP_SET, 2, 0, 0x08),
        op(LOAD_BYTE, 0, 0, at),
        op(RETURN_A, 0, 0, 0),
        op(LOAD_WORD, 0, 0, at + 12),
        op(JUMP_EQUAL, 2, 0, 0), // no SPI: a first request
        op(LOAD_BYTE, 0, 0, at + 8),
        op(RETURN_A, 0, 0, 0),
        op(RETURN, 0, 0, u32::MAX), // no such socket: by hash
    ]
}

/// ESP begins with its SPI, which is not 0; before an IKE message stands 0 (RFC 3948 section 2.2).
const SPI_OR_MARKER: [sock_filter; 13] = {
    let [a, b, c, d, e, f, g, h, i] = ike(4);
    [
        op(LOAD_WORD, 0, 0, 0),
        op(JUMP_EQUAL, 2, 0, 0),
        op(LOAD_BYTE, 0, 0, 0),
        op(RETURN_A, 0, 0, 0),
        a,
        b,
        c,
        d,
        e,
        f,
        g,
        h,
        i,
    ]
};

/// A program that gives the index of the worker that an overlay packet's source address belongs to:
/// the slice's /24s go to the workers in turn ([`Slice::worker_net`]).
///
/// # Errors
/// Those of bpf(2).
pub(super) fn by_source(slice: Slice, workers: Workers) -> io::Result<OwnedFd> {
    let block = slice.net().network().to_bits() >> 8;
    // r0 is the value, r6 the packet; LD_ABS gives numbers in the byte order of the machine.
    sys::load_filter(&[
        instruction(0xbf, 6, 1, 0, 0),                      // r6 = r1
        instruction(0x30, 0, 0, 0, 0),                      // r0 = byte 0
        instruction(0x77, 0, 0, 0, 4),                      // r0 >>= 4
        instruction(0x15, 0, 0, 2, 6),                      // IPv6: skip 2
        instruction(0x20, 0, 0, 0, 12),                     // r0 = IPv4 source
        instruction(0x05, 0, 0, 1, 0),                      // skip 1
        instruction(0x20, 0, 0, 0, 20),                     // r0 = low 32 bits of the IPv6 source
        instruction(0x77, 0, 0, 0, 8),                      // r0 >>= 8: its /24
        instruction(0x17, 0, 0, 0, block),                  // r0 -= the slice's first /24
        instruction(0x97, 0, 0, 0, workers.count().into()), // r0 %= workers
        instruction(0x95, 0, 0, 0, 0),                      // return r0
    ])
}

/// One `struct bpf_insn` of linux/bpf.h: code, registers, offset, immediate.
const fn instruction(code: u8, to: u8, from: u8, offset: i16, immediate: u32) -> u64 {
    let registers = if cfg!(target_endian = "little") {
        from << 4 | to
    } else {
        to << 4 | from
    };
    let [o0, o1] = offset.to_ne_bytes();
    let [i0, i1, i2, i3] = immediate.to_ne_bytes();
    u64::from_ne_bytes([code, registers, o0, o1, i0, i1, i2, i3])
}
