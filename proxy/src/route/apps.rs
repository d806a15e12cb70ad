//! Follows the list of layer-4 apps: asks again at every revision, and from time to time.

use std::time::Duration;

use controlplane::origin::App;
use tokio::sync::watch;
use tokio::time::timeout;

use super::{LookupError, OriginApi};

/// After which time the list is asked for without a change of the revision: level-triggered.
const RESYNC: Duration = Duration::from_secs(30);

/// First and longest pause after a failure; doubled from one to the other.
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// Publishes the list of apps until nobody listens. What was published last stays when the Origin
/// API fails: running apps survive a restart of the control plane.
pub async fn follow_apps(
    api: OriginApi,
    mut revision: watch::Receiver<u64>,
    patience: Duration,
    apps: watch::Sender<Vec<App>>,
) {
    let mut pause = RETRY_MIN;
    loop {
        revision.borrow_and_update();
        let answer = match timeout(patience, api.apps()).await {
            Ok(answer) => answer,
            Err(_elapsed) => Err(LookupError::TimedOut),
        };
        let wait = match answer {
            Ok(list) => {
                pause = RETRY_MIN;
                // Even an unchanged list is published: it makes a failed listener try again.
                apps.send_replace(list.apps);
                RESYNC
            }
            Err(why) => {
                tracing::warn!(%why, "the list of apps could not be asked for");
                pause = (pause * 2).min(RETRY_MAX);
                pause
            }
        };
        tokio::select! {
            () = apps.closed() => return,
            // No more revisions come (the sender is gone): the timer alone goes on.
            Ok(()) = revision.changed() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}
