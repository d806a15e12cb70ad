//! The control plane's side of one connection, after its certificate was looked up.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::Instant;
use uuid::Uuid;

use super::fleet::Place;
use super::frame::{self, FrameError, PART_BYTES, TO_NODE_BYTES_MAX};
use super::message::{ALIVE_EVERY, Change, FromNode, SILENCE_MAX, Step, ToNode, VERSION, jittered};
use crate::model::lease;
use crate::store::{Snapshot, Write};

/// Steps under way to a node. More than one, so that a change does not wait for the acknowledgement of the
/// one before; few, so that changes that come faster than a node takes them become one step.
const WINDOW: usize = 16;

/// A node is told everything that often at the latest, whatever it has: what went wrong without being
/// noticed does not stay.
pub(super) const RESYNC_EVERY: Duration = Duration::from_secs(900);

/// Shortest time between two of them for one node.
const RESYNC_PAUSE: Duration = Duration::from_secs(1);

/// Longest wait for what a node knows already; others' commits come in milliseconds.
const BEHIND_MAX: Duration = Duration::from_secs(10);

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum End {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("it came again by another connection")]
    Replaced,
    #[error("refused: {0}")]
    Refused(String),
    #[error("the control plane stops")]
    Stopped,
}

/// What the node said, for the side that speaks to it.
#[derive(Clone, Copy, Debug, Default)]
struct Heard {
    acknowledged: u64,
    resyncs: u64,
}

/// A node that was let in, and its certificate.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) place: Place,
    pub(super) certificate_sha256: String,
    pub(super) resync_every: Duration,
}

/// What a node says first.
#[derive(Clone, Copy, Debug)]
pub(super) struct Greeting {
    /// The revision that it has, and of which start of a control plane.
    pub(super) has: Option<(Uuid, u64)>,
    /// Where it takes packets for its slice that came to other nodes.
    pub(super) relay: Option<SocketAddr>,
}

/// Waits for the first message, which says what the node has.
pub(super) async fn greeting<S: AsyncRead + Unpin>(
    reader: &mut frame::Reader<S>,
    within: Duration,
) -> Result<Greeting, End> {
    let bytes = reader.next(within).await?;
    match serde_json::from_slice(bytes).map_err(FrameError::from)? {
        FromNode::Hello {
            version: VERSION,
            has,
            relay,
        } => match relay.map_or(Ok(()), lease::check_relay) {
            Ok(()) => Ok(Greeting { has, relay }),
            Err(why) => Err(End::Refused(format!("[router] relay of the node: {why}"))),
        },
        FromNode::Hello { version, .. } => Err(End::Refused(format!(
            "the node speaks version {version}, and this control plane {VERSION}"
        ))),
        FromNode::Ack { .. }
        | FromNode::Resync { .. }
        | FromNode::Tunnels { .. }
        | FromNode::Alive {} => Err(End::Refused("the node did not begin with a hello".into())),
    }
}

/// Says no, and why.
pub(super) async fn refuse<S: AsyncWrite + Unpin>(stream: &mut S, reason: &str) -> Result<(), End> {
    let reason = reason.to_owned();
    let frame = frame::encode(&ToNode::Refused { reason }, TO_NODE_BYTES_MAX)?;
    Ok(frame::send(stream, &frame).await?)
}

