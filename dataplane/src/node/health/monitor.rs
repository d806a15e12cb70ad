//! One tunnel's state machine: when to probe, and what answers and their absence mean.
//!
//! Call [`Monitor::handle_timeout`] when [`Monitor::due`] has come, send as many probes as it says
//! ([`Monitor::sent`]), and tell it of answers.

use std::time::{Duration, Instant};

use crate::program::health::{Config, Rate, Recovery, State};

use super::history::{HealthStatus, History, Reason};

/// After this long a probe has failed: the longest paths of the Internet take a third of it.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// Probes that follow a failed one at once.
const EXTRAS: u8 = 2;
/// Failed probes in a row that take a tunnel down: one, and its extras.
const DOWN_AFTER: u8 = 1 + EXTRAS;
/// Two failures within this time degrade a tunnel. At one probe a second, the most, they are 0.7 %
/// of its probes, and so always above the 0.1 % of the rule that this re-creates.
const DEGRADED_WITHIN: Duration = Duration::from_secs(300);
/// Probes under way: those of two seconds, and extras.
const UNDER_WAY_MAX: usize = 2 + 2 * EXTRAS as usize;
/// How often a tunnel is probed that is not healthy.
const SICK_INTERVAL: Duration = Duration::from_secs(1);

/// A probe that has not been answered.
#[derive(Clone, Copy, Debug)]
struct UnderWay {
    sequence: u16,
    at: Instant,
}

/// What came of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It was waited for.
    InTime,
    /// It had been given up, or answered before.
    Late,
}

/// Health of one tunnel; of fixed size but for its history, which is bounded.
#[derive(Clone, Debug)]
pub(super) struct Monitor {
    interval: Duration,
    recovery: Recovery,
    state: State,
    since: Instant,
    under_way: [Option<UnderWay>; UNDER_WAY_MAX],
    next_sequence: u16,
    next_probe: Instant,
    failed_in_a_row: u8,
    good_in_a_row: u8,
    /// The last failure and the one before, since the tunnel became healthy.
    failures: [Option<Instant>; 2],
    /// The time without failure that is asked for at present.
    clean: Duration,
    /// Whether it was degraded or down before it was healthy.
    has_recovered: bool,
    history: History,
}

impl Monitor {
    /// A tunnel of which nothing is known, first probed then.
    pub(super) fn new(config: &Config, first_probe: Instant, now: Instant) -> Self {
        Self {
            interval: interval(config.rate),
            recovery: config.recovery,
            state: State::Unknown,
            since: now,
            under_way: [None; UNDER_WAY_MAX],
            next_sequence: 0,
            next_probe: first_probe,
            failed_in_a_row: 0,
            good_in_a_row: 0,
            failures: [None; 2],
            clean: secs(config.recovery.clean_secs),
            has_recovered: false,
            history: History::default(),
        }
    }

    /// Takes another configuration over; what is known of the tunnel stays known.
    pub(super) fn reconfigure(&mut self, config: &Config) {
        self.interval = interval(config.rate);
        self.recovery = config.recovery;
        self.clean = secs(config.recovery.clean_secs);
    }

    pub(super) fn state(&self) -> State {
        self.state
    }

    /// Why it is in its state; `None` when nothing has happened yet.
    pub(super) fn reason(&self) -> Option<Reason> {
        self.history.reason()
    }

    pub(super) fn status(&self, now: Instant) -> HealthStatus {
        self.history.status(self.state, self.since, now)
    }

    /// When something is to be done.
    pub(super) fn due(&self) -> Instant {
        let failures = self.under_way.iter().flatten();
        let failures = failures.map(|probe| probe.at + ANSWER_WITHIN);
        failures.fold(self.next_probe, Instant::min)
    }

    /// Notes failures, and says how many probes are to be sent now. `jitter` is random, and
    /// spreads the probes of many tunnels by a fifth of their interval.
    pub(super) fn handle_timeout(&mut self, now: Instant, jitter: u8) -> u8 {
        let mut probes = 0;
        while let Some(probe) = self.take_overdue(now) {
            probes += self.failed(probe.at + ANSWER_WITHIN);
        }
        if self.next_probe <= now {
            let interval = match self.state {
                State::Unknown | State::Healthy => self.interval,
                State::Degraded | State::Down => SICK_INTERVAL,
            };
            self.next_probe = now + interval * (900 + u32::from(jitter) * 200 / 255) / 1000;
            probes += 1;
        }
        probes
    }

