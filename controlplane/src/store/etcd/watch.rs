//! The commits of all control planes, in order, as etcd's watch tells them.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use super::client::{CallError, decoded, number};
use super::{Followed, Inner, Write, failed, numeral};
use crate::store::StoreError;

/// Answers that may wait to be taken in; etcd keeps what comes after.
const WAITING_MAX: usize = 64;

/// Longest line: a commit is below etcd's limit of a request, 1.5 MiB unless told otherwise.
const LINE_BYTES_MAX: usize = 64 << 20;

/// How long `next` waits before it says that there is nothing.
const TURN: Duration = Duration::from_millis(500);

/// Turns without a word after which etcd is asked whether something was missed: a connection may be
/// dead without saying so.
const SILENT_TURNS_MAX: u32 = 10;

/// First and longest pause before a new attempt, doubled from one to the other.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// A watch, opened again when it breaks.
pub(super) struct Feed {
    inner: Arc<Inner>,
    /// etcd's revision that was seen last.
    seen: i64,
    open: Option<Open>,
    pause: Duration,
    silent_turns: u32,
    /// Our revision that was seen last.
    known: u64,
    /// What one answer told beside the first commit.
    backlog: std::collections::VecDeque<Followed>,
}

struct Open {
    answers: Receiver<Result<Value, CallError>>,
    task: AbortHandle,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Feed {
    pub(super) fn new(inner: Arc<Inner>) -> Feed {
        Feed {
            inner,
            seen: 0,
            open: None,
            pause: PAUSE_MIN,
            silent_turns: 0,
            known: 0,
            backlog: std::collections::VecDeque::new(),
        }
    }

    /// Commits after this revision of etcd's are told.
    pub(super) fn begin_after(&mut self, revision: i64) {
        self.seen = revision;
        self.open = None;
        self.backlog.clear();
    }

    /// The next commit; `None` when there is none for the moment.
    pub(super) fn next(&mut self, runtime: &Handle) -> Result<Option<Followed>, StoreError> {
        if let Some(followed) = self.backlog.pop_front() {
            return Ok(Some(followed));
        }
        let open = self
            .open
            .get_or_insert_with(|| open(&self.inner, self.seen, runtime));
        let answer = match open.answers.recv_timeout(TURN) {
            Ok(Ok(answer)) => answer,
            Ok(Err(why)) => return Err(self.broken(failed(why))),
            Err(RecvTimeoutError::Timeout) => return Ok(self.silent()),
            Err(RecvTimeoutError::Disconnected) => {
                let ended = CallError::Broken("the watch ended".to_owned());
                return Err(self.broken(failed(ended)));
            }
        };
        self.silent_turns = 0;
        self.pause = PAUSE_MIN;
        if answer["canceled"] == true {
            // etcd has forgotten what we did not see: compacted.
            self.open = None;
            return Ok(Some(Followed::Lost));
        }
        self.take_in(&answer);
        Ok(self.backlog.pop_front())
    }

    /// Events of one revision of etcd's are one commit of ours.
    fn take_in(&mut self, answer: &Value) {
        let events = answer["events"].as_array().map_or(&[][..], Vec::as_slice);
        let mut writes = Vec::new();
        let (mut is_moved, mut is_own, mut base) = (false, false, 0);
        let own = self.inner.writer_key();
        for (index, event) in events.iter().enumerate() {
            let kv = &event["kv"];
            let at = number(&kv["mod_revision"]);
            if kv["key"].as_str() == Some(&self.inner.key("revision")) {
                self.known = decoded(&kv["value"]).as_deref().map_or(0, numeral);
                let before = decoded(&event["prev_kv"]["value"]);
                base = before.as_deref().map_or(0, numeral);
                is_moved = true;
            } else if kv["key"].as_str() == Some(&own) {
                is_own = true;
            } else if let Some(key) = self.inner.object(&kv["key"]) {
                let is_gone = event["type"] == "DELETE";
                let value = if is_gone { None } else { decoded(&kv["value"]) };
                writes.push(Write { key, value });
            }
            let next = events
                .get(index + 1)
                .map(|next| number(&next["kv"]["mod_revision"]));
            if next != Some(at) {
                self.seen = at;
                let writes = std::mem::take(&mut writes);
                let revision = self.known;
                // Who made a commit of ours knows of it. What moves no revision is no commit, but part of
                // a backup that is restored: at its end the revision moves without objects.
                if is_moved && !is_own {
                    self.backlog.push_back(match writes.is_empty() {
                        true => Followed::Lost,
                        false => Followed::Commit {
                            base,
                            revision,
                            writes,
                        },
                    });
                }
                (is_moved, is_own) = (false, false);
            }
        }
    }

    fn broken(&mut self, why: StoreError) -> StoreError {
        self.open = None;
        std::thread::park_timeout(self.pause);
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        why
    }

    /// After a long silence the watch is opened anew: a live one costs that nothing, a dead one is found.
    fn silent(&mut self) -> Option<Followed> {
        self.silent_turns += 1;
        if self.silent_turns >= SILENT_TURNS_MAX {
            self.silent_turns = 0;
            self.open = None;
        }
        None
    }
}

fn open(inner: &Arc<Inner>, seen: i64, runtime: &Handle) -> Open {
    let (tell, answers) = sync_channel(WAITING_MAX);
    let inner = Arc::clone(inner);
    let task = runtime.spawn(async move {
        if let Err(why) = follow(&inner, seen, &tell).await {
            // Nobody listens any more when it is dropped.
            let _is_heard = tell.try_send(Err(why));
        }
    });
    Open {
        answers,
        task: task.abort_handle(),
    }
}

async fn follow(
    inner: &Inner,
    seen: i64,
    tell: &SyncSender<Result<Value, CallError>>,
) -> Result<(), CallError> {
    let (first, end) = (format!("{}/", inner.prefix), format!("{}0", inner.prefix));
    let body = json!({"create_request": {
        "key": super::coded(first), "range_end": super::coded(end),
        "start_revision": (seen + 1).to_string(), "prev_kv": true,
    }});
    let mut body = inner.client.stream("/v3/watch", &body).await?;
    let mut line = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|why| CallError::Broken(why.to_string()))?;
        let Ok(bytes) = frame.into_data() else {
            continue;
        };
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            line.extend_from_slice(part);
            if line.len() > LINE_BYTES_MAX {
                return Err(CallError::Broken("a watch's line is too long".to_owned()));
            }
            if line.last() != Some(&b'\n') {
                continue;
            }
            let value: Value = serde_json::from_slice(&line)
                .map_err(|why| CallError::Broken(format!("a watch's line: {why}")))?;
            line.clear();
            if let Some(why) = value["error"]["message"].as_str() {
                return Err(CallError::Refused(why.to_owned()));
            }
            let mut answer = value["result"].clone();
            // The runtime has one thread, and calls go on while the feed is slow.
            while let Err(full) = tell.try_send(Ok(answer)) {
                match full {
                    std::sync::mpsc::TrySendError::Full(Ok(back)) => answer = back,
                    std::sync::mpsc::TrySendError::Full(Err(_))
                    | std::sync::mpsc::TrySendError::Disconnected(_) => return Ok(()),
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }
    Err(CallError::Broken("the watch ended".to_owned()))
}
