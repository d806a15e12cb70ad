//! System calls that no library wraps: ioctls of a TUN device, BPF, many packets with one call. The only
//! unsafe of `io`.

#![expect(
    unsafe_code,
    reason = "one small safe function around each system call; every other module of io goes through these"
)]

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

use nix::libc::{self, c_int, c_short, c_uint};
use socket2::{SockAddr, SockAddrStorage};

/// Flags of `TUNSETIFF` and `TUNSETOFFLOAD` (`linux/if_tun.h`).
pub(super) mod flag {
    use super::{c_int, c_uint};

    /// Layer 3, no packet information in front of each packet.
    pub(in crate::io) const TUN_NO_PI: c_int = super::libc::IFF_TUN | super::libc::IFF_NO_PI;
    /// Each open of the device is a queue of its own.
    pub(in crate::io) const MULTI_QUEUE: c_int = super::libc::IFF_MULTI_QUEUE;
    /// A `virtio_net_hdr` in front of each packet.
    pub(in crate::io) const VNET_HDR: c_int = super::libc::IFF_VNET_HDR;
    /// The reader completes partial checksums and splits TCP over IPv4 and IPv6.
    pub(in crate::io) const CSUM_TSO: c_uint = 0x01 | 0x02 | 0x04;
    /// The reader splits UDP over IPv4 and IPv6 (Linux 6.2).
    pub(in crate::io) const USO: c_uint = 0x20 | 0x40;
}

mod ioctl {
    use nix::libc::{c_int, ifreq};

    nix::ioctl_readwrite_bad!(
        tun_set_iff,
        nix::request_code_write!(b'T', 202, size_of::<c_int>()),
        ifreq
    );
    nix::ioctl_write_int!(tun_set_offload, b'T', 208);
    nix::ioctl_write_ptr!(tun_set_vnet_hdr_sz, b'T', 216, c_int);
    nix::ioctl_read_bad!(
        tun_set_steering_ebpf,
        nix::request_code_read!(b'T', 224, size_of::<c_int>()),
        c_int
    );
}

/// Attaches the open `/dev/net/tun` to the device `name`, made if need be. Gives the name in use.
///
/// # Errors
/// `EBUSY`: another process holds the device. `EPERM`: no `CAP_NET_ADMIN`. `EINVAL`: the name
/// belongs to something that is not a TUN device, or is longer than 15 bytes.
pub(super) fn tun_attach(tun: &File, name: &str, flags: c_int) -> io::Result<String> {
    let mut request = libc::ifreq {
        ifr_name: [0; libc::IFNAMSIZ],
        ifr_ifru: libc::__c_anonymous_ifr_ifru {
            ifru_flags: c_short::try_from(flags).map_err(|_wide| io::ErrorKind::InvalidInput)?,
        },
    };
    if name.len() >= libc::IFNAMSIZ {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    // SAFETY: the kernel reads and writes one `ifreq`, which lives until after the call.
    unsafe { ioctl::tun_set_iff(tun.as_raw_fd(), &raw mut request) }?;
    let name = request.ifr_name.iter().map(|byte| byte.to_ne_bytes()[0]);
    let name = name.take_while(|byte| *byte != 0).collect();
    String::from_utf8(name).map_err(|_not_utf8| io::ErrorKind::InvalidData.into())
}

/// Tells the kernel which offloads the reader of this TUN takes.
pub(super) fn tun_set_offload(tun: &File, flags: c_uint) -> io::Result<()> {
    // SAFETY: the argument is a number, no memory is touched.
    unsafe { ioctl::tun_set_offload(tun.as_raw_fd(), flags.into()) }?;
    Ok(())
}

/// Sets the length of the `virtio_net_hdr` in front of each packet.
pub(super) fn tun_set_vnet_header_len(tun: &File, len: c_int) -> io::Result<()> {
    // SAFETY: the kernel reads one `c_int`, which lives until after the call.
    unsafe { ioctl::tun_set_vnet_hdr_sz(tun.as_raw_fd(), &raw const len) }?;
    Ok(())
}

/// Sets the program that chooses the queue of each packet that the kernel sends out of this TUN.
/// The kernel takes the result modulo the number of queues (`tun_ebpf_select_queue`).
pub(super) fn tun_set_steering(tun: &File, program: &OwnedFd) -> io::Result<()> {
    let mut fd: c_int = program.as_raw_fd();
    // SAFETY: the kernel reads one `c_int`, which lives until after the call; it keeps its own
    // reference to the program.
    unsafe { ioctl::tun_set_steering_ebpf(tun.as_raw_fd(), &raw mut fd) }?;
    Ok(())
}

/// Loads an eBPF program of the socket filter type. Each word is one `struct bpf_insn` of
/// `linux/bpf.h`, in the byte order of the machine.
///
/// # Errors
/// `EPERM`: no `CAP_BPF`, and the kernel lets nobody else. `EINVAL`: no eBPF in this kernel.
pub(super) fn load_filter(instructions: &[u64]) -> io::Result<OwnedFd> {
    /// The head of `union bpf_attr` for `BPF_PROG_LOAD`; the kernel takes what is missing as zero.
    #[repr(C)]
    struct Attributes {
        kind: u32,
        count: u32,
        instructions: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log: u64,
    }
    const PROG_LOAD: c_int = 5;
    const SOCKET_FILTER: u32 = 1;
    let attributes = Attributes {
        kind: SOCKET_FILTER,
        count: u32::try_from(instructions.len()).map_err(|_long| io::ErrorKind::InvalidInput)?,
        instructions: instructions.as_ptr().addr() as u64,
        license: c"Apache-2.0".as_ptr().addr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
    };
    // SAFETY: the kernel reads the attributes, and through them the instructions and the license,
    // which all live until after the call.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            PROG_LOAD,
            &raw const attributes,
            size_of::<Attributes>(),
        )
    };
    let fd = RawFd::try_from(fd).map_err(|_wide| io::ErrorKind::InvalidData)?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel gave a new descriptor, which nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sets the classic BPF program that chooses among the sockets that share this one's address: it
