//! An Ethernet port, or one VLAN of it, that is the router's: frames and the neighbour's address, by a
//! packet socket.
//!
//! The kernel's own stack has the port too. It must not take part: the router has an Ethernet address
//! of its own, which the kernel takes for somebody else's, and [`super::routes::seal`] does the rest.
//! Tags are put in and looked at here, so the kernel needs no VLAN devices, nor support for them. Each
//! link has a socket, and each socket's filter sees each frame of the port: a port with many VLANs
//! costs as many programs of a dozen instructions a frame.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use crate::packet::{Offload, PartialChecksum, Segmentation, Segments, VNET_HDR_LEN};
use crate::tunnel::direct::{End, Neighbours, Next};
use crate::wire::neighbour::{self, HEADER_LEN, MESSAGE_LEN_MAX, Mac, Message};

use super::counters::Counters;
use super::sys::{self, Member};
use super::tun::PACKET_BYTES_MAX;
use super::udp::set_buffers;
use super::{routes, steer};

/// Packets that wait for the neighbours to answer. The oldest goes first (RFC 1122 section 2.3.2.2
/// asks for the latest one at least).
const WAITING_MAX: usize = 16;
/// Their bytes: two super-packets.
const WAITING_BYTES_MAX: usize = 2 * PACKET_BYTES_MAX;
/// Packets whose senders are told in one turn that the neighbour is not there; there is a rate above.
const REFUSED_MAX: usize = 16;
/// Frames for nobody above that are looked at in one read.
const FRAMES_MAX: usize = 16;
/// Bytes of a VLAN tag.
const TAG_LEN: u16 = 4;
const HEADER_LEN_U16: u16 = 14;

/// A link, non-blocking.
#[derive(Debug)]
pub(super) struct Ether {
    socket: socket2::Socket,
    /// The tag of each frame: nothing, or four bytes.
    tag: Vec<u8>,
    neighbours: Neighbours,
    waiting: VecDeque<Waiting>,
    waiting_bytes: usize,
    refused: VecDeque<Vec<u8>>,
    /// Buffers of what waited or was refused, used again.
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
    /// Takes the port `device`, or its VLAN, and keeps the kernel out of it.
    ///
    /// # Errors
    /// A sentence: there is no such interface, it is no Ethernet, its MTU is less than the link's, or a
    /// privilege is missing.
    pub(super) fn open(
        device: &str,
        vlan: Option<u16>,
        ends: &[End],
        mtu: u16,
    ) -> Result<Self, String> {
        let index = index_of(device)?;
        let of_device = |what: &str| {
            let path = format!("/sys/class/net/{device}/{what}");
            std::fs::read_to_string(path).unwrap_or_default()
        };
        let theirs = mac_of(&of_device("address")).ok_or_else(|| {
            format!("{device} has no Ethernet address: give an Ethernet interface")
        })?;
        let has: u32 = of_device("mtu").trim().parse().unwrap_or(0);
        if has < u32::from(mtu) {
            return Err(format!(
                "mtu is {mtu}, and that of {device} is {has}: lower the one or raise the other"
            ));
        }
        let failed = |error: io::Error| format!("{device} cannot be taken: {error}");
        routes::seal(device).map_err(|error| error.to_string())?;
        routes::raise_port(device).map_err(|error| error.to_string())?;
        let mac = own_mac(theirs);
        let socket = open_socket(index, vlan, mac, ends).map_err(failed)?;
        let tag = vlan.map_or(Vec::new(), |vlan| {
            [neighbour::TAG.to_be_bytes(), vlan.to_be_bytes()].concat()
        });
        let ether = Self {
            socket,
            tag,
            neighbours: Neighbours::new(mac, ends),
            waiting: VecDeque::with_capacity(WAITING_MAX),
            waiting_bytes: 0,
            refused: VecDeque::with_capacity(REFUSED_MAX),
            spare: Vec::new(),
            scratch: vec![0; PACKET_BYTES_MAX],
        };
        for is_v4 in [true, false] {
            let mut out = [0; MESSAGE_LEN_MAX];
            let len = ether.neighbours.announce(is_v4, &mut out);
            ether.say(&out[..len]);
        }
        Ok(ether)
    }

