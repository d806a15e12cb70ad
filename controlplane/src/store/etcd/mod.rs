//! The store for many machines: an etcd that several control planes share.
//!
//! Objects are `PREFIX/objects/KIND/ID`; `PREFIX/revision` is our revision, one for each transaction. A
//! commit is one etcd transaction that compares the revision, so that it happens on the state it was
//! validated on, or not at all. `PREFIX/writers/ID` says what each control plane committed last: after a
//! connection that broke meanwhile it tells whether the commit happened.

mod client;
mod watch;

use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};
use uuid::Uuid;

pub use client::{CallError, Config};
use client::{Client, coded, decoded, number};

use super::{Each, Followed, Store, StoreError, Write};

/// Objects of a page when all are read.
const PAGE: usize = 2_000;

/// Port of an etcd when none is named.
const PORT: u16 = 2379;

/// Operations that etcd takes in one transaction unless told otherwise (`--max-txn-ops`).
const TXN_OPS: usize = 128;

/// Operations of ours in each: the revision and the writer.
const OWN_OPS: usize = 2;

/// An etcd.
pub struct Etcd {
    inner: Arc<Inner>,
    /// Does the calls: those who ask are on threads that may block.
    runtime: Option<tokio::runtime::Runtime>,
    feed: Mutex<watch::Feed>,
}

struct Inner {
    client: Client,
    prefix: String,
    writer: Uuid,
    writes_max: usize,
}

impl std::fmt::Debug for Etcd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Etcd")
            .field("prefix", &self.inner.prefix)
            .finish_non_exhaustive()
    }
}

