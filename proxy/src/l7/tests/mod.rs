//! Whole requests through a running proxy: real sockets on loopback, a fake Origin API, raw origins.
//!
//! Vnets lease 127.0.0.x: an origin sees by the peer's address which vnet a connection came from.

mod named;
mod user;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::handoff::Flows;
use crate::handoff::fake::FakeVnets;
use crate::route::fake::{FakeOriginApi, TOKEN};
use crate::{Proxy, ProxyConfig, StartError, Upstreams};

const LONG: Duration = Duration::from_secs(20);

/// What an origin does with a connection.
#[derive(Clone, Copy)]
enum Manner {
    /// Answers every request with its header as the body.
    Echo,
    /// Reads and never answers.
    Silent,
    /// Closes after the request.
    Close,
    /// Switches protocols and echoes.
    WebSocket,
    /// Answers in chunks with a trailer.
    Trailer,
    /// Answers the head of a long body, waits for the word, sends the rest.
    Slow(Duration),
}

struct Origin {
    address: SocketAddr,
    peers: Arc<Mutex<Vec<SocketAddr>>>,
    task: JoinHandle<()>,
}

impl Origin {
    async fn start(manner: Manner) -> Self {
        Self::at("127.0.0.1:0", manner).await
    }

    async fn at(address: &str, manner: Manner) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let peers = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&peers);
        let task = tokio::spawn(async move {
            while let Ok((stream, peer)) = listener.accept().await {
                seen.lock().unwrap().push(peer);
                tokio::spawn(serve(stream, manner));
            }
        });
        Self {
            address,
            peers,
            task,
        }
    }

    fn peer_ips(&self) -> Vec<String> {
        self.peers
            .lock()
            .unwrap()
            .iter()
            .map(|peer| peer.ip().to_string())
            .collect()
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut stream: TcpStream, manner: Manner) -> Option<()> {
    loop {
        let head = read_head(&mut stream).await?;
        match manner {
            Manner::Echo => {
                let length = head.len();
                let fields = "X-Accel-Redirect: /x\r\nServer: origin";
                let answer = format!(
                    "HTTP/1.1 200 OK\r\n{fields}\r\nContent-Length: {length}\r\n\r\n{head}"
                );
                stream.write_all(answer.as_bytes()).await.ok()?;
            }
            Manner::Silent => std::future::pending().await,
            Manner::Close => return None,
            Manner::WebSocket => {
                let answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
                              Upgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n";
                stream.write_all(answer.as_bytes()).await.ok()?;
                let (mut read, mut write) = stream.split();
                tokio::io::copy(&mut read, &mut write).await.ok()?;
                return None;
            }
            Manner::Trailer => {
                let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: sum\r\n\r\n\
                              5\r\nhello\r\n0\r\nsum: 42\r\n\r\n";
                stream.write_all(answer.as_bytes()).await.ok()?;
            }
            Manner::Slow(pause) => {
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")
                    .await
                    .ok()?;
                tokio::time::sleep(pause).await;
                stream.write_all(b"cd").await.ok()?;
            }
        }
    }
}

async fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    String::from_utf8(head).ok()
}

struct World {
    api: FakeOriginApi,
    vnets: Arc<FakeVnets>,
    proxy: Proxy,
}

impl World {
    async fn new(port: u16, change: impl FnOnce(&mut ProxyConfig)) -> Self {
        Self::with_flows(port, None, change).await
    }

    async fn with_flows(
        port: u16,
        flows: Option<Arc<dyn Flows>>,
        change: impl FnOnce(&mut ProxyConfig),
    ) -> Self {
        let api = FakeOriginApi::start().await;
        let vnets = Arc::new(FakeVnets::default());
        let mut config = ProxyConfig::new(api.address, TOKEN.to_owned());
        config.http = vec!["127.0.0.1:0".parse().unwrap()];
        config.origin_port = port;
        config.allow_local_origins = true;
        // One pool, so that connections can be counted.
        config.limits.lanes = 1;
        change(&mut config);
        let revision = api.revision.subscribe();
        let proxy = Proxy::start(
            config,
            Upstreams {
                tables: vnets.clone(),
                flows,
                device: None,
                names: None,
                revision,
            },
        )
        .unwrap();
        Self { api, vnets, proxy }
    }