    /// A probe is sent, with this sequence number. There is always room: what does not fit has
    /// waited longest, and counts as failed.
    pub(super) fn sent(&mut self, now: Instant) -> u16 {
        let sequence = self.next_sequence;
        self.next_sequence = sequence.wrapping_add(1);
        self.history.sent += 1;
        let place = match self.under_way.iter().position(Option::is_none) {
            Some(free) => free,
            None => {
                self.failed(now);
                let oldest = self.under_way.iter().enumerate();
                let oldest = oldest.min_by_key(|(_, probe)| probe.map(|probe| probe.at));
                oldest.map_or(0, |(place, _)| place)
            }
        };
        self.under_way[place] = Some(UnderWay { sequence, at: now });
        sequence
    }

    /// A probe was answered.
    pub(super) fn answered(&mut self, sequence: u16, now: Instant) -> Verdict {
        let waited_for = |probe: &mut Option<UnderWay>| {
            probe.take_if(|probe| probe.sequence == sequence && now < probe.at + ANSWER_WITHIN)
        };
        let Some(probe) = self.under_way.iter_mut().find_map(waited_for) else {
            return Verdict::Late;
        };
        self.history
            .answered(now.saturating_duration_since(probe.at));
        self.failed_in_a_row = 0;
        self.good_in_a_row = self.good_in_a_row.saturating_add(1);
        match self.state {
            State::Unknown => self.turn(State::Healthy, Reason::FirstAnswer, now),
            // Not while probes fail in a row: that ends in an answer, or takes the tunnel down.
            State::Healthy if self.has_failed_twice() => {
                self.turn(State::Degraded, Reason::TwoFailures, now);
            }
            State::Healthy => {}
            State::Down if self.good_in_a_row >= self.recovery.up_after => {
                self.turn(State::Degraded, Reason::Answers, now);
            }
            State::Down => {}
            State::Degraded => {
                let is_clean = |last| now.saturating_duration_since(last) >= self.clean;
                if self.failures[0].is_none_or(is_clean) {
                    self.turn(State::Healthy, Reason::Clean, now);
                }
            }
        }
        Verdict::InTime
    }

    fn take_overdue(&mut self, now: Instant) -> Option<UnderWay> {
        let overdue =
            |probe: &mut Option<UnderWay>| probe.take_if(|probe| probe.at + ANSWER_WITHIN <= now);
        self.under_way.iter_mut().find_map(overdue)
    }

    /// A probe failed; how many follow it at once.
    fn failed(&mut self, at: Instant) -> u8 {
        self.history.failed();
        self.good_in_a_row = 0;
        self.failed_in_a_row = self.failed_in_a_row.saturating_add(1);
        self.failures = [Some(at), self.failures[0]];
        if self.state == State::Down {
            return 0;
        }
        if self.failed_in_a_row >= DOWN_AFTER {
            self.turn(State::Down, Reason::NoAnswers, at);
        }
        if self.failed_in_a_row == 1 { EXTRAS } else { 0 }
    }

    fn has_failed_twice(&self) -> bool {
        let [Some(last), Some(before)] = self.failures else {
            return false;
        };
        last.saturating_duration_since(before) < DEGRADED_WITHIN
    }

    fn turn(&mut self, state: State, reason: Reason, now: Instant) {
        let (first, longest) = (
            secs(self.recovery.clean_secs),
            secs(self.recovery.clean_secs_max),
        );
        match (self.state, state) {
            (State::Healthy, _) => {
                let lasted = now.saturating_duration_since(self.since);
                self.clean = if self.has_recovered && lasted < longest {
                    (self.clean * 2).min(longest)
                } else {
                    first
                };
            }
            (State::Degraded, State::Healthy) => self.has_recovered = true,
            (State::Unknown | State::Degraded | State::Down, _) => {}
        }
        if state == State::Healthy {
            // What was before is over: two more failures make it sick again, not one.
            self.failures = [None; 2];
        }
        self.good_in_a_row = 0;
        self.history.changed(now, self.state, state, reason);
        (self.state, self.since) = (state, now);
        if state != State::Healthy {
            self.next_probe = self.next_probe.min(now + SICK_INTERVAL);
        }
    }
}

fn interval(rate: Rate) -> Duration {
    Duration::from_secs(match rate {
        Rate::Low => 10,
        Rate::Mid => 3,
        Rate::High => 1,
    })
}

fn secs(secs: u16) -> Duration {
    Duration::from_secs(secs.into())
}
