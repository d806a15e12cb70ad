//! The kernel's side: link, addresses, routes, rules and switches, put up at start and taken down.
//!
//! Every route and rule carries the protocol number [`PROTOCOL`], so what a crash left behind is
//! found and replaced, and nothing that somebody else made is touched. One router per network
//! namespace.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use futures_util::TryStreamExt;
use ipnet::IpNet;
use rtnetlink::packet_route::IpProtocol;
use rtnetlink::packet_route::link::LinkAttribute;
use rtnetlink::packet_route::route::{RouteMessage, RouteProtocol, RouteType};
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use rtnetlink::{Handle, IpVersion, LinkMessageBuilder, LinkUnspec, RouteMessageBuilder};

use crate::packet::Outbox;

/// Marks our routes and rules (`rtm_protocol`). iproute2's `rt_protos` and FRR name 186 to 200; from
/// there on numbers are free.
pub const PROTOCOL: u8 = 201;

/// The table that what leaves from a source address is routed by.
pub const TABLE: u32 = 100;

/// The same routes for TCP. The kernel keeps with a route what it hears of the MTU of a path, from anybody who quotes
/// a ping that it may have sent: it is not to be heard by streams.
pub const STREAMS_TABLE: u32 = 101;

/// Before the main table (32766), after the local one (0). TCP's rule is one before it.
pub const RULE_PRIORITY: u32 = 1000;

/// Below every other route of [`TABLE`] and [`STREAMS_TABLE`].
const LAST_RESORT: u32 = u32::MAX - 1;

/// Bursts of a sender wait in the device, not in the worker.
const TX_QUEUE_LEN: u32 = 10_000;

/// `RT_TABLE_LOCAL` (rtnetlink(7)).
const LOCAL_TABLE: u32 = 255;

/// What the kernel is to be told.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The TUN device, which exists.
    pub tun: String,
    /// Its MTU.
    pub mtu: u16,
    /// Which side of a tunnel this machine is.
    pub side: Side,
}

/// Which side of a tunnel this machine is.
#[derive(Clone, Debug)]
pub enum Side {
    /// Sockets of this machine bind to addresses of these prefixes; what they send goes to the TUN.
    Edge {
        /// The slice, IPv4 and IPv6.
        sources: Vec<IpNet>,
    },
    /// This machine forwards between its LAN and the TUN.
    Site {
        /// Destinations behind the TUN.
        routes: Vec<IpNet>,
        /// The TUN's own address, which ICMP errors come from.
        address: IpAddr,
    },
}

/// A step that the kernel refused.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {source}")]
pub struct RouteError {
    /// What was tried, in the words of ip(8).
    pub step: String,
    /// The kernel's answer.
    pub source: io::Error,
}

/// What was put up, and how the switches stood before.
#[derive(Debug)]
pub struct Installed {
    switches: Vec<(PathBuf, String)>,
}

impl Installed {
    /// Removes what carries our mark, and puts the switches back. Routes through the TUN and
    /// addresses on it go with the device.
    ///
    /// # Errors
    /// The first step that the kernel refused; the others were done all the same.
    pub fn remove(self) -> Result<(), RouteError> {
        let purged = run(async |handle| purge(&handle).await);
        for (path, before) in self.switches.iter().rev() {
            if let Err(error) = std::fs::write(path, before) {
                tracing::warn!(path = %path.display(), %error, "a switch stays as it is");
            }
        }
        purged
    }
}

/// Puts the plan up. Leftovers of an earlier run are replaced.
///
/// # Errors
/// The step that the kernel refused; what was put up before it is gone again.
pub fn install(plan: &Plan) -> Result<Installed, RouteError> {
    let mut installed = Installed {
        switches: Vec::new(),
    };
    let done = switches(plan, &mut installed.switches).and_then(|()| {
        run(async |handle| {
            purge(&handle).await?;
            let tun = link(&handle, &plan.tun).await?;
            raise_link(&handle, (&plan.tun, plan.mtu), tun).await?;
            limit_super_packets(&handle, (&plan.tun, plan.mtu), tun).await;
            match &plan.side {
                Side::Edge { sources } => edge(&handle, tun, sources).await,
                Side::Site { routes, address } => {
                    site(&handle, (tun, &plan.tun), routes, *address).await
                }
            }
        })
    });
    match done {
        Ok(()) => Ok(installed),
        Err(error) => {
            if let Err(error) = installed.remove() {
                tracing::debug!(%error, "while taking down a half-made set-up");
            }
            Err(error)
        }
    }
}

