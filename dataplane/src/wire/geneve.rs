//! Generic Network Virtualization Encapsulation: the header (RFC 8926 section 3.4), without options of ours.

use super::ip::{put_word, word};

/// The UDP port of Geneve (RFC 8926 section 8.1).
pub const PORT: u16 = 6081;
/// The header as it is sent: nothing behind its fixed part.
pub const HEADER_LEN: usize = 8;
/// Network identifiers have 24 bits.
pub const VNI_MAX: u32 = 0x00ff_ffff;

/// EtherTypes of what may be inside.
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;

const VERSION: u8 = 0xc0;
/// Length of the options in words of four bytes.
const OPTIONS_LEN: u8 = 0x3f;
/// O: a message between tunnel endpoints.
const CONTROL: u8 = 0x80;
/// C: there is an option that must be understood.
const CRITICAL: u8 = 0x40;

/// Bytes of an option in front of its data.
const OPTION_HEADER_LEN: usize = 4;
/// First bit of an option's type: who does not know the option drops the packet.
const OPTION_CRITICAL: u8 = 0x80;
/// Length of an option's data in words; the bits before it are reserved, and ignored.
const OPTION_LEN: u8 = 0x1f;

/// Why bytes are not a Geneve packet that can be handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Malformed {
    /// Fewer bytes than the header says.
    #[error("fewer bytes than the header says")]
    Truncated,
    /// A version that is not 0.
    #[error("a version that is not 0")]
    Version,
    /// A message between tunnel endpoints, of which none is known.
    #[error("a message between tunnel endpoints, of which none is known")]
    Control,
    /// An option that must be understood, and no option is.
    #[error("an option that must be understood, and no option is")]
    Critical,
    /// Options that are longer than all of them are said to be.
    #[error("options that are longer than all of them are said to be")]
    Options,
    /// Neither IPv4 nor IPv6 inside.
    #[error("neither IPv4 nor IPv6 inside")]
    Protocol,
}

/// A Geneve header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The virtual network, at most [`VNI_MAX`].
    pub vni: u32,
    /// Whether IPv6 is inside; else IPv4 is.
    pub is_ipv6: bool,
}

impl Header {
    /// Reads the header of a datagram. Returns where the payload begins: options that need not be
    /// understood are skipped. What is reserved is ignored, as RFC 8926 section 3.4 says.
    ///
    /// # Errors
    /// [`Malformed`]: what sections 3.4 and 3.5 say that an endpoint must drop.
    pub fn parse(datagram: &[u8]) -> Result<(Self, usize), Malformed> {
        let head: &[u8; HEADER_LEN] = datagram.first_chunk().ok_or(Malformed::Truncated)?;
        if head[0] & VERSION != 0 {
            return Err(Malformed::Version);
        }
        let at = HEADER_LEN + 4 * usize::from(head[0] & OPTIONS_LEN);
        let options = datagram.get(HEADER_LEN..at).ok_or(Malformed::Truncated)?;
        if head[1] & CONTROL != 0 {
            return Err(Malformed::Control);
        }
        if head[1] & CRITICAL != 0 {
            return Err(Malformed::Critical);
        }
        check_options(options)?;
        let is_ipv6 = match word(head, 2) {
            IPV4 => false,
            IPV6 => true,
            _ => return Err(Malformed::Protocol),
        };
        let vni = u32::from_be_bytes([0, head[4], head[5], head[6]]);
        Ok((Self { vni, is_ipv6 }, at))
    }

    /// Writes the header, [`HEADER_LEN`] bytes, to the front of `datagram`. Of a larger network
    /// identifier than [`VNI_MAX`] the low bits.
    ///
    /// # Panics
    /// When `datagram` is shorter.
    pub fn write(&self, datagram: &mut [u8]) {
        put_word(datagram, 0, 0);
        put_word(datagram, 2, if self.is_ipv6 { IPV6 } else { IPV4 });
        datagram[4..HEADER_LEN].copy_from_slice(&(self.vni << 8).to_be_bytes());
    }
}

