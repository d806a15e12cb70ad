//! A control plane and nodes, over real sockets on loopback.

mod follow;
mod rules;
mod steps;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use dataplane::id::{TunnelId, VnetId};
use dataplane::node::TunnelStatus;
use dataplane::program::Key;
use rustls::pki_types::ServerName;
use time::OffsetDateTime;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsConnector;
use uuid::Uuid;

use super::apply::{Intake, Taken};
use super::identity::{Bundle, CONTROL_NAME, enrol};
use super::message::{FromNode, Step, ToNode, VERSION};
use super::{Fleet, Follow, Following, Listening, frame, listen};
use crate::model::account::Account;
use crate::model::lease::Terms;
use crate::model::node::Node;
use crate::model::token::Token;
use crate::model::vnet::Vnet;
use crate::model::{HexId, Timestamp};
use crate::scratch::Directory;
use crate::status::{NodeSeen, NodeStatus as _, Progress};
use crate::store::{Embedded, Objects, Snapshot};

const LOOPBACK: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// Longest wait for something that happens in milliseconds.
const WITHIN: Duration = Duration::from_secs(20);

/// Never, for a test.
const SELDOM: Duration = Duration::from_secs(3600);

fn now() -> Timestamp {
    Timestamp::new(OffsetDateTime::now_utc())
}

fn store(path: &Path) -> Box<Embedded> {
    Box::new(Embedded::open(path).unwrap())
}

/// Polls until something holds, or the test has failed.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(WITHIN, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    assert!(waited.await.is_ok(), "never: {what}");
}

/// A control plane with an account that has a secret which nodes have no business with.
struct Control {
    objects: Arc<Objects>,
    listening: Listening,
    account: HexId,
    directory: Directory,
}

impl Control {
    fn new() -> Control {
        Control::with(SELDOM)
    }

    fn with(resync_every: Duration) -> Control {
        let directory = Directory::new();
        let objects = Objects::load(store(&directory.0.join("control.redb"))).unwrap();
        let account = HexId::random();
        let token = Token::unrestricted("first", "hash".to_owned(), now());
        let first = objects.write(now(), |transaction| {
            transaction.put(Account {
                id: account,
                name: "default".to_owned(),
                created_on: transaction.now(),
            });
            transaction.put(token);
            Ok(())
        });
        first.unwrap();
        let listening = Listening::with(
            Arc::clone(&objects),
            &[LOOPBACK],
            Terms::default(),
            resync_every,
        )
        .unwrap();
        Control {
            objects,
            listening,
            account,
            directory,
        }
    }

    fn address(&self) -> SocketAddr {
        self.listening.addresses()[0]
    }

    fn fleet(&self) -> Fleet {
        self.listening.fleet()
    }

    fn bundle(&self, name: &str) -> Bundle {
        let text = enrol(&self.objects, name, None, now()).unwrap();
        Bundle::parse(text.as_bytes(), name).unwrap()
    }

    /// Makes or changes the vnet of this number; the revision that has it.
    fn put_vnet(&self, number: u16, name: &str) -> u64 {
        let vnet = Vnet {
            id: id_of(number),
            account_id: self.account,
            number: VnetId(number),
            name: name.to_owned(),
            comment: String::new(),
            is_default_network: false,
            created_at: now(),
        };
        let written = self.objects.write(now(), |transaction| {
            transaction.put(vnet);
            Ok(())
        });
        written.unwrap().1
    }

    /// Makes a tunnel of this number.
    fn put_tunnel(&self, number: u32) {
        use crate::model::tunnel::{Interconnect, Interface, Kind, Tunnel};
        let tunnel = Tunnel {
            id: Uuid::from_u128(u128::from(number) << 64),
            account_id: self.account,
            number: TunnelId(number),
            name: "office".to_owned(),
            description: String::new(),
            virtual_network_id: id_of(1),
            interface: Interface::default(),
            health_check: None,
            allowed_prefixes: Vec::new(),
            mtu: 1476,
            kind: Kind::Interconnect(Interconnect {
                device: "cni0".to_owned(),
                is_ethernet: false,
                vlan: None,
            }),
            created_at: now(),
            modified_at: now(),
        };
        let written = self.objects.write(now(), |transaction| {
            transaction.put(tunnel);
            Ok(())
        });
        written.unwrap();
    }

    fn delete_node(&self, name: &str) {
        let deleted = self.objects.write(now(), |transaction| {
            transaction.delete::<Node>(&name.to_owned());
            Ok(())
        });
        deleted.unwrap();
    }

    fn seen(&self, name: &str) -> Option<NodeSeen> {
        let nodes = self.fleet().nodes();
        nodes.into_iter().find(|node| node.name == name)
    }

    /// Leases are objects too: there may be more than this revision.
    async fn is_acknowledged(&self, name: &str, revision: u64) {
        let reached = || {
            self.seen(name)
                .is_some_and(|node| node.acknowledged_revision >= revision)
        };
        until(&format!("{name} acknowledges {revision}"), reached).await;
    }

    /// What a peer with this bundle gets who speaks TLS by hand.
    async fn connect(
        &self,
        bundle: &Bundle,
    ) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.address()).await.unwrap();
        let name = ServerName::try_from(CONTROL_NAME).unwrap();
        let connector = TlsConnector::from(Arc::clone(&bundle.tls));
        connector.connect(name, stream).await
    }
}

fn id_of(number: u16) -> Uuid {
    Uuid::from_u128(u128::from(number))
}

/// A node whose tables take everything at once.
struct Edge {
    objects: Arc<Objects>,
    progress: watch::Sender<Progress>,
    following: Option<Following>,
    tables: tokio::task::JoinHandle<()>,
}

impl Edge {
    fn start(copy: &Path, address: SocketAddr, bundle: Bundle) -> Edge {
        Edge::with(copy, address, bundle, None)
    }

    /// The same, which takes others' packets.
    fn with(copy: &Path, address: SocketAddr, bundle: Bundle, relay: Option<SocketAddr>) -> Edge {
        let objects = Objects::replica(store(copy)).unwrap();
        let progress = watch::Sender::new(Progress {
            revision: objects.snapshot().revision,
            rejected: Vec::new(),
        });
        let follow = Follow {
            control: vec![address.to_string()],
            bundle,
            progress: progress.subscribe(),
            relay,
        };
        let following = Following::start(Arc::clone(&objects), follow).unwrap();
        let (mut revisions, applied) = (objects.revision(), progress.clone());
        let tables = tokio::spawn(async move {
            while revisions.changed().await.is_ok() {
                let revision = *revisions.borrow_and_update();
                applied.send_modify(|progress| progress.revision = revision);
            }
        });
        Edge {
            objects,
            progress,
            following: Some(following),
            tables,
        }
    }

    fn vnet(&self, number: u16) -> Option<String> {
        let snapshot = self.objects.snapshot();
        snapshot
            .vnets
            .get(&id_of(number))
            .map(|vnet| vnet.name.clone())
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        self.tables.abort();
    }
}