/// Sets the device of a direct link up, where it still is in this namespace: its other side moves
/// it to where the network is.
///
/// # Errors
/// The step that the kernel refused.
pub fn raise(device: &str, mtu: u16) -> Result<(), RouteError> {
    run(async |handle| match link(&handle, device).await {
        Ok(index) => raise_link(&handle, (device, mtu), index).await,
        // Moved: whoever moved it sets it up there.
        Err(error) if is_missing(&error.source) => Ok(()),
        Err(error) => Err(error),
    })
}

/// Has the kernel's own stack keep out of an Ethernet port that is the router's: nothing that comes in
/// by it is forwarded or delivered, answered for, or sent on its own account. It stays so.
///
/// # Errors
/// The switch that could not be set.
pub fn seal(device: &str) -> Result<(), RouteError> {
    let v4 = PathBuf::from(format!("/proc/sys/net/ipv4/conf/{device}"));
    // No route leads there, so that every source is a false one.
    for (switch, value) in [
        ("rp_filter", "1"),
        ("forwarding", "0"),
        ("arp_ignore", "8"),
        ("accept_local", "0"),
        ("drop_unicast_in_l2_multicast", "1"),
    ] {
        set(&v4.join(switch), value)?;
    }
    let v6 = PathBuf::from(format!("/proc/sys/net/ipv6/conf/{device}/disable_ipv6"));
    if v6.exists() {
        set(&v6, "1")?;
    }
    Ok(())
}

/// Sets an Ethernet port up. Its MTU is its owner's business: other links may share it.
///
/// # Errors
/// The step that the kernel refused.
pub fn raise_port(device: &str) -> Result<(), RouteError> {
    run(async |handle| {
        let index = link(&handle, device).await?;
        let message = LinkMessageBuilder::<LinkUnspec>::new().index(index).up();
        let change = handle.link().change(message.build()).execute();
        let step = || format!("ip link set {device} up");
        change.await.map_err(|error| refused(step(), error))
    })
}

fn is_missing(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(nix::libc::ENODEV)
}

/// Runs one conversation with the kernel to its end, on a thread of its own: callers may be on one that
/// drives a runtime, where none else can be waited for.
fn run<T: Send>(
    work: impl AsyncFnOnce(Handle) -> Result<T, RouteError> + Send,
) -> Result<T, RouteError> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("netlink".into());
        let talk = thread.spawn_scoped(scope, || talk(work)).map_err(failed)?;
        talk.join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn failed(source: io::Error) -> RouteError {
    RouteError {
        step: "netlink socket".into(),
        source,
    }
}

fn talk<T>(work: impl AsyncFnOnce(Handle) -> Result<T, RouteError>) -> Result<T, RouteError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .map_err(failed)?;
    runtime.block_on(async {
        // Strict, so that the kernel filters a dump by protocol: the machine may hold a full table.
        let (connection, handle, _) =
            rtnetlink::new_connection_with_strict_check().map_err(failed)?;
        let connection = tokio::spawn(connection);
        let result = work(handle).await;
        connection.abort();
        result
    })
}

async fn edge(handle: &Handle, tun: u32, sources: &[IpNet]) -> Result<(), RouteError> {
    let lo = link(handle, "lo").await?;
    for net in sources.iter().filter(|net| is_usable(net, "lo")) {
        let local = route(*net)?.output_interface(lo).table_id(LOCAL_TABLE);
        let local = local
            .kind(RouteType::Local)
            .scope(scope_of_local(*net))
            .build();
        add_route(handle, local, || format!("ip route add local {net} dev lo")).await?;
        for table in [STREAMS_TABLE, TABLE] {
            way_out(handle, tun, default_of(*net), table).await?;
            add_rule(handle, *net, table).await?;
        }
    }
    Ok(())
}