/// sees a datagram from its payload on, and gives the index of a socket in the order of their
/// binding; for any other number the kernel chooses by a hash (`SO_ATTACH_REUSEPORT_CBPF`,
/// socket(7)).
pub(super) fn set_reuseport_filter(
    socket: &impl AsRawFd,
    program: &[libc::sock_filter],
) -> io::Result<()> {
    let len = u16::try_from(program.len()).map_err(|_long| io::ErrorKind::InvalidInput)?;
    let filter = libc::sock_fprog {
        len,
        filter: program.as_ptr().cast_mut(),
    };
    let size = libc::socklen_t::try_from(size_of::<libc::sock_fprog>())
        .map_err(|_large| io::ErrorKind::InvalidInput)?;
    // SAFETY: the kernel reads the head and through it the program, and writes neither; both live
    // until after the call.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const filter).cast(),
            size,
        )
    };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Messages of one call: a train has at most as many datagrams.
const MESSAGES_MAX: usize = 64;

/// Sends the first datagrams of a train, one message each: how many went, at least one.
///
/// # Errors
/// Those of sendmmsg(2) about the first of them.
pub(super) fn send_each(
    socket: &impl AsRawFd,
    to: &SockAddr,
    segment_size: usize,
    train: &[u8],
) -> io::Result<usize> {
    let mut parts = [const { empty_part() }; MESSAGES_MAX];
    let mut messages = [const { empty_message() }; MESSAGES_MAX];
    let mut count = 0;
    let datagrams = train.chunks(segment_size.max(1));
    for ((datagram, part), message) in datagrams.zip(&mut parts).zip(&mut messages) {
        part.iov_base = datagram.as_ptr().cast_mut().cast();
        part.iov_len = datagram.len();
        message.msg_hdr.msg_name = to.as_ptr().cast_mut().cast();
        message.msg_hdr.msg_namelen = to.len();
        message.msg_hdr.msg_iov = part;
        message.msg_hdr.msg_iovlen = 1;
        count += 1;
    }
    // SAFETY: the first `count` messages point at `to`, at parts and by those at datagrams, which the
    // kernel reads and which all live until after the call.
    let sent = unsafe {
        libc::sendmmsg(
            socket.as_raw_fd(),
            messages.as_mut_ptr(),
            count,
            libc::MSG_DONTWAIT,
        )
    };
    usize::try_from(sent).map_err(|_negative| io::Error::last_os_error())
}