impl Session {
    /// Serves the node until something ends it.
    pub(super) async fn run<R, W>(
        self,
        mut reader: frame::Reader<R>,
        mut writer: W,
        has: Option<(Uuid, u64)>,
    ) -> End
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let (heard, told) = watch::channel(Heard::default());
        let mut replaced = self.place.replaced.clone();
        tokio::select! {
            end = self.hear(&mut reader, &heard) => end,
            end = self.tell(&mut writer, told, has) => end,
            _ = replaced.wait_for(|is| *is) => End::Replaced,
        }
    }

    async fn hear<R>(&self, reader: &mut frame::Reader<R>, heard: &watch::Sender<Heard>) -> End
    where
        R: AsyncRead + Unpin,
    {
        loop {
            let message = match reader.next(SILENCE_MAX).await {
                Ok(bytes) => serde_json::from_slice(bytes).map_err(FrameError::from),
                Err(why) => Err(why),
            };
            match message {
                Ok(FromNode::Ack {
                    revision,
                    refused,
                    refused_total,
                }) => {
                    let newest = self.place.fleet.objects().snapshot().revision;
                    if revision > newest {
                        return End::Refused(format!(
                            "the node acknowledges revision {revision}, and there are {newest}"
                        ));
                    }
                    let is_all = revision == newest;
                    let place = &self.place;
                    place.acknowledged(revision, refused, refused_total, is_all);
                    heard.send_modify(|heard| heard.acknowledged = revision);
                }
                Ok(FromNode::Resync { reason }) => {
                    let node = &self.place.name;
                    tracing::info!(node, reason, "a node wants everything");
                    heard.send_modify(|heard| heard.resyncs += 1);
                }
                Ok(FromNode::Tunnels { tunnels, is_last }) => {
                    self.place.reported(tunnels, is_last);
                }
                Ok(FromNode::Alive {}) => self.place.heard(),
                Ok(FromNode::Hello { .. }) => return End::Refused("a second hello".into()),
                Err(why) => return why.into(),
            }
        }
    }

    async fn tell<W>(
        &self,
        writer: &mut W,
        heard: watch::Receiver<Heard>,
        has: Option<(Uuid, u64)>,
    ) -> End
    where
        W: AsyncWrite + Unpin,
    {
        match self.tell_on(writer, heard, has).await {
            Ok(()) => End::Stopped,
            Err(why) => why,
        }
    }

    async fn tell_on<W>(
        &self,
        writer: &mut W,
        mut heard: watch::Receiver<Heard>,
        has: Option<(Uuid, u64)>,
    ) -> Result<(), End>
    where
        W: AsyncWrite + Unpin,
    {
        let fleet = &self.place.fleet;
        let welcome = ToNode::Welcome {
            epoch: fleet.epoch(),
            name: self.place.name.clone(),
        };
        frame::send(writer, &frame::encode(&welcome, TO_NODE_BYTES_MAX)?).await?;
        self.catch_up(has).await?;
        let ours = has.filter(|(epoch, _)| *epoch == fleet.epoch());
        let mut sent = ours.and_then(|(_, revision)| fleet.recall(revision));
        let mut under_way = VecDeque::new();
        let mut resyncs = 0;
        let mut revisions = fleet.objects().revision();
        let mut resync_at = Instant::now() + jittered(self.resync_every);
        let mut resynced_at = None;
        let mut alive_at = Instant::now() + ALIVE_EVERY;
        loop {
            revisions.mark_unchanged();
            let newest = fleet.objects().snapshot();
            self.check(&newest, writer).await?;
            let now = Instant::now();
            let said = *heard.borrow_and_update();
            while under_way
                .front()
                .is_some_and(|revision| *revision <= said.acknowledged)
            {
                under_way.pop_front();
            }
            let is_wanted = said.resyncs != resyncs || now >= resync_at;
            let paused_until = resynced_at.map_or(now, |at| at + RESYNC_PAUSE);
            if is_wanted && now >= paused_until {
                resyncs = said.resyncs;
                sent = None;
                under_way.clear();
            }
            let is_due = sent
                .as_ref()
                .is_none_or(|sent| sent.revision != newest.revision);
            if is_due && under_way.len() < WINDOW {
                if sent.is_none() {
                    resynced_at = Some(now);
                    resync_at = now + jittered(self.resync_every);
                }
                self.place.told();
                self.step(writer, sent.as_deref(), &newest).await?;
                under_way.push_back(newest.revision);
                sent = Some(newest);
                alive_at = Instant::now() + ALIVE_EVERY;
                continue;
            }
            if now >= alive_at {
                frame::send(writer, &frame::encode(&ToNode::Alive {}, PART_BYTES)?).await?;
                alive_at = Instant::now() + ALIVE_EVERY;
            }
            let wanted_at = match is_wanted {
                true => paused_until,
                false => resync_at,
            };
            tokio::select! {
                changed = revisions.changed() => changed.map_err(|_gone| End::Stopped)?,
                changed = heard.changed() => changed.map_err(|_gone| End::Stopped)?,
                () = tokio::time::sleep_until(alive_at.min(wanted_at)) => {}
            }
        }
    }

    /// Waits until this control plane has what the node has from another one over the same store. One that
    /// does not get there was restored from a backup, or has lost its store: what it has is told.
    async fn catch_up(&self, has: Option<(Uuid, u64)>) -> Result<(), End> {
        let objects = self.place.fleet.objects();
        if let Some((_, revision)) = has.filter(|_| objects.is_shared()) {
            let mut revisions = objects.revision();
            let there = revisions.wait_for(|newest| *newest >= revision);
            if let Ok(closed) = tokio::time::timeout(BEHIND_MAX, there).await {
                closed.map_err(|_gone| End::Stopped)?;
            }
        }
        Ok(())
    }

    /// Whether the node is still one, and still this one.
    async fn check<W>(&self, newest: &Snapshot, writer: &mut W) -> Result<(), End>
    where
        W: AsyncWrite + Unpin,
    {
        let node = newest.nodes.get(&self.place.name);
        if node.is_some_and(|node| node.certificate_sha256 == self.certificate_sha256) {
            return Ok(());
        }
        let reason = match node {
            Some(_) => "the node was enrolled again: this certificate is no longer its own",
            None => "the node was deleted",
        };
        refuse(writer, reason).await?;
        Err(End::Refused(reason.to_owned()))
    }

    /// Tells the node everything, or what changed since `base`.
    async fn step<W>(
        &self,
        writer: &mut W,
        base: Option<&Snapshot>,
        newest: &Snapshot,
    ) -> Result<(), End>
    where
        W: AsyncWrite + Unpin,
    {
        let fleet = &self.place.fleet;
        if let Some(base) = base
            && let Some(frame) = fleet.encoded(base.revision, newest.revision)
        {
            return Ok(frame::send(writer, &frame).await?);
        }
        let nothing = Snapshot::default();
        let mut writes = newest.writes_to_nodes(base.unwrap_or(&nothing)).peekable();
        let mut parts = 0;
        loop {
            let part = part(&mut writes);
            let is_last = writes.peek().is_none();
            let message = ToNode::Step(Step {
                base: base.map(|base| base.revision),
                revision: newest.revision,
                is_last,
                writes: part.iter().filter_map(change).collect(),
            });
            let frame: Arc<[u8]> = frame::encode(&message, TO_NODE_BYTES_MAX)?.into();
            if let (Some(base), 0, true) = (base, parts, is_last) {
                fleet.keep(base.revision, newest.revision, &frame);
            }
            frame::send(writer, &frame).await?;
            if is_last {
                return Ok(());
            }
            parts += 1;
            // A fast node must not keep the others waiting for all of a long step.
            tokio::task::yield_now().await;
        }
    }
}

/// The next writes, as many as go into a frame.
fn part(writes: &mut impl Iterator<Item = Write>) -> Vec<Write> {
    let mut part = Vec::new();
    let mut bytes = 0;
    while bytes < PART_BYTES
        && let Some(write) = writes.next()
    {
        bytes += write.key.len() + write.value.as_ref().map_or(0, Vec::len);
        part.push(write);
    }
    part
}

/// The write as it is sent; `None` when it is longer than what can be.
fn change(write: &Write) -> Option<Change<'_>> {
    let Some(value) = &write.value else {
        let key = write.key.as_str().into();
        return Some(Change { key, value: None });
    };
    let json: Result<&RawValue, _> = serde_json::from_slice(value);
    match json {
        Ok(json) if value.len() < TO_NODE_BYTES_MAX / 2 => Some(Change {
            key: write.key.as_str().into(),
            value: Some(json),
        }),
        Ok(_) | Err(_) => {
            tracing::error!(object = write.key, "an object is too large for nodes");
            None
        }
    }
}
