//! Follows the certificates that customers brought: asks again at every revision, and from time to time.

use std::time::Duration;

use controlplane::origin::Certificate;
use tokio::sync::watch;
use tokio::time::timeout;

use super::{LookupError, OriginApi};

/// After which time the certificates are asked for without a change of the revision: some expire.
const RESYNC: Duration = Duration::from_secs(30);

/// First and longest pause after a failure; doubled from one to the other.
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// Hands the certificates to `publish` for as long as it says that somebody wants them. What was published
/// last stays when the Origin API fails.
pub(crate) async fn follow_certificates(
    api: OriginApi,
    mut revision: watch::Receiver<u64>,
    patience: Duration,
    publish: impl Fn(Option<&[Certificate]>) -> bool,
) {
    let mut pause = RETRY_MIN;
    let mut known = String::new();
    loop {
        revision.borrow_and_update();
        let answer = match timeout(patience, api.certificates(&known)).await {
            Ok(answer) => answer,
            Err(_elapsed) => Err(LookupError::TimedOut),
        };
        if !publish(None) {
            return;
        }
        let wait = match answer {
            Ok(answer) => {
                pause = RETRY_MIN;
                publish(answer.certificates.as_deref());
                known = answer.etag;
                RESYNC
            }
            Err(why) => {
                tracing::warn!(%why, "the certificates could not be asked for");
                pause = (pause * 2).min(RETRY_MAX);
                pause
            }
        };
        tokio::select! {
            // No more revisions come (the sender is gone): the timer alone goes on.
            Ok(()) = revision.changed() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}
