//! An Origin API for tests: answers from maps, counts what it is asked.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use controlplane::origin::{App, Apps, HostAnswer};
use dataplane::id::VnetId;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

pub(crate) const TOKEN: &str = "origin-token";

/// A running Origin API; ends with the test's runtime.
pub(crate) struct FakeOriginApi {
    pub(crate) address: SocketAddr,
    pub(crate) revision: watch::Sender<u64>,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    hosts: Mutex<HashMap<String, HostAnswer>>,
    apps: Mutex<Vec<App>>,
    asked: AtomicUsize,
}

impl FakeOriginApi {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, Arc::clone(&shared)));
            }
        });
        Self {
            address,
            revision: watch::Sender::new(1),
            state,
        }
    }

    /// A host with these addresses; in a vnet, or public.
    pub(crate) fn host(&self, name: &str, addresses: &[&str], vnet: Option<u16>) {
        let parsed: Vec<std::net::IpAddr> = addresses.iter().map(|a| a.parse().unwrap()).collect();
        let answer = HostAnswer {
            zone_name: "example.com".into(),
            zone_id: "0".repeat(32),
            account_id: "0".repeat(32),
            ipv4_addresses: parsed
                .iter()
                .filter_map(|a| match a {
                    std::net::IpAddr::V4(v4) => Some(*v4),
                    std::net::IpAddr::V6(_) => None,
                })
                .collect(),
            ipv6_addresses: parsed
                .iter()
                .filter_map(|a| match a {
                    std::net::IpAddr::V6(v6) => Some(*v6),
                    std::net::IpAddr::V4(_) => None,
                })
                .collect(),
            use_private_routing: vnet.is_some(),
            virtual_network_id: None,
            vnet: vnet.filter(|id| *id != 0).map(VnetId),
            private_name: None,
            always_use_https: false,
            read_timeout_secs: None,
            revision: 1,
        };
        self.state.hosts.lock().unwrap().insert(name.into(), answer);
        self.bump();
    }

    /// Changes what is answered for a host.
    pub(crate) fn change(&self, name: &str, change: impl FnOnce(&mut HostAnswer)) {
        change(self.state.hosts.lock().unwrap().get_mut(name).unwrap());
        self.bump();
    }

    pub(crate) fn remove(&self, name: &str) {
        self.state.hosts.lock().unwrap().remove(name);
        self.bump();
    }

    pub(crate) fn set_apps(&self, apps: Vec<App>) {
        *self.state.apps.lock().unwrap() = apps;
        self.bump();
    }

    pub(crate) fn asked(&self) -> usize {
        self.state.asked.load(Ordering::SeqCst)
    }

    fn bump(&self) {
        self.revision.send_modify(|revision| *revision += 1);
    }
}

async fn answer(stream: TcpStream, state: Arc<State>) {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read).lines();
    while let Ok(Some(first)) = lines.next_line().await {
        let mut authorized = false;
        while let Ok(Some(line)) = lines.next_line().await {
            if line.is_empty() {
                break;
            }
            authorized |= line.eq_ignore_ascii_case(&format!("authorization: Bearer {TOKEN}"));
        }
        let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
        let (status, body) = respond(&path, authorized, &state);
        let head = format!(
            "HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        if write
            .write_all(format!("{head}{body}").as_bytes())
            .await
            .is_err()
        {
            return;
        }
    }
}

fn respond(path: &str, authorized: bool, state: &State) -> (u16, String) {
    if !authorized {
        return (403, String::new());
    }
    if path == "/origin/v1/apps" {
        let apps = state.apps.lock().unwrap().clone();
        return (
            200,
            serde_json::to_string(&Apps { revision: 1, apps }).unwrap(),
        );
    }
    state.asked.fetch_add(1, Ordering::SeqCst);
    let host = path.strip_prefix("/origin/v1/hosts/").unwrap_or_default();
    match state.hosts.lock().unwrap().get(host) {
        Some(answer) => (200, serde_json::to_string(answer).unwrap()),
        None => (404, String::new()),
    }
}
