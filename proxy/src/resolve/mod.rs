//! Resolve: the addresses of names that only a private network knows, asked for inside it.
//!
//! In: a name, its resolvers, vnet and tunnel. Out: addresses behind that tunnel, or why there are none. The
//! state, answers for as long as they are good and how many are being asked for, is owned by [`Resolver`].
//!
//! A question leaves from the vnet's source address into the tunnel, from a port and with an identifier
//! that nobody outside can know, and an answer comes from there alone. What it says is believed only as
//! far as the tunnel reaches: an address elsewhere is not used, and nothing is asked of the Internet.

mod ask;
mod message;
mod seats;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use controlplane::origin::PrivateName;
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::time::{Instant, timeout};

use crate::config::ProxyConfig;
use crate::counters::Counters;
use crate::handoff::{Handoff, Network};
use crate::route::Cache;
use message::{Answer, Question};
use seats::Seats;

/// Longest wait for a name, all questions together: what a person takes for a slow page, not a dead one.
const RESOLVE_MAX: Duration = Duration::from_secs(2);

/// Questions for one family, to one resolver after the other: a datagram may be lost.
const ATTEMPTS: usize = 3;

/// Wait for one answer over UDP: so that all attempts are within [`RESOLVE_MAX`].
const ATTEMPT: Duration = Duration::from_millis(650);

/// Wait for the other family's answer when one is there (RFC 8305, section 3).
const OTHER_FAMILY: Duration = Duration::from_millis(50);

/// How long an answer is kept, whatever its TTL: not asked for with each request, and a move is seen
/// within five minutes, as in our own zones.
const KEPT_SECS: std::ops::RangeInclusive<u32> = 1..=300;

/// How long it is remembered that there is no such name.
const NOTHING_KEPT: Duration = Duration::from_secs(5);

/// How long it is remembered that nobody answered: a dead resolver is not asked with each request.
const FAILURE_KEPT: Duration = Duration::from_secs(1);

/// An address family that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

/// Why a name has no usable address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unresolved {
    /// The vnet is not here, or no resolver is behind the tunnel.
    #[error("no resolver of the host's private network can be reached through its tunnel")]
    NoWay,
    /// No resolver answered in time.
    #[error("no resolver of the host's private network answered in time")]
    Silent,
    /// The resolvers answered that they cannot, or something that is no answer.
    #[error("the resolvers of the host's private network failed")]
    Failed,
    /// There is no such name.
    #[error("the private network knows no such name")]
    NoSuchName,
    /// The name has no address.
    #[error("the name has no address in the private network")]
    NoAddress,
    /// The addresses are not behind the tunnel.
    #[error("the name leads to an address that is not behind the tunnel of its hostname route")]
    Elsewhere,
    /// Too many names are being resolved.
    #[error("too many names are being resolved at this moment")]
    Busy,
}

/// What is known of a name, and until when.
#[derive(Clone, Debug)]
pub(crate) struct Resolved {
    /// The addresses as they were answered, or why there are none.
    outcome: Result<Arc<[IpAddr]>, Unresolved>,
    /// When it is to be asked for again.
    until: Instant,
}

impl Resolved {
    /// Whether it may be used without asking again.
    pub(crate) fn is_fresh(&self) -> bool {
        Instant::now() < self.until
    }
}

/// Resolves names. One per proxy, shared.
#[derive(Debug)]
pub(crate) struct Resolver {
    handoff: Arc<Handoff>,
    cache: Cache<Resolved>,
    seats: Seats,
    port: u16,
    counters: Arc<Counters>,
}

impl Resolver {
    pub(crate) fn new(
        config: &ProxyConfig,
        handoff: &Arc<Handoff>,
        counters: &Arc<Counters>,
    ) -> Self {
        let limits = &config.limits;
        Self {
            handoff: Arc::clone(handoff),
            cache: Cache::new(limits.resolved_names),
            seats: Seats::new(limits.resolving, limits.resolving_per_account),
            port: config.resolver_port,
            counters: Arc::clone(counters),
        }
    }

    /// The addresses of a name that can be used now: at least one, all behind its tunnel.
    ///
    /// # Errors
    /// Says why there are none.
    pub(crate) async fn addresses(&self, name: &PrivateName) -> Result<Vec<IpAddr>, Unresolved> {
        let resolved = self.resolved(name).await;
        self.usable(name, &resolved)
    }

    /// What is known of a name: asked for once however many want it, and kept as long as it is good.
    pub(crate) async fn resolved(&self, name: &PrivateName) -> Resolved {
        let key = key(name);
        let mut slot = self.cache.slot(&key, 0);
        if slot.get().is_some_and(|known| !known.is_fresh()) {
            self.cache.forget(&key, &slot);
            slot = self.cache.slot(&key, 0);
        }
        slot.get_or_init(|| self.resolve(name)).await.clone()
    }

