//! What is left to do on a packet: segmentation and checksum, as virtio_net_hdr says it.

use crate::wire::ip::{Malformed, UDP};

/// Length of the header in front of each packet of a TUN with `IFF_VNET_HDR` (linux/virtio_net.h,
/// `struct virtio_net_hdr`, without `num_buffers`).
pub const VNET_HDR_LEN: usize = 10;

const F_NEEDS_CSUM: u8 = 1;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
const GSO_ECN: u8 = 0x80;

/// How a super-packet is to be cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Segmentation {
    /// It is one packet.
    #[default]
    None,
    /// One TCP stream piece, cut into segments (TSO).
    Tcp,
    /// Datagrams of one UDP flow, each but the last of equal size (USO).
    Udp,
}

/// A checksum whose field holds only the pseudo-header sum so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PartialChecksum {
    /// First byte that the sum covers, from the start of the packet; it covers all behind.
    pub start: u16,
    /// Where the field is, from `start`.
    pub offset: u16,
}

/// What is left to do on a packet before it can travel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Offload {
    /// How it is to be cut.
    pub segmentation: Segmentation,
    /// Upper-layer payload bytes of each segment but the last; 0 without segmentation.
    pub segment_size: u16,
    /// The checksum to complete; `None` when it is complete or not ours to judge.
    pub checksum: Option<PartialChecksum>,
}

impl Offload {
    /// Nothing is left to do.
    pub const NONE: Self = Self {
        segmentation: Segmentation::None,
        segment_size: 0,
        checksum: None,
    };

    /// Reads a `virtio_net_hdr` of this machine's byte order. Its `hdr_len` is a hint at best, and
    /// ignored.
    ///
    /// # Errors
    /// [`Malformed::Offload`] for a segmentation that we never asked the kernel for, or of size
    /// zero.
    pub fn decode(header: &[u8; VNET_HDR_LEN]) -> Result<Self, Malformed> {
        let segmentation = match header[1] & !GSO_ECN {
            GSO_NONE => Segmentation::None,
            GSO_TCPV4 | GSO_TCPV6 => Segmentation::Tcp,
            GSO_UDP_L4 => Segmentation::Udp,
            _ => return Err(Malformed::Offload),
        };
        let segment_size = match segmentation {
            Segmentation::None => 0,
            Segmentation::Tcp | Segmentation::Udp => native(header, 4),
        };
        if segmentation != Segmentation::None && segment_size == 0 {
            return Err(Malformed::Offload);
        }
        let checksum = (header[0] & F_NEEDS_CSUM != 0).then(|| PartialChecksum {
            start: native(header, 6),
            offset: native(header, 8),
        });
        Ok(Self {
            segmentation,
            segment_size,
            checksum,
        })
    }

    /// Writes the `virtio_net_hdr` that goes in front of `packet`.
    #[must_use]
    pub fn encode(&self, packet: &[u8]) -> [u8; VNET_HDR_LEN] {
        let mut header = [0; VNET_HDR_LEN];
        let l4 = self
            .checksum
            .map_or(0, |checksum| usize::from(checksum.start));
        let l4_len = match self.segmentation {
            Segmentation::None => 0,
            Segmentation::Tcp => {
                let is_v6 = packet.first().is_some_and(|byte| byte >> 4 == 6);
                header[1] = if is_v6 { GSO_TCPV6 } else { GSO_TCPV4 };
                if packet.get(l4 + 13).is_some_and(|flags| flags & 0x80 != 0) {
                    header[1] |= GSO_ECN;
                }
                packet
                    .get(l4 + 12)
                    .map_or(0, |byte| usize::from(byte >> 4) * 4)
            }
            Segmentation::Udp => {
                header[1] = GSO_UDP_L4;
                8
            }
        };
        if self.segmentation != Segmentation::None {
            let header_len = u16::try_from(l4 + l4_len).unwrap_or(u16::MAX);
            header[2..4].copy_from_slice(&header_len.to_ne_bytes());
            header[4..6].copy_from_slice(&self.segment_size.to_ne_bytes());
        }
        if let Some(checksum) = self.checksum {
            header[0] = F_NEEDS_CSUM;
            header[6..8].copy_from_slice(&checksum.start.to_ne_bytes());
            header[8..10].copy_from_slice(&checksum.offset.to_ne_bytes());
        }
        header
    }

    /// What a super-packet of `protocol` says whose upper layer begins at `l4_offset`.
    pub(super) fn of_super(protocol: u8, l4_offset: u16, segment_size: u16) -> Self {
        let (segmentation, offset) = if protocol == UDP {
            (Segmentation::Udp, 6)
        } else {
            (Segmentation::Tcp, 16)
        };
        let checksum = Some(PartialChecksum {
            start: l4_offset,
            offset,
        });
        Self {
            segmentation,
            segment_size,
            checksum,
        }
    }
}

fn native(header: &[u8; VNET_HDR_LEN], at: usize) -> u16 {
    u16::from_ne_bytes([header[at], header[at + 1]])
}
