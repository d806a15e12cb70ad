//! The edge's side of the load: kernel sockets bound to the vnet's source addresses.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use dataplane::io::clock;
use dataplane::io::udp::{Sent, Socket};
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

use super::drive::{Burst, End, nanos};
use super::meter::Meter;
use super::stamp::{HEADERS_LEN, PORT, Stamp};
use super::world;

/// Trains read from one socket in a row.
const BATCH: usize = 16;

/// Kernel sockets, one per source address. To be made in the edge's namespace.
#[derive(Debug)]
pub struct Overlay {
    /// Per worker of the edge.
    sockets: Vec<Socket>,
    buffer: Vec<u8>,
}

impl Overlay {
    /// Binds a socket to each source address of the vnet; peers take turns with them as the edge's
    /// tunnels do with its workers.
    ///
    /// # Errors
    /// Those of bind(2).
    pub fn new(sources: &[Ipv4Addr]) -> anyhow::Result<Self> {
        let bind = |source: &Ipv4Addr| {
            let address = SocketAddr::from((*source, PORT));
            Socket::bind(address).with_context(|| format!("cannot bind {address}"))
        };
        Ok(Self {
            sockets: sources.iter().map(bind).collect::<Result<_, _>>()?,
            buffer: vec![0; 65_535],
        })
    }
}

impl End for Overlay {
    fn send(&mut self, burst: &Burst) -> anyhow::Result<u64> {
        let payload = burst.size - HEADERS_LEN;
        // One UDP payload at most, as a train is one to the kernel.
        let fits = u64::try_from((65_000 / payload).min(64)).unwrap_or(1);
        let count = burst.count.min(fits);
        let len = usize::try_from(count).unwrap_or(1) * payload;
        for (n, packet) in (0..).zip(self.buffer[..len].chunks_mut(payload)) {
            let stamp = Stamp {
                trial: burst.trial,
                flow: u32::try_from(burst.flow)?,
                sequence: burst.first + n,
                sent_at: burst.now,
            };
            stamp.write(packet);
        }
        let to = SocketAddr::new(IpAddr::V4(world::inner(burst.flow)), PORT);
        let index = burst.flow % self.sockets.len();
        match self.sockets[index].send(to, payload, &self.buffer[..len]) {
            Ok(Sent::Whole | Sent::Singly) => Ok(count),
            Ok(Sent::Full { from }) => Ok(u64::try_from(from / payload)?),
            // The TUN's queue was full, and said so (ENOBUFS): lost, as a packet is lost.
            Err(error) if error.raw_os_error() == Some(nix::libc::ENOBUFS) => Ok(count),
            Err(error) => Err(error).with_context(|| format!("cannot send to {to}")),
        }
    }

    fn receive(&mut self, meter: &mut Meter, since: Instant) -> anyhow::Result<u64> {
        let mut read = 0;
        for socket in &mut self.sockets {
            for _ in 0..BATCH {
                let Ok(train) = socket.recv(&mut self.buffer) else {
                    break;
                };
                let now = nanos(clock::now() - since);
                for payload in self.buffer[..train.len].chunks(train.segment_size) {
                    meter.take(payload, payload.len() + HEADERS_LEN, now);
                    read += 1;
                }
            }
        }
        Ok(read)
    }

    fn wait(&mut self, longest: Duration) -> anyhow::Result<()> {
        let watched = |socket| PollFd::new(socket, PollFlags::POLLIN);
        let mut sockets: Vec<_> = self.sockets.iter().map(|s| watched(s.as_fd())).collect();
        ppoll(&mut sockets, Some(TimeSpec::from(longest)), None)?;
        Ok(())
    }
}