    fn http(&self) -> SocketAddr {
        self.proxy.http_addresses()[0]
    }

    /// Sends one request on a connection of its own and reads to the end.
    async fn ask(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.http()).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        timeout(LONG, stream.read_to_end(&mut answer))
            .await
            .expect("an answer")
            .unwrap();
        String::from_utf8(answer).unwrap()
    }

    async fn get(&self, host: &str) -> String {
        self.ask(&format!(
            "GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        ))
        .await
    }

    async fn status(&self, host: &str) -> String {
        self.get(host)
            .await
            .split(' ')
            .nth(1)
            .unwrap_or_default()
            .to_owned()
    }
}

fn field<'a>(message: &'a str, name: &str) -> Option<&'a str> {
    message.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

#[tokio::test]
async fn request_reaches_a_private_origin_from_its_vnets_address_over_one_connection() {
    let origin = Origin::start(Manner::Echo).await;
    let world = World::new(origin.address.port(), |_| {}).await;
    for (vnet, host) in [(1, "one.example.com"), (2, "two.example.com")] {
        world.vnets.lease(vnet, &format!("127.0.0.{}", vnet + 10));
        world.vnets.route(vnet, "127.0.0.1");
        world.api.host(host, &["127.0.0.1"], Some(vnet));
    }
    world.api.host("public.example.com", &["127.0.0.1"], None);
    for _ in 0..10 {
        for host in ["one.example.com", "two.example.com", "public.example.com"] {
            assert!(world.get(host).await.starts_with("HTTP/1.1 200"));
        }
    }
    let mut peers = origin.peer_ips();
    peers.sort();
    assert_eq!(peers, ["127.0.0.1", "127.0.0.11", "127.0.0.12"]);
    assert_eq!(world.proxy.counters().upstream_reused_total, 27);
}

#[tokio::test]
async fn pooled_connection_whose_address_changed_hands_is_refused() {
    let origin = Origin::start(Manner::Echo).await;
    let world = World::new(origin.address.port(), |_| {}).await;
    world.vnets.lease(1, "127.0.0.11");
    world.vnets.route(1, "127.0.0.1");
    world.api.host("one.example.com", &["127.0.0.1"], Some(1));
    assert_eq!(world.status("one.example.com").await, "200");
    // IPv4 and IPv6 sources share the key's low half: the pool hands out the old connection.
    world.vnets.release(1);
    world.vnets.lease(1, "::127.0.0.11");
    assert_eq!(world.status("one.example.com").await, "502");
    assert_eq!(world.proxy.counters().handoff_wrong_source_total, 1);
}

#[tokio::test]
async fn fields_are_ours_in_both_directions() {
    let origin = Origin::start(Manner::Echo).await;
    let world = World::new(origin.address.port(), |_| {}).await;
    world.api.host("app.example.com", &["127.0.0.1"], None);
    let answer = world
        .ask(
            "GET /a?b HTTP/1.1\r\nHost: app.example.com\r\nConnection: close\r\n\
             CF-Connecting-IP: 6.6.6.6\r\nX-Forwarded-For: 7.7.7.7\r\nX-Real-IP: 6.6.6.6\r\n\r\n",
        )
        .await;
    let (head, echo) = answer.split_once("\r\n\r\n").unwrap();
    assert_eq!(field(head, "server"), Some("portcullis"));
    assert_eq!(field(head, "x-accel-redirect"), None);
    assert!(field(head, "cf-ray").unwrap().ends_with("-PCL"));
    assert_eq!(field(echo, "cf-ray"), field(head, "cf-ray"));
    assert!(echo.starts_with("GET /a?b HTTP/1.1\r\n"), "{echo}");
    assert_eq!(field(echo, "host"), Some("app.example.com"));
    assert_eq!(field(echo, "cf-connecting-ip"), Some("127.0.0.1"));
    assert_eq!(field(echo, "x-forwarded-for"), Some("7.7.7.7, 127.0.0.1"));
    assert_eq!(field(echo, "x-forwarded-proto"), Some("http"));
    assert_eq!(field(echo, "x-real-ip"), None);
    assert_eq!(field(echo, "cdn-loop"), Some("portcullis"));
}

