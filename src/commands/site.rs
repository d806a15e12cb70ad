//! `portcullis site`: the router on the customer's network.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use dataplane::fib::Nexthop;
use dataplane::id::{TunnelId, VnetId};
use dataplane::io::{Overlay, Router, RouterConfig, TunConfig};
use dataplane::program::{Route, RouteKey, Spec, Tunnel, Vnet};
use dataplane::{source, tunnel};

use crate::{admin, config};

/// Arguments of `portcullis site`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The configuration, a TOML file.
    #[arg(long, env = "PORTCULLIS_CONFIG")]
    config: PathBuf,
}

/// A site knows one vnet: the one its tunnel is in at the edge.
const VNET: VnetId = VnetId(1);
/// The tunnel to the edge. The direct links have the numbers behind it.
const TUNNEL: TunnelId = TunnelId(1);

/// Runs until a signal.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let config: config::Site = config::read(&args.config)?;
    let way = way(&config)?;
    let spec = spec(&config, &way)?;
    let listen = match way {
        Way::Ipsec(_) | Way::Gre(_) => Vec::new(),
        Way::WireGuard(_) if config.router.listen.is_empty() => {
            vec![SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))]
        }
        Way::WireGuard(_) => config.router.listen.clone(),
    };
    let router = RouterConfig {
        tun: TunConfig {
            name: config.router.tun.clone(),
            mtu: way.mtu(&config.router)?,
            backend: config.router.tun_backend.into(),
        },
        workers: None,
        listen,
        ipsec: way.ipsec(),
        gre: way.gre(),
        relay: None,
        overlay: Overlay::Site {
            routes: [way.routes(), direct_prefixes(&config)].concat(),
            address: config.router.address,
        },
        endpoint_cache: None,
    };
    let handle = Router::start(router)?;
    let applied = handle.apply(&Spec::default().diff(&spec));
    if let Some((key, reason)) = applied.rejected.first() {
        anyhow::bail!("the configuration cannot be carried out: {key:?}: {reason}");
    }
    let served = super::admin_runtime()?.block_on(async {
        admin::serve(&config.admin_socket, admin::shown(handle.clone(), None))?;
        tracing::info!(edge = %way.edge(), "ready");
        tokio::select! {
            signal = super::stop_signal() => signal,
            failed = super::router_failed(&handle) => Err(failed),
        }
    });
    handle.shutdown();
    served
}

