//! Two endpoints against each other: agreement, rekeys, loss, strangers, garbage.

mod life;
mod refusals;
mod strangers;
mod world;

pub(super) use world::config;
