//! All probed tunnels of one worker: whose turn it is, and whose answer an echo message is.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ring::hmac;

use crate::id::{TunnelId, TunnelMap, VnetId, WorkerId};
use crate::program::health::{Config, Kind, State};
use crate::wire::echo::{self, Echo};

use super::history::{HealthStatus, Reason};
use super::monitor::{Monitor, Verdict};
use super::nonce::{self, PAYLOAD_LEN, ProbeKey, Subject};

/// The first probes of tunnels that come together are spread over this time.
const FIRST_WITHIN: Duration = Duration::from_secs(1);
/// The longest probe: IPv6 and ICMPv6 header, and what it carries; with room for a tunnel's padding.
pub(in crate::node) const PROBE_LEN_MAX: usize = 40 + 8 + PAYLOAD_LEN + 16;

/// The ends of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::node) struct Path {
    /// Our address.
    pub(in crate::node) near: IpAddr,
    /// The address that is probed.
    pub(in crate::node) far: IpAddr,
    /// Whether these are the tunnel's outer ends, and answers may come past it.
    pub(in crate::node) is_outer: bool,
}

/// A change of a tunnel's health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthChange {
    /// The tunnel.
    pub tunnel: TunnelId,
    /// What it is.
    pub state: State,
    /// Why; `None` when it is probed anew, and nothing is known yet.
    pub reason: Option<Reason>,
}

/// What an echo reply out of a tunnel was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::node) enum Answer {
    /// The answer to a probe.
    InTime,
    /// The answer to a probe that had been given up, or a second one.
    Late,
    /// No answer to a probe of this tunnel.
    Forged,
}

/// A tunnel that is probed.
#[derive(Debug)]
struct Probed {
    monitor: Monitor,
    kind: Kind,
    vnet: VnetId,
    path: Path,
    id: u16,
    /// Its place in the schedule.
    due: Instant,
    /// Probes to be sent now.
    to_send: u8,
}

/// All probed tunnels of one worker.
#[derive(Debug)]
pub(in crate::node) struct Prober {
    worker: WorkerId,
    key: hmac::Key,
    probed: TunnelMap<Probed>,
    schedule: BTreeSet<(Instant, TunnelId)>,
    /// Tunnels whose state was not told yet: at most one entry for each.
    changed: BTreeSet<TunnelId>,
    random: u64,
}

impl Prober {
    pub(in crate::node) fn new(worker: WorkerId, key: &ProbeKey) -> Self {
        let [a, b, c, d, e, f, g, h, ..] = key.0;
        Self {
            worker,
            key: hmac::Key::new(hmac::HMAC_SHA256, &key.0),
            probed: TunnelMap::default(),
            schedule: BTreeSet::new(),
            changed: BTreeSet::new(),
            random: u64::from_be_bytes([a, b, c, d, e, f, g, h]),
        }
    }

    /// Probes a tunnel so from now on. What is known of it stays known, unless other addresses are
    /// probed than before.
    pub(in crate::node) fn put(
        &mut self,
        tunnel: TunnelId,
        vnet: VnetId,
        (config, path): (&Config, Path),
        now: Instant,
    ) {
        if let Some(known) = self.probed.get_mut(&tunnel)
            && (known.vnet, known.path, known.kind) == (vnet, path, config.kind)
        {
            known.monitor.reconfigure(config);
            return;
        }
        self.delete(tunnel);
        let [low, _, early, late, ..] = self.next_random().to_be_bytes();
        let first = now + FIRST_WITHIN * u32::from(u16::from_be_bytes([early, late])) / 65536;
        let probed = Probed {
            monitor: Monitor::new(config, first, now),
            kind: config.kind,
            vnet,
            path,
            // An answer that comes past the tunnel is brought to the worker by this.
            id: u16::from_be_bytes([self.worker.0, low]),
            due: first,
            to_send: 0,
        };
        self.schedule.insert((first, tunnel));
        self.probed.insert(tunnel, probed);
        self.changed.insert(tunnel);
    }

    /// Probes it no longer.
    pub(in crate::node) fn delete(&mut self, tunnel: TunnelId) {
        if let Some(gone) = self.probed.remove(&tunnel) {
            self.schedule.remove(&(gone.due, tunnel));
        }
        self.changed.remove(&tunnel);
    }

    pub(in crate::node) fn poll_timeout(&self) -> Option<Instant> {
        self.schedule.first().map(|(due, _)| *due)
    }

