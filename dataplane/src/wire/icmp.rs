//! ICMP and ICMPv6 errors, and when they may not be sent.

use std::net::IpAddr;

use super::checksum::Sum;
use super::ip::{self, Inner, put_word};

/// The longest ICMPv4 error: RFC 1812 section 4.3.2.3.
pub const ERROR_V4_LEN_MAX: usize = 576;
/// The longest ICMPv6 error: the minimum IPv6 MTU (RFC 4443 section 2.4 c).
pub const ERROR_V6_LEN_MAX: usize = 1280;

/// TTL of the errors we send (the recommended default of RFC 1700).
const TTL: u8 = 64;

/// What the sender of the offending packet is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The TTL ran out here.
    TimeExceeded,
    /// No route to the network.
    NetUnreachable,
    /// The last hop does not reach the host.
    HostUnreachable,
    /// A rule forbids it.
    AdminProhibited,
    /// Longer than the next hop takes.
    PacketTooBig {
        /// What would fit, in bytes of the whole IP packet.
        mtu: u16,
    },
}

impl ErrorKind {
    /// Type, code, and the four bytes behind the checksum (RFC 792, RFC 1191, RFC 1812).
    fn v4(self) -> (u8, u8, u32) {
        match self {
            Self::TimeExceeded => (11, 0, 0),
            Self::NetUnreachable => (3, 0, 0),
            Self::HostUnreachable => (3, 1, 0),
            Self::AdminProhibited => (3, 13, 0),
            Self::PacketTooBig { mtu } => (3, 4, u32::from(mtu)),
        }
    }

    /// Type, code, and the four bytes behind the checksum (RFC 4443 section 3).
    fn v6(self) -> (u8, u8, u32) {
        match self {
            Self::TimeExceeded => (3, 0, 0),
            Self::NetUnreachable => (1, 0, 0),
            Self::HostUnreachable => (1, 3, 0),
            Self::AdminProhibited => (1, 1, 0),
            Self::PacketTooBig { mtu } => (2, 0, u32::from(mtu)),
        }
    }
}

/// Writes the error about `offending`, from our address `from`, as a whole IP packet into `out`
/// ([`ERROR_V6_LEN_MAX`] bytes always suffice), and returns its length. `None` when no error may be sent: the
/// packet is malformed, an ICMP error itself, a later fragment, from or to no single host
/// (RFC 1812 section 4.3.2.7, RFC 4443 section 2.4 e), of another family than `from`, or `out` is too short.
#[must_use]
pub fn error(kind: ErrorKind, offending: &[u8], from: IpAddr, out: &mut [u8]) -> Option<usize> {
    let inner = Inner::parse(offending).ok()?;
    if !may_report(kind, offending, &inner) {
        return None;
    }
    let offending = &offending[..inner.total_len];
    match (from, inner.src) {
        (IpAddr::V4(_), IpAddr::V4(_)) => write_v4(kind, offending, from, inner.src, out),
        (IpAddr::V6(_), IpAddr::V6(_)) => write_v6(kind, offending, from, inner.src, out),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => None,
    }
}

/// Whether the packet is an ICMP error or a redirect: what no error is sent about.
/// `packet` is what `inner` was parsed from. A message cut before its type counts as one.
#[must_use]
pub fn is_error(packet: &[u8], inner: &Inner) -> bool {
    let kind = packet[..inner.total_len].get(inner.l4_offset).copied();
    match (inner.version, inner.protocol) {
        (4, ip::ICMP) => matches!(kind, None | Some(3 | 4 | 5 | 11 | 12)),
        (6, ip::ICMPV6) => matches!(kind, None | Some(0..=127 | 137)),
        _ => false,
    }
}

fn may_report(kind: ErrorKind, offending: &[u8], inner: &Inner) -> bool {
    if inner.fragment_offset != 0 || is_error(offending, inner) || !is_host(inner.src) {
        return false;
    }
    match inner.dst {
        IpAddr::V4(_) => is_host(inner.dst),
        // Path MTU discovery works for multicast too (RFC 4443 section 2.4 e.3).
        IpAddr::V6(dst) => !dst.is_multicast() || matches!(kind, ErrorKind::PacketTooBig { .. }),
    }
}

/// Whether an address can name one host of another machine.
fn is_host(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => a.octets()[0] != 0 && !a.is_loopback() && a.octets()[0] < 224,
        IpAddr::V6(a) => !a.is_unspecified() && !a.is_loopback() && !a.is_multicast(),
    }
}

fn write_v4(
    kind: ErrorKind,
    offending: &[u8],
    from: IpAddr,
    to: IpAddr,
    out: &mut [u8],
) -> Option<usize> {
    let quoted = &offending[..offending.len().min(ERROR_V4_LEN_MAX - 28)];
    let total_len = 28 + quoted.len();
    let out = out.get_mut(..total_len)?;
    let (IpAddr::V4(from), IpAddr::V4(to)) = (from, to) else {
        return None;
    };
    let (icmp_type, code, rest) = kind.v4();
    out[..20].fill(0);
    out[0] = 0x45;
    // Precedence "internetwork control": RFC 1812 section 4.3.2.5.
    out[1] = 0xc0;
    put_word(
        out,
        2,
        u16::try_from(total_len).expect("at most ERROR_V4_LEN_MAX"),
    );
    // Never fragmented, so the identification may be zero (RFC 6864 section 4.1).
    put_word(out, 6, 0x4000);
    out[8] = TTL;
    out[9] = ip::ICMP;
    out[12..16].copy_from_slice(&from.octets());
    out[16..20].copy_from_slice(&to.octets());
    let sum = Sum::new().bytes(&out[..20]).checksum();
    put_word(out, 10, sum);
    write_message(&mut out[20..], (icmp_type, code, rest), quoted, Sum::new());
    Some(total_len)
}

fn write_v6(
    kind: ErrorKind,
    offending: &[u8],
    from: IpAddr,
    to: IpAddr,
    out: &mut [u8],
) -> Option<usize> {
    let quoted = &offending[..offending.len().min(ERROR_V6_LEN_MAX - 48)];
    let payload_len = 8 + quoted.len();
    let out = out.get_mut(..40 + payload_len)?;
    let (IpAddr::V6(from_v6), IpAddr::V6(to_v6)) = (from, to) else {
        return None;
    };
    out[..4].copy_from_slice(&[0x60, 0, 0, 0]);
    put_word(
        out,
        4,
        u16::try_from(payload_len).expect("at most ERROR_V6_LEN_MAX"),
    );
    out[6] = ip::ICMPV6;
    out[7] = TTL;
    out[8..24].copy_from_slice(&from_v6.octets());
    out[24..40].copy_from_slice(&to_v6.octets());
    let pseudo = Sum::pseudo(from, to, ip::ICMPV6, payload_len);
    write_message(&mut out[40..], kind.v6(), quoted, pseudo);
    Some(40 + payload_len)
}

fn write_message(out: &mut [u8], head: (u8, u8, u32), quoted: &[u8], pseudo: Sum) {
    out[0] = head.0;
    out[1] = head.1;
    put_word(out, 2, 0);
    out[4..8].copy_from_slice(&head.2.to_be_bytes());
    out[8..].copy_from_slice(quoted);
    let sum = pseudo.bytes(out).checksum();
    put_word(out, 2, sum);
}
