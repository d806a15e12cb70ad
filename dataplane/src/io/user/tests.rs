//! Tasks and a worker on threads of their own, with an origin in memory.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::os::fd::AsFd;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::*;
use crate::flow::tests::host::{Habit, Host};
use crate::flow::tests::{pattern, udp};
use crate::flow::{Config, Counters};
use crate::io::clock;
use crate::packet::Segments;

/// Longest wait of any test.
const BOUND: Duration = Duration::from_secs(20);
const SOURCE: &str = "100.64.0.2";
const TCP_ORIGIN: &str = "10.0.0.50:80";
const UDP_ORIGIN: &str = "10.0.0.50:53";

/// A worker without sockets: its flows talk to origins in the same thread.
struct World {
    inbox: Arc<Inbox>,
    stop: Arc<AtomicBool>,
    wake: Arc<EventFd>,
    thread: Option<JoinHandle<Counters>>,
}

impl World {
    /// `hosts` serve at 10.0.0.50, 10.0.0.51 and so on, one connection each.
    fn new(habit: Habit, hosts: u8) -> Self {
        Self::with(habit, hosts, |_| {})
    }

    fn with(habit: Habit, hosts: u8, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::new([3, 4]);
        change(&mut config);
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let wake = Arc::new(EventFd::from_value_and_flags(0, flags).unwrap());
        let inbox = Inbox::new(config.flows_max, Arc::clone(&wake));
        let stop = Arc::new(AtomicBool::new(false));
        let (to_stop, to_wake) = (Arc::clone(&stop), Arc::clone(&wake));
        let carrier = Carrier::new(config, Arc::clone(&inbox), clock::now());
        let thread = std::thread::spawn(move || {
            let now = clock::now();
            let hosts = (0..hosts)
                .map(|i| Host::new(SocketAddr::from(([10, 0, 0, 50 + i], 80)), habit, now))
                .collect();
            work(carrier, hosts, &to_stop, &to_wake)
        });
        Self {
            inbox,
            stop,
            wake,
            thread: Some(thread),
        }
    }

    fn wanted(&self, protocol: Protocol, to: &str) -> pipe::Wanted {
        pipe::Wanted {
            protocol,
            source: SOURCE.parse().unwrap(),
            to: to.parse().unwrap(),
            within: Duration::from_secs(2),
        }
    }

    async fn tcp(&self, to: &str) -> io::Result<Stream> {
        let wanted = self.wanted(Protocol::Tcp, to);
        timeout(BOUND, Stream::connect(&self.inbox, wanted))
            .await
            .unwrap()
    }

    async fn udp(&self) -> Datagrams {
        let wanted = self.wanted(Protocol::Udp, UDP_ORIGIN);
        Datagrams::open(&self.inbox, wanted).await.unwrap()
    }

    fn end(&mut self) -> Counters {
        self.stop.store(true, Ordering::SeqCst);
        self.wake.write(1).unwrap();
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.end();
        }
    }
}

