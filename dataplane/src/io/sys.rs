//! System calls that no library wraps: ioctls of a TUN device, BPF. The only unsafe of `io`.

#![expect(
    unsafe_code,
    reason = "one small safe function around each system call; every other module of io goes through these"
)]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

use nix::libc::{self, c_int, c_short, c_uint};

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

/// Takes over the descriptor of something that gives it up.
pub(super) fn own(from: impl IntoRawFd) -> OwnedFd {
    let fd: RawFd = from.into_raw_fd();
    // SAFETY: `into_raw_fd` hands the only ownership of an open descriptor to its caller.
    unsafe { OwnedFd::from_raw_fd(fd) }
}
