//! An Ethernet interface or VLAN that is the router's: frames, and the neighbour's address, by a packet socket.
//!
//! The kernel's own stack has the interface too. It must not take part: the router has an Ethernet address of its own,
//! which the kernel takes for somebody else's and drops ([`super::routes::seal`] does the rest).

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use crate::packet::{Offload, PartialChecksum, Segmentation, Segments, VNET_HDR_LEN};
use crate::tunnel::direct::{Neighbours, Next};
use crate::wire::neighbour::{self, HEADER_LEN, MESSAGE_LEN_MAX, Mac, Message};

use super::sys;
use super::tun::PACKET_BYTES_MAX;

/// Packets that wait for the neighbour to answer. The oldest goes first, as in the kernel's queue (`unres_qlen`).
const WAITING_MAX: usize = 4;
/// Frames for nobody above that are looked at in one read.
const FRAMES_MAX: usize = 16;

/// An interface, non-blocking.
#[derive(Debug)]
pub(super) struct Ether {
    socket: socket2::Socket,
    neighbours: Neighbours,
    waiting: VecDeque<Waiting>,
    /// Buffers of what waited, used again.
    spare: Vec<Vec<u8>>,
    /// One packet of a super-packet that has to be cut here.
    scratch: Vec<u8>,
}

#[derive(Debug)]
struct Waiting {
    is_v4: bool,
    offload: Offload,
    packet: Vec<u8>,
}

impl Ether {
    /// Takes the interface `device`, on which we have these addresses, and the neighbour those.
    ///
    /// # Errors
    /// A sentence: there is no such interface, it is no Ethernet, or `CAP_NET_RAW` is missing.
    pub(super) fn open(device: &str, ends: &[(IpAddr, IpAddr)]) -> Result<Self, String> {
        let index = nix::net::if_::if_nametoindex(device).map_err(|_missing| {
            format!(
                "there is no interface {device}: make it, or give the name of one that is there"
            )
        })?;
        let path = format!("/sys/class/net/{device}/address");
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let theirs = mac_of(&text).ok_or_else(|| {
            format!("{device} has no Ethernet address: give an Ethernet interface")
        })?;
        let mac = own_mac(theirs);
        let socket = sys::packet_socket(index, mac.0).map_err(|error| {
            format!("{device} cannot be taken (CAP_NET_RAW is needed): {error}")
        })?;
        socket
            .set_nonblocking(true)
            .map_err(|error| error.to_string())?;
        Ok(Self {
            socket,
            neighbours: Neighbours::new(mac, ends),
            waiting: VecDeque::with_capacity(WAITING_MAX),
            spare: Vec::new(),
            scratch: vec![0; PACKET_BYTES_MAX],
        })
    }

    /// Reads one packet or super-packet into `buffer` of [`PACKET_BYTES_MAX`] bytes, without its Ethernet header.
    /// What neighbours say to each other is answered here.
    ///
    /// # Errors
    /// `WouldBlock` when nothing waits, `InvalidData` for a packet that cannot be understood.
    pub(super) fn recv(&mut self, buffer: &mut [u8], now: Instant) -> io::Result<(usize, Offload)> {
        for _ in 0..FRAMES_MAX {
            let (mut vnet, mut head) = ([0; VNET_HDR_LEN], [0; HEADER_LEN]);
            let mut parts = [
                IoSliceMut::new(&mut vnet),
                IoSliceMut::new(&mut head),
                IoSliceMut::new(buffer),
            ];
            let len = (&self.socket).read_vectored(&mut parts)?;
            let Some(len) = len.checked_sub(VNET_HDR_LEN + HEADER_LEN) else {
                return Err(io::ErrorKind::InvalidData.into());
            };
            let packet = &buffer[..len];
            let to = Mac([head[0], head[1], head[2], head[3], head[4], head[5]]);
            let ether_type = u16::from_be_bytes([head[12], head[13]]);
            let message = match ether_type {
                neighbour::ARP => neighbour::parse_arp(packet),
                neighbour::IPV6 => neighbour::parse_ndp(packet),
                _ => None,
            };
            if let Some(message) = message {
                self.hear(message, now);
                continue;
            }
            let is_ip = matches!(ether_type, neighbour::IPV4 | neighbour::IPV6);
            if !is_ip || to != self.neighbours.mac() {
                continue;
            }
            let offload = Offload::decode(&vnet).ok().and_then(behind_header);
            return offload
                .map(|offload| (len, offload))
                .ok_or_else(|| io::ErrorKind::InvalidData.into());
        }
        // There may be more: epoll says so.
        Err(io::ErrorKind::WouldBlock.into())
    }