    /// Reads one packet or super-packet into `buffer` of [`PACKET_BYTES_MAX`] bytes, without its
    /// Ethernet header. What neighbours say to each other is answered here.
    ///
    /// # Errors
    /// `WouldBlock` when nothing waits, `InvalidData` for a packet that cannot be understood.
    pub(super) fn recv(
        &mut self,
        buffer: &mut [u8],
        now: Instant,
        counters: &mut Counters,
    ) -> io::Result<(usize, Offload)> {
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
            let [a, b, c, d, e, f, g, h, i, j, k, l, ether_type @ ..] = head;
            let (to, from) = (Mac([a, b, c, d, e, f]), Mac([g, h, i, j, k, l]));
            let ether_type = u16::from_be_bytes(ether_type);
            let message = match ether_type {
                neighbour::ARP => neighbour::parse_arp(packet),
                neighbour::IPV6 => neighbour::parse_ndp(packet, from),
                _ => None,
            };
            if let Some(message) = message {
                self.hear(message, now, counters);
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

    /// Sends one packet or super-packet to the neighbour, has it wait until that has said where it is,
    /// or keeps what its sender is to be told of it. Gives the number of writes.
    ///
    /// # Errors
    /// Those of writev(2); `InvalidData` for a packet that cannot be cut.
    pub(super) fn send(
        &mut self,
        (packet, offload): (&[u8], Offload),
        now: Instant,
        counters: &mut Counters,
    ) -> io::Result<usize> {
        let is_v4 = is_v4(packet);
        match self.next(is_v4, now, counters) {
            Next::To(to) => self.send_to(to, packet, offload),
            Next::Wait => {
                self.keep(is_v4, packet, offload, counters);
                Ok(0)
            }
            Next::Unreachable | Next::NoFamily => {
                self.refuse(packet, counters);
                Ok(0)
            }
        }
    }

    /// When [`Ether::handle_timeout`] wants to be called; `None` when nothing waits.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let due = |is_v4: bool| {
            let is_waiting = self.waiting.iter().any(|waiting| waiting.is_v4 == is_v4);
            self.neighbours.ask_again_at(is_v4).filter(|_| is_waiting)
        };
        [due(true), due(false)].into_iter().flatten().min()
    }

    /// Asks again, or gives up.
    pub(super) fn handle_timeout(&mut self, now: Instant, counters: &mut Counters) {
        if self.poll_timeout().is_some_and(|due| due <= now) {
            self.flush(now, counters);
        }
    }

    /// A packet that did not reach the neighbour, whose sender is to hear of it. Give it back by
    /// [`Ether::give_back`].
    pub(super) fn poll_refused(&mut self) -> Option<Vec<u8>> {
        self.refused.pop_front()
    }

    /// Takes a buffer back.
    pub(super) fn give_back(&mut self, buffer: Vec<u8>) {
        if self.spare.len() < WAITING_MAX + REFUSED_MAX {
            self.spare.push(buffer);
        }
    }

    /// Takes note of what epoll reports as an error of the socket. The port is down or gone; it works
    /// again when it is up, and one that was made anew is taken by [`super::devices`].
    pub(super) fn note_error(&self, device: &str) {
        match self.socket.take_error() {
            Ok(Some(error)) => tracing::warn!(device, %error, "the port of a direct link is down"),
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(device, %error, "the port of a direct link cannot be asked")
            }
        }
    }

    fn next(&mut self, is_v4: bool, now: Instant, counters: &mut Counters) -> Next {
        let mut question = [0; MESSAGE_LEN_MAX];
        let (next, len) = self.neighbours.next(is_v4, now, &mut question);
        if len > 0 {
            counters.neighbour_questions += 1;
            self.say(&question[..len]);
        }
        next
    }

    fn hear(&mut self, message: Message, now: Instant, counters: &mut Counters) {
        counters.neighbour_heard += 1;
        let mut answer = [0; MESSAGE_LEN_MAX];
        let len = self.neighbours.hear(message, now, &mut answer);
        self.say(&answer[..len]);
        self.flush(now, counters);
    }

    /// Lets everything go that waits in vain, or no more.
    fn flush(&mut self, now: Instant, counters: &mut Counters) {
        for _ in 0..self.waiting.len() {
            let Some(waiting) = self.waiting.pop_front() else {
                return;
            };
            match self.next(waiting.is_v4, now, counters) {
                Next::Wait => {
                    self.waiting.push_back(waiting);
                    continue;
                }
                // One that is refused was lost on the wire, for all that its sender knows.
                Next::To(to) => match self.send_to(to, &waiting.packet, waiting.offload) {
                    Ok(writes) => counters.tun_writes += super::port::as_count(writes),
                    Err(_not_taken) => counters.tun_write_errors += 1,
                },
                Next::Unreachable | Next::NoFamily => self.refuse(&waiting.packet, counters),
            }
            self.waiting_bytes -= waiting.packet.len();
            self.give_back(waiting.packet);
        }
    }

    fn keep(&mut self, is_v4: bool, packet: &[u8], offload: Offload, counters: &mut Counters) {
        while self.waiting.len() >= WAITING_MAX
            || self.waiting_bytes + packet.len() > WAITING_BYTES_MAX
        {
            let Some(oldest) = self.waiting.pop_front() else {
                return;
            };
            counters.neighbour_queue_full += 1;
            self.waiting_bytes -= oldest.packet.len();
            self.give_back(oldest.packet);
        }
        self.waiting_bytes += packet.len();
        let packet = self.copy(packet);
        self.waiting.push_back(Waiting {
            is_v4,
            offload,
            packet,
        });
    }

    fn refuse(&mut self, packet: &[u8], counters: &mut Counters) {
        counters.neighbour_unreachable += 1;
        if self.refused.len() < REFUSED_MAX {
            let packet = self.copy(packet);
            self.refused.push_back(packet);
        }
    }

    fn copy(&mut self, packet: &[u8]) -> Vec<u8> {
        let mut copy = self.spare.pop().unwrap_or_default();
        copy.clear();
        copy.extend_from_slice(packet);
        copy
    }

    /// A message to the neighbour. One that is refused is asked for again.
    fn say(&self, frame: &[u8]) {
        let Some((addresses, rest)) = frame.split_at_checked(12) else {
            return;
        };
        let vnet = [0; VNET_HDR_LEN];
        let parts = [&vnet[..], addresses, &self.tag, rest].map(IoSlice::new);
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
        let ether_type = if is_v4(packet) {
            neighbour::IPV4
        } else {
            neighbour::IPV6
        };
        let head = neighbour::header(to, self.neighbours.mac(), ether_type);
        let before = if self.tag.is_empty() {
            HEADER_LEN_U16
        } else {
            HEADER_LEN_U16 + TAG_LEN
        };
        let vnet = with_header(offload.encode(packet), offload, before);
        let (addresses, ether_type) = head.split_at(12);
        let parts = [&vnet[..], addresses, &self.tag, ether_type, packet].map(IoSlice::new);
        (&self.socket).write_vectored(&parts).map(|_written| ())
    }
}