/// The tunnel to the edge, of whatever kind.
enum Way<'a> {
    WireGuard(&'a config::SiteWireGuard),
    Ipsec(&'a config::SiteIpsec),
    Gre(&'a config::SiteGre),
}

fn way(config: &config::Site) -> anyhow::Result<Way<'_>> {
    match (&config.wireguard, &config.ipsec, &config.gre) {
        (Some(wireguard), None, None) => Ok(Way::WireGuard(wireguard)),
        (None, Some(ipsec), None) => Ok(Way::Ipsec(ipsec)),
        (None, None, Some(gre)) => Ok(Way::Gre(gre)),
        _ => anyhow::bail!("a site has one tunnel to the edge: give [wireguard], [ipsec] or [gre]"),
    }
}

impl Way<'_> {
    /// What is reached through the edge.
    fn routes(&self) -> Vec<ipnet::IpNet> {
        let routes = match self {
            Self::WireGuard(wireguard) => &wireguard.routes,
            Self::Ipsec(ipsec) => &ipsec.routes,
            Self::Gre(gre) => &gre.routes,
        };
        let all = || vec![source::RANGE_V4.into(), source::RANGE_V6.into()];
        routes.clone().unwrap_or_else(all)
    }

    /// The largest inner packet: over a 1500-byte IPv6 underlay, 80 bytes of headers, or up to 105
    /// with AES-CBC in UDP.
    fn mtu(&self, router: &config::SiteRouter) -> anyhow::Result<u16> {
        let default = match self {
            Self::WireGuard(_) => 1420,
            Self::Ipsec(_) => 1400,
            Self::Gre(gre) => gre.tunnel()?.mtu_default(),
        };
        Ok(router.mtu.unwrap_or(default))
    }

    /// Where IPsec is spoken.
    fn ipsec(&self) -> Vec<IpAddr> {
        match self {
            Self::WireGuard(_) | Self::Gre(_) => Vec::new(),
            Self::Ipsec(ipsec) => vec![ipsec.local],
        }
    }

    /// Where GRE is spoken.
    fn gre(&self) -> Vec<IpAddr> {
        match self {
            Self::WireGuard(_) | Self::Ipsec(_) => Vec::new(),
            Self::Gre(gre) => vec![gre.local],
        }
    }

    /// Where the edge is, for people.
    fn edge(&self) -> String {
        match self {
            Self::WireGuard(wireguard) => wireguard.endpoint.to_string(),
            Self::Ipsec(ipsec) => ipsec.remote.to_string(),
            Self::Gre(gre) => gre.remote.to_string(),
        }
    }

    fn kind(&self) -> anyhow::Result<tunnel::Config> {
        Ok(match self {
            Self::Ipsec(ipsec) => tunnel::Config::IpSec(ipsec.tunnel()?),
            Self::Gre(gre) => tunnel::Config::Gre(gre.tunnel()?),
            Self::WireGuard(wireguard) => tunnel::Config::WireGuard(tunnel::wireguard::Config {
                private_key: wireguard.private_key()?,
                peer: wireguard.peer_public_key,
                preshared_key: wireguard.preshared_key,
                endpoint: Some(wireguard.endpoint),
                keepalive: Some(wireguard.keepalive),
            }),
        })
    }
}

/// What is behind direct links.
fn direct_prefixes(config: &config::Site) -> Vec<ipnet::IpNet> {
    let all = config.direct.iter().flat_map(|direct| &direct.prefixes);
    all.map(ipnet::IpNet::trunc).collect()
}

/// The site's desired state: the edge behind the tunnel, the LAN behind this machine,
/// other networks behind direct links.
fn spec(config: &config::Site, way: &Way<'_>) -> anyhow::Result<Spec> {
    let far = way.routes();
    let mtu = way.mtu(&config.router)?;
    let tunnel = Tunnel {
        vnet: VNET,
        name: "edge".into(),
        mtu,
        allowed: far.clone(),
        interface: config.router.interface.clone(),
        health: config.router.health.clone(),
        kind: way.kind()?,
    };
    let mut spec = Spec {
        revision: 1,
        ..Spec::default()
    };
    spec.vnets.insert(VNET, Vnet::named("site"));
    spec.tunnels.insert(TUNNEL, tunnel);
    for (id, direct) in (TUNNEL.0 + 1..).map(TunnelId).zip(&config.direct) {
        let device = direct.device.clone();
        let tunnel = Tunnel {
            vnet: VNET,
            name: device.clone(),
            mtu,
            allowed: direct.prefixes.clone(),
            interface: direct.interface.clone(),
            health: direct.health.clone(),
            kind: tunnel::Config::Direct(tunnel::direct::Config {
                device,
                medium: direct.medium()?,
            }),
        };
        spec.tunnels.insert(id, tunnel);
        for prefix in &direct.prefixes {
            let (vnet, prefix) = (VNET, prefix.trunc());
            let route = Route::from(Nexthop::Tunnel(id));
            spec.routes.insert(RouteKey { vnet, prefix }, route);
        }
    }
    let far = far
        .into_iter()
        .map(|prefix| (prefix, Nexthop::Tunnel(TUNNEL)));
    let near = config
        .router
        .lan
        .iter()
        .map(|prefix| (*prefix, Nexthop::Local));
    for (prefix, nexthop) in far.chain(near) {
        spec.routes.insert(
            RouteKey {
                vnet: VNET,
                prefix: prefix.trunc(),
            },
            Route::from(nexthop),
        );
    }
    Ok(spec)
}
