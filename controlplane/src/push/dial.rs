//! The node's side of the connection: dials, takes, acknowledges, and dials again.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use dataplane::node::TunnelStatus;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use super::apply::{Intake, Taken, TooFarAhead};
use super::frame::{self, FROM_NODE_BYTES_MAX, FrameError, TO_NODE_BYTES_MAX};
use super::identity::{Bundle, CONTROL_NAME};
use super::message::{
    ALIVE_EVERY, FromNode, REPORT_EVERY, REPORT_TUNNELS, Refused, SILENCE_MAX, ToNode, VERSION,
    jittered,
};
use crate::status::Progress;
use crate::store::Objects;

/// Longest wait for a connection, and for TLS.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// First pause after a connection that failed; it doubles each time, up to the longest. Half of each is
/// random, so that nodes that lost a control plane together do not come back together.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// What a node needs to follow a control plane.
#[derive(Debug)]
pub struct Follow {
    /// `host:port` of control planes over one store; the first that answers is followed.
    pub control: Vec<String>,
    /// Who the node is.
    pub bundle: Bundle,
    /// How far its tables are.
    pub progress: watch::Receiver<Progress>,
    /// Where the node takes packets for its slice that came to other nodes: Geneve over UDP. `None`: nowhere.
    pub relay: Option<SocketAddr>,
}

/// Says what the node's tunnels do. It may block.
pub type Tunnels = Arc<dyn Fn() -> Vec<TunnelStatus> + Send + Sync>;

/// A node that follows, in a thread of its own. It ends when this is dropped.
pub struct Following {
    tunnels: Arc<OnceLock<Tunnels>>,
    stop: watch::Sender<bool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl std::fmt::Debug for Following {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Following").finish_non_exhaustive()
    }
}

impl Following {
    /// Starts to follow.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(objects: Arc<Objects>, follow: Follow) -> std::io::Result<Following> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (stop, mut stopped) = watch::channel(false);
        let tunnels: Arc<OnceLock<Tunnels>> = Arc::default();
        let asked = Arc::clone(&tunnels);
        let thread = std::thread::Builder::new().name("control".into());
        let thread = thread.spawn(move || {
            runtime.block_on(async move {
                tokio::select! {
                    () = run(objects, follow, asked) => {}
                    _ = stopped.wait_for(|is| *is) => {}
                }
            });
        })?;
        Ok(Following {
            tunnels,
            stop,
            thread: Some(thread),
        })
    }

    /// From here on the control plane is told what the node's tunnels do.
    pub fn report(&self, tunnels: Tunnels) {
        // Whoever was first is asked.
        let _is_first = self.tunnels.set(tunnels);
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that follows the control plane panicked");
        }
    }
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("no control plane answers at {0}: {1}")]
    Unreachable(String, String),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("the control plane refuses this node: {0}")]
    Refused(String),
    #[error("the control plane did not begin with a welcome")]
    NoWelcome,
    #[error(transparent)]
    TooFarAhead(#[from] TooFarAhead),
    #[error("the node's tables stopped")]
    Stopped,
}

