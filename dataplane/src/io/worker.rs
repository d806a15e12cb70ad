//! The worker: one thread that reads, asks its node, and sends what the node has to send.
//!
//! One turn: wait; commands and what other workers handed over; each UDP socket; the TUN; the timer.
//! After each of these the node's outbox is drained, so a batch is what one source gave in one turn.
//! Nothing is allocated for a packet, and nothing spins: every wait is epoll's.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use crossbeam::channel::{Receiver, Sender};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::EventFd;

use crate::id::{TunnelId, WorkerId};
use crate::node::{Event, HealthChange, Node, TunnelStatus};
use crate::packet::{Exit, Transmit};
use crate::program::TunnelChange;
use crate::tunnel::ipsec::Failed;

use super::appetite::Appetite;
use super::clock;
use super::counters::{Counters, CountersSnapshot};
use super::endpoints::Heard;
use super::exchange::Exchange;
use super::links::{self, Device, Links};
use super::overlay::Face;
use super::port::{Port, as_count};
use super::reports::{REPORT_BYTES, Reports};
use super::tun::PACKET_BYTES_MAX;

/// Bytes read from one source in one turn: about half a millisecond of work, which is what the other
/// sources wait.
const BATCH_BYTES: usize = 1 << 20;
/// Datagrams read from one socket in one turn: half of what the outbox can deliver singly.
const BATCH_DATAGRAMS: usize = 1024;

/// Batches of other workers taken in one turn: 2 MiB at most.
const HANDED: usize = 16;

/// Batches of flows in one turn: up to 16 MiB, after which the sources have theirs.
const ROUNDS: usize = 16;

/// Commands taken in one turn, so that a flood of them cannot starve the packets.
const COMMANDS: usize = 64;

const WAKE: u64 = 0;
const TUN: u64 = 1;
/// The token of the first port; the others follow.
const PORTS: u64 = 2;
/// The token of the first socket of reports, behind all ports and before all links.
const REPORTS: u64 = (1 << 32) - 2;
/// Reports read in one turn.
const REPORTS_MAX: usize = 16;
/// Wake, TUN, one port for each family, and some links; others are served in the next turn.
const SOURCES: usize = 16;

/// What others ask of a worker. Each question carries the channel for its answer.
#[derive(Debug)]
pub(super) enum Command {
    /// Make, change or remove a tunnel.
    Apply(TunnelChange, Sender<Result<(), String>>),
    /// The device of a direct link that will be put, or `None` for one that is gone.
    Link(TunnelId, Option<Device>),
    /// Where a peer without a configured endpoint was heard last.
    Hint(TunnelId, SocketAddr),
    /// The state of the worker's tunnels.
    Tunnels(Sender<Vec<TunnelStatus>>),
    /// The worker's counters.
    Counters(Sender<CountersSnapshot>),
    /// Leave.
    Stop,
}

/// What a worker is told by, and tells others by.
#[derive(Debug)]
pub(super) struct Lines {
    /// Commands, and what wakes the worker for them and for its inbox.
    pub(super) commands: (Receiver<Command>, Arc<EventFd>),
    /// Inboxes of all workers.
    pub(super) exchange: Arc<Exchange>,
    /// Where peers were heard.
    pub(super) heard: Sender<Heard>,
    /// How tunnels are.
    pub(super) health: Sender<HealthChange>,
}

/// One worker: its node, its overlay, its sockets.
#[derive(Debug)]
pub(super) struct Worker {
    id: WorkerId,
    node: Node,
    overlay: Face,
    links: Links,
    ports: Vec<Port>,
    reports: Vec<Reports>,
    epoll: Epoll,
    wake: Arc<EventFd>,
    commands: Receiver<Command>,
    exchange: Arc<Exchange>,
    heard: Sender<Heard>,
    health: Sender<HealthChange>,
    counters: Counters,
    /// The one super-buffer: a packet is done with before the next is read.
    buffer: Vec<u8>,
    tun_appetite: Appetite,
    port_appetites: Vec<Appetite>,
    /// Whether epoll watches the TUN; it does not while a port has trains waiting.
    is_tun_watched: bool,
}

