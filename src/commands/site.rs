//! `portcullis site`: the router on the customer's network.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use dataplane::fib::Nexthop;
use dataplane::id::{TunnelId, VnetId};
use dataplane::io::{Overlay, Router, RouterConfig, TunConfig};
use dataplane::program::{Route, RouteKey, Spec, Tunnel, Vnet};
use dataplane::tunnel;

use crate::config::Uplink;
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
    let uplink = config.uplink()?;
    let spec = spec(&config, &uplink)?;
    let mut listen = config.router.listen.clone();
    let (edge, gre) = match &uplink {
        Uplink::WireGuard(wireguard) => {
            if listen.is_empty() {
                listen.push(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)));
            }
            (wireguard.endpoint.to_string(), Vec::new())
        }
        Uplink::Gre(gre) => (gre.remote.to_string(), vec![gre.local]),
    };
    let router = RouterConfig {
        tun: TunConfig {
            name: config.router.tun.clone(),
            mtu: mtu(&config, &uplink),
            backend: config.router.tun_backend.into(),
        },
        workers: None,
        listen,
        ipsec: Vec::new(),
        gre,
        overlay: Overlay::Site {
            routes: [uplink.routes(), direct_prefixes(&config)].concat(),
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
        admin::serve(&config.admin_socket, handle.clone(), None)?;
        tracing::info!(%edge, "ready");
        tokio::select! {
            signal = super::stop_signal() => signal,
            failed = super::router_failed(&handle) => Err(failed),
        }
    });
    handle.shutdown();
    served
}

/// Largest inner packet.
fn mtu(config: &config::Site, uplink: &Uplink<'_>) -> u16 {
    config.router.mtu.unwrap_or_else(|| uplink.mtu())
}

/// What is behind direct links.
fn direct_prefixes(config: &config::Site) -> Vec<ipnet::IpNet> {
    let all = config.direct.iter().flat_map(|direct| &direct.prefixes);
    all.map(ipnet::IpNet::trunc).collect()
}

/// The site's desired state: the edge behind the tunnel, the LAN behind this machine,
/// other networks behind direct links.
fn spec(config: &config::Site, uplink: &Uplink<'_>) -> anyhow::Result<Spec> {
    let (far, mtu) = (uplink.routes(), mtu(config, uplink));
    let kind = match uplink {
        Uplink::WireGuard(wireguard) => tunnel::Config::WireGuard(tunnel::wireguard::Config {
            private_key: wireguard.private_key()?,
            peer: wireguard.peer_public_key,
            preshared_key: wireguard.preshared_key,
            endpoint: Some(wireguard.endpoint),
            keepalive: Some(wireguard.keepalive),
        }),
        Uplink::Gre(gre) => tunnel::Config::Gre(gre.tunnel()?),
    };
    let tunnel = Tunnel {
        vnet: VNET,
        name: "edge".into(),
        mtu,
        allowed: far.clone(),
        interface: Vec::new(),
        health: None,
        kind,
    };
    let mut spec = Spec {
        revision: 1,
        ..Spec::default()
    };
    spec.vnets.insert(
        VNET,
        Vnet {
            name: "site".into(),
        },
    );
    spec.tunnels.insert(TUNNEL, tunnel);
    for (id, direct) in (TUNNEL.0 + 1..).map(TunnelId).zip(&config.direct) {
        let device = direct.device.clone();
        let tunnel = Tunnel {
            vnet: VNET,
            name: device.clone(),
            mtu,
            allowed: direct.prefixes.clone(),
            interface: Vec::new(),
            health: None,
            kind: tunnel::Config::Direct(tunnel::direct::Config {
                device,
                addresses: direct.addresses.clone(),
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
