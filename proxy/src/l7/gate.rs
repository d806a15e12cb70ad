//! The gate: a request's way through the proxy, as pingora's phases.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use controlplane::origin::HostAnswer;
use http::Method;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::protocols::Digest;
use pingora::proxy::{FailToProxy, ProxyHttp, Session};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorSource, ErrorType, Result};

use super::fault::Fault;
use super::page::page;
use super::ray::{Ray, Rays};
use super::{headers, host};
use crate::config::{ProxyConfig, Timeouts};
use crate::counters::Counters;
use crate::handoff::{Handoff, Network, Way};
use crate::resolve::Resolver;
use crate::route::Routes;

/// Connections tried for one request: the first address, and one other after it failed.
const CONNECTS_MAX: usize = 2;

/// Decides about requests. One per lane.
pub(crate) struct Gate {
    routes: Arc<Routes>,
    resolver: Arc<Resolver>,
    handoff: Arc<Handoff>,
    counters: Arc<Counters>,
    rays: Rays,
    times: Timeouts,
    origin_port: u16,
}

/// One request on its way.
pub(crate) struct Visit {
    ray: Ray,
    client: IpAddr,
    is_https: bool,
    network: Network,
    /// Where to try, best first; not empty once the request is on its way to an origin.
    targets: Vec<IpAddr>,
    /// Targets that failed.
    failed: usize,
    /// How to the target that is tried, and its address.
    way: Option<(Way, SocketAddr)>,
    fault: Option<Fault>,
    /// Where the client is sent instead: the same over HTTPS.
    elsewhere: Option<String>,
    /// How long the origin may take, if the zone says so.
    read: Option<Duration>,
}

impl Gate {
    pub(crate) fn new(
        config: &ProxyConfig,
        (routes, resolver): (&Arc<Routes>, &Arc<Resolver>),
        handoff: &Arc<Handoff>,
        counters: &Arc<Counters>,
    ) -> Self {
        Self {
            routes: Arc::clone(routes),
            resolver: Arc::clone(resolver),
            handoff: Arc::clone(handoff),
            counters: Arc::clone(counters),
            rays: Rays::new(&config.colo),
            times: config.timeouts.clone(),
            origin_port: config.origin_port,
        }
    }

    /// Reads the request and asks where it goes.
    async fn admit(&self, request: &RequestHeader, visit: &mut Visit) -> Result<(), Fault> {
        headers::check(request)?;
        let host = host::of_request(request)?;
        let answer = self.routes.host(&host).await.map_err(Fault::Lookup)?;
        let answer = answer.ok_or(Fault::UnknownHost)?;
        if answer.always_use_https && !visit.is_https {
            let rest = request
                .uri
                .path_and_query()
                .map_or("/", |rest| rest.as_str());
            visit.elsewhere = Some(format!("https://{host}{rest}"));
            return Ok(());
        }
        visit.read = answer
            .read_timeout_secs
            .map(|secs| Duration::from_secs(secs.into()));
        visit.network = network(&answer);
        visit.targets = match &answer.private_name {
            None => targets(&answer.ipv4_addresses, &answer.ipv6_addresses, visit.client),
            Some(name) => {
                let found = self.resolver.addresses(name).await;
                resolved_targets(&found.map_err(Fault::Unresolved)?, visit.client)
            }
        };
        if visit.targets.is_empty() {
            Err(Fault::NoAddress)
        } else {
            Ok(())
        }
    }

    /// The time for one attempt to connect, so that all of them keep the deadline.
    fn connect_time(&self, visit: &Visit) -> Duration {
        if visit.targets.len() > 1 {
            self.times.connect / 2
        } else {
            self.times.connect
        }
    }

    fn remaining_target(visit: &Visit) -> Option<IpAddr> {
        if visit.failed < CONNECTS_MAX {
            visit.targets.get(visit.failed).copied()
        } else {
            None
        }
    }
}

fn network(answer: &HostAnswer) -> Network {
    if answer.use_private_routing || answer.private_name.is_some() {
        Network::Private(answer.vnet)
    } else {
        Network::Public
    }
}