#[tokio::test]
async fn every_fault_has_its_page() {
    let origin = Origin::start(Manner::Echo).await;
    let world = World::new(origin.address.port(), |_| {}).await;
    world.vnets.lease(1, "127.0.0.11");
    world.api.host("no-address.example.com", &[], None);
    world
        .api
        .host("no-route.example.com", &["127.0.0.1"], Some(1));
    world
        .api
        .host("no-vnet.example.com", &["127.0.0.1"], Some(0));
    world.api.host("down.example.com", &["127.0.0.9"], None);
    for (host, status) in [
        ("unknown.example.com", "404"),
        ("no-address.example.com", "530"),
        ("no-route.example.com", "523"),
        ("no-vnet.example.com", "523"),
        ("down.example.com", "521"),
        ("203.0.113.1", "403"),
        ("a..b", "400"),
    ] {
        let answer = world.get(host).await;
        assert_eq!(answer.split(' ').nth(1), Some(status), "{host}");
        assert!(
            answer.contains("Ray ID") && answer.contains("<p>"),
            "{answer}"
        );
    }
    assert!(origin.peer_ips().is_empty());
    let no_host = world
        .ask("GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
        .await;
    assert!(no_host.starts_with("HTTP/1.1 400"), "{no_host}");
    let bare = world.ask("GET / HTTP/1.0\r\n\r\n").await;
    assert!(bare.contains(" 400 "), "{bare}");
    let garbage = world.ask("\x01\x02\x03\r\n\r\n").await;
    assert!(garbage.contains(" 400 "), "{garbage}");
    let looped = "GET / HTTP/1.1\r\nHost: down.example.com\r\nCDN-Loop: portcullis\r\n\
                  Connection: close\r\nAccept: application/json\r\n\r\n";
    let looped = world.ask(looped).await;
    let body: serde_json::Value =
        serde_json::from_str(looped.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!(body["status"], 508);
}

#[tokio::test]
async fn public_name_with_a_local_address_is_prohibited() {
    let world = World::new(80, |config| config.allow_local_origins = false).await;
    world.api.host("inside.example.com", &["127.0.0.1"], None);
    let answer = world.get("inside.example.com").await;
    assert!(
        answer.starts_with("HTTP/1.1 403") && answer.contains("1002"),
        "{answer}"
    );
}

#[tokio::test]
async fn silent_and_closing_origins_are_told_apart() {
    let silent = Origin::start(Manner::Silent).await;
    let world = World::new(silent.address.port(), |config| {
        config.timeouts.read = Duration::from_millis(200);
    })
    .await;
    world.api.host("app.example.com", &["127.0.0.1"], None);
    assert_eq!(world.status("app.example.com").await, "524");
    let closing = Origin::start(Manner::Close).await;
    let world = World::new(closing.address.port(), |_| {}).await;
    world.api.host("app.example.com", &["127.0.0.1"], None);
    assert_eq!(world.status("app.example.com").await, "520");
}

#[tokio::test]
async fn cleartext_is_sent_to_https_where_the_zone_says_so() {
    let origin = Origin::start(Manner::Echo).await;
    let world = World::new(origin.address.port(), |_| {}).await;
    world.api.host("app.example.com", &["127.0.0.1"], None);
    assert_eq!(world.status("app.example.com").await, "200");
    world
        .api
        .change("app.example.com", |answer| answer.always_use_https = true);
    let request = "GET /a/b?c=d HTTP/1.1\r\nHost: App.example.com:80\r\nConnection: close\r\n\r\n";
    let answer = world.ask(request).await;
    assert!(answer.starts_with("HTTP/1.1 301 "), "{answer}");
    assert_eq!(
        field(&answer, "location"),
        Some("https://app.example.com/a/b?c=d")
    );
    assert!(field(&answer, "cf-ray").is_some(), "{answer}");
    assert_eq!(origin.peer_ips().len(), 1);
}

#[tokio::test]
async fn an_origin_may_take_as_long_as_the_zone_says() {
    let origin = Origin::start(Manner::Silent).await;
    let world = World::new(origin.address.port(), |config| {
        config.timeouts.read = Duration::from_secs(600);
    })
    .await;
    world.api.host("app.example.com", &["127.0.0.1"], None);
    world.api.change("app.example.com", |answer| {
        answer.read_timeout_secs = Some(1)
    });
    assert_eq!(world.status("app.example.com").await, "524");
}

#[tokio::test]
async fn second_address_is_tried_when_the_first_is_down() {
    let origin = Origin::start(Manner::Echo).await;
    let world = World::new(origin.address.port(), |_| {}).await;
    for (host, addresses) in [
        ("a.example.com", ["127.0.0.1", "127.0.0.9"]),
        ("b.example.com", ["127.0.0.9", "127.0.0.1"]),
    ] {
        world.api.host(host, &addresses, None);
        assert_eq!(world.status(host).await, "200");
    }
    assert_eq!(world.proxy.counters().upstream_failed_total, 1);
}

#[tokio::test]
async fn web_socket_carries_bytes_both_ways() {
    let origin = Origin::start(Manner::WebSocket).await;
    let world = World::new(origin.address.port(), |_| {}).await;
    world.api.host("ws.example.com", &["127.0.0.1"], None);
    let mut stream = TcpStream::connect(world.http()).await.unwrap();
    let request = "GET /chat HTTP/1.1\r\nHost: ws.example.com\r\nConnection: Upgrade\r\n\
                   Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let head = timeout(LONG, read_head(&mut stream))
        .await
        .unwrap()
        .unwrap();
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    for message in [&b"\x81\x05hello"[..], b"\x82\x03abc"] {
        stream.write_all(message).await.unwrap();
        let mut echo = vec![0; message.len()];
        timeout(LONG, stream.read_exact(&mut echo))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(echo, message);
    }
}

#[tokio::test]
async fn chunks_and_trailers_pass() {
    let origin = Origin::start(Manner::Trailer).await;
    let world = World::new(origin.address.port(), |_| {}).await;
    world.api.host("app.example.com", &["127.0.0.1"], None);
    let answer = world.get("app.example.com").await;
    assert!(answer.contains("hello"), "{answer}");
}

#[tokio::test]
async fn drain_lets_a_request_finish_and_takes_no_new_one() {
    let origin = Origin::start(Manner::Slow(Duration::from_millis(300))).await;
    let world = World::new(origin.address.port(), |_| {}).await;
    world.api.host("app.example.com", &["127.0.0.1"], None);
    let mut stream = TcpStream::connect(world.http()).await.unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: app.example.com\r\n\r\n")
        .await
        .unwrap();
    timeout(LONG, read_head(&mut stream))
        .await
        .unwrap()
        .unwrap();
    let idle = TcpStream::connect(world.http()).await.unwrap();
    let address = world.http();
    assert!(timeout(LONG, world.proxy.shutdown(LONG)).await.unwrap());
    let mut body = String::new();
    stream.read_to_string(&mut body).await.unwrap();
    assert_eq!(body, "abcd");
    assert!(TcpStream::connect(address).await.is_err());
    drop(idle);
}

#[tokio::test]
async fn drain_ends_at_its_deadline() {
    let origin = Origin::start(Manner::Silent).await;
    let world = World::new(origin.address.port(), |_| {}).await;
    world.api.host("app.example.com", &["127.0.0.1"], None);
    let mut stream = TcpStream::connect(world.http()).await.unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: app.example.com\r\n\r\n")
        .await
        .unwrap();
    while origin.peer_ips().is_empty() {
        tokio::task::yield_now().await;
    }
    let finished = timeout(LONG, world.proxy.shutdown(Duration::from_millis(100))).await;
    assert_eq!(finished, Ok(false));
    assert_eq!(stream.read(&mut [0; 8]).await.unwrap_or(0), 0);
}

#[tokio::test]
async fn two_edges_on_one_port_get_a_clear_error() {
    let world = World::new(80, |_| {}).await;
    let mut config = ProxyConfig::new(world.api.address, TOKEN.to_owned());
    config.http = vec![world.http()];
    let revision = world.api.revision.subscribe();
    let why = Proxy::start(
        config,
        Upstreams {
            tables: world.vnets.clone(),
            flows: None,
            device: None,
            names: None,
            revision,
        },
    )
    .expect_err("the port is taken");
    assert!(matches!(why, StartError::Bind(_)));
    assert!(
        why.to_string()
            .contains(&format!("port {} is in use", world.http().port()))
    );
}