    /// Sends one packet or super-packet to the neighbour, or has it wait until that has said where it is. Gives the
    /// number of writes.
    ///
    /// # Errors
    /// Those of writev(2); `NotConnected` when the link does not have the packet's family, or too many wait.
    pub(super) fn send(
        &mut self,
        packet: &[u8],
        offload: Offload,
        now: Instant,
    ) -> io::Result<usize> {
        let is_v4 = packet.first().is_some_and(|first| first >> 4 == 4);
        let mut question = [0; MESSAGE_LEN_MAX];
        let (next, len) = self.neighbours.next(is_v4, now, &mut question);
        if len > 0 {
            self.say(&question[..len]);
        }
        match next {
            Next::To(to) => self.send_to(to, packet, offload),
            Next::Wait if self.waiting.len() < WAITING_MAX => {
                let mut waits = self.spare.pop().unwrap_or_default();
                waits.clear();
                waits.extend_from_slice(packet);
                self.waiting.push_back(Waiting {
                    is_v4,
                    offload,
                    packet: waits,
                });
                Ok(0)
            }
            Next::Wait | Next::NoWay => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    fn hear(&mut self, message: Message, now: Instant) {
        let mut answer = [0; MESSAGE_LEN_MAX];
        let len = self.neighbours.hear(message, now, &mut answer);
        if len > 0 {
            self.say(&answer[..len]);
        }
        for _ in 0..self.waiting.len() {
            let Some(waiting) = self.waiting.pop_front() else {
                return;
            };
            match self.neighbours.next(waiting.is_v4, now, &mut answer) {
                (Next::To(to), _) => {
                    // One that is refused was lost on the wire, for all that its sender knows.
                    let _refused = self.send_to(to, &waiting.packet, waiting.offload);
                    self.spare.push(waiting.packet);
                }
                (Next::Wait | Next::NoWay, _) => self.waiting.push_back(waiting),
            }
        }
    }

    /// A message to the neighbour. One that is refused is asked for again.
    fn say(&self, frame: &[u8]) {
        let vnet = [0; VNET_HDR_LEN];
        let parts = [IoSlice::new(&vnet), IoSlice::new(frame)];
        let _refused = (&self.socket).write_vectored(&parts);
    }

    fn send_to(&mut self, to: Mac, packet: &[u8], offload: Offload) -> io::Result<usize> {
        if offload.segmentation != Segmentation::Udp {
            self.write(to, packet, offload)?;
            return Ok(1);
        }
        // Kernels before 6.2 take no USO from a packet socket.
        let Ok(mut segments) = Segments::new(packet, offload) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        let mut scratch = std::mem::take(&mut self.scratch);
        let mut writes = 0;
        let mut done = Ok(());
        while done.is_ok()
            && let Some(len) = segments.next_into(&mut scratch)
        {
            done = self.write(to, &scratch[..len], Offload::NONE);
            writes += 1;
        }
        self.scratch = scratch;
        done.map(|()| writes)
    }

    fn write(&self, to: Mac, packet: &[u8], offload: Offload) -> io::Result<()> {
        let is_v4 = packet.first().is_some_and(|first| first >> 4 == 4);
        let ether_type = if is_v4 {
            neighbour::IPV4
        } else {
            neighbour::IPV6
        };
        let head = neighbour::header(to, self.neighbours.mac(), ether_type);
        let mut vnet = offload.encode(packet);
        for at in [2, 6] {
            let place = u16::from_ne_bytes([vnet[at], vnet[at + 1]]);
            if offload.checksum.is_some() {
                let place = place + HEADER_LEN_U16;
                vnet[at..at + 2].copy_from_slice(&place.to_ne_bytes());
            }
        }
        let parts = [
            IoSlice::new(&vnet),
            IoSlice::new(&head),
            IoSlice::new(packet),
        ];
        (&self.socket).write_vectored(&parts).map(|_written| ())
    }
}

impl AsFd for Ether {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

const HEADER_LEN_U16: u16 = 14;

/// What is left to do, counted from behind the Ethernet header.
fn behind_header(offload: Offload) -> Option<Offload> {
    let Some(checksum) = offload.checksum else {
        return Some(offload);
    };
    let start = checksum.start.checked_sub(HEADER_LEN_U16)?;
    Some(Offload {
        checksum: Some(PartialChecksum { start, ..checksum }),
        ..offload
    })
}

/// An address of our own beside the interface's, always the same: locally administered (IEEE 802, bit 1 of the
/// first byte), so that no other card has it.
fn own_mac(Mac(theirs): Mac) -> Mac {
    let [first, .., last] = theirs;
    let mut ours = theirs;
    ours[0] = (first | 0x02) & 0xfe;
    ours[5] = last ^ 0x5c;
    Mac(ours)
}

fn mac_of(text: &str) -> Option<Mac> {
    let mut bytes = [0; 6];
    let mut parts = text.trim().split(':');
    for byte in &mut bytes {
        *byte = u8::from_str_radix(parts.next()?, 16).ok()?;
    }
    let mac = Mac(bytes);
    (parts.next().is_none() && !mac.is_group()).then_some(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_address_is_a_station_of_its_own_that_nobody_bought() {
        for text in ["52:54:00:12:34:56\n", "02:00:00:00:00:01"] {
            let theirs = mac_of(text).unwrap();
            let ours = own_mac(theirs);
            assert_ne!(ours, theirs);
            assert!(!ours.is_group());
            assert_eq!(ours.0[0] & 2, 2);
        }
        for text in [
            "",
            "00:00:00:00:00:00",
            "1:2:3",
            "ff:ff:ff:ff:ff:ff",
            "1:2:3:4:5:6:7",
        ] {
            assert_eq!(mac_of(text), None, "{text}");
        }
    }

    #[test]
    fn an_open_checksum_lies_behind_the_ethernet_header() {
        let open = |start| Offload {
            checksum: Some(PartialChecksum { start, offset: 16 }),
            ..Offload::NONE
        };
        assert_eq!(behind_header(open(34)), Some(open(20)));
        assert_eq!(behind_header(open(13)), None);
        assert_eq!(behind_header(Offload::NONE), Some(Offload::NONE));
    }

    #[test]
    fn an_interface_that_is_not_there_is_named() {
        let error = Ether::open("nowhere9", &[]).unwrap_err();
        assert!(error.contains("nowhere9"), "{error}");
        let error = Ether::open("lo", &[]).unwrap_err();
        assert!(error.contains("Ethernet"), "{error}");
    }
}
