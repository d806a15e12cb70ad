//! The rules of `program::health` as timelines, and many tunnels at once.

use std::time::{Duration, Instant};

use super::history::{HealthStatus, Reason};
use super::monitor::Monitor;
use super::prober::{PROBE_LEN_MAX, Path, Prober};
use super::{Answer, ProbeKey};
use crate::id::{TunnelId, VnetId, WorkerId};
use crate::program::health::{Config, Kind, Rate, Recovery, State};
use crate::wire::echo::{self, Echo};
use crate::wire::ip::Inner;

/// What the clock of these worlds advances by.
const STEP: u64 = 10;

#[expect(clippy::disallowed_methods, reason = "the root of a test's time")]
fn start() -> Instant {
    Instant::now()
}

/// One tunnel whose far side answers after 20 ms when it is there.
struct Line {
    monitor: Monitor,
    start: Instant,
    millis: u64,
    answers: Vec<(u64, u16)>,
    changes: Vec<(u64, State, Option<Reason>)>,
}

impl Line {
    fn new(rate: Rate, recovery: Recovery) -> Self {
        let start = start();
        let config = Config {
            rate,
            recovery,
            ..Config::default()
        };
        Self {
            monitor: Monitor::new(&config, start, start),
            start,
            millis: 0,
            answers: Vec::new(),
            changes: Vec::new(),
        }
    }

    fn now(&self) -> Instant {
        self.start + Duration::from_millis(self.millis)
    }

    /// Runs until then; `is_there` says of each probe whether it is answered.
    fn until(&mut self, millis: u64, mut is_there: impl FnMut(u64) -> bool) {
        while self.millis < millis {
            self.millis += STEP;
            let now = self.now();
            let before = self.monitor.state();
            let answers = std::mem::take(&mut self.answers);
            let (arrived, under_way): (Vec<_>, Vec<_>) =
                answers.into_iter().partition(|(at, _)| *at <= self.millis);
            self.answers = under_way;
            for (_, sequence) in arrived {
                self.monitor.answered(sequence, now);
            }
            if self.monitor.due() <= now {
                for _ in 0..self.monitor.handle_timeout(now, 128) {
                    let sequence = self.monitor.sent(now);
                    if is_there(self.millis) {
                        self.answers.push((self.millis + 20, sequence));
                    }
                }
            }
            if self.monitor.state() != before {
                let change = (self.millis, self.monitor.state(), self.monitor.reason());
                self.changes.push(change);
            }
        }
    }

    fn status(&self) -> HealthStatus {
        self.monitor.status(self.now())
    }
}

/// Whether a time is what the rule says, but for the steps of the clock.
fn is_about(millis: u64, expected: u64) -> bool {
    (expected..=expected + 5 * STEP).contains(&millis)
}

#[test]
fn a_dead_tunnel_is_down_after_a_probe_and_its_extras_and_recovers_as_configured() {
    let mut line = Line::new(Rate::High, Recovery::DEFAULT);
    line.until(10_000, |_| true);
    line.until(20_000, |_| false);
    line.until(60_000, |_| true);
    let [first, down, degraded, healthy] = line.changes[..] else {
        panic!("{:?}", line.changes);
    };
    assert!(first.0 <= 50 && first.1 == State::Healthy);
    // The probe of 10 s fails at 11 s, those that follow it at 12 s.
    assert!(is_about(down.0, 12_000), "{down:?}");
    assert_eq!((down.1, down.2), (State::Down, Some(Reason::NoAnswers)));
    // The third answer of a probe a second.
    assert!((22_000..=22_100).contains(&degraded.0), "{degraded:?}");
    assert_eq!(degraded.1, State::Degraded);
    // Half a minute after the last failure, which was that of the probe of 19 s.
    assert!((50_000..=51_200).contains(&healthy.0), "{healthy:?}");
    assert_eq!(
        (healthy.1, healthy.2),
        (State::Healthy, Some(Reason::Clean))
    );
    let shown = line.status();
    assert_eq!(shown.transitions.len(), 4);
    assert_eq!(shown.transitions[0].to, State::Healthy);
    assert!((8..=10).contains(&shown.transitions[0].ago_secs));
    assert!(
        (15_000..=40_000).contains(&shown.rtt_us.unwrap()),
        "{shown:?}"
    );
    // Of the last 64 probes: those of 10 s to 20 s, and two extras.
    assert!((12..=20).contains(&shown.loss_percent), "{shown:?}");
    assert!((12..=13).contains(&shown.probes_lost), "{shown:?}");
}