    /// The next probe that is due: the tunnel, its vnet, and the packet's length in `out`
    /// ([`PROBE_LEN_MAX`] bytes). `None` when there is none, for now.
    pub(in crate::node) fn poll_probe(
        &mut self,
        now: Instant,
        out: &mut [u8],
    ) -> Option<(TunnelId, VnetId, u16, usize)> {
        loop {
            let (due, tunnel) = *self.schedule.first()?;
            if due > now {
                return None;
            }
            let [jitter, ..] = self.next_random().to_be_bytes();
            let probed = self.probed.get_mut(&tunnel);
            let probed = probed.expect("what is in the schedule is probed");
            if probed.to_send == 0 {
                let before = probed.monitor.state();
                probed.to_send = probed.monitor.handle_timeout(now, jitter);
                if probed.monitor.state() != before {
                    self.changed.insert(tunnel);
                }
            }
            let mut written = None;
            if probed.to_send > 0 {
                probed.to_send -= 1;
                let sequence = probed.monitor.sent(now);
                let len = write(&self.key, tunnel, probed, sequence, out);
                written = len.map(|len| (tunnel, probed.vnet, sequence, len));
            }
            if probed.to_send == 0 {
                self.schedule.remove(&(due, tunnel));
                probed.due = probed.monitor.due();
                self.schedule.insert((probed.due, tunnel));
            }
            if written.is_some() {
                return written;
            }
        }
    }

    /// Takes an echo reply that came out of a tunnel, from this address to that one.
    pub(in crate::node) fn handle_reply(
        &mut self,
        tunnel: TunnelId,
        (src, dst): (IpAddr, IpAddr),
        echo: &Echo<'_>,
        now: Instant,
    ) -> Answer {
        let Some(probed) = self.probed.get_mut(&tunnel) else {
            return Answer::Forged;
        };
        let Path {
            near,
            far,
            is_outer,
        } = probed.path;
        let subject = Subject {
            tunnel,
            vnet: probed.vnet,
            id: echo.id,
            sequence: echo.sequence,
        };
        // Outside, a customer's router may answer from any address that it has.
        let is_from_there = src == far || is_outer;
        let is_ours = is_from_there
            && (dst, echo.id) == (near, probed.id)
            && nonce::is_ours(&self.key, &subject, echo.payload);
        if !is_ours {
            return Answer::Forged;
        }
        let before = probed.monitor.state();
        let verdict = probed.monitor.answered(echo.sequence, now);
        if probed.monitor.state() != before {
            self.changed.insert(tunnel);
        }
        match verdict {
            Verdict::InTime => Answer::InTime,
            Verdict::Late => Answer::Late,
        }
    }

    /// The tunnel that an echo reply past the tunnels says it is about, if its answers may come so.
    pub(in crate::node) fn asked_past(&self, echo: &Echo<'_>) -> Option<TunnelId> {
        let tunnel = nonce::tunnel(echo.payload)?;
        let probed = self.probed.get(&tunnel)?;
        probed.path.is_outer.then_some(tunnel)
    }

    /// The next tunnel whose state has changed since it was told.
    pub(in crate::node) fn poll_change(&mut self) -> Option<HealthChange> {
        while let Some(tunnel) = self.changed.pop_first() {
            if let Some(probed) = self.probed.get(&tunnel) {
                return Some(HealthChange {
                    tunnel,
                    state: probed.monitor.state(),
                    reason: probed.monitor.reason(),
                });
            }
        }
        None
    }

    /// It could not be told: it is to be told again.
    pub(in crate::node) fn untold(&mut self, tunnel: TunnelId) {
        self.changed.insert(tunnel);
    }

    /// What is known of a tunnel; `None` when it is not probed.
    pub(in crate::node) fn status(&self, tunnel: TunnelId, now: Instant) -> Option<HealthStatus> {
        let probed = self.probed.get(&tunnel)?;
        Some(probed.monitor.status(now))
    }

    /// SplitMix64: it spreads probes in time, and keeps no secret.
    fn next_random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.random;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }
}

/// Writes a probe. A reply goes from the far side's address to ours: its router routes it back.
fn write(
    key: &hmac::Key,
    tunnel: TunnelId,
    probed: &Probed,
    sequence: u16,
    out: &mut [u8],
) -> Option<usize> {
    let Path { near, far, .. } = probed.path;
    let (kind, src, dst) = match probed.kind {
        Kind::Request => (echo::Kind::Request, near, far),
        Kind::Reply => (echo::Kind::Reply, far, near),
    };
    let subject = Subject {
        tunnel,
        vnet: probed.vnet,
        id: probed.id,
        sequence,
    };
    let echo = Echo {
        kind,
        id: probed.id,
        sequence,
        payload: &nonce::payload(key, &subject),
    };
    echo.write(src, dst, out)
}
