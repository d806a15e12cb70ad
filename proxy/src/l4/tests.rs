//! Apps over real sockets on loopback: relays, half-close, sessions, withdrawal.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use controlplane::origin::{App, NamedOrigin, PrivateName, Transport};
use dataplane::id::{TunnelId, VnetId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::handoff::fake::FakeVnets;
use crate::resolve::fake::{Server, honest};
use crate::route::fake::{FakeOriginApi, TOKEN};
use crate::{Proxy, ProxyConfig, Upstreams};

const LONG: Duration = Duration::from_secs(20);

fn app(transport: Transport, edge: SocketAddr, origin: SocketAddr, vnet: Option<u16>) -> App {
    App {
        id: format!("{:032x}", edge.port()),
        zone_id: "0".repeat(32),
        hostname: "app.example.com".into(),
        transport,
        edge_addresses: vec![edge.ip()],
        edge_port: edge.port(),
        edge_port_end: edge.port(),
        origins: vec![origin],
        origin_port_end: origin.port(),
        vnet: vnet.map(VnetId),
        virtual_network_id: None,
        origin_name: None,
    }
}

/// A port that is free now, of those that the kernel gives to nobody who does not ask for one: no connection
/// gets it meanwhile. Each process begins at another.
async fn free_port() -> SocketAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let first = std::process::id().wrapping_mul(37);
    for _ in 0..1000 {
        let place = first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = 20_000 + u16::try_from(place % 12_000).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        if TcpListener::bind(address).await.is_ok() {
            return address;
        }
    }
    panic!("no port is free");
}

struct World {
    api: FakeOriginApi,
    vnets: Arc<FakeVnets>,
    proxy: Proxy,
}

impl World {
    async fn new(change: impl FnOnce(&mut ProxyConfig)) -> Self {
        let api = FakeOriginApi::start().await;
        let vnets = Arc::new(FakeVnets::default());
        vnets.lease(1, "127.0.0.11");
        vnets.route(1, "127.0.0.1");
        let mut config = ProxyConfig::new(api.address, TOKEN.to_owned());
        config.l4 = true;
        change(&mut config);
        let revision = api.revision.subscribe();
        let proxy = Proxy::start(
            config,
            Upstreams {
                tables: vnets.clone(),
                flows: None,
                device: None,
                names: None,
                revision,
            },
        )
        .unwrap();
        Self { api, vnets, proxy }
    }
}

