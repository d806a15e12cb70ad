//! Route: where a host's requests go and which apps there are, asked of the Origin API.
//!
//! In: a host name, the revision of the desired state. Out: the Origin API's answers. The state, a
//! cache of answers that are valid for one revision only, is owned by [`Routes`].

mod apps;
mod cache;
mod certificates;
mod client;

use std::sync::Arc;
use std::time::Duration;

use controlplane::origin::HostAnswer;
use tokio::sync::{Semaphore, watch};

pub use apps::follow_apps;
pub(crate) use certificates::follow_certificates;
pub use client::{LookupError, OriginApi};

use crate::config::Limits;
use crate::counters::Counters;
pub(crate) use cache::Cache;

/// What is known about a host: `None` if the Origin API does not know it.
pub type Lookup = Result<Option<Arc<HostAnswer>>, LookupError>;

/// The route of every host.
#[derive(Debug)]
pub struct Routes {
    api: OriginApi,
    cache: Cache<Lookup>,
    revision: watch::Receiver<u64>,
    concurrent: Semaphore,
    patience: Duration,
    counters: Arc<Counters>,
}

impl Routes {
    /// Routes that are asked of `api` within `patience`, and kept while `revision` stays.
    pub fn new(
        api: OriginApi,
        revision: watch::Receiver<u64>,
        patience: Duration,
        limits: &Limits,
        counters: Arc<Counters>,
    ) -> Self {
        Self {
            api,
            cache: Cache::new(limits.cached_hosts),
            revision,
            concurrent: Semaphore::new(limits.origin_api_concurrent),
            patience,
            counters,
        }
    }

    /// The answer for a host (lower case, no port, no final dot). However many ask at one time for
    /// one host, the Origin API is asked once; a failure is told to all of them and forgotten.
    ///
    /// # Errors
    /// The Origin API gave no usable answer in time.
    pub async fn host(&self, host: &str) -> Lookup {
        let revision = *self.revision.borrow();
        let slot = self.cache.slot(host, revision);
        if let Some(known) = slot.get() {
            self.counters.route_cache_hits_total.increment();
            return known.clone();
        }
        let answer = slot.get_or_init(|| self.ask(host)).await.clone();
        if answer.is_err() {
            self.cache.forget(host, &slot);
        }
        answer
    }

    async fn ask(&self, host: &str) -> Lookup {
        let question = async {
            // Never closed, so an error cannot happen; without a permit we would only ask sooner.
            let _permit = self.concurrent.acquire().await.ok();
            self.counters.origin_api_lookups_total.increment();
            self.api.host(host).await
        };
        let answer = match tokio::time::timeout(self.patience, question).await {
            Ok(answer) => answer,
            Err(_elapsed) => Err(LookupError::TimedOut),
        };
        if let Err(why) = &answer {
            self.counters.origin_api_failed_total.increment();
            tracing::warn!(host, %why, "the Origin API gave no answer");
        }
        answer.map(|known| known.map(Arc::new))
    }
}

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod tests;