/// Receives up to `arrived.len()` packets, each into its `piece` bytes of `buffer`: how many. Of each
/// its length and sender; neither when it was longer than its piece.
///
/// # Errors
/// Those of recvmmsg(2).
pub(super) fn recv_each<const N: usize>(
    socket: &impl AsRawFd,
    buffer: &mut [u8],
    piece: usize,
    arrived: &mut [(usize, Option<SocketAddr>); N],
) -> io::Result<usize> {
    let mut parts = [const { empty_part() }; N];
    let mut messages = [const { empty_message() }; N];
    let mut names = [const { None }; N].map(|_: Option<()>| SockAddrStorage::zeroed());
    let name_len = names.first().map_or(0, SockAddrStorage::size_of);
    let mut count = 0;
    let pieces = buffer.chunks_exact_mut(piece);
    for (((piece, part), message), name) in
        pieces.zip(&mut parts).zip(&mut messages).zip(&mut names)
    {
        part.iov_base = piece.as_mut_ptr().cast();
        part.iov_len = piece.len();
        message.msg_hdr.msg_name = std::ptr::from_mut(name).cast();
        message.msg_hdr.msg_namelen = name_len;
        message.msg_hdr.msg_iov = part;
        message.msg_hdr.msg_iovlen = 1;
        count += 1;
    }
    // SAFETY: the first `count` messages point at names, at parts and by those at pieces of the buffer,
    // which the kernel writes within their lengths and which all live until after the call.
    let received = unsafe {
        libc::recvmmsg(
            socket.as_raw_fd(),
            messages.as_mut_ptr(),
            count,
            libc::MSG_DONTWAIT,
            std::ptr::null_mut(),
        )
    };
    let received = usize::try_from(received).map_err(|_negative| io::Error::last_os_error())?;
    for ((arrived, message), name) in arrived.iter_mut().zip(&messages[..received]).zip(names) {
        let is_cut = message.msg_hdr.msg_flags & libc::MSG_TRUNC != 0;
        // SAFETY: the kernel wrote an address of this length.
        let name = unsafe { SockAddr::new(name, message.msg_hdr.msg_namelen) };
        let len = usize::try_from(message.msg_len).unwrap_or(0);
        *arrived = if is_cut {
            (0, None)
        } else {
            (len, name.as_socket())
        };
    }
    Ok(received)
}

/// Ethernet addresses whose frames a packet socket has its card take.
#[derive(Clone, Copy, Debug)]
pub(super) enum Member {
    /// Of one station.
    Unicast([u8; 6]),
    /// Of a group.
    Multicast([u8; 6]),
}

/// Makes a packet socket, which receives nothing before [`packet_bind`]: whole frames behind a
/// `virtio_net_hdr`, but for those that go out.
///
/// # Errors
/// Those of socket(2) and setsockopt(2): `EPERM` without `CAP_NET_RAW`.
pub(super) fn packet_socket() -> io::Result<socket2::Socket> {
    // linux/if_packet.h
    const VNET_HDR: c_int = 15;
    const IGNORE_OUTGOING: c_int = 23;
    let socket = socket2::Socket::new(socket2::Domain::PACKET, socket2::Type::RAW, None)?;
    set_packet_option(&socket, VNET_HDR, &1_i32)?;
    set_packet_option(&socket, IGNORE_OUTGOING, &1_i32)?;
    Ok(socket)
}

/// Has the card of interface `index` take frames for `member`, for as long as the socket is open.
///
/// # Errors
/// Those of setsockopt(2) (packet(7), `PACKET_ADD_MEMBERSHIP`).
pub(super) fn packet_join(socket: &impl AsRawFd, index: c_uint, member: Member) -> io::Result<()> {
    const ADD_MEMBERSHIP: c_int = 1;
    /// `struct packet_mreq`.
    #[repr(C)]
    struct Membership {
        index: c_int,
        kind: u16,
        len: u16,
        address: [u8; 8],
    }
    let (kind, mac) = match member {
        Member::Multicast(mac) => (0, mac),
        Member::Unicast(mac) => (3, mac),
    };
    let mut address = [0; 8];
    address[..6].copy_from_slice(&mac);
    let membership = Membership {
        index: c_int::try_from(index).map_err(|_large| io::ErrorKind::InvalidInput)?,
        kind,
        len: 6,
        address,
    };
    set_packet_option(socket, ADD_MEMBERSHIP, &membership)
}

