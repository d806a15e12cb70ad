//! Both ends of the load on threads of their own, each in its namespace, and trials between them.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use dataplane::io::clock;

use super::drive::{End, Offer, Outcome, Part, Shared, drive};
use super::edge;
use super::meter::Meter;
use super::world::{EDGE_NS, PEERS_NS, World, enter};
use super::{Overlay, Peers};

/// Beyond a trial's own time: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// Something to do on the thread that owns an `E`.
type Job<E> = Box<dyn FnOnce(&mut E) + Send>;

/// A thread that owns an `E` in a namespace. It ends when this is dropped.
#[derive(Debug)]
pub struct Hand<E> {
    jobs: SyncSender<Job<E>>,
}

impl<E: 'static> Hand<E> {
    /// Starts the thread, enters the namespace and makes the `E` there.
    ///
    /// # Errors
    /// Those of entering and making.
    pub fn start(
        namespace: &'static str,
        make: impl FnOnce() -> anyhow::Result<E> + Send + 'static,
    ) -> anyhow::Result<Self> {
        let (jobs, todo) = sync_channel::<Job<E>>(1);
        let (tell, made) = sync_channel(1);
        thread::Builder::new()
            .name(namespace.to_owned())
            .spawn(move || {
                let (mut it, answer) = match enter(namespace).and_then(|()| make()) {
                    Ok(it) => (Some(it), Ok(())),
                    Err(error) => (None, Err(error)),
                };
                if tell.send(answer).is_ok()
                    && let Some(it) = &mut it
                {
                    todo.into_iter().for_each(|job| job(it));
                }
            })?;
        made.recv().context("the thread is gone")??;
        Ok(Self { jobs })
    }

    /// Has the thread do something; what it returns comes through the channel.
    ///
    /// # Errors
    /// When the thread is gone.
    pub fn begin<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut E) -> R + Send + 'static,
    ) -> anyhow::Result<Receiver<R>> {
        let (tell, done) = sync_channel(1);
        let job: Job<E> = Box::new(move |it| drop(tell.send(job(it))));
        self.jobs.send(job).ok().context("the thread is gone")?;
        Ok(done)
    }

    /// Has the thread do something, and waits for it.
    ///
    /// # Errors
    /// When the thread is gone, or takes longer than a minute.
    pub fn call<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut E) -> R + Send + 'static,
    ) -> anyhow::Result<R> {
        self.begin(job)?
            .recv_timeout(PATIENCE)
            .context("no answer in time")
    }
}

/// The two ends.
#[derive(Debug)]
pub struct Pair {
    /// Kernel sockets in the edge's namespace.
    pub overlay: Hand<Overlay>,
    /// WireGuard peers in theirs.
    pub peers: Hand<Peers>,
    since: Instant,
    trials: u32,
}

/// What is sent in a trial. Down is from the edge to the peers, up the other way.
#[derive(Clone, Copy, Debug)]
pub struct Trial {
    /// Peers that take part.
    pub flows: usize,
    /// Bytes of an inner packet.
    pub size: usize,
    /// Packets of one flow in a row.
    pub burst: u64,
    /// For how long.
    pub duration: Duration,
    /// Or until one end has sent so many.
    pub packets_max: u64,
    /// What the edge's side sends.
    pub down: Offer,
    /// What the peers send.
    pub up: Offer,
}

/// What became of one direction of a trial.
#[derive(Clone, Debug)]
pub struct Way {
    /// Packets sent.
    pub sent: u64,
    /// What arrived.
    pub meter: Meter,
    /// For how long it did.
    pub time: Duration,
}

/// What became of a trial.
#[derive(Clone, Debug)]
pub struct Run {
    /// From the edge to the peers.
    pub down: Way,
    /// From the peers to the edge.
    pub up: Way,
}

impl Way {
    fn new(sender: &Outcome, receiver: &Outcome) -> Self {
        Self {
            sent: sender.sent,
            meter: receiver.meter.clone(),
            time: receiver.receiving.max(sender.sending),
        }
    }

    /// Packets that did not arrive.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.sent.saturating_sub(self.meter.received())
    }

    /// Packets a second that arrived.
    #[must_use]
    pub fn rate(&self) -> u64 {
        let packets = u128::from(self.meter.received()) * 1_000_000_000;
        u64::try_from(packets / self.time.as_nanos().max(1)).unwrap_or(u64::MAX)
    }

    /// Gigabits a second of inner packets that arrived.
    #[must_use]
    pub fn gigabits(&self) -> f64 {
        self.meter.bytes as f64 * 8e-9 / self.time.as_secs_f64().max(1e-9)
    }
}

impl Pair {
    /// Starts both ends and opens all sessions.
    ///
    /// # Errors
    /// When the world is not up, or the edge does not answer.
    pub fn start(world: &World) -> anyhow::Result<Self> {
        let sources = edge::sources(world)?;
        let bound = sources.clone();
        let overlay = Hand::start(EDGE_NS, move || Overlay::new(&bound))?;
        let world = world.clone();
        let peers = Hand::start(PEERS_NS, move || Peers::new(&world, sources))?;
        peers.call(Peers::connect)??;
        Ok(Self {
            overlay,
            peers,
            since: clock::now(),
            trials: 0,
        })
    }

    /// Runs one trial.
    ///
    /// # Errors
    /// Those of sockets, and of a thread that does not answer.
    pub fn run(&mut self, trial: &Trial) -> anyhow::Result<Run> {
        self.start_trial(trial)?.finish()
    }

    /// Begins a trial; something else can be done until it is finished.
    ///
    /// # Errors
    /// When a thread is gone.
    pub fn start_trial(&mut self, trial: &Trial) -> anyhow::Result<Running> {
        self.trials += 1;
        let shared = Arc::new(Shared::default());
        let part = |end, offer| Part {
            trial: self.trials,
            end,
            offer,
            duration: trial.duration,
            packets_max: trial.packets_max,
            flows: trial.flows,
            burst: trial.burst,
            size: trial.size,
        };
        let since = self.since;
        Ok(Running {
            overlay: play(&self.overlay, part(0, trial.down), &shared, since)?,
            peers: play(&self.peers, part(1, trial.up), &shared, since)?,
            patience: trial.duration + PATIENCE,
        })
    }

    /// The number of the trial that runs or ran last.
    #[must_use]
    pub fn trial(&self) -> u32 {
        self.trials
    }
}

/// A trial under way.
#[derive(Debug)]
pub struct Running {
    overlay: Receiver<anyhow::Result<Outcome>>,
    peers: Receiver<anyhow::Result<Outcome>>,
    patience: Duration,
}

impl Running {
    /// Waits for the end of it.
    ///
    /// # Errors
    /// Those of sockets, and of a thread that does not answer.
    pub fn finish(self) -> anyhow::Result<Run> {
        let late = "a trial does not end";
        let overlay = self.overlay.recv_timeout(self.patience).context(late)??;
        let peers = self.peers.recv_timeout(self.patience).context(late)??;
        Ok(Run {
            down: Way::new(&overlay, &peers),
            up: Way::new(&peers, &overlay),
        })
    }
}

fn play<E: End + 'static>(
    hand: &Hand<E>,
    part: Part,
    shared: &Arc<Shared>,
    since: Instant,
) -> anyhow::Result<Receiver<anyhow::Result<Outcome>>> {
    let shared = Arc::clone(shared);
    hand.begin(move |end| {
        let outcome = drive(end, &part, &shared, since);
        if outcome.is_err() {
            shared.give_up();
        }
        outcome
    })
}