/// The addresses of an answer, IPv4 first, each family in an order that is the same for one client
/// and differs among clients.
fn targets(v4: &[Ipv4Addr], v6: &[Ipv6Addr], client: IpAddr) -> Vec<IpAddr> {
    let mut hasher = DefaultHasher::new();
    client.hash(&mut hasher);
    let hash = hasher.finish();
    let v4 = turned(v4, hash).map(IpAddr::V4);
    let v6 = turned(v6, hash).map(IpAddr::V6);
    v4.chain(v6).collect()
}

/// The same of addresses of both families.
fn resolved_targets(addresses: &[IpAddr], client: IpAddr) -> Vec<IpAddr> {
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for address in addresses {
        match address {
            IpAddr::V4(ip) => v4.push(*ip),
            IpAddr::V6(ip) => v6.push(*ip),
        }
    }
    targets(&v4, &v6, client)
}

fn turned<T: Copy>(all: &[T], hash: u64) -> impl Iterator<Item = T> {
    let count = u64::try_from(all.len())
        .expect("a usize is not longer than a u64")
        .max(1);
    let first = usize::try_from(hash % count).expect("less than the length");
    let (before, after) = all.split_at(first);
    after.iter().chain(before).copied()
}

/// An error that stops pingora; the page that the client sees is in the visit.
fn stop(visit: &mut Visit, fault: Fault) -> Box<Error> {
    visit.fault = Some(fault);
    Error::new(ErrorType::HTTPStatus(fault.text().status))
}

#[async_trait]
impl ProxyHttp for Gate {
    type CTX = Visit;

    /// None: the default is a compressor that is switched off and still looks at every piece.
    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    fn new_ctx(&self) -> Visit {
        Visit {
            ray: self.rays.next(),
            client: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            is_https: false,
            network: Network::Private(None),
            targets: Vec::new(),
            failed: 0,
            way: None,
            fault: None,
            elsewhere: None,
            read: None,
        }
    }

    async fn request_filter(&self, session: &mut Session, visit: &mut Visit) -> Result<bool> {
        self.counters.requests_total.increment();
        if session.is_process_shutting_down() {
            session.set_keepalive(None);
        } else if session.get_keepalive().is_some() {
            session.set_keepalive(Some(self.times.client_keepalive.as_secs()));
        }
        session.set_write_timeout(Some(self.times.write));
        if let Some(address) = session.client_addr().and_then(|address| address.as_inet()) {
            visit.client = address.ip().to_canonical();
        }
        visit.is_https = session
            .digest()
            .is_some_and(|digest| digest.ssl_digest.is_some());
        if let Err(fault) = self.admit(session.req_header(), visit).await {
            return Err(stop(visit, fault));
        }
        match visit.elsewhere.take() {
            Some(location) => send_elsewhere(session, &location, &visit.ray)
                .await
                .map(|()| true),
            None => Ok(false),
        }
    }

    async fn upstream_peer(
        &self,
        session: &mut Session,
        visit: &mut Visit,
    ) -> Result<Box<HttpPeer>> {
        loop {
            let Some(target) = Self::remaining_target(visit) else {
                let fault = visit.fault.unwrap_or(Fault::NoAddress);
                return Err(stop(visit, fault));
            };
            match self.handoff.way(visit.network, target) {
                Ok(way) => {
                    let to = SocketAddr::new(target, self.origin_port);
                    visit.way = Some((way, to));
                    let connect = self.connect_time(visit);
                    let mut peer = self.handoff.peer(way, to, connect, &self.times);
                    if let Some(read) = visit.read {
                        peer.options.read_timeout = Some(read);
                    }
                    if session.is_upgrade_req() {
                        peer.options.read_timeout = Some(self.times.idle);
                    }
                    return Ok(Box::new(peer));
                }
                Err(refused) => {
                    visit.fault = Some(Fault::Handoff(refused));
                    visit.failed += 1;
                }
            }
        }
    }

    async fn connected_to_upstream(
        &self,
        _session: &mut Session,
        reused: bool,
        _peer: &HttpPeer,
        fd: RawFd,
        digest: Option<&Digest>,
        visit: &mut Visit,
    ) -> Result<()> {
        let local = digest
            .and_then(|digest| digest.socket_digest.as_ref())
            .and_then(|socket| socket.local_addr())
            .and_then(|address| address.as_inet().copied());
        let nowhere = SocketAddr::from(([0; 4], 0));
        let way = visit.way.unwrap_or((Way::Public, nowhere));
        if let Err(refused) = self.handoff.check_pooled(way, fd, local) {
            return Err(stop(visit, Fault::Handoff(refused)));
        }
        visit.fault = None;
        if reused {
            self.counters.upstream_reused_total.increment();
        } else {
            self.counters.upstream_new_total.increment();
        }
        Ok(())
    }