impl Worker {
    /// Puts the parts together.
    ///
    /// # Errors
    /// Those of epoll_create(2) and epoll_ctl(2).
    pub(super) fn new(
        id: WorkerId,
        node: Node,
        overlay: Face,
        ports: Vec<Port>,
        lines: Lines,
    ) -> io::Result<Self> {
        let Lines {
            commands: (commands, wake),
            exchange,
            heard,
            health,
        } = lines;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let readable = |token| EpollEvent::new(EpollFlags::EPOLLIN, token);
        epoll.add(&*wake, readable(WAKE))?;
        let ports_len = ports.len();
        if let Face::Tun(tun) = &overlay {
            epoll.add(tun, readable(TUN))?;
        }
        let mut worker = Self {
            id,
            node,
            overlay,
            links: Links::default(),
            ports,
            reports: Vec::new(),
            epoll,
            wake,
            commands,
            exchange,
            heard,
            health,
            counters: Counters::default(),
            buffer: vec![0; PACKET_BYTES_MAX],
            tun_appetite: Appetite::FIRST,
            port_appetites: vec![Appetite::FIRST; ports_len],
            is_tun_watched: true,
        };
        for (token, port) in (PORTS..).zip(&mut worker.ports) {
            worker.epoll.add(&*port, readable(token))?;
        }
        worker.listen_to_reports()?;
        Ok(worker)
    }

    /// Works until it is told to stop, or the TUN is gone.
    ///
    /// # Errors
    /// What made it impossible to go on.
    pub(super) fn run(mut self) -> io::Result<()> {
        let mut events = [EpollEvent::empty(); SOURCES];
        loop {
            let timeout = timeout(self.poll_timeout(), clock::now());
            let ready = match self.epoll.wait(&mut events, timeout) {
                Ok(ready) => ready,
                Err(Errno::EINTR) => 0,
                Err(error) => return Err(error.into()),
            };
            for event in &events[..ready] {
                let is_over = match event.data() {
                    WAKE => self.woken()?,
                    TUN => self.read_tun(event.events())?,
                    token => match links::tunnel_of(token) {
                        Some(tunnel) => self.read_link(tunnel, event.events())?,
                        None if token >= REPORTS => self.read_reports(token)?,
                        None => self.serve_port(token, event.events())?,
                    },
                };
                if is_over {
                    return Ok(());
                }
            }
            let now = clock::now();
            if self.poll_timeout().is_some_and(|due| due <= now) {
                self.node.handle_timeout(now);
                self.overlay.handle_timeout(now);
                self.links.handle_timeout(now, &mut self.counters);
                self.send_all()?;
            }
        }
    }

    /// Takes over from the kernel what routers say of the path, where that is allowed.
    fn listen_to_reports(&mut self) -> io::Result<()> {
        match Reports::open_all() {
            Ok(reports) => self.reports = reports,
            Err(error) => {
                tracing::debug!(%error, "the kernel looks after the MTU of paths");
                return Ok(());
            }
        }
        for (token, reports) in (REPORTS..).zip(&self.reports) {
            let event = EpollEvent::new(EpollFlags::EPOLLIN, token);
            self.epoll.add(reports, event)?;
        }
        self.ports
            .iter_mut()
            .for_each(Port::ignore_kernels_path_mtu);
        Ok(())
    }

    /// Path to tunnels: what routers of the underlay said of datagrams of ours.
    fn read_reports(&mut self, token: u64) -> io::Result<bool> {
        let index = usize::try_from(token - REPORTS).expect("tokens count the sockets");
        let now = clock::now();
        let mut buffer = [0; REPORT_BYTES];
        for _ in 0..REPORTS_MAX {
            match self.reports[index].recv(&mut buffer) {
                Ok(Some(report)) => self.node.handle_too_big(&report, now),
                Ok(None) => {}
                Err(_nothing_waits) => break,
            }
        }
        self.send_all()?;
        Ok(false)
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let all = [
            self.node.poll_timeout(),
            self.overlay.poll_timeout(),
            self.links.poll_timeout(),
        ];
        all.into_iter().flatten().min()
    }

