//! Streams: from connect to each way of ending.

use super::host::{Habit, Host};
use super::*;

const SOURCES: [(&str, &str); 2] = [
    ("100.64.0.2", "10.0.0.50:80"),
    ("2606:4700:cf1:5000::6440:2", "[fd00::50]:80"),
];

/// One round: what was sent arrives, unless `lost` says otherwise, and what is answered comes back.
fn round(bed: &mut Bed, host: &mut Host, lost: &mut impl FnMut() -> bool) -> usize {
    let mut moved = 0;
    for packet in bed.take() {
        moved += 1;
        if !lost() {
            host.give(packet);
        }
    }
    for packet in host.poll(bed.now) {
        moved += 1;
        if !lost() {
            bed.give(&packet);
        }
    }
    moved
}

fn settle(bed: &mut Bed, host: &mut Host) {
    for _ in 0..100 {
        if round(bed, host, &mut || false) == 0 {
            return;
        }
    }
    panic!("packets go to and fro without end");
}

fn connected(habit: Habit, source: &str, origin: &str) -> (Bed, Host, FlowId) {
    let mut bed = bed();
    let mut host = Host::new(to(origin), habit, bed.now);
    let flow = bed.connect(Protocol::Tcp, source, origin);
    settle(&mut bed, &mut host);
    assert_eq!(bed.events().first(), Some(&Happened::Connected));
    (bed, host, flow)
}

/// Sends `data` to an echo and gives back what returns, with the simulated time it took.
fn echo(source: &str, origin: &str, data: &[u8], mut lost: impl FnMut() -> bool) -> Duration {
    let mut bed = bed();
    let start = bed.now;
    let mut host = Host::new(to(origin), Habit::Echo, bed.now);
    let flow = bed.connect(Protocol::Tcp, source, origin);
    let (mut sent, mut is_shut, mut back) = (0, false, Vec::new());
    for _ in 0..200_000 {
        round(&mut bed, &mut host, &mut lost);
        while sent < data.len() {
            match bed.flows.send(flow, &data[sent..]) {
                Ok(taken) => sent += taken,
                Err(why) => {
                    assert_eq!(why, SendError::Full);
                    break;
                }
            }
        }
        if sent == data.len() && !is_shut {
            is_shut = true;
            bed.flows.shutdown(flow);
        }
        bed.events();
        let (bytes, why) = bed.read(flow);
        back.extend(bytes);
        if why == RecvError::Ended(Ended::Finished) {
            assert!(back == data, "{} of {} bytes", back.len(), data.len());
            return bed.now - start;
        }
        bed.pass(Duration::from_millis(5));
    }
    panic!("{} of {} bytes came back", back.len(), data.len());
}

#[test]
fn a_stream_arrives_whole_both_ways() {
    for (source, origin) in SOURCES {
        for len in [1, 1380, 1381, 400_000] {
            echo(source, origin, &pattern(len), || false);
        }
    }
}

#[test]
fn a_stream_survives_loss() {
    for (source, origin) in SOURCES {
        for percent in [1, 10] {
            let mut dice = Dice(3);
            echo(source, origin, &pattern(100_000), || dice.percent(percent));
        }
    }
}