    fn fail_to_connect(
        &self,
        _session: &mut Session,
        peer: &HttpPeer,
        visit: &mut Visit,
        mut e: Box<Error>,
    ) -> Box<Error> {
        self.counters.upstream_failed_total.increment();
        let fault = Fault::of_upstream(e.etype(), visit.network != Network::Public);
        tracing::debug!(ray = %visit.ray, %peer, ?fault, "connecting to the origin failed");
        visit.fault = Some(fault);
        visit.failed += 1;
        e.set_retry(Self::remaining_target(visit).is_some());
        e
    }

    async fn upstream_request_filter(
        &self,
        _session: &mut Session,
        request: &mut RequestHeader,
        visit: &mut Visit,
    ) -> Result<()> {
        headers::to_origin(request, visit.client, visit.is_https, &visit.ray)
    }

    async fn response_filter(
        &self,
        _session: &mut Session,
        response: &mut ResponseHeader,
        visit: &mut Visit,
    ) -> Result<()> {
        headers::to_client(response, &visit.ray)
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        e: &Error,
        visit: &mut Visit,
    ) -> FailToProxy {
        let Some(fault) = visit.fault.or_else(|| fault_of(e, visit.network)) else {
            return FailToProxy {
                error_code: 0,
                can_reuse_downstream: false,
            };
        };
        let status = fault.text().status;
        // A response that has begun can only be cut off: pingora closes the connection.
        let has_begun = session
            .response_written()
            .is_some_and(|response| !response.status.is_informational());
        let is_early = visit.way.is_none() && session.is_body_empty();
        if !has_begun {
            self.counters.error_pages_total.increment();
            if !is_early {
                session.set_keepalive(None);
            }
            if let Err(why) = send_page(session, fault, &visit.ray).await {
                tracing::debug!(ray = %visit.ray, %why, "the client did not take an error page");
                return FailToProxy {
                    error_code: status,
                    can_reuse_downstream: false,
                };
            }
        }
        tracing::debug!(ray = %visit.ray, status, ?fault, cause = %e, "request failed");
        FailToProxy {
            error_code: status,
            can_reuse_downstream: is_early && !has_begun,
        }
    }

    fn suppress_error_log(&self, _session: &Session, _visit: &Visit, _error: &Error) -> bool {
        // Strangers cause most of them: they are counted, and logged at DEBUG above.
        true
    }
}

/// The fault behind an error of pingora's; `None` if the client is gone.
#[expect(clippy::wildcard_enum_match_arm, reason = "pingora's list is open")]
fn fault_of(e: &Error, network: Network) -> Option<Fault> {
    match e.esource() {
        ErrorSource::Upstream => Some(Fault::of_upstream(e.etype(), network != Network::Public)),
        ErrorSource::Downstream => match e.etype() {
            ErrorType::WriteError
            | ErrorType::WriteTimedout
            | ErrorType::ReadError
            | ErrorType::ConnectionClosed => None,
            ErrorType::ReadTimedout => Some(Fault::BadRequest("The request's body stopped.")),
            _ => Some(Fault::BadRequest("The request is not valid HTTP.")),
        },
        ErrorSource::Internal | ErrorSource::Unset => Some(Fault::Internal),
    }
}

/// Sends the client to another address, for good.
async fn send_elsewhere(session: &mut Session, location: &str, ray: &Ray) -> Result<()> {
    let mut header = ResponseHeader::build(301, Some(4))?;
    header.insert_header(http::header::LOCATION, location)?;
    header.insert_header(http::header::CONTENT_LENGTH, "0")?;
    headers::to_client(&mut header, ray)?;
    session.write_response_header(Box::new(header), true).await
}

async fn send_page(session: &mut Session, fault: Fault, ray: &Ray) -> Result<()> {
    let page = page(fault, ray, session.req_header())?;
    let is_head = session.req_header().method == Method::HEAD;
    session
        .write_response_header(Box::new(page.header), is_head)
        .await?;
    if !is_head {
        session.write_response_body(Some(page.body), true).await?;
    }
    Ok(())
}
