//! The TUN port: super-packets with offload metadata, or plain packets, behind one face.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use serde::{Deserialize, Serialize};

use crate::id::Workers;
use crate::packet::{Offload, Segmentation, Segments, VNET_HDR_LEN};

use super::sys;

const DEVICE: &str = "/dev/net/tun";

/// Largest packet that a read or a write moves: an IPv4 total length. Kernels hand out no larger
/// super-packet unless `gso_max_size` was raised.
pub const PACKET_BYTES_MAX: usize = 65_535;

/// How the TUN device is to be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunConfig {
    /// Name of the device, 1..=15 bytes.
    pub name: String,
    /// Largest inner packet, 1280..=9000: IPv6 needs 1280 (RFC 8200, section 5).
    pub mtu: u16,
    /// How packets cross it.
    pub backend: TunBackend,
}

/// How packets cross the TUN device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TunBackend {
    /// [`TunBackend::Offload`], or [`TunBackend::Plain`] where the kernel lacks it.
    #[default]
    Auto,
    /// Up to 64 KiB a call, with a `virtio_net_hdr` in front.
    Offload,
    /// One packet of at most one MTU a call.
    Plain,
}

/// Why there is no TUN device; each sentence says what to do.
#[derive(Debug, thiserror::Error)]
pub enum TunError {
    /// The kernel or the container has no TUN.
    #[error(
        "{DEVICE} is missing: load it with 'modprobe tun', or run on a machine (or in a container) \
         that has {DEVICE}"
    )]
    Missing,
    /// No privilege.
    #[error("no permission to make a TUN device: run as root or with CAP_NET_ADMIN")]
    NotPermitted,
    /// Somebody has it.
    #[error(
        "the TUN device {0} is in use by another process, perhaps a second portcullis: stop that \
         one, or choose another name"
    )]
    Busy(String),
    /// The kernel does not take the name.
    #[error(
        "'{0}' cannot name a TUN device: give 1 to 15 letters, digits, '-' or '_' that no other \
         kind of device has"
    )]
    Name(String),
    /// Offload was demanded and is not there.
    #[error("this kernel's TUN has no offload ({0}): set the back end to 'auto' or 'plain'")]
    NoOffload(#[source] io::Error),
    /// Anything else.
    #[error("the TUN device {name} cannot be opened: {source}")]
    Other {
        /// The device.
        name: String,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// An open TUN device, non-blocking. Gone when dropped, unless it was made persistent elsewhere.
#[derive(Debug)]
pub struct Tun {
    fd: File,
    name: String,
    offload: Offloads,
    /// One packet of a super-packet that has to be cut here.
    scratch: Vec<u8>,
}

/// What the kernel takes off us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Offloads {
    Plain,
    Tcp,
    TcpAndUdp,
}

impl Tun {
    /// Opens the device, made if need be, once for each worker; once only where it is plain, which
    /// has no queues. It is down until [`super::routes`] sets it up.
    ///
    /// # Errors
    /// [`TunError`].
    pub fn open(config: &TunConfig, workers: Workers) -> Result<Vec<Self>, TunError> {
        let TunConfig { name, backend, .. } = config;
        if !is_device_name(name) {
            return Err(TunError::Name(name.clone()));
        }
        match backend {
            TunBackend::Offload => open_queues(name, workers),
            TunBackend::Plain => Ok(vec![open_plain(name)?]),
            TunBackend::Auto => match open_queues(name, workers) {
                Err(TunError::NoOffload(error)) => {
                    tracing::info!(%error, "the TUN has no offload: one packet a call");
                    Ok(vec![open_plain(name)?])
                }
                done => done,
            },
        }
    }

    /// Lets the kernel choose the queue by this program, for the whole device.
    ///
    /// # Errors
    /// Those of the ioctl `TUNSETSTEERINGEBPF`.
    pub(super) fn steer(&self, program: &OwnedFd) -> io::Result<()> {
        sys::tun_set_steering(&self.fd, program)
    }

    /// The device's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What is in use: `offload` or `plain`.
    pub fn backend(&self) -> &'static str {
        match self.offload {
            Offloads::Plain => "plain",
            Offloads::Tcp | Offloads::TcpAndUdp => "offload",
        }
    }

    /// Reads one packet or super-packet into `buffer` of [`PACKET_BYTES_MAX`] bytes; gives its
    /// length.
    ///
    /// # Errors
    /// `WouldBlock` when nothing waits, `InvalidData` for a packet that cannot be understood.
    pub fn recv(&self, buffer: &mut [u8]) -> io::Result<(usize, Offload)> {
        if self.offload == Offloads::Plain {
            return Ok(((&self.fd).read(buffer)?, Offload::NONE));
        }
        let mut header = [0; VNET_HDR_LEN];
        let mut parts = [IoSliceMut::new(&mut header), IoSliceMut::new(buffer)];
        let len = (&self.fd).read_vectored(&mut parts)?;
        let len = len
            .checked_sub(VNET_HDR_LEN)
            .ok_or(io::ErrorKind::InvalidData)?;
        match Offload::decode(&header) {
            Ok(offload) => Ok((len, offload)),
            Err(_malformed) => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// Writes one packet or super-packet; what the kernel does not cut is cut here. Gives the
    /// number of writes.
    ///
    /// # Errors
    /// Those of writev(2); `InvalidData` when `offload` does not fit the packet.
    pub fn send(&mut self, packet: &[u8], offload: Offload) -> io::Result<usize> {
        let is_plain = self.offload == Offloads::Plain;
        if is_plain && offload == Offload::NONE {
            write_plain(&self.fd, packet)?;
            return Ok(1);
        }
        if is_plain
            || offload.segmentation == Segmentation::Udp && self.offload != Offloads::TcpAndUdp
        {
            return self.send_cut(packet, offload);
        }
        write_with_header(&self.fd, packet, offload)?;
        Ok(1)
    }

    fn send_cut(&mut self, packet: &[u8], offload: Offload) -> io::Result<usize> {
        let Ok(mut segments) = Segments::new(packet, offload) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        let mut writes = 0;
        while let Some(len) = segments.next_into(&mut self.scratch) {
            let segment = &self.scratch[..len];
            match self.offload {
                Offloads::Plain => write_plain(&self.fd, segment)?,
                Offloads::Tcp | Offloads::TcpAndUdp => {
                    write_with_header(&self.fd, segment, Offload::NONE)?;
                }
            }
            writes += 1;
        }
        Ok(writes)
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn write_plain(mut fd: &File, packet: &[u8]) -> io::Result<()> {
    whole(fd.write(packet)?, packet.len())
}

fn write_with_header(mut fd: &File, packet: &[u8], offload: Offload) -> io::Result<()> {
    let header = offload.encode(packet);
    let written = fd.write_vectored(&[IoSlice::new(&header), IoSlice::new(packet)])?;
    whole(written, VNET_HDR_LEN + packet.len())
}

/// A TUN takes a packet whole or not at all; the rest of one would be taken for another.
fn whole(written: usize, wanted: usize) -> io::Result<()> {
    if written == wanted {
        Ok(())
    } else {
        Err(io::ErrorKind::WriteZero.into())
    }
}

fn open_queues(name: &str, workers: Workers) -> Result<Vec<Tun>, TunError> {
    let flags = sys::flag::TUN_NO_PI | sys::flag::VNET_HDR;
    if workers == Workers::ONE {
        return Ok(vec![open_offload(name, flags)?]);
    }
    workers
        .iter()
        .map(|_| open_offload(name, flags | sys::flag::MULTI_QUEUE))
        .collect()
}

fn open_offload(name: &str, flags: libc::c_int) -> Result<Tun, TunError> {
    let open = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(DEVICE);
    let fd = open.map_err(|error| open_error(name, error))?;
    let attached = sys::tun_attach(&fd, name, flags);
    let name = attached.map_err(|error| open_error(name, error))?;
    let len = i32::try_from(VNET_HDR_LEN).expect("the header has 10 bytes");
    sys::tun_set_vnet_header_len(&fd, len).map_err(TunError::NoOffload)?;
    let offload = match sys::tun_set_offload(&fd, sys::flag::CSUM_TSO | sys::flag::USO) {
        Ok(()) => Offloads::TcpAndUdp,
        Err(_before_6_2) => {
            sys::tun_set_offload(&fd, sys::flag::CSUM_TSO).map_err(TunError::NoOffload)?;
            Offloads::Tcp
        }
    };
    Ok(Tun {
        fd,
        name,
        offload,
        scratch: vec![0; PACKET_BYTES_MAX],
    })
}

fn open_plain(name: &str) -> Result<Tun, TunError> {
    let device = tun_tap::Iface::without_packet_info(name, tun_tap::Mode::Tun);
    let device = device.map_err(|error| open_error(name, error))?;
    let name = device.name().to_owned();
    let fd = sys::own(device);
    let flags = OFlag::O_RDWR | OFlag::O_NONBLOCK;
    fcntl(&fd, FcntlArg::F_SETFL(flags)).map_err(|error| open_error(&name, error.into()))?;
    let fd = File::from(fd);
    Ok(Tun {
        fd,
        name,
        offload: Offloads::Plain,
        scratch: vec![0; PACKET_BYTES_MAX],
    })
}

fn open_error(name: &str, error: io::Error) -> TunError {
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => TunError::Missing,
        Some(libc::EACCES | libc::EPERM) => TunError::NotPermitted,
        Some(libc::EBUSY) => TunError::Busy(name.into()),
        Some(libc::EINVAL) => TunError::Name(name.into()),
        _ => TunError::Other {
            name: name.into(),
            source: error,
        },
    }
}

/// Stricter than the kernel's `dev_valid_name`: also no `%`, which it takes for a template, and
/// nothing that would wander in a path below /proc/sys.
fn is_device_name(name: &str) -> bool {
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (1..libc::IFNAMSIZ).contains(&name.len()) && name.bytes().all(is_good)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_the_kernel_would_take_for_something_else_is_refused() {
        for name in ["", "a/b", "..", "tun%d", "a b", "sixteen-letters-"] {
            assert!(!is_device_name(name), "{name:?}");
        }
        for name in ["pc0", "portcullis", "fifteen-letters"] {
            assert!(is_device_name(name), "{name:?}");
        }
    }

    #[test]
    fn each_refusal_says_what_to_do() {
        let said = |code| open_error("pc0", io::Error::from_raw_os_error(code)).to_string();
        assert!(said(libc::ENOENT).contains("modprobe tun"));
        assert!(said(libc::EPERM).contains("run as root or with CAP_NET_ADMIN"));
        assert!(said(libc::EBUSY).contains("pc0 is in use by another process"));
    }
}