/// The routes of one table: into the TUN, and nowhere else.
async fn way_out(handle: &Handle, tun: u32, all: IpNet, table: u32) -> Result<(), RouteError> {
    let default = route(all)?.output_interface(tun).table_id(table).build();
    add_route(handle, default, || {
        format!("ip route add default dev tun table {table}")
    })
    .await?;
    // Without a worker nothing with a vnet's source address may follow the main table.
    let refuse = route(all)?.kind(RouteType::Unreachable).table_id(table);
    let refuse = refuse.priority(LAST_RESORT).build();
    add_route(handle, refuse, || {
        format!("ip route add unreachable default table {table}")
    })
    .await
}

async fn site(
    handle: &Handle,
    (tun, tun_name): (u32, &str),
    routes: &[IpNet],
    address: IpAddr,
) -> Result<(), RouteError> {
    let bits = if address.is_ipv4() { 32 } else { 128 };
    let added = handle
        .address()
        .add(tun, address, bits)
        .replace()
        .execute()
        .await;
    added.map_err(|e| refused(format!("ip addr add {address}/{bits} dev tun"), e))?;
    for net in routes.iter().filter(|net| is_usable(net, tun_name)) {
        let message = route(*net)?.output_interface(tun).build();
        add_route(handle, message, || format!("ip route add {net} dev tun")).await?;
    }
    Ok(())
}

async fn raise_link(
    handle: &Handle,
    (device, mtu): (&str, u16),
    index: u32,
) -> Result<(), RouteError> {
    let message = LinkMessageBuilder::<LinkUnspec>::new()
        .index(index)
        .mtu(mtu.into())
        .txqueuelen(TX_QUEUE_LEN)
        .up()
        .build();
    let step = || format!("ip link set {device} up mtu {mtu} txqueuelen {TX_QUEUE_LEN}");
    handle
        .link()
        .change(message)
        .execute()
        .await
        .map_err(|e| refused(step(), e))
}

/// Asks TCP for super-packets that become one train each. A longer one, of 64 KiB, becomes a full
/// train and a short one: two calls for what one could carry.
async fn limit_super_packets(handle: &Handle, (device, mtu): (&str, u16), index: u32) {
    /// What WireGuard adds to a packet.
    const OVERHEAD: usize = 32;
    let segments = Outbox::segments_of_train(usize::from(mtu) + OVERHEAD);
    let segments = u32::try_from(segments).expect("a train has at most 64");
    let message = LinkMessageBuilder::<LinkUnspec>::new()
        .index(index)
        .append_extra_attribute(LinkAttribute::GsoMaxSegs(segments))
        .build();
    if let Err(error) = handle.link().change(message).execute().await {
        tracing::debug!(device, segments, %error, "super-packets stay as long as they are");
    }
}

async fn link(handle: &Handle, name: &str) -> Result<u32, RouteError> {
    let mut links = handle.link().get().match_name(name).execute();
    let found = links
        .try_next()
        .await
        .map_err(|e| refused(format!("ip link show {name}"), e))?;
    found
        .map(|link| link.header.index)
        .ok_or_else(|| RouteError {
            step: format!("ip link show {name}"),
            source: io::ErrorKind::NotFound.into(),
        })
}

fn route(to: IpNet) -> Result<RouteMessageBuilder<IpAddr>, RouteError> {
    let prefix = RouteMessageBuilder::<IpAddr>::new()
        .protocol(RouteProtocol::Other(PROTOCOL))
        .destination_prefix(to.network(), to.prefix_len());
    prefix.map_err(|error| RouteError {
        step: format!("route to {to}"),
        source: io::Error::new(io::ErrorKind::InvalidInput, error),
    })
}

async fn add_route(
    handle: &Handle,
    route: RouteMessage,
    step: impl Fn() -> String,
) -> Result<(), RouteError> {
    // Exclusive: an equal route that is not ours is an error, not ours to replace.
    handle
        .route()
        .add(route)
        .execute()
        .await
        .map_err(|e| refused(step(), e))
}