#[test]
fn one_loss_costs_no_timeout() {
    let mut count = 0;
    let took = echo("100.64.0.2", "10.0.0.50:80", &pattern(300_000), || {
        count += 1;
        count == 150
    });
    // The shortest timeout is a second (RFC 6298).
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[test]
fn a_bulk_packet_of_ipv4_is_a_super_packet() {
    let (mut bed, mut host, flow) = connected(Habit::Echo, "100.64.0.2", "10.0.0.50:80");
    // The window opens first: slow start.
    for _ in 0..20 {
        bed.flows.send(flow, &pattern(40_000)).unwrap();
        settle(&mut bed, &mut host);
        bed.read(flow);
    }
    bed.flows.send(flow, &pattern(40_000)).unwrap();
    let (packet, offload) = bed.flows.poll_transmit(bed.now).unwrap();
    assert_eq!(offload.segmentation, Segmentation::Tcp);
    assert_eq!(offload.segment_size, MTU - 40);
    assert!(packet.len() > 20_000, "{}", packet.len());
}

#[test]
fn the_other_sides_super_packet_is_taken_as_one() {
    let (mut bed, _, flow) = connected(Habit::Sit, "100.64.0.2", "10.0.0.50:80");
    // By hand: what a peer with this connection's numbers would send in twenty segments.
    let mut peer = attack::Peer::of(&mut bed, flow);
    let data = pattern(20 * 1380);
    let packet = peer.segment(attack::ACK, &data);
    let offload = Offload {
        segmentation: Segmentation::Tcp,
        segment_size: 1380,
        checksum: Some(crate::packet::PartialChecksum {
            start: 20,
            offset: 16,
        }),
    };
    bed.flows.handle_packet(&packet, offload, bed.now);
    assert_eq!(bed.read(flow).0, data);
    assert_eq!(bed.take().len(), 1, "one acknowledgement for all of it");
}

#[test]
fn a_refused_connect_ends_at_once() {
    for (source, origin) in SOURCES {
        let mut bed = bed();
        let mut other = to(origin);
        other.set_port(81);
        let mut host = Host::new(other, Habit::Sit, bed.now);
        let flow = bed.connect(Protocol::Tcp, source, origin);
        settle(&mut bed, &mut host);
        assert_eq!(bed.events(), [Happened::Ended(Ended::Refused)]);
        assert_eq!(bed.flows.send(flow, b"x"), Err(SendError::Ended));
        assert_eq!(bed.read(flow).1, RecvError::Ended(Ended::Refused));
        assert_eq!(bed.flows.counters().open, 1);
        bed.flows.release(flow, bed.now);
        assert_eq!(bed.take(), Vec::<Vec<u8>>::new());
        assert_eq!(bed.flows.counters().open, 0);
    }
}

#[test]
fn a_connect_without_an_answer_ends_at_its_deadline() {
    let mut bed = bed();
    let flow = bed.connect(Protocol::Tcp, "100.64.0.2", "10.0.0.50:80");
    let mut syns = bed.take().len();
    for _ in 0..49 {
        bed.pass(Duration::from_millis(100));
        syns += bed.take().len();
        assert_eq!(bed.events(), []);
    }
    // At 0, 1 and 3 s: the timeout doubles (RFC 6298 section 5.5).
    assert_eq!(syns, 3);
    bed.pass(Duration::from_millis(100));
    assert_eq!(bed.events(), [Happened::Ended(Ended::TimedOut)]);
    bed.flows.release(flow, bed.now);
    bed.drain();
    assert_eq!(bed.flows.counters().open, 0);
    assert_eq!(bed.flows.poll_timeout(), None);
}

#[test]
fn half_a_stream_may_end_before_the_other() {
    let (mut bed, mut host, flow) = connected(Habit::Echo, "100.64.0.2", "10.0.0.50:80");
    bed.flows.send(flow, b"last words").unwrap();
    bed.flows.shutdown(flow);
    assert_eq!(bed.flows.send(flow, b"more"), Err(SendError::Ended));
    settle(&mut bed, &mut host);
    let end = RecvError::Ended(Ended::Finished);
    assert_eq!(bed.read(flow), (b"last words".to_vec(), end));
    assert!(bed.events().contains(&Happened::Ended(Ended::Finished)));

    let (mut bed, mut host, flow) = connected(Habit::Say(b"hello"), "100.64.0.2", "10.0.0.50:80");
    assert_eq!(bed.read(flow), (b"hello".to_vec(), end));
    bed.flows.send(flow, b"still here").unwrap();
    settle(&mut bed, &mut host);
    assert_eq!(host.received, b"still here");
}

#[test]
fn what_arrived_before_a_reset_can_be_read() {
    let (mut bed, mut host, flow) = connected(Habit::Sit, "100.64.0.2", "10.0.0.50:80");
    host.tcp().send_slice(b"so far").unwrap();
    settle(&mut bed, &mut host);
    host.tcp().abort();
    settle(&mut bed, &mut host);
    let events = bed.events();
    assert_eq!(events, [Happened::Readable, Happened::Ended(Ended::Reset)]);
    let (bytes, why) = bed.read(flow);
    assert_eq!(bytes, b"so far");
    assert_eq!(why, RecvError::Ended(Ended::Reset));
}

#[test]
fn a_sender_waits_for_the_receiver() {
    let (mut bed, mut host, flow) = connected(Habit::Sit, "100.64.0.2", "10.0.0.50:80");
    let data = pattern(1 << 20);
    let mut sent = 0;
    for _ in 0..200 {
        if let Ok(taken) = bed.flows.send(flow, &data[sent..]) {
            sent += taken;
        }
        settle(&mut bed, &mut host);
    }
    // Our buffer and the host's, and not a byte more.
    assert_eq!(sent, 2 * 65_536);
    bed.events();
    let read = host.tcp().recv(|bytes| (bytes.len(), bytes.to_vec()));
    assert_eq!(read.unwrap(), &data[..65_536]);
    settle(&mut bed, &mut host);
    assert_eq!(bed.events(), [Happened::Writable]);
}

#[test]
fn a_receiver_is_told_once_until_it_has_read() {
    let (mut bed, mut host, flow) = connected(Habit::Sit, "100.64.0.2", "10.0.0.50:80");
    for _ in 0..3 {
        host.tcp().send_slice(b"drop").unwrap();
        settle(&mut bed, &mut host);
    }
    assert_eq!(bed.events(), [Happened::Readable]);
    assert_eq!(bed.read(flow), (b"dropdropdrop".to_vec(), RecvError::Empty));
    host.tcp().send_slice(b"drop").unwrap();
    settle(&mut bed, &mut host);
    assert_eq!(bed.events(), [Happened::Readable]);
}

#[test]
fn a_stream_whose_other_side_is_gone_ends_and_an_idle_one_does_not() {
    let (mut bed, mut host, _) = connected(Habit::Sit, "100.64.0.2", "10.0.0.50:80");
    for _ in 0..600 {
        bed.pass(Duration::from_secs(1));
        settle(&mut bed, &mut host);
    }
    assert_eq!(bed.events(), []);
    for _ in 0..91 {
        bed.pass(Duration::from_secs(1));
        bed.drain();
    }
    assert_eq!(bed.events(), [Happened::Ended(Ended::TimedOut)]);
}

#[test]
fn a_released_stream_ends_by_itself_and_a_stuck_one_is_reset() {
    let (mut bed, mut host, flow) = connected(Habit::Echo, "100.64.0.2", "10.0.0.50:80");
    bed.flows.release(flow, bed.now);
    settle(&mut bed, &mut host);
    assert_eq!(bed.flows.counters().open, 0);
    assert_eq!(bed.flows.poll_timeout(), None);

    let (mut bed, mut host, flow) = connected(Habit::Sit, "100.64.0.2", "10.0.0.50:80");
    bed.flows.release(flow, bed.now);
    settle(&mut bed, &mut host);
    assert_eq!(bed.flows.counters().open, 1);
    bed.pass(Duration::from_secs(59));
    settle(&mut bed, &mut host);
    assert_eq!(bed.flows.counters().open, 1);
    bed.pass(Duration::from_secs(1));
    settle(&mut bed, &mut host);
    assert_eq!(bed.flows.counters().open, 0);
    assert!(!host.tcp().is_active(), "the host was told");
}

#[test]
fn an_aborted_stream_is_reset_at_once() {
    let (mut bed, mut host, flow) = connected(Habit::Sit, "100.64.0.2", "10.0.0.50:80");
    bed.flows.abort(flow);
    settle(&mut bed, &mut host);
    assert!(!host.tcp().is_active());
    assert_eq!(bed.flows.counters().open, 0);
    assert_eq!(bed.events(), []);
}

#[test]
fn data_for_a_stream_that_nobody_reads_resets_it() {
    let (mut bed, mut host, flow) = connected(Habit::Sit, "100.64.0.2", "10.0.0.50:80");
    bed.flows.release(flow, bed.now);
    settle(&mut bed, &mut host);
    host.tcp().send_slice(b"anybody?").unwrap();
    settle(&mut bed, &mut host);
    assert!(!host.tcp().is_active());
    assert_eq!(bed.flows.counters().open, 0);
}

#[test]
fn flows_take_turns() {
    let mut bed = bed();
    let mut hosts = Vec::new();
    for i in 0..3 {
        let origin = format!("10.0.0.{}:80", 50 + i);
        let mut host = Host::new(to(&origin), Habit::Sit, bed.now);
        let flow = bed.connect(Protocol::Tcp, "100.64.0.2", &origin);
        settle(&mut bed, &mut host);
        hosts.push((host, flow));
    }
    for (_, flow) in &hosts {
        bed.flows.send(*flow, &pattern(2000)).unwrap();
    }
    // Slow start lets each send two segments of a 2 KiB window.
    let order: Vec<u8> = bed.take().iter().map(|packet| packet[19]).collect();
    assert_eq!(order.len(), 6);
    assert_eq!([order[0], order[2], order[4]], [50, 51, 52]);
}
