//! When tokens were used: noted in memory with every request, and written down from time to time.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::model::token_use::TokenUse;
use crate::model::{HexId, Timestamp};
use crate::store::{Objects, Snapshot, WriteError};

/// The uses that this process saw. One for each token, and until they are written down next for those deleted since.
#[derive(Debug, Default)]
pub(crate) struct Uses(Mutex<BTreeMap<HexId, Timestamp>>);

impl Uses {
    /// The token was used.
    pub(crate) fn note(&self, token: HexId, now: Timestamp) {
        self.lock().insert(token, now);
    }

    /// When the token was last used, here or, as far as it is written down, at another control plane.
    pub(crate) fn last(&self, snapshot: &Snapshot, token: HexId) -> Option<Timestamp> {
        let seen = self.lock().get(&token).copied();
        let kept = snapshot.token_uses.get(&token).map(|one| one.last_used_on);
        seen.max(kept)
    }

    /// Writes down what is newer than what is written down already. Blocks.
    ///
    /// # Errors
    /// When the store does not take it: it stays noted.
    pub(crate) fn keep(&self, objects: &Objects, now: Timestamp) -> Result<(), WriteError> {
        let snapshot = objects.snapshot();
        let seen = {
            let mut seen = self.lock();
            seen.retain(|token, _| snapshot.tokens.get(token).is_some());
            seen.clone()
        };
        let max = objects.writes_max();
        let kept = objects.write(now, |transaction| {
            let is_news = |(token, used): &(&HexId, &Timestamp)| {
                let snapshot = transaction.snapshot();
                let kept = snapshot.token_uses.get(token);
                snapshot.tokens.get(token).is_some()
                    && kept.is_none_or(|kept| kept.last_used_on < **used)
            };
            let news: Vec<TokenUse> = seen
                .iter()
                .filter(is_news)
                .take(max)
                .map(|(id, last_used_on)| TokenUse {
                    id: *id,
                    last_used_on: *last_used_on,
                })
                .collect();
            news.into_iter().for_each(|one| transaction.put(one));
            Ok(())
        });
        kept.map(drop)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<HexId, Timestamp>> {
        // A panic between two operations leaves a map that is a map.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