async fn add_rule(handle: &Handle, from: IpNet, table: u32) -> Result<(), RouteError> {
    let mut attributes = vec![RuleAttribute::Protocol(RouteProtocol::Other(PROTOCOL))];
    let (mut priority, mut which) = (RULE_PRIORITY, "");
    if table == STREAMS_TABLE {
        attributes.push(RuleAttribute::IpProtocol(IpProtocol::Tcp));
        (priority, which) = (RULE_PRIORITY - 1, " ipproto tcp");
    }
    let rule = handle.rule().add().table_id(table).priority(priority);
    let rule = rule.action(RuleAction::ToTable);
    let added = match from {
        IpNet::V4(net) => {
            let mut rule = rule.v4().source_prefix(net.network(), net.prefix_len());
            rule.message_mut().attributes.append(&mut attributes);
            rule.execute().await
        }
        IpNet::V6(net) => {
            let mut rule = rule.v6().source_prefix(net.network(), net.prefix_len());
            rule.message_mut().attributes.append(&mut attributes);
            rule.execute().await
        }
    };
    added.map_err(|e| refused(format!("ip rule add from {from}{which} lookup {table}"), e))
}

/// Deletes every rule and route with our mark. A family that the kernel lacks has none.
async fn purge(handle: &Handle) -> Result<(), RouteError> {
    for version in [IpVersion::V4, IpVersion::V6] {
        let rules = handle.rule().get(version.clone()).execute();
        let rules: Vec<RuleMessage> = rules.try_collect().await.unwrap_or_default();
        for rule in rules.into_iter().filter(is_our_rule) {
            let gone = handle.rule().del(rule).execute().await;
            gone.or_else(unless_gone)
                .map_err(|e| refused("ip rule del".into(), e))?;
        }
        let mut wanted = match version {
            IpVersion::V4 => RouteMessageBuilder::<Ipv4Addr>::new().build(),
            IpVersion::V6 => RouteMessageBuilder::<Ipv6Addr>::new().build(),
        };
        wanted.header.protocol = RouteProtocol::Other(PROTOCOL);
        wanted.header.table = 0;
        wanted.header.scope = 0.into();
        wanted.header.kind = RouteType::Unspec;
        let routes: Vec<RouteMessage> = handle
            .route()
            .get(wanted)
            .execute()
            .try_collect()
            .await
            .unwrap_or_default();
        for route in routes.into_iter().filter(is_our_route) {
            let gone = handle.route().del(route).execute().await;
            gone.or_else(unless_gone)
                .map_err(|e| refused("ip route del".into(), e))?;
        }
    }
    Ok(())
}

fn is_our_rule(rule: &RuleMessage) -> bool {
    rule.attributes
        .contains(&RuleAttribute::Protocol(RouteProtocol::Other(PROTOCOL)))
}

fn is_our_route(route: &RouteMessage) -> bool {
    route.header.protocol == RouteProtocol::Other(PROTOCOL)
}

/// What went by itself meanwhile is as good as deleted.
fn unless_gone(error: rtnetlink::Error) -> Result<(), rtnetlink::Error> {
    if let rtnetlink::Error::NetlinkError(message) = &error
        && matches!(-message.raw_code(), nix::libc::ESRCH | nix::libc::ENOENT)
    {
        return Ok(());
    }
    Err(error)
}

fn refused(step: String, error: rtnetlink::Error) -> RouteError {
    let source = if let rtnetlink::Error::NetlinkError(message) = &error {
        message.to_io()
    } else {
        io::Error::other(error)
    };
    RouteError { step, source }
}

/// The ports that the kernel gives to sockets that do not ask for one (`ip_local_port_range`, ip(7)).
pub fn local_ports() -> RangeInclusive<u16> {
    let set = read(Path::new("/proc/sys/net/ipv4/ip_local_port_range"));
    let range = set.as_deref().and_then(|set| {
        let (first, last) = set.split_once(char::is_whitespace)?;
        Some(first.trim().parse().ok()?..=last.trim().parse().ok()?)
    });
    // The kernel's default.
    range.unwrap_or(32_768..=60_999)
}