/// Binds a packet socket to interface `index`, whose frames it receives from then on.
///
/// # Errors
/// Those of bind(2): `ENODEV`, `ENETDOWN`.
pub(super) fn packet_bind(socket: &socket2::Socket, index: c_uint) -> io::Result<()> {
    let narrow =
        |number: c_int| u16::try_from(number).map_err(|_large| io::ErrorKind::InvalidInput);
    let link = libc::sockaddr_ll {
        sll_family: narrow(libc::AF_PACKET)?,
        sll_protocol: narrow(libc::ETH_P_ALL)?.to_be(),
        sll_ifindex: c_int::try_from(index).map_err(|_large| io::ErrorKind::InvalidInput)?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let len = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>())
        .map_err(|_large| io::ErrorKind::InvalidInput)?;
    let mut name = SockAddrStorage::zeroed();
    // SAFETY: a `sockaddr_ll` is smaller than the storage, which is aligned for every address.
    unsafe {
        std::ptr::from_mut(&mut name)
            .cast::<libc::sockaddr_ll>()
            .write(link);
    }
    // SAFETY: the storage holds an address of this length.
    let name = unsafe { SockAddr::new(name, len) };
    socket.bind(&name)
}

fn set_packet_option<T>(socket: &impl AsRawFd, option: c_int, value: &T) -> io::Result<()> {
    set_option(socket, (libc::SOL_PACKET, option), value)
}

fn set_option<T>(
    socket: &impl AsRawFd,
    (level, option): (c_int, c_int),
    value: &T,
) -> io::Result<()> {
    let len =
        libc::socklen_t::try_from(size_of::<T>()).map_err(|_large| io::ErrorKind::InvalidInput)?;
    // SAFETY: the kernel reads `len` bytes of a value that lives until after the call.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            std::ptr::from_ref(value).cast(),
            len,
        )
    };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// What a socket of tunnels does with datagrams that the path may not take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PathMtu {
    /// Never cut (DF), whatever the kernel has heard of the path; what the device does not take is an error.
    Probe,
    /// May be cut, here and on the way; what the kernel has heard does not matter either.
    Cut,
}

/// Sets the discovery of the path's MTU (ip(7), `IP_MTU_DISCOVER`).
///
/// # Errors
/// Those of setsockopt(2).
pub(super) fn set_path_mtu(
    socket: &impl AsRawFd,
    is_ipv4: bool,
    wanted: PathMtu,
) -> io::Result<()> {
    // IP_PMTUDISC_PROBE and IP_PMTUDISC_OMIT of linux/in.h, and of linux/in6.h.
    let value: c_int = match wanted {
        PathMtu::Probe => 3,
        PathMtu::Cut => 5,
    };
    let (level, option) = if is_ipv4 {
        (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER)
    } else {
        (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER)
    };
    set_option(socket, (level, option), &value)
}

/// Sets what the datagrams of an IPv6 socket are cut to (ipv6(7), `IPV6_MTU`): bytes of each whole packet.
///
/// # Errors
/// Those of setsockopt(2).
pub(super) fn set_cut_to(socket: &impl AsRawFd, mtu: u16) -> io::Result<()> {
    let value = c_int::from(mtu);
    set_option(socket, (libc::IPPROTO_IPV6, libc::IPV6_MTU), &value)
}

const fn empty_part() -> libc::iovec {
    libc::iovec {
        iov_base: std::ptr::null_mut(),
        iov_len: 0,
    }
}

const fn empty_message() -> libc::mmsghdr {
    // SAFETY: a `mmsghdr` is numbers and pointers, for which zero is a value.
    unsafe { std::mem::zeroed() }
}

/// Takes over the descriptor of something that gives it up.
pub(super) fn own(from: impl IntoRawFd) -> OwnedFd {
    let fd: RawFd = from.into_raw_fd();
    // SAFETY: `into_raw_fd` hands the only ownership of an open descriptor to its caller.
    unsafe { OwnedFd::from_raw_fd(fd) }
}