    /// Of what is known, the addresses that are behind the tunnel at this moment.
    ///
    /// # Errors
    /// Says why there are none.
    pub(crate) fn usable(
        &self,
        name: &PrivateName,
        resolved: &Resolved,
    ) -> Result<Vec<IpAddr>, Unresolved> {
        let all = resolved.outcome.as_ref().map_err(|why| *why)?;
        let behind = |ip: &&IpAddr| self.handoff.is_behind(name.vnet, name.tunnel, **ip);
        let usable: Vec<IpAddr> = all.iter().filter(behind).copied().collect();
        if usable.len() < all.len() {
            self.counters.resolve_refused_total.increment();
        }
        match usable.is_empty() {
            true => Err(Unresolved::Elsewhere),
            false => Ok(usable),
        }
    }

    async fn resolve(&self, name: &PrivateName) -> Resolved {
        let outcome = match self.seats.take(&name.account_id) {
            None => Err(Unresolved::Busy),
            Some(_seat) => timeout(RESOLVE_MAX, self.both(name))
                .await
                .unwrap_or(Err(Unresolved::Silent)),
        };
        let now = Instant::now();
        let (outcome, kept) = match outcome {
            Ok((addresses, ttl)) => {
                let secs = ttl.clamp(*KEPT_SECS.start(), *KEPT_SECS.end());
                (Ok(addresses.into()), Duration::from_secs(secs.into()))
            }
            Err(why @ (Unresolved::NoSuchName | Unresolved::NoAddress)) => (Err(why), NOTHING_KEPT),
            Err(why) => (Err(why), FAILURE_KEPT),
        };
        if let Err(why) = &outcome {
            self.counters.resolve_failed_total.increment();
            tracing::debug!(name = name.name, vnet = name.vnet.0, %why, "a private name has no address");
        }
        Resolved {
            outcome,
            until: now + kept,
        }
    }

    /// The addresses of both families, IPv4 first, and the shorter TTL.
    async fn both(&self, name: &PrivateName) -> Result<(Vec<IpAddr>, u32), Unresolved> {
        let mut v4 = pin!(self.family(name, Family::V4));
        let mut v6 = pin!(self.family(name, Family::V6));
        let late = Err(Unresolved::Silent);
        let (v4, v6) = tokio::select! {
            first = &mut v4 => {
                let other = match first.is_ok() {
                    true => timeout(OTHER_FAMILY, v6).await.unwrap_or(late),
                    false => v6.await,
                };
                (first, other)
            }
            first = &mut v6 => {
                let other = match first.is_ok() {
                    true => timeout(OTHER_FAMILY, v4).await.unwrap_or(late),
                    false => v4.await,
                };
                (other, first)
            }
        };
        match (v4, v6) {
            (Ok((mut v4, ttl4)), Ok((v6, ttl6))) => {
                v4.extend(v6);
                Ok((v4, ttl4.min(ttl6)))
            }
            (Ok(one), Err(_)) | (Err(_), Ok(one)) => Ok(one),
            // Of two reasons the one that says that nobody knows weighs more.
            (Err(Unresolved::NoSuchName | Unresolved::NoAddress), Err(why)) => Err(why),
            (Err(why), Err(_)) => Err(why),
        }
    }

    /// The addresses of one family, from the first resolver that answers.
    async fn family(
        &self,
        name: &PrivateName,
        family: Family,
    ) -> Result<(Vec<IpAddr>, u32), Unresolved> {
        let mut why = Unresolved::NoWay;
        for resolver in name.resolvers.iter().cycle().take(ATTEMPTS) {
            let way = self
                .handoff
                .way(Network::Private(Some(name.vnet)), *resolver);
            let is_behind = self.handoff.is_behind(name.vnet, name.tunnel, *resolver);
            let (Ok(way), true) = (way, is_behind) else {
                continue;
            };
            let question = Question::new(random_id(), &name.name, family);
            let question = question.ok_or(Unresolved::NoSuchName)?;
            self.counters.resolve_queries_total.increment();
            let to = SocketAddr::new(*resolver, self.port);
            match ask::ask(&self.handoff, (way, to), &question, ATTEMPT).await {
                Ok(Answer::Addresses(addresses, ttl)) => return Ok((addresses, ttl)),
                Ok(Answer::None) => return Err(Unresolved::NoAddress),
                Ok(Answer::NoSuchName) => return Err(Unresolved::NoSuchName),
                Ok(Answer::Failed) => why = Unresolved::Failed,
                Err(error) if error.kind() == io::ErrorKind::TimedOut => why = Unresolved::Silent,
                Err(error) => {
                    tracing::debug!(%resolver, %error, "a resolver gave no answer");
                    why = Unresolved::Failed;
                }
            }
        }
        Err(why)
    }
}

/// What makes an answer one's own: nothing that another account, vnet or tunnel could share.
fn key(name: &PrivateName) -> String {
    let PrivateName {
        account_id,
        route_id,
        resolvers,
        vnet,
        tunnel,
        name,
    } = name;
    format!(
        "{account_id} {route_id} {} {} {resolvers:?} {name}",
        vnet.0, tunnel.0
    )
}

/// An identifier that nobody guesses (RFC 5452, section 9.2).
fn random_id() -> u16 {
    let mut bytes = [0; 2];
    SystemRandom::new()
        .fill(&mut bytes)
        .expect("the system has random bytes once it runs");
    u16::from_be_bytes(bytes)
}

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod tests;