/// The ports among them that the kernel gives to nobody (`ip_local_reserved_ports`).
pub fn reserved_ports() -> Vec<RangeInclusive<u16>> {
    let set = read(Path::new("/proc/sys/net/ipv4/ip_local_reserved_ports"));
    let set = set.unwrap_or_default();
    let ranges = set.split(',').filter_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(first.parse().ok()?..=last.parse().ok()?)
    });
    ranges.collect()
}

/// Whether the machine has the family of `net` on `device`; many have IPv6 switched off.
fn is_usable(net: &IpNet, device: &str) -> bool {
    let switch = format!("/proc/sys/net/ipv6/conf/{device}/disable_ipv6");
    let is_usable = matches!(net, IpNet::V4(_)) || read(Path::new(&switch)).as_deref() == Some("0");
    if !is_usable {
        tracing::warn!(%net, device, "IPv6 is off on this device: no route, and no private IPv6");
    }
    is_usable
}

fn default_of(net: IpNet) -> IpNet {
    match net {
        IpNet::V4(_) => IpNet::V4(ipnet::Ipv4Net::default()),
        IpNet::V6(_) => IpNet::V6(ipnet::Ipv6Net::default()),
    }
}

/// IPv4 wants `RT_SCOPE_HOST` on local routes; IPv6 has no scopes there.
fn scope_of_local(net: IpNet) -> rtnetlink::packet_route::route::RouteScope {
    use rtnetlink::packet_route::route::RouteScope;
    match net {
        IpNet::V4(_) => RouteScope::Host,
        IpNet::V6(_) => RouteScope::Universe,
    }
}

/// Turns the kernel's switches, and remembers in `before` those that outlive the TUN device.
fn switches(plan: &Plan, before: &mut Vec<(PathBuf, String)>) -> Result<(), RouteError> {
    let tun = &plan.tun;
    let v4 = PathBuf::from(format!("/proc/sys/net/ipv4/conf/{tun}"));
    // The stricter of `all` and the device counts, and 2 (loose) is above 1 (strict): the device
    // alone is enough, whatever `all` says, and no other device gets laxer.
    let all = read(Path::new("/proc/sys/net/ipv4/conf/all/rp_filter"));
    set(
        &v4.join("rp_filter"),
        if all.as_deref() == Some("0") {
            "0"
        } else {
            "2"
        },
    )?;
    // ICMP errors of this node come in by the TUN from its own address.
    set(&v4.join("accept_local"), "1")?;
    let v6 = PathBuf::from(format!("/proc/sys/net/ipv6/conf/{tun}"));
    if v6.exists() {
        set(&v6.join("disable_ipv6"), "0")?;
        // No link-local address: the kernel's own multicast chatter has no place in a tunnel.
        set(&v6.join("addr_gen_mode"), "1")?;
    }
    let lasting: &[(&str, &str)] = match plan.side {
        // A local route is enough to bind for IPv4; IPv6 wants an address on a device, or this.
        Side::Edge { .. } => &[(
            "/proc/sys/net/ipv6/ip_nonlocal_bind",
            "sockets bind to sources",
        )],
        Side::Site { .. } => &[
            (
                "/proc/sys/net/ipv4/ip_forward",
                "this machine forwards IPv4",
            ),
            (
                "/proc/sys/net/ipv6/conf/all/forwarding",
                "this machine forwards IPv6",
            ),
        ],
    };
    for (path, why) in lasting {
        let path = Path::new(path);
        match read(path) {
            // No such switch, no such family.
            None => {}
            Some(value) if value == "1" => {}
            Some(value) => {
                set(path, "1")?;
                tracing::info!(path = %path.display(), before = value, "set to 1: {why}");
                before.push((path.to_owned(), value));
            }
        }
    }
    Ok(())
}

fn read(path: &Path) -> Option<String> {
    std::fs::read_to_string(path)
        .ok()
        .map(|value| value.trim().to_owned())
}

fn set(path: &Path, value: &str) -> Result<(), RouteError> {
    std::fs::write(path, value).map_err(|source| RouteError {
        step: format!("echo {value} > {}", path.display()),
        source,
    })
}