async fn run(objects: Arc<Objects>, mut follow: Follow, tunnels: Arc<OnceLock<Tunnels>>) {
    let intake = Mutex::new(Intake::new(objects));
    let mut pause = PAUSE_MIN;
    let mut said = String::new();
    let mut places: VecDeque<String> = follow.control.iter().cloned().collect();
    loop {
        let Some(place) = places.pop_front() else {
            return;
        };
        let mut has_taken = false;
        let session = connect(&place, &follow.bundle);
        let end = match session.await {
            Ok(stream) => {
                let dialled = Dialled {
                    intake: &intake,
                    tunnels: &tunnels,
                    relay: follow.relay,
                    resync: Mutex::default(),
                    owed: Notify::new(),
                };
                dialled
                    .run(stream, &mut follow.progress, &mut has_taken)
                    .await
            }
            Err(end) => end,
        };
        places.push_back(place);
        if has_taken {
            pause = PAUSE_MIN;
            said.clear();
        }
        let why = end.to_string();
        // The same reason every ten seconds for hours helps nobody.
        match said == why {
            true => tracing::debug!(why, "no control plane"),
            false => tracing::warn!(why, "no control plane: the node goes on with what it has"),
        }
        said = why;
        tokio::time::sleep(jittered(pause)).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

async fn connect(
    place: &str,
    bundle: &Bundle,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, End> {
    let unreachable = |why: String| End::Unreachable(place.to_owned(), why);
    let late = |_| unreachable(format!("nothing within {CONNECT_WITHIN:?}"));
    let stream = tokio::time::timeout(CONNECT_WITHIN, TcpStream::connect(place)).await;
    let stream = stream
        .map_err(late)?
        .map_err(|why| unreachable(why.to_string()))?;
    stream
        .set_nodelay(true)
        .map_err(|why| unreachable(why.to_string()))?;
    let name = ServerName::try_from(CONTROL_NAME).expect("the name is one");
    let shake = TlsConnector::from(Arc::clone(&bundle.tls)).connect(name, stream);
    let stream = tokio::time::timeout(CONNECT_WITHIN, shake).await;
    stream
        .map_err(late)?
        .map_err(|why| unreachable(why.to_string()))
}

/// One connection.
struct Dialled<'a> {
    intake: &'a Mutex<Intake>,
    tunnels: &'a OnceLock<Tunnels>,
    relay: Option<SocketAddr>,
    /// Why the node wants everything.
    resync: Mutex<Option<String>>,
    /// Something was taken, or something is wanted.
    owed: Notify,
}

impl Dialled<'_> {
    async fn run(
        &self,
        stream: tokio_rustls::client::TlsStream<TcpStream>,
        progress: &mut watch::Receiver<Progress>,
        has_taken: &mut bool,
    ) -> End {
        let (reader, writer) = tokio::io::split(stream);
        let reader = frame::Reader::new(reader, TO_NODE_BYTES_MAX);
        tokio::select! {
            end = self.hear(reader, has_taken) => end.err().unwrap_or(End::Stopped),
            end = self.tell(writer, progress) => end.err().unwrap_or(End::Stopped),
        }
    }

    async fn hear<R: AsyncRead + Unpin>(
        &self,
        mut reader: frame::Reader<R>,
        has_taken: &mut bool,
    ) -> Result<(), End> {
        let epoch = match parsed(reader.next(SILENCE_MAX).await?)? {
            ToNode::Welcome { epoch, name } => {
                tracing::info!(name, "connected to the control plane");
                epoch
            }
            ToNode::Refused { reason } => return Err(End::Refused(reason)),
            ToNode::Step(_) | ToNode::Alive {} => return Err(End::NoWelcome),
        };
        self.intake().welcome(epoch);
        let mut is_waiting = false;
        loop {
            let step = match parsed(reader.next(SILENCE_MAX).await?)? {
                ToNode::Step(step) => step,
                ToNode::Alive {} => continue,
                ToNode::Refused { reason } => return Err(End::Refused(reason)),
                ToNode::Welcome { .. } => return Err(End::NoWelcome),
            };
            // What was under way when everything was asked for is part of that.
            is_waiting &= step.base.is_some();
            if is_waiting {
                continue;
            }
            match self.intake().take(epoch, step)? {
                Taken::Part => {}
                Taken::Done => {
                    *has_taken = true;
                    self.owed.notify_one();
                }
                Taken::Gap(reason) => {
                    is_waiting = true;
                    *self.resync.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
                    self.owed.notify_one();
                }
            }
        }
    }

    async fn tell<W: AsyncWrite + Unpin>(
        &self,
        mut writer: W,
        progress: &mut watch::Receiver<Progress>,
    ) -> Result<(), End> {
        let has = self.intake().begin();
        let hello = FromNode::Hello {
            version: VERSION,
            has,
            relay: self.relay,
        };
        say(&mut writer, &hello).await?;
        let mut acknowledged = None;
        let mut refused: (Vec<Refused>, usize) = (Vec::new(), 0);
        let mut alive_at = Instant::now() + ALIVE_EVERY;
        let mut report_at = Instant::now();
        loop {
            let resync = self
                .resync
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
            if let Some(reason) = resync {
                say(&mut writer, &FromNode::Resync { reason }).await?;
            }
            let reached = progress.borrow_and_update().clone();
            let (revision, now_refused) = {
                let mut intake = self.intake();
                (intake.reached(&reached), intake.refused(&reached))
            };
            let is_news = revision.is_some() || now_refused != refused;
            acknowledged = revision.or(acknowledged);
            if let (true, Some(revision)) = (is_news, acknowledged) {
                refused = now_refused;
                let ack = FromNode::Ack {
                    revision,
                    refused: refused.0.clone(),
                    refused_total: refused.1,
                };
                say(&mut writer, &ack).await?;
                alive_at = Instant::now() + ALIVE_EVERY;
            }
            if Instant::now() >= report_at {
                self.report(&mut writer).await?;
                report_at = Instant::now() + REPORT_EVERY;
            }
            if Instant::now() >= alive_at {
                say(&mut writer, &FromNode::Alive {}).await?;
                alive_at = Instant::now() + ALIVE_EVERY;
            }
            tokio::select! {
                changed = progress.changed() => changed.map_err(|_gone| End::Stopped)?,
                () = self.owed.notified() => {}
                () = tokio::time::sleep_until(alive_at.min(report_at)) => {}
            }
        }
    }

    /// Says what the tunnels do, once somebody knows.
    async fn report<W: AsyncWrite + Unpin>(&self, writer: &mut W) -> Result<(), End> {
        let Some(ask) = self.tunnels.get().map(Arc::clone) else {
            return Ok(());
        };
        // Asking waits for the workers.
        let asked = tokio::task::spawn_blocking(move || ask()).await;
        let mut tunnels = asked.unwrap_or_default();
        loop {
            let rest = tunnels.split_off(tunnels.len().min(REPORT_TUNNELS));
            let is_last = rest.is_empty();
            say(writer, &FromNode::Tunnels { tunnels, is_last }).await?;
            if is_last {
                return Ok(());
            }
            tunnels = rest;
        }
    }

    fn intake(&self) -> MutexGuard<'_, Intake> {
        self.intake.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn parsed(bytes: &[u8]) -> Result<ToNode<'_>, FrameError> {
    Ok(serde_json::from_slice(bytes)?)
}

async fn say<W: AsyncWrite + Unpin>(writer: &mut W, message: &FromNode) -> Result<(), End> {
    let frame = frame::encode(message, FROM_NODE_BYTES_MAX)?;
    Ok(frame::send(writer, &frame).await?)
}