/// What `io/worker.rs` does, with hosts for the underlay.
fn work(mut carrier: Carrier, mut hosts: Vec<Host>, stop: &AtomicBool, wake: &EventFd) -> Counters {
    while !stop.load(Ordering::SeqCst) {
        let mut fds = [PollFd::new(wake.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::from(5_u8)).unwrap();
        // EAGAIN: it was the time that woke us.
        wake.read().ok();
        let mut is_busy = true;
        while is_busy {
            let now = clock::now();
            is_busy = carrier.serve(&|_, _| 1420, now);
            carrier.handle_timeout(now);
            let mut answers = Vec::new();
            while let Some((packet, offload)) = carrier.poll_transmit(now) {
                is_busy = true;
                let mut segments = Segments::new(packet, offload).unwrap();
                let mut piece = [0; 2048];
                while let Some(len) = segments.next_into(&mut piece) {
                    let packet = &piece[..len];
                    let host = usize::from(packet[19]).wrapping_sub(50);
                    if packet[9] == 17 {
                        answers.push(udp::answer(packet, &udp::payload(packet)));
                    } else if let Some(host) = hosts.get_mut(host) {
                        host.give(packet.to_vec());
                    }
                }
            }
            for host in &mut hosts {
                answers.extend(host.poll(now));
            }
            is_busy |= !answers.is_empty();
            for packet in answers {
                carrier.handle_packet(&packet, crate::packet::Offload::NONE, now);
            }
            is_busy |= carrier.tell(now);
        }
    }
    carrier.counters()
}

/// Sends all of `data` and reads as much back.
async fn echo(mut stream: Stream, data: Vec<u8>) {
    let (reader, writer) = stream.split();
    let mut back = Vec::new();
    let both = async {
        tokio::try_join!(
            async {
                writer.write_all(&data).await?;
                writer.shutdown().await
            },
            reader.read_to_end(&mut back),
        )
    };
    timeout(BOUND, both).await.unwrap().unwrap();
    assert!(back == data, "{} of {} bytes", back.len(), data.len());
}

#[tokio::test]
async fn a_stream_carries_bytes_both_ways_at_once() {
    let mut world = World::new(Habit::Echo, 1);
    let stream = world.tcp(TCP_ORIGIN).await.unwrap();
    assert_eq!(stream.local_addr().ip().to_string(), SOURCE);
    assert_eq!(stream.peer_addr().to_string(), TCP_ORIGIN);
    echo(stream, pattern(8 << 20)).await;
    assert_eq!(world.end().open, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_streams_of_many_threads_do_not_mix_or_stop() {
    let world = World::new(Habit::Echo, 100);
    let mut tasks = tokio::task::JoinSet::new();
    for i in 0..100_u8 {
        let to = format!("10.0.0.{}:80", 50 + u16::from(i));
        let stream = world.tcp(&to).await.unwrap();
        let mut data = pattern(200_000);
        data.iter_mut().for_each(|byte| *byte ^= i);
        tasks.spawn(echo(stream, data));
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
}

#[tokio::test]
async fn small_requests_are_answered_one_after_the_other() {
    let world = World::new(Habit::Echo, 1);
    let mut stream = world.tcp(TCP_ORIGIN).await.unwrap();
    for i in 0..500_u32 {
        stream.write_all(&i.to_be_bytes()).await.unwrap();
        let mut back = [0; 4];
        let read = timeout(BOUND, stream.read_exact(&mut back)).await.unwrap();
        read.unwrap();
        assert_eq!(back, i.to_be_bytes());
    }
}

#[tokio::test]
async fn a_refused_or_silent_origin_is_an_error_of_its_kind() {
    let world = World::new(Habit::Echo, 1);
    let refused = world.tcp("10.0.0.50:81").await.unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    let silent = world.tcp("10.0.0.200:80").await.unwrap_err();
    assert_eq!(silent.kind(), io::ErrorKind::TimedOut);
    let family = world.tcp("[fd00::1]:80").await.unwrap_err();
    assert_eq!(family.kind(), io::ErrorKind::AddrNotAvailable);
}

#[tokio::test]
async fn a_full_worker_refuses_and_takes_the_next_after_a_stream_has_ended() {
    let world = World::with(Habit::Sit, 3, |config| config.flows_max = 2);
    let one = world.tcp("10.0.0.50:80").await.unwrap();
    let _two = world.tcp("10.0.0.51:80").await.unwrap();
    let full = world.tcp("10.0.0.52:80").await.unwrap_err();
    assert!(full.to_string().contains("all 2 flows"), "{full}");
    one.abort();
    let third = async {
        loop {
            match world.tcp("10.0.0.52:80").await {
                Ok(stream) => return stream,
                // The reset is a packet, which may still have to go.
                Err(_) => tokio::task::yield_now().await,
            }
        }
    };
    timeout(BOUND, third).await.unwrap();
}

#[tokio::test]
async fn a_writer_waits_when_nobody_reads() {
    let world = World::new(Habit::Sit, 1);
    let mut stream = world.tcp(TCP_ORIGIN).await.unwrap();
    let data = pattern(1 << 20);
    let mut written = 0;
    while let Ok(wrote) = timeout(Duration::from_millis(300), stream.write(&data[written..])).await
    {
        written += wrote.unwrap();
    }
    // The host's buffer, the flow's, the ring, and a chunk between them.
    let most = 2 * 65_536 + 5 * pipe::CHUNK_BYTES;
    assert!(written > 100_000 && written <= most, "{written}");
}

#[tokio::test]
async fn what_was_written_arrives_also_when_the_stream_is_dropped() {
    let world = World::new(Habit::Echo, 1);
    let mut stream = world.tcp(TCP_ORIGIN).await.unwrap();
    let (reader, writer) = stream.split();
    writer.write_all(&pattern(50_000)).await.unwrap();
    writer.shutdown().await.unwrap();
    let mut back = Vec::new();
    timeout(BOUND, reader.read_to_end(&mut back))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(back.len(), 50_000);
}

#[tokio::test]
async fn streams_end_with_their_worker() {
    let mut world = World::new(Habit::Sit, 1);
    let mut stream = world.tcp(TCP_ORIGIN).await.unwrap();
    let datagrams = world.udp().await;
    world.end();
    let mut buffer = [0; 10];
    let read = timeout(BOUND, stream.read(&mut buffer)).await.unwrap();
    assert_eq!(read.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    let wrote = timeout(BOUND, stream.write(b"x")).await.unwrap();
    assert_eq!(wrote.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    assert!(timeout(BOUND, datagrams.readable()).await.unwrap().is_err());
    assert!(datagrams.try_send(b"x").is_err());
    assert!(world.tcp(TCP_ORIGIN).await.is_err());
}

#[tokio::test]
async fn datagrams_come_back_in_order() {
    let world = World::new(Habit::Sit, 0);
    let datagrams = world.udp().await;
    let too_long = datagrams.try_send(&[0; 1393]).unwrap_err();
    assert_eq!(too_long.kind(), io::ErrorKind::InvalidInput);
    for burst in 0..50_u8 {
        for i in 0..20_u8 {
            datagrams.try_send(&vec![burst; usize::from(i)]).unwrap();
        }
        for i in 0..20_u8 {
            let mut buffer = [0; 2048];
            let len = loop {
                timeout(BOUND, datagrams.readable()).await.unwrap().unwrap();
                match datagrams.try_recv(&mut buffer) {
                    Ok(len) => break len,
                    Err(why) => assert_eq!(why.kind(), io::ErrorKind::WouldBlock),
                }
            };
            assert_eq!(buffer[..len], vec![burst; usize::from(i)]);
        }
    }
}

#[tokio::test]
async fn connects_that_nobody_waits_for_leave_nothing() {
    let mut world = World::new(Habit::Sit, 0);
    for _ in 0..2000 {
        let wanted = world.wanted(Protocol::Tcp, "10.0.0.200:80");
        let connect = Stream::connect(&world.inbox, wanted);
        // Polled once: the flow is asked for, and the task goes.
        let connected = timeout(Duration::ZERO, connect).await;
        assert!(connected.is_err() || connected.unwrap().is_err());
    }
    let wanted = world.wanted(Protocol::Tcp, "10.0.0.200:80");
    let last = timeout(BOUND, Stream::connect(&world.inbox, wanted)).await;
    assert_eq!(last.unwrap().unwrap_err().kind(), io::ErrorKind::TimedOut);
    assert_eq!(world.end().open, 0);
}
