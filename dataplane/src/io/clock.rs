//! The clock: the one place of the data plane that reads the time.

use std::time::Instant;

/// The time, from the monotonic clock. Everything above `io` gets it as an argument.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the clock that the rule speaks of"
)]
pub fn now() -> Instant {
    Instant::now()
}