async fn connect(to: SocketAddr) -> TcpStream {
    let trying = async {
        loop {
            match TcpStream::connect(to).await {
                Ok(stream) => return stream,
                Err(_not_yet) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    };
    timeout(LONG, trying).await.expect("the app listens")
}

#[tokio::test]
async fn tcp_app_keeps_half_close_and_starts_from_its_vnets_address() {
    let world = World::new(|_| {}).await;
    let origin = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let edge = free_port().await;
    let to = origin.local_addr().unwrap();
    world
        .api
        .set_apps(vec![app(Transport::Tcp, edge, to, Some(1))]);
    let mut client = connect(edge).await;
    let (mut server, peer) = timeout(LONG, origin.accept()).await.unwrap().unwrap();
    assert_eq!(peer.ip().to_string(), "127.0.0.11");
    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();
    let mut question = String::new();
    timeout(LONG, server.read_to_string(&mut question))
        .await
        .unwrap()
        .unwrap();
    server.write_all(b"answer").await.unwrap();
    drop(server);
    let mut answer = String::new();
    timeout(LONG, client.read_to_string(&mut answer))
        .await
        .unwrap()
        .unwrap();
    assert_eq!((question.as_str(), answer.as_str()), ("question", "answer"));
}

#[tokio::test]
async fn withdrawn_app_closes_its_flows_and_leaves_others_alone() {
    let world = World::new(|_| {}).await;
    let origin = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = origin.local_addr().unwrap();
    let (first, second) = (free_port().await, free_port().await);
    let apps = [first, second].map(|edge| app(Transport::Tcp, edge, to, Some(1)));
    world.api.set_apps(apps.to_vec());
    let mut goes = connect(first).await;
    let (_goes_server, _) = origin.accept().await.unwrap();
    let mut stays = connect(second).await;
    let (mut server, _) = origin.accept().await.unwrap();
    world.api.set_apps(apps[1..].to_vec());
    assert_eq!(
        timeout(LONG, goes.read(&mut [0; 1]))
            .await
            .unwrap()
            .unwrap_or(0),
        0
    );
    server.write_all(b"x").await.unwrap();
    assert_eq!(timeout(LONG, stays.read_u8()).await.unwrap().unwrap(), b'x');
    world.vnets.withdraw(1);
    assert!(timeout(LONG, stays.read_u8()).await.unwrap().is_err());
    assert_eq!(world.proxy.counters().tcp_withdrawn_total, 2);
}

#[tokio::test]
async fn tcp_app_without_a_way_is_closed_at_once() {
    let world = World::new(|_| {}).await;
    let edge = free_port().await;
    let to = "10.0.0.50:80".parse().unwrap();
    world
        .api
        .set_apps(vec![app(Transport::Tcp, edge, to, Some(1))]);
    let mut client = connect(edge).await;
    assert_eq!(
        timeout(LONG, client.read(&mut [0; 1]))
            .await
            .unwrap()
            .unwrap_or(0),
        0
    );
    // A connection that is reset during `connect` is tried again there: one or more.
    let counters = world.proxy.counters();
    assert!(counters.handoff_no_route_total >= 1);
    assert_eq!(counters.tcp_failed_total, counters.handoff_no_route_total);
}

#[tokio::test]
async fn idle_tcp_flow_is_closed() {
    let world = World::new(|config| config.timeouts.idle = Duration::from_millis(200)).await;
    let origin = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let edge = free_port().await;
    let to = origin.local_addr().unwrap();
    world
        .api
        .set_apps(vec![app(Transport::Tcp, edge, to, Some(1))]);
    let mut client = connect(edge).await;
    assert_eq!(
        timeout(LONG, client.read(&mut [0; 1]))
            .await
            .unwrap()
            .unwrap_or(0),
        0
    );
    assert_eq!(world.proxy.counters().tcp_idle_closed_total, 1);
}

#[tokio::test]
async fn udp_answers_reach_only_the_client_that_asked() {
    let world = World::new(|config| config.limits.udp_sessions_per_client = 2).await;
    let origin = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let to = origin.local_addr().unwrap();
    let edge = free_port().await;
    world
        .api
        .set_apps(vec![app(Transport::Udp, edge, to, Some(1))]);
    tokio::spawn(async move {
        let mut buffer = [0; 2000];
        while let Ok((length, peer)) = origin.recv_from(&mut buffer).await {
            assert_eq!(peer.ip().to_string(), "127.0.0.11");
            origin.send_to(&buffer[..length], peer).await.unwrap();
        }
    });
    let mut clients = Vec::new();
    for name in [b'a', b'b', b'c'] {
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        client.connect(edge).await.unwrap();
        clients.push((name, client));
    }
    for (name, client) in &clients[..2] {
        let asking = async {
            loop {
                client.send(&[*name]).await.ok();
                let mut answer = [0; 8];
                let wait = Duration::from_millis(50);
                if let Ok(Ok(length)) = timeout(wait, client.recv(&mut answer)).await {
                    return answer[..length].to_vec();
                }
            }
        };
        assert_eq!(timeout(LONG, asking).await.unwrap(), [*name]);
    }
    clients[2].1.send(b"c").await.unwrap();
    let refused = async {
        while world.proxy.counters().udp_refused_total == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LONG, refused).await.unwrap();
    assert_eq!(world.proxy.counters().udp_sessions_total, 2);
}

/// A resolver at 127.0.0.21 that has 127.0.0.1 for every name; its port.
async fn resolver() -> u16 {
    let server = Server::with("127.0.0.21", 0, honest(&["127.0.0.1"], 60)).await;
    server.address.port()
}

fn named(app: App) -> App {
    let name = PrivateName {
        account_id: "0".repeat(32),
        route_id: uuid::Uuid::nil(),
        name: "db.corp.internal".to_owned(),
        resolvers: vec!["127.0.0.21".parse().unwrap()],
        vnet: VnetId(1),
        tunnel: TunnelId(1),
    };
    let port = app.origins[0].port();
    App {
        origins: Vec::new(),
        origin_name: Some(NamedOrigin {
            name,
            port,
            ipv4: true,
            ipv6: true,
        }),
        ..app
    }
}

#[tokio::test]
async fn apps_whose_origin_is_a_name_reach_the_address_that_their_network_gives_it() {
    let port = resolver().await;
    let world = World::new(|config| {
        config.resolver_port = port;
        config.allow_local_origins = true;
    })
    .await;
    world.vnets.route(1, "127.0.0.21");
    let origin = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = origin.local_addr().unwrap();
    let echo = UdpSocket::bind(to).await.unwrap();
    let (first, second) = (free_port().await, free_port().await);
    world.api.set_apps(vec![
        named(app(Transport::Tcp, first, to, Some(1))),
        named(app(Transport::Udp, second, to, Some(1))),
    ]);
    let _client = connect(first).await;
    let (_server, peer) = timeout(LONG, origin.accept()).await.unwrap().unwrap();
    assert_eq!(peer.ip().to_string(), "127.0.0.11");
    tokio::spawn(async move {
        let mut buffer = [0; 2_000];
        while let Ok((length, peer)) = echo.recv_from(&mut buffer).await {
            assert_eq!(peer.ip().to_string(), "127.0.0.11");
            echo.send_to(&buffer[..length], peer).await.unwrap();
        }
    });
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client.connect(second).await.unwrap();
    let asking = async {
        loop {
            client.send(b"x").await.ok();
            let mut answer = [0; 8];
            let wait = Duration::from_millis(50);
            if let Ok(Ok(length)) = timeout(wait, client.recv(&mut answer)).await {
                return answer[..length].to_vec();
            }
        }
    };
    assert_eq!(timeout(LONG, asking).await.unwrap(), b"x");
}