impl AsFd for Ether {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The number of an interface.
///
/// # Errors
/// A sentence: there is none of that name.
pub(super) fn index_of(device: &str) -> Result<u32, String> {
    nix::net::if_::if_nametoindex(device).map_err(|_missing| {
        format!("there is no interface {device}: make it, or give the name of one that is there")
    })
}

fn open_socket(
    index: u32,
    vlan: Option<u16>,
    mac: Mac,
    ends: &[End],
) -> io::Result<socket2::Socket> {
    let socket = sys::packet_socket()?;
    // Before it is bound: nothing of another VLAN gets in.
    steer::by_vlan(&socket, vlan, mac.0)?;
    socket.set_nonblocking(true)?;
    set_buffers(&socket)?;
    sys::packet_join(&socket, index, Member::Unicast(mac.0))?;
    for end in ends {
        if let std::net::IpAddr::V6(near) = end.near {
            let group = Mac::of_group(neighbour::solicited_node(near));
            sys::packet_join(&socket, index, Member::Multicast(group.0))?;
        }
    }
    sys::packet_bind(&socket, index)?;
    Ok(socket)
}

/// A `virtio_net_hdr` for a packet behind so many bytes of header: its offsets count from the frame's
/// first byte.
fn with_header(mut vnet: [u8; VNET_HDR_LEN], offload: Offload, before: u16) -> [u8; VNET_HDR_LEN] {
    let is_counted = [
        (2, offload.segmentation != Segmentation::None),
        (6, offload.checksum.is_some()),
    ];
    for (at, _) in is_counted.into_iter().filter(|(_, is_counted)| *is_counted) {
        let place = u16::from_ne_bytes([vnet[at], vnet[at + 1]]).saturating_add(before);
        vnet[at..at + 2].copy_from_slice(&place.to_ne_bytes());
    }
    vnet
}

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

fn is_v4(packet: &[u8]) -> bool {
    packet.first().is_some_and(|first| first >> 4 == 4)
}

/// An address of our own beside the interface's, always the same: locally administered (IEEE 802, bit 1
/// of the first byte), so that no other card has it.
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
        let packet = [0x45; 60];
        for before in [14, 18] {
            let vnet = with_header(open(20).encode(&packet), open(20), before);
            assert_eq!(Offload::decode(&vnet).unwrap(), open(20 + before));
            let vnet = with_header(Offload::NONE.encode(&packet), Offload::NONE, before);
            assert_eq!(vnet, [0; VNET_HDR_LEN]);
        }
    }

    #[test]
    fn an_interface_that_is_not_there_is_named() {
        let error = Ether::open("nowhere9", None, &[], 1400).unwrap_err();
        assert!(error.contains("nowhere9"), "{error}");
        let error = Ether::open("lo", None, &[], 1400).unwrap_err();
        assert!(error.contains("Ethernet"), "{error}");
    }
}