/// No option is known, so none may be critical; and together they are as long as the header says.
fn check_options(mut options: &[u8]) -> Result<(), Malformed> {
    while let [_, _, kind, len, ..] = *options {
        if kind & OPTION_CRITICAL != 0 {
            return Err(Malformed::Critical);
        }
        let len = OPTION_HEADER_LEN + 4 * usize::from(len & OPTION_LEN);
        options = options.get(len..).ok_or(Malformed::Options)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The header that RFC 8926 section 3.4 draws: version 0, no options, IPv4, network 0x010203.
    const PLAIN: [u8; 8] = [0, 0, 0x08, 0x00, 1, 2, 3, 0];
    const READ: Header = Header {
        vni: 0x01_02_03,
        is_ipv6: false,
    };

    /// The plain header with these options, in front of one byte.
    fn with(options: &[u8]) -> Vec<u8> {
        let mut datagram = PLAIN.to_vec();
        datagram[0] = u8::try_from(options.len() / 4).unwrap();
        datagram.extend(options);
        datagram.push(0x45);
        datagram
    }

    #[test]
    fn a_header_is_read_and_written_as_it_is_drawn() {
        assert_eq!(Header::parse(&PLAIN), Ok((READ, 8)));
        let mut written = [0xee; 9];
        READ.write(&mut written);
        assert_eq!(written[..8], PLAIN);
        assert_eq!(written[8], 0xee);
        let mut six = PLAIN;
        six[2..4].copy_from_slice(&[0x86, 0xdd]);
        let (header, at) = Header::parse(&six).unwrap();
        assert_eq!((header.is_ipv6, header.vni, at), (true, READ.vni, 8));
        header.write(&mut written);
        assert_eq!(written[..8], six);
    }

    /// Section 3.4: "Packets received by a tunnel endpoint with an unknown version MUST be dropped."
    #[test]
    fn an_unknown_version_is_dropped() {
        for version in 1..=3 {
            let mut datagram = PLAIN;
            datagram[0] |= version << 6;
            assert_eq!(Header::parse(&datagram), Err(Malformed::Version));
        }
    }

    /// Section 3.4, O: "Tunnel endpoints MUST NOT forward the payload".
    #[test]
    fn a_control_message_is_not_forwarded() {
        let mut datagram = PLAIN;
        datagram[1] |= 0x80;
        assert_eq!(Header::parse(&datagram), Err(Malformed::Control));
    }

    /// Section 3.4, C: "On tunnel endpoints where option parsing is not supported, the packet MUST be dropped
    /// on the basis of the 'C' bit in the base header."
    #[test]
    fn a_header_that_says_critical_is_dropped_whatever_its_options() {
        for options in [&[][..], &[1, 2, 0x83, 0], &[1, 2, 3, 0]] {
            let mut datagram = with(options);
            datagram[1] |= 0x40;
            assert_eq!(Header::parse(&datagram), Err(Malformed::Critical));
        }
    }

    /// Section 3.5: "If the receiving endpoint does not recognize the option and this bit is set, then the
    /// packet MUST be dropped."
    #[test]
    fn a_critical_option_that_the_header_does_not_announce_is_dropped() {
        for options in [
            &[1, 2, 0x80, 0][..],
            &[1, 2, 3, 1, 9, 9, 9, 9, 1, 2, 0xff, 0],
        ] {
            assert_eq!(Header::parse(&with(options)), Err(Malformed::Critical));
        }
    }

    /// Section 3.5: "Packets in which the total length of all options is not equal to the 'Opt Len' in the base
    /// header are invalid and MUST be silently dropped".
    #[test]
    fn options_that_do_not_add_up_are_dropped() {
        for options in [
            &[1, 2, 3, 1][..],
            &[1, 2, 3, 0x1f, 0, 0, 0, 0],
            &[1, 2, 3, 0, 1, 2, 3, 2, 0, 0, 0, 0],
        ] {
            assert_eq!(Header::parse(&with(options)), Err(Malformed::Options));
        }
    }

    /// Section 3.4, C: "If the bit is not set, tunnel endpoints MAY strip all options using 'Opt Len'".
    #[test]
    fn options_that_need_not_be_understood_are_stripped() {
        let most = [&[0xff, 0xff, 0x7f, 0x1f][..], &[0xff; 31 * 4]].concat();
        // The most that six bits of words can say: 252 bytes.
        let all = [&most[..], &[1, 2, 3, 30], &[0xff; 120]].concat();
        assert_eq!(all.len(), 252);
        for options in [&[1, 2, 3, 0][..], &[1, 2, 3, 0xe1, 9, 9, 9, 9], &most, &all] {
            let datagram = with(options);
            let at = 8 + options.len();
            assert_eq!(Header::parse(&datagram), Ok((READ, at)));
            assert_eq!(datagram[at..], [0x45]);
        }
    }

    /// Section 3.4: "Reserved field, which MUST be zero on transmission and MUST be ignored on receipt."
    #[test]
    fn what_is_reserved_is_ignored() {
        let mut datagram = PLAIN;
        (datagram[1], datagram[7]) = (0x3f, 0xff);
        assert_eq!(Header::parse(&datagram), Ok((READ, 8)));
    }

    #[test]
    fn ethernet_and_other_payloads_are_dropped() {
        for protocol in [0x6558_u16, 0x0806, 0, 0x8847] {
            let mut datagram = PLAIN;
            datagram[2..4].copy_from_slice(&protocol.to_be_bytes());
            assert_eq!(Header::parse(&datagram), Err(Malformed::Protocol));
        }
    }

    #[test]
    fn a_datagram_shorter_than_its_header_says_is_dropped() {
        let datagram = with(&[1, 2, 3, 1, 9, 9, 9, 9]);
        for len in 0..16 {
            assert_eq!(Header::parse(&datagram[..len]), Err(Malformed::Truncated));
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(vni in 0..=VNI_MAX, is_ipv6: bool, behind: Vec<u8>) {
            let header = Header { vni, is_ipv6 };
            let mut datagram = vec![0xee; HEADER_LEN];
            datagram.extend(&behind);
            header.write(&mut datagram);
            prop_assert_eq!(Header::parse(&datagram), Ok((header, HEADER_LEN)));
            prop_assert_eq!(&datagram[HEADER_LEN..], &behind[..]);
        }

        #[test]
        fn random_bytes_never_panic(
            head in prop::option::of(any::<u8>()),
            behind in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let mut datagram = behind;
            if let (Some(head), Some(first)) = (head, datagram.first_mut()) {
                *first = head & 0x3f;
            }
            if let Ok((header, at)) = Header::parse(&datagram) {
                prop_assert!(at <= datagram.len() && at <= 260 && header.vni <= VNI_MAX);
            }
        }
    }
}
