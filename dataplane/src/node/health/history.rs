//! What became of a tunnel's probes: the last transitions, loss, round-trip time.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::program::health::State;

/// Transitions that are kept: a tunnel that flaps shows for some minutes how.
const TRANSITIONS_MAX: usize = 16;
/// Probes over which loss is shown.
const RECENT: u32 = 64;

/// Why a state changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The first probe was answered.
    FirstAnswer,
    /// Two probes failed within five minutes.
    TwoFailures,
    /// A probe and those that followed it at once failed.
    NoAnswers,
    /// Enough answers in a row.
    Answers,
    /// No probe failed for long enough.
    Clean,
}

impl Reason {
    /// One clause for people.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::FirstAnswer => "the first probe was answered",
            Self::TwoFailures => "two probes failed within five minutes",
            Self::NoAnswers => "three probes in a row failed",
            Self::Answers => "probes are answered again",
            Self::Clean => "no probe failed for long enough",
        }
    }
}

/// One change of state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transition {
    /// Seconds since it happened.
    pub ago_secs: u64,
    /// The state before.
    pub from: State,
    /// The state after.
    pub to: State,
    /// Why.
    pub reason: Reason,
}

/// A tunnel's health as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthStatus {
    /// The state.
    pub state: State,
    /// Seconds since it began.
    pub since_secs: u64,
    /// Probes that were due: into a tunnel without a session, or out of reach, few of them leave.
    pub probes_sent: u64,
    /// Probes that failed: not answered within a second.
    pub probes_lost: u64,
    /// Of the last 64 probes, those that failed, in percent.
    pub loss_percent: u8,
    /// Round-trip time in microseconds, smoothed (RFC 6298); `None` before the first answer.
    pub rtt_us: Option<u64>,
    /// The last changes of state, newest first.
    pub transitions: Vec<Transition>,
}

/// What is kept of one tunnel; bounded.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    pub(super) sent: u64,
    lost: u64,
    /// The last probes, newest in the lowest bit; set when failed.
    recent: u64,
    recent_len: u32,
    rtt: Option<Duration>,
    transitions: VecDeque<(Instant, State, State, Reason)>,
}

impl History {
    /// A probe was answered after this long.
    pub(super) fn answered(&mut self, rtt: Duration) {
        self.push(0);
        // RFC 6298 section 2.3: alpha is 1/8.
        self.rtt = Some(self.rtt.map_or(rtt, |smoothed| (smoothed * 7 + rtt) / 8));
    }

    /// A probe was not answered.
    pub(super) fn failed(&mut self) {
        self.push(1);
        self.lost += 1;
    }

    fn push(&mut self, bit: u64) {
        self.recent = self.recent << 1 | bit;
        self.recent_len = (self.recent_len + 1).min(RECENT);
    }

    /// The state changed.
    pub(super) fn changed(&mut self, now: Instant, from: State, to: State, reason: Reason) {
        if self.transitions.len() == TRANSITIONS_MAX {
            self.transitions.pop_back();
        }
        self.transitions.push_front((now, from, to, reason));
    }

    /// Why the state changed last.
    pub(super) fn reason(&self) -> Option<Reason> {
        self.transitions.front().map(|(_, _, _, reason)| *reason)
    }

    /// As shown, of a tunnel that is in this state since then.
    pub(super) fn status(&self, state: State, since: Instant, now: Instant) -> HealthStatus {
        let ago = |then: Instant| now.saturating_duration_since(then).as_secs();
        let percent = self.recent.count_ones() * 100 / self.recent_len.max(1);
        let transitions = self.transitions.iter();
        HealthStatus {
            state,
            since_secs: ago(since),
            probes_sent: self.sent,
            probes_lost: self.lost,
            loss_percent: u8::try_from(percent).unwrap_or(100),
            rtt_us: self
                .rtt
                .map(|rtt| u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX)),
            transitions: transitions
                .map(|(at, from, to, reason)| Transition {
                    ago_secs: ago(*at),
                    from: *from,
                    to: *to,
                    reason: *reason,
                })
                .collect(),
        }
    }
}