    /// Does what it was told, then what it was handed. True when it was told to stop.
    fn woken(&mut self) -> io::Result<bool> {
        // Taken before anything else is: what comes meanwhile wakes again.
        if let Err(error) = self.wake.read()
            && error != Errno::EAGAIN
        {
            return Err(error.into());
        }
        self.exchange.wake_seen(self.id);
        for _ in 0..COMMANDS {
            match self.commands.try_recv() {
                Ok(command) => {
                    if self.obey(command) {
                        return Ok(true);
                    }
                }
                Err(_empty) => break,
            }
        }
        let is_more = self.overlay.serve(&self.node);
        self.send_all()?;
        for _ in 0..HANDED {
            let Some(mut batch) = self.exchange.receive(self.id) else {
                break;
            };
            self.node.handle_batch(&mut batch, clock::now());
            self.exchange.give_back(batch);
            self.send_all()?;
        }
        if is_more || !self.commands.is_empty() || self.exchange.is_waiting(self.id) {
            self.wake.write(1)?;
        }
        Ok(false)
    }

    /// Does one thing that it was told. True when that is to stop. An answer that nobody waits for
    /// any more is of no use to anybody.
    fn obey(&mut self, command: Command) -> bool {
        match command {
            Command::Apply(change, answer) => {
                drop(answer.send(self.node.apply(change, clock::now())));
            }
            Command::Link(tunnel, Some(device)) => {
                if let Err(error) = self.links.attach(&self.epoll, tunnel, device) {
                    tracing::error!(%tunnel, %error, "a direct link cannot be watched");
                }
            }
            Command::Link(tunnel, None) => self.links.detach(tunnel),
            Command::Hint(tunnel, endpoint) => {
                self.node.hint_endpoint(tunnel, endpoint, clock::now());
            }
            Command::Tunnels(answer) => {
                drop(answer.send(self.node.tunnels(clock::now())));
            }
            Command::Counters(answer) => {
                let node = self.node.counters().snapshot();
                drop(answer.send(CountersSnapshot {
                    node,
                    io: self.counters,
                    flows: self.overlay.counters(),
                }));
            }
            Command::Stop => return true,
        }
        false
    }

    /// Underlay to overlay: one batch of trains, and what waited for the socket.
    fn serve_port(&mut self, token: u64, ready: EpollFlags) -> io::Result<bool> {
        let index = usize::try_from(token - PORTS).expect("tokens count the ports");
        if ready.contains(EpollFlags::EPOLLOUT) {
            self.ports[index].flush(&mut self.counters);
        }
        let now = clock::now();
        let (mut reads, mut bytes, mut datagrams) = (0, 0, 0);
        while reads < self.port_appetites[index].batch()
            && bytes < BATCH_BYTES
            && datagrams < BATCH_DATAGRAMS
        {
            let node = &mut self.node;
            let each = |way, train: &mut [u8], segment_size| {
                node.handle_train(way, (train, segment_size), now);
            };
            match self.ports[index].recv(&mut self.buffer, &mut self.counters, each) {
                Ok(read) => {
                    (bytes, datagrams) = (bytes + read.bytes, datagrams + read.datagrams);
                }
                Err(_nothing_waits) => break,
            }
            reads += 1;
        }
        if bytes < BATCH_BYTES && datagrams < BATCH_DATAGRAMS {
            self.port_appetites[index].adapt(reads);
        }
        self.send_all()?;
        Ok(false)
    }

