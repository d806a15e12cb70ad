//! What may enter the edge's machine by a source address: answers to what it began, and nothing that begins there.
//!
//! The address is the machine's own, and its services may listen on all addresses: none of them is for a private
//! network. Without state: a TCP connection begins with a SYN; UDP goes to ports that the machine gives to its own
//! sockets when they do not ask for one; an ICMP error is about a packet of the address that it is for, as the
//! kernel looks for the socket by what is quoted; other ICMP passes, and pings with it.

use std::ops::RangeInclusive;

use crate::wire::icmp::{is_error, quoted_source};
use crate::wire::ip::{self, Inner};

use super::{DropReason, NodeConfig};

/// The ports that sockets of this machine get when they do not ask for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalPorts {
    /// From the first to the last.
    pub range: RangeInclusive<u16>,
    /// Those among them that no socket gets by chance: somebody listens there, or may.
    pub kept: Vec<RangeInclusive<u16>>,
}

impl LocalPorts {
    fn has(&self, port: u16) -> bool {
        self.range.contains(&port) && !self.kept.iter().any(|kept| kept.contains(&port))
    }
}

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
/// Where TCP has its flags.
const FLAGS: usize = 13;

impl NodeConfig {
    /// Whether a packet for a lent address may go on to this machine.
    ///
    /// # Errors
    /// [`DropReason::NotAskedFor`].
    pub(super) fn admit(&self, packet: &[u8], inner: &Inner) -> Result<(), DropReason> {
        let Some(ports) = &self.local_ports else {
            return Ok(());
        };
        let is_first = inner.fragment_offset == 0;
        let is_admitted = match inner.protocol {
            ip::TCP if is_first => {
                let flags = packet.get(inner.l4_offset + FLAGS);
                flags.is_some_and(|flags| flags & (SYN | ACK) != SYN)
            }
            // A piece that could put other flags over those of the first (RFC 3128).
            ip::TCP => usize::from(inner.fragment_offset) > FLAGS,
            ip::UDP if is_first => inner.ports.is_some_and(|(_, to)| ports.has(to)),
            ip::ICMP | ip::ICMPV6 if is_first && is_error(packet, inner) => {
                quoted_source(packet, inner) == Some(inner.dst)
            }
            ip::UDP | ip::ICMP | ip::ICMPV6 => true,
            _ => false,
        };
        is_admitted.then_some(()).ok_or(DropReason::NotAskedFor)
    }
}
