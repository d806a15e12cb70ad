//! The loop of one end of a trial: sends what is due, reads what has come, until all is quiet.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dataplane::io::clock;

use super::meter::Meter;

/// After the last sender is done: how long nothing may arrive before the trial is over.
const QUIET: Duration = Duration::from_millis(150);
/// With nothing to do: as long as a packet may wait to be read or sent.
const NAP: Duration = Duration::from_micros(100);
/// Without a packet for so long, what is outstanding is lost and no longer waited for.
const STALL: Duration = Duration::from_millis(50);

/// What one end sends in a trial.
#[derive(Clone, Copy, Debug)]
pub enum Offer {
    /// Nothing.
    Silence,
    /// So many packets a second, whatever becomes of them.
    PerSecond(u64),
    /// As many as come through: at most so many packets are under way.
    Window(u64),
}

/// What both ends of a trial know of each other. The counters are statistics and hints: nothing is
/// published by them.
#[derive(Debug, Default)]
pub struct Shared {
    /// Packets read by the end of that index.
    received: [AtomicU64; 2],
    /// The end of that index sends no more.
    is_done: [AtomicBool; 2],
}

/// One end's part in a trial.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// The trial's number.
    pub trial: u32,
    /// 0 or 1: which end this is.
    pub end: usize,
    /// What it sends.
    pub offer: Offer,
    /// For how long.
    pub duration: Duration,
    /// Or until so many packets are sent.
    pub packets_max: u64,
    /// Flows, one per peer, that take turns.
    pub flows: usize,
    /// Packets of one flow in a row.
    pub burst: u64,
    /// Bytes of an inner packet.
    pub size: usize,
}

/// Packets to send at once: of one flow, one after the other.
#[derive(Clone, Copy, Debug)]
pub struct Burst {
    /// The trial's number.
    pub trial: u32,
    /// The flow.
    pub flow: usize,
    /// The first one's sequence number.
    pub first: u64,
    /// How many.
    pub count: u64,
    /// Bytes of an inner packet.
    pub size: usize,
    /// The time that they are stamped with.
    pub now: u64,
}

/// One end: sends bursts, and gives what it reads to a meter.
pub trait End {
    /// Sends a burst; returns how many packets of it were taken.
    ///
    /// # Errors
    /// Those that end the trial.
    fn send(&mut self, burst: &Burst) -> anyhow::Result<u64>;

    /// Reads what waits, at most a batch. Returns how many packets that was.
    ///
    /// # Errors
    /// Those that end the trial.
    fn receive(&mut self, meter: &mut Meter, since: Instant) -> anyhow::Result<u64>;

    /// Waits for something to read.
    ///
    /// # Errors
    /// Those that end the trial.
    fn wait(&mut self, longest: Duration) -> anyhow::Result<()>;
}

/// What one end did in a trial.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Packets that it sent.
    pub sent: u64,
    /// Time from its first to its last packet sent.
    pub sending: Duration,
    /// What it read.
    pub meter: Meter,
    /// Time from the trial's begin to the last packet read.
    pub receiving: Duration,
}

/// Plays one part to its end. `since` is the time that stamps count from.
///
/// # Errors
/// Those of the end's sockets.
pub fn drive(
    end: &mut impl End,
    part: &Part,
    shared: &Shared,
    since: Instant,
) -> anyhow::Result<Outcome> {
    let begin = clock::now();
    let mut sender = Sender::new(part, begin);
    let mut meter = Meter::new(part.trial, part.flows);
    let (mut last_read, mut read_at) = (begin, begin);
    loop {
        let now = clock::now();
        let sent = sender.send(end, shared, since, now)?;
        if sender.is_done {
            shared.is_done[part.end].store(true, Ordering::Relaxed);
        }
        let read = end.receive(&mut meter, since)?;
        if read > 0 {
            shared.received[part.end].store(meter.received(), Ordering::Relaxed);
            (last_read, read_at) = (now, clock::now());
        }
        if sent == 0 && read == 0 {
            let is_over = shared
                .is_done
                .iter()
                .all(|done| done.load(Ordering::Relaxed));
            if is_over && now - last_read > QUIET && now - sender.last > QUIET {
                break;
            }
            end.wait(NAP)?;
        }
    }
    Ok(Outcome {
        sent: sender.sent,
        sending: sender.last - begin,
        meter,
        receiving: read_at - begin,
    })
}

/// The sending half of a part.
struct Sender<'a> {
    part: &'a Part,
    begin: Instant,
    /// Per flow, the next packet's number.
    next: Vec<u64>,
    flow: usize,
    sent: u64,
    last: Instant,
    is_done: bool,
    /// What the far end had read when it was last seen to read anything, and when that was.
    progress: (u64, Instant),
    /// Packets that are given up: sent, and not to be waited for.
    forgiven: u64,
}

impl<'a> Sender<'a> {
    fn new(part: &'a Part, begin: Instant) -> Self {
        Self {
            part,
            begin,
            next: vec![0; part.flows],
            flow: 0,
            sent: 0,
            last: begin,
            is_done: matches!(part.offer, Offer::Silence),
            progress: (0, begin),
            forgiven: 0,
        }
    }

    /// Sends one burst if it is due. Returns how many packets.
    fn send(
        &mut self,
        end: &mut impl End,
        shared: &Shared,
        since: Instant,
        now: Instant,
    ) -> anyhow::Result<u64> {
        let elapsed = now - self.begin;
        if self.is_done || elapsed >= self.part.duration || self.sent >= self.part.packets_max {
            self.is_done = true;
            return Ok(0);
        }
        let due = self
            .due(shared, elapsed, now)
            .min(self.part.packets_max - self.sent);
        // A part of a burst goes out only if it is the end: otherwise bursts would shrink to what
        // the far end has just read.
        let is_window = matches!(self.part.offer, Offer::Window(_));
        if due == 0
            || (is_window && due < self.part.burst && self.sent + due < self.part.packets_max)
        {
            return Ok(0);
        }
        let burst = Burst {
            trial: self.part.trial,
            flow: self.flow,
            first: self.next[self.flow],
            count: due.min(self.part.burst),
            size: self.part.size,
            now: nanos(now - since),
        };
        let taken = end.send(&burst)?;
        if taken > 0 {
            self.next[self.flow] += taken;
            self.flow = (self.flow + 1) % self.part.flows;
            self.sent += taken;
            self.last = now;
        }
        Ok(taken)
    }

    /// How many packets may go out.
    fn due(&mut self, shared: &Shared, elapsed: Duration, now: Instant) -> u64 {
        match self.part.offer {
            Offer::Silence => 0,
            Offer::PerSecond(rate) => {
                let due = u128::from(rate) * elapsed.as_nanos() / 1_000_000_000;
                u64::try_from(due)
                    .unwrap_or(u64::MAX)
                    .saturating_sub(self.sent)
            }
            Offer::Window(window) => {
                let received = shared.received[1 - self.part.end].load(Ordering::Relaxed);
                if received != self.progress.0 {
                    self.progress = (received, now);
                }
                let mut outstanding = self.sent.saturating_sub(received + self.forgiven);
                if outstanding > 0 && now - self.progress.1 > STALL {
                    self.forgiven += outstanding;
                    self.progress.1 = now;
                    outstanding = 0;
                }
                window.saturating_sub(outstanding)
            }
        }
    }
}

/// Nanoseconds, for 584 years.
#[must_use]
pub fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Shared {
    /// Ends the trial for the other end as well.
    pub(super) fn give_up(&self) {
        for done in &self.is_done {
            done.store(true, Ordering::Relaxed);
        }
    }
}