#[test]
fn each_rate_finds_a_dead_tunnel_in_its_interval_and_two_seconds() {
    for (rate, interval) in [(Rate::High, 1_000), (Rate::Mid, 3_000), (Rate::Low, 10_000)] {
        let mut line = Line::new(rate, Recovery::DEFAULT);
        line.until(60_000, |_| true);
        let sent = line.status().probes_sent;
        assert!(sent.abs_diff(60_000 / interval) <= 1, "{rate:?} {sent}");
        line.until(120_000, |_| false);
        let took = line.changes[1].0 - 60_000;
        assert!(took <= interval + 2_000 + 5 * STEP, "{rate:?} {took}");
        assert_eq!(line.changes[1].1, State::Down);
    }
}

#[test]
fn a_tunnel_that_never_answers_is_down_and_one_that_answers_at_first_is_healthy_at_once() {
    let mut line = Line::new(Rate::Low, Recovery::DEFAULT);
    line.until(5_000, |_| false);
    let [(at, State::Down, _)] = line.changes[..] else {
        panic!("{:?}", line.changes);
    };
    assert!(is_about(at, 2_000), "{at}");
}

#[test]
fn two_lost_probes_in_five_minutes_degrade_and_one_does_not() {
    for (second, degraded) in [(299_000, true), (302_000, false)] {
        let mut line = Line::new(Rate::High, Recovery::DEFAULT);
        let mut left = vec![10_000, 10_000 + second];
        line.until(400_000, |at| {
            match left.iter().position(|lost| *lost <= at) {
                Some(place) => {
                    left.remove(place);
                    false
                }
                None => true,
            }
        });
        let states: Vec<_> = line.changes.iter().map(|change| change.1).collect();
        if degraded {
            assert_eq!(states, [State::Healthy, State::Degraded, State::Healthy]);
            assert_eq!(line.changes[1].2, Some(Reason::TwoFailures));
        } else {
            assert_eq!(states, [State::Healthy]);
        }
    }
}

#[test]
fn a_tunnel_that_flaps_waits_longer_each_time_and_one_that_stays_begins_anew() {
    let recovery = Recovery {
        up_after: 1,
        clean_secs: 10,
        clean_secs_max: 40,
    };
    let mut line = Line::new(Rate::High, recovery);
    line.until(5_000, |_| true);
    let mut waits = Vec::new();
    for calm in [5_000, 5_000, 5_000, 5_000, 60_000, 5_000] {
        let dead = line.millis + 5_000;
        line.until(dead, |_| false);
        let before = line.changes.len();
        line.until(dead + 45_000, |_| true);
        let healthy = line.changes[before..]
            .iter()
            .find(|change| change.1 == State::Healthy);
        waits.push((healthy.unwrap().0 - dead) / 1000);
        // Until the relapse the tunnel has been healthy for what is left of 45 s, and this.
        let healthy_for = dead + 45_000 - healthy.unwrap().0;
        let wanted = calm.max(healthy_for);
        line.until(line.millis + wanted - healthy_for, |_| true);
    }
    // The times count from the last failure: up to a second after the tunnel is back.
    let expected = [10, 20, 40, 40, 40, 10];
    let is_near = |(wait, expected): (&u64, &u64)| (*expected..=expected + 2).contains(wait);
    assert!(waits.iter().zip(&expected).all(is_near), "{waits:?}");
}

#[test]
fn what_is_kept_of_a_tunnel_is_bounded() {
    let recovery = Recovery {
        up_after: 1,
        clean_secs: 1,
        clean_secs_max: 1,
    };
    let mut line = Line::new(Rate::High, recovery);
    for n in 1..=40 {
        line.until(n * 10_000, |at| at / 5_000 % 2 == 0);
    }
    assert!(line.changes.len() > 100);
    assert_eq!(line.status().transitions.len(), 16);
}

/// What the far side of a probe makes of it.
fn answer_to(packet: &[u8]) -> (Inner, Echo<'_>) {
    let inner = Inner::parse(packet).unwrap();
    let echo = Echo::read(packet, &inner).unwrap();
    (inner, echo)
}

fn path() -> Path {
    Path {
        near: [10, 255, 0, 0].into(),
        far: [10, 255, 0, 1].into(),
        is_outer: false,
    }
}

#[test]
fn thousands_of_tunnels_are_probed_evenly_over_time() {
    const TUNNELS: u32 = 5000;
    let start = start();
    let mut prober = Prober::new(WorkerId(7), &ProbeKey([3; 32]));
    let config = Config {
        rate: Rate::Mid,
        kind: Kind::Request,
        ..Config::default()
    };
    for id in 1..=TUNNELS {
        prober.put(TunnelId(id), VnetId(1), (&config, path()), start);
    }
    let mut counts = Vec::new();
    for tenth in 1..=300 {
        let now = start + Duration::from_millis(100 * tenth);
        let mut count = 0_u32;
        let mut buffer = [0; PROBE_LEN_MAX];
        while let Some((tunnel, _, _, len)) = prober.poll_probe(now, &mut buffer) {
            count += 1;
            let (inner, echo) = answer_to(&buffer[..len]);
            assert_eq!(echo.kind, echo::Kind::Request);
            let ends = (inner.dst, inner.src);
            assert_eq!(
                prober.handle_reply(tunnel, ends, &echo, now),
                Answer::InTime
            );
        }
        assert!(prober.poll_timeout().unwrap() > now);
        counts.push(count);
    }
    // At first all within a second; spread by jitter over the interval of three seconds later on,
    // where a tenth of a second has a thirtieth of them.
    let most = counts.iter().max().unwrap();
    assert!(*most <= TUNNELS / 10 * 3 / 2, "{counts:?}");
    let late = &counts[180..];
    let mean = late.iter().sum::<u32>() / 120;
    assert!(mean.abs_diff(TUNNELS / 30) <= TUNNELS / 300, "{mean}");
    assert!(late.iter().all(|count| *count <= 5 * mean), "{late:?}");
    for id in 1..=TUNNELS {
        let shown = prober.status(TunnelId(id), start).unwrap();
        assert_eq!(shown.state, State::Healthy);
    }
}