    /// Overlay to underlay: one batch of super-packets.
    fn read_tun(&mut self, ready: EpollFlags) -> io::Result<bool> {
        if ready.intersects(EpollFlags::EPOLLERR | EpollFlags::EPOLLHUP) {
            // The only error that a TUN reports this way (tun_chr_poll in drivers/net/tun.c).
            return Err(io::Error::other("the TUN device was deleted"));
        }
        let Face::Tun(tun) = &mut self.overlay else {
            return Ok(false);
        };
        let now = clock::now();
        let (mut reads, mut bytes) = (0, 0);
        while reads < self.tun_appetite.batch() && bytes < BATCH_BYTES {
            match tun.recv(&mut self.buffer) {
                Ok((len, offload)) => {
                    bytes += len;
                    self.counters.tun_reads += 1;
                    self.counters.tun_read_bytes += as_count(len);
                    self.node
                        .handle_overlay(&mut self.buffer[..len], offload, now);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_about_one_packet) => self.counters.tun_read_errors += 1,
            }
            reads += 1;
        }
        if bytes < BATCH_BYTES {
            self.tun_appetite.adapt(reads);
        }
        self.send_all()?;
        Ok(false)
    }

    /// Private network to wherever: one batch from the device of a direct link.
    fn read_link(&mut self, tunnel: TunnelId, ready: EpollFlags) -> io::Result<bool> {
        if ready.intersects(EpollFlags::EPOLLERR | EpollFlags::EPOLLHUP)
            && let Some(link) = self.links.get(tunnel)
            && !link.device.survives_error()
        {
            tracing::warn!(%tunnel, "the device of a direct link was deleted");
            self.links.detach(tunnel);
        }
        let now = clock::now();
        let (mut reads, mut bytes) = (0, 0);
        while let Some(link) = self.links.get(tunnel)
            && reads < link.appetite.batch()
            && bytes < BATCH_BYTES
        {
            reads += 1;
            let read = link.device.recv(&mut self.buffer, now, &mut self.counters);
            let (len, offload) = match read {
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    link.appetite.adapt(reads - 1);
                    break;
                }
                Err(_about_one_packet) => {
                    self.counters.tun_read_errors += 1;
                    continue;
                }
            };
            bytes += len;
            self.counters.link_reads += 1;
            self.counters.link_read_bytes += as_count(len);
            if reads == link.appetite.batch() {
                link.appetite.adapt(reads);
            }
            let packet = (&mut self.buffer[..len], offload);
            let Some((exit, len)) = self.node.handle_link(tunnel, packet, now) else {
                continue;
            };
            let packet = &self.buffer[..len];
            match exit {
                Exit::Overlay => self.overlay.send(packet, offload, &mut self.counters),
                Exit::Link(to) => self.links.send(to, (packet, offload), &mut self.counters),
            }
        }
        self.send_all()?;
        Ok(false)
    }

    /// Ends a batch: everything that the node has to send or to tell goes out, and what flows make
    /// of it.
    fn send_all(&mut self) -> io::Result<()> {
        let mut rounds = 0;
        loop {
            self.send_batch();
            if self.tell_refused() {
                self.send_batch();
            }
            // Like the TUN, flows wait when a socket is full.
            if self.ports.iter().any(Port::is_waiting) || !self.overlay.act(&mut self.node) {
                break;
            }
            rounds += 1;
            if rounds == ROUNDS {
                self.wake.write(1)?;
                break;
            }
        }
        while let Some(event) = self.node.poll_event() {
            let Event::EndpointChanged { tunnel, endpoint } = event;
            if self.heard.try_send((tunnel, endpoint)).is_err() {
                self.counters.events_lost += 1;
            }
        }
        while let Some(Failed {
            tunnel,
            remote,
            why,
        }) = self.node.poll_failure()
        {
            let tunnel = tunnel.map(tracing::field::display);
            tracing::warn!(tunnel, %remote, why, "IKE failed");
        }
        while let Some(change) = self.node.poll_health() {
            if self.health.try_send(change).is_err() {
                // Again with the next probe.
                self.node.health_untold(&change);
                break;
            }
        }
        self.watch()
    }

    /// Has the senders of packets that did not reach the neighbour of a link told. True when there were
    /// some.
    fn tell_refused(&mut self) -> bool {
        let (node, now) = (&mut self.node, clock::now());
        let mut is_any = false;
        self.links.each_refused(|tunnel, packet| {
            is_any = true;
            node.handle_refused(tunnel, packet, now);
        });
        is_any
    }

    /// Packets and batches for other workers.
    fn send_batch(&mut self) {
        while let Some(transmit) = self.node.poll_transmit() {
            match transmit {
                Transmit::Underlay {
                    way,
                    segment_size,
                    bytes,
                } => {
                    let mut ports = self.ports.iter_mut();
                    match ports.find(|port| port.carries(&way)) {
                        Some(port) => {
                            port.send(&way, segment_size, bytes, &mut self.counters);
                        }
                        None => self.counters.udp_no_socket += 1,
                    }
                }
                Transmit::Device {
                    exit: Exit::Overlay,
                    offload,
                    packet,
                } => self.overlay.send(packet, offload, &mut self.counters),
                Transmit::Device {
                    exit: Exit::Link(tunnel),
                    offload,
                    packet,
                } => {
                    let packet = (packet, offload);
                    self.links.send(tunnel, packet, &mut self.counters);
                }
            }
        }
        while let Some((to, batch)) = self.node.poll_handover() {
            if let Err(batch) = self.exchange.send(to, batch) {
                self.counters.handover_lost += as_count(batch.len());
                self.node.give_back(batch);
            }
        }
        while let Some(batch) = self.exchange.returned(self.id) {
            self.node.give_back(batch);
        }
    }

    /// Tells epoll what to wait for: room in a full socket, and no more from the TUN until then.
    fn watch(&mut self) -> io::Result<()> {
        let mut is_waiting = false;
        for (token, port) in (PORTS..).zip(&mut self.ports) {
            is_waiting |= port.is_waiting();
            if port.is_waiting() != port.is_watched {
                port.is_watched = port.is_waiting();
                let mut flags = EpollFlags::EPOLLIN;
                // Only then: a socket with room would wake at once, and again.
                flags.set(EpollFlags::EPOLLOUT, port.is_waiting());
                self.epoll
                    .modify(&*port, &mut EpollEvent::new(flags, token))?;
            }
        }
        if is_waiting == self.is_tun_watched {
            self.is_tun_watched = !is_waiting;
            let flags = if is_waiting {
                EpollFlags::empty()
            } else {
                EpollFlags::EPOLLIN
            };
            if let Face::Tun(tun) = &self.overlay {
                self.epoll.modify(tun, &mut EpollEvent::new(flags, TUN))?;
            }
        }
        Ok(())
    }
}

/// How long to wait until `due`. Rounded up to a millisecond, so that a timer is due when it ends
/// the wait, and a node that asks for the past over and over cannot make the worker spin.
fn timeout(due: Option<Instant>, now: Instant) -> EpollTimeout {
    let Some(due) = due else {
        return EpollTimeout::NONE;
    };
    let millis = due
        .saturating_duration_since(now)
        .as_micros()
        .div_ceil(1000);
    let millis = i32::try_from(millis).unwrap_or(i32::MAX).max(1);
    EpollTimeout::try_from(millis).unwrap_or(EpollTimeout::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_wait_ends_no_earlier_than_the_timer_is_due() {
        let now = clock::now();
        let wait = |us| timeout(Some(now + Duration::from_micros(us)), now).as_millis();
        assert_eq!(
            [wait(0), wait(1), wait(1000), wait(1001)].map(Option::unwrap),
            [1, 1, 1, 2]
        );
        assert_eq!(timeout(None, now), EpollTimeout::NONE);
        assert_eq!(wait(u64::MAX / 4).unwrap(), i32::MAX.unsigned_abs());
    }
}