/// Reads `etcd://HOST[:PORT][,HOST[:PORT]…][/PREFIX]`; `etcds` is the same over TLS.
///
/// # Errors
/// A sentence that says what is wrong.
pub fn parse(text: &str) -> Result<Config, String> {
    let wanted = "a store is etcd://HOST:PORT[,HOST:PORT...][/PREFIX], or etcds:// over TLS";
    let (has_tls, rest) = match text.split_once("://") {
        Some(("etcd", rest)) => (false, rest),
        Some(("etcds", rest)) => (true, rest),
        Some(_) | None => return Err(format!("'{text}' is not a store: {wanted}")),
    };
    let (hosts, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let mut endpoints = Vec::new();
    for host in hosts.split(',') {
        let has_port = host.rsplit_once(':').is_some_and(|(name, port)| {
            port.parse::<u16>().is_ok() && (!name.contains(':') || name.ends_with(']'))
        });
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        if host.is_empty()
            || name.is_empty()
            || (!has_port && host.contains(':') && !host.ends_with(']'))
        {
            return Err(format!("'{host}' is not HOST:PORT: {wanted}"));
        }
        endpoints.push(match has_port {
            true => host.to_owned(),
            false => format!("{host}:{PORT}"),
        });
    }
    let prefix = match prefix.trim_matches('/') {
        "" => "portcullis",
        prefix => prefix,
    };
    Ok(Config {
        endpoints,
        prefix: format!("/{prefix}"),
        has_tls,
        txn_ops: TXN_OPS,
        ..Config::default()
    })
}

impl Etcd {
    /// Reaches the etcd and sees that it lets us in.
    ///
    /// # Errors
    /// With a sentence that says who was asked and what is wrong.
    pub fn open(config: Config) -> Result<Etcd, StoreError> {
        let etcd = Etcd::new(config)?;
        etcd.run(|inner| async move { inner.revision().await })?;
        Ok(etcd)
    }

    /// The same, without asking it anything yet.
    ///
    /// # Errors
    /// When a file of the configuration cannot be used.
    pub fn new(config: Config) -> Result<Etcd, StoreError> {
        let prefix = config.prefix.clone();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("etcd")
            .enable_all()
            .build()
            .map_err(failed)?;
        let inner = Arc::new(Inner {
            writes_max: config.txn_ops.saturating_sub(OWN_OPS).max(1),
            client: Client::new(config).map_err(failed)?,
            prefix,
            writer: Uuid::new_v4(),
        });
        Ok(Etcd {
            feed: Mutex::new(watch::Feed::new(Arc::clone(&inner))),
            inner,
            runtime: Some(runtime),
        })
    }

    /// Runs a call on the runtime and waits for it; also from a thread of another runtime.
    fn run<T, F>(&self, call: impl FnOnce(Arc<Inner>) -> F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, CallError>> + Send + 'static,
    {
        let runtime = self.runtime.as_ref().expect("taken when dropped only");
        let (answer, answered) = std::sync::mpsc::sync_channel(1);
        let call = call(Arc::clone(&self.inner));
        runtime.spawn(async move {
            // Whoever asked waits for it.
            let _is_heard = answer.send(call.await);
        });
        match answered.recv() {
            Ok(done) => done.map_err(failed),
            Err(gone) => Err(failed(gone)),
        }
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // May happen inside another runtime, where waiting is not allowed.
            runtime.shutdown_background();
        }
    }
}

impl Inner {
    fn key(&self, rest: &str) -> String {
        coded(format!("{}/{rest}", self.prefix))
    }

    /// What this control plane committed last, and so a mark of its commits.
    fn writer_key(&self) -> String {
        self.key(&format!("writers/{}", self.writer))
    }

    /// The first key and the one after the last of a directory of ours.
    fn range(&self, directory: &str) -> (String, String) {
        let key = |end: char| coded(format!("{}/{directory}{end}", self.prefix));
        // The character after the slash.
        (key('/'), key('0'))
    }

    async fn value(&self, key: String) -> Result<Option<Vec<u8>>, CallError> {
        let answer = self
            .client
            .call("/v3/kv/range", &json!({"key": key}))
            .await?;
        Ok(answer["kvs"].get(0).and_then(|kv| decoded(&kv["value"])))
    }

    /// Our revision; 0 when nothing was ever stored.
    async fn revision(&self) -> Result<u64, CallError> {
        let value = self.value(self.key("revision")).await?;
        Ok(value.as_deref().map_or(0, numeral))
    }

    /// A page of a directory at a revision of etcd's, which the first page decides (0).
    async fn page(&self, from: String, end: &str, at: i64) -> Result<Value, CallError> {
        let body = json!({
            "key": from, "range_end": end, "limit": PAGE.to_string(), "revision": at.to_string(),
        });
        self.client.call("/v3/kv/range", &body).await
    }

    /// `Ok(Err(found))` when the store is at another revision.
    async fn commit(
        &self,
        after: u64,
        to: u64,
        writes: Vec<Write>,
    ) -> Result<Result<(), u64>, CallError> {
        let revision = self.key("revision");
        let compare = match after {
            0 => {
                json!({"key": revision, "target": "CREATE", "result": "EQUAL", "create_revision": "0"})
            }
            after => json!({
                "key": revision, "target": "VALUE", "result": "EQUAL", "value": coded(after.to_string()),
            }),
        };
        let writer = self.writer_key();
        // Unlike any other commit, also one to the same revision that did not happen.
        let nonce = format!("{to} {}", Uuid::new_v4());
        let mut steps: Vec<Value> = writes.iter().map(|write| self.step(write)).collect();
        let put = |key: &String, value: String| json!({"request_put": {"key": key, "value": coded(value)}});
        steps.push(put(&writer, nonce.clone()));
        steps.push(put(&revision, to.to_string()));
        let body = json!({
            "compare": [compare],
            "success": steps,
            "failure": [{"request_range": {"key": revision}}],
        });
        match self.client.call("/v3/kv/txn", &body).await {
            Ok(answer) if answer["succeeded"] == true => Ok(Ok(())),
            Ok(answer) => {
                let found = &answer["responses"][0]["response_range"]["kvs"][0]["value"];
                Ok(Err(decoded(found).as_deref().map_or(0, numeral)))
            }
            Err(CallError::Broken(why)) => {
                tracing::warn!(
                    why,
                    "the connection broke in a commit: asking whether it happened"
                );
                match self.value(writer).await? {
                    Some(found) if found == nonce.as_bytes() => Ok(Ok(())),
                    _ => Err(CallError::Broken(why)),
                }
            }
            Err(why) => Err(why),
        }
    }

    fn step(&self, write: &Write) -> Value {
        let key = self.key(&format!("objects/{}", write.key));
        match &write.value {
            Some(value) => json!({"request_put": {"key": key, "value": coded(value)}}),
            None => json!({"request_delete_range": {"key": key}}),
        }
    }

    /// The key of an object, out of etcd's JSON.
    fn object(&self, key: &Value) -> Option<String> {
        let key = String::from_utf8(decoded(key)?).ok()?;
        let rest = key.strip_prefix(&self.prefix)?;
        rest.strip_prefix("/objects/").map(str::to_owned)
    }
}

impl Etcd {
    /// Our revision and etcd's, of the same moment.
    fn load_at(&self, each: Each<'_>) -> Result<(u64, i64), StoreError> {
        let (mut from, end) = self.inner.range("objects");
        let mut at = 0;
        loop {
            let (first, last) = (from, end.clone());
            let page = self.run(move |inner| async move { inner.page(first, &last, at).await })?;
            if at == 0 {
                at = number(&page["header"]["revision"]);
            }
            let kvs = page["kvs"].as_array().map_or(&[][..], Vec::as_slice);
            for kv in kvs {
                let unreadable = || StoreError::Unreadable {
                    key: kv["key"].to_string(),
                    source: None,
                };
                let key = self.inner.object(&kv["key"]).ok_or_else(unreadable)?;
                let value = decoded(&kv["value"]).ok_or_else(unreadable)?;
                each(&key, &value)?;
            }
            if page["more"] != true {
                break;
            }
            // The next key after the last one is that with a zero byte at its end.
            let last = kvs.last().and_then(|kv| decoded(&kv["key"]));
            let mut next = last.unwrap_or_default();
            next.push(0);
            from = coded(next);
        }
        let key = self.inner.key("revision");
        let revision = self.run(move |inner| async move {
            let body = json!({"key": key, "revision": at.to_string()});
            let answer = inner.client.call("/v3/kv/range", &body).await?;
            Ok(decoded(&answer["kvs"][0]["value"])
                .as_deref()
                .map_or(0, numeral))
        })?;
        Ok((revision, at))
    }
}

impl Store for Etcd {
    fn load(&self, each: Each<'_>) -> Result<u64, StoreError> {
        Ok(self.load_at(each)?.0)
    }

    fn load_to_follow(&self, each: Each<'_>) -> Result<u64, StoreError> {
        let (revision, at) = self.load_at(each)?;
        self.feed().begin_after(at);
        Ok(revision)
    }

    fn commit(&self, after: u64, to: u64, writes: &[&Write]) -> Result<(), StoreError> {
        // etcd takes a key once in a transaction: the last word on it.
        let mut last = std::collections::BTreeMap::new();
        for write in writes {
            last.insert(&write.key, *write);
        }
        if last.len() > self.inner.writes_max {
            return Err(StoreError::TooLarge {
                writes: last.len(),
                max: self.inner.writes_max,
            });
        }
        let writes: Vec<Write> = last.into_values().cloned().collect();
        let done = self.run(move |inner| async move { inner.commit(after, to, writes).await })?;
        done.map_err(|found| StoreError::Stale {
            expected: after,
            found,
        })
    }

    fn replace(&self, revision: u64, writes: &[Write]) -> Result<(), StoreError> {
        let (from, end) = self.inner.range("objects");
        self.run(move |inner| async move {
            let body = json!({"key": from, "range_end": end});
            inner.client.call("/v3/kv/deleterange", &body).await
        })?;
        for some in writes.chunks(self.inner.writes_max) {
            let steps: Vec<Value> = some.iter().map(|write| self.inner.step(write)).collect();
            self.run(move |inner| async move {
                inner
                    .client
                    .call("/v3/kv/txn", &json!({"success": steps}))
                    .await
            })?;
        }
        let key = self.inner.key("revision");
        let body = json!({"key": key, "value": coded(revision.to_string())});
        self.run(move |inner| async move { inner.client.call("/v3/kv/put", &body).await })?;
        Ok(())
    }

    fn writes_max(&self) -> usize {
        self.inner.writes_max
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn next(&self) -> Result<Option<Followed>, StoreError> {
        let runtime = self.runtime.as_ref().expect("taken when dropped only");
        self.feed().next(runtime.handle())
    }
}

impl Etcd {
    fn feed(&self) -> std::sync::MutexGuard<'_, watch::Feed> {
        self.feed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn numeral(bytes: &[u8]) -> u64 {
    std::str::from_utf8(bytes)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}

fn failed(why: impl std::error::Error + Send + Sync + 'static) -> StoreError {
    StoreError::Failed(Arc::new(why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_read_from_its_address() {
        let config = parse("etcd://a:1,b,[::1]:3,[::2]/one/two/").unwrap();
        assert_eq!(config.endpoints, ["a:1", "b:2379", "[::1]:3", "[::2]:2379"]);
        assert_eq!(
            (config.prefix.as_str(), config.has_tls),
            ("/one/two", false)
        );
        let config = parse("etcds://a").unwrap();
        assert_eq!(
            (config.prefix.as_str(), config.has_tls),
            ("/portcullis", true)
        );
        for bad in [
            "http://a",
            "etcd://",
            "etcd://a:1,,b",
            "etcd://a:x",
            "etcd://::1",
            "a:1",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