#[test]
fn an_answer_must_come_from_the_probed_tunnel_and_address_with_its_code_and_only_once() {
    let start = start();
    let mut prober = Prober::new(WorkerId(7), &ProbeKey([3; 32]));
    let config = Config {
        kind: Kind::Reply,
        ..Config::default()
    };
    for (id, vnet) in [(1, 1), (2, 1), (3, 2)] {
        prober.put(TunnelId(id), VnetId(vnet), (&config, path()), start);
    }
    let now = start + Duration::from_secs(1);
    let mut probes = Vec::new();
    let mut buffer = [0; PROBE_LEN_MAX];
    while let Some((tunnel, _, _, len)) = prober.poll_probe(now, &mut buffer) {
        probes.push((tunnel, buffer[..len].to_vec()));
    }
    assert_eq!(probes.len(), 3);
    let Path { near, far, .. } = path();
    for (tunnel, packet) in &probes {
        let (inner, echo) = answer_to(packet);
        // A ready-made reply: from there to here.
        assert_eq!(
            (inner.src, inner.dst, echo.kind),
            (far, near, echo::Kind::Reply)
        );
        for (other, _) in probes.iter().filter(|(other, _)| other != tunnel) {
            let answer = prober.handle_reply(*other, (far, near), &echo, now);
            assert_eq!(answer, Answer::Forged);
        }
        let mut payload = echo.payload.to_vec();
        payload[3] ^= 1;
        let payload = &payload[..];
        let wrong = [
            ((far, near), Echo { payload, ..echo }),
            (
                (far, near),
                Echo {
                    id: echo.id ^ 1,
                    ..echo
                },
            ),
            (
                (far, near),
                Echo {
                    sequence: echo.sequence + 1,
                    ..echo
                },
            ),
            ((near, far), echo),
            (([10, 255, 0, 2].into(), near), echo),
        ];
        for (ends, wrong) in wrong {
            assert_eq!(
                prober.handle_reply(*tunnel, ends, &wrong, now),
                Answer::Forged
            );
        }
        assert_eq!(prober.status(*tunnel, now).unwrap().state, State::Unknown);
        let answer = |prober: &mut Prober| prober.handle_reply(*tunnel, (far, near), &echo, now);
        assert_eq!(answer(&mut prober), Answer::InTime);
        assert_eq!(answer(&mut prober), Answer::Late);
        assert_eq!(prober.status(*tunnel, now).unwrap().state, State::Healthy);
    }
    // Deleted, and made anew: what is under way is nobody's.
    prober.delete(TunnelId(1));
    let (_, packet) = &probes[0];
    let (_, echo) = answer_to(packet);
    assert_eq!(
        prober.handle_reply(TunnelId(1), (far, near), &echo, now),
        Answer::Forged
    );
    assert_eq!(prober.status(TunnelId(1), now), None);
}

#[test]
fn changes_are_told_once_and_the_newest_only() {
    let start = start();
    let mut prober = Prober::new(WorkerId(7), &ProbeKey([3; 32]));
    prober.put(TunnelId(1), VnetId(1), (&Config::default(), path()), start);
    let told = prober.poll_change().unwrap();
    assert_eq!((told.tunnel, told.state), (TunnelId(1), State::Unknown));
    assert_eq!(prober.poll_change(), None);
    let mut buffer = [0; PROBE_LEN_MAX];
    for millis in (0..5000).step_by(100) {
        let now = start + Duration::from_millis(millis);
        while prober.poll_probe(now, &mut buffer).is_some() {}
    }
    let told = prober.poll_change().unwrap();
    assert_eq!(
        (told.state, told.reason),
        (State::Down, Some(Reason::NoAnswers))
    );
    assert_eq!(prober.poll_change(), None);
    prober.untold(TunnelId(1));
    assert_eq!(prober.poll_change(), Some(told));
    prober.untold(TunnelId(1));
    prober.delete(TunnelId(1));
    assert_eq!(prober.poll_change(), None);
}
