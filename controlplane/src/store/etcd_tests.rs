//! Control planes that share an etcd, which goes away, comes back, and asks who they are.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use super::etcd::{Config, Etcd, parse};
use super::tests::{account, now};
use super::{Each, Embedded, Objects, Store, StoreError, Write, WriteError};
use crate::scratch::Directory;

/// Longest wait for something that takes milliseconds.
const WITHIN: Duration = Duration::from_secs(20);

/// How often it is looked for.
const TURN: Duration = Duration::from_millis(10);

/// An etcd on loopback; `testbed/test.sh` installs Debian's `etcd-server`.
pub(crate) struct Server {
    child: Option<Child>,
    directory: Directory,
    port: u16,
    peer_port: u16,
    arguments: Vec<String>,
}

impl Server {
    pub(crate) fn start() -> Server {
        Server::with(Directory::new(), Vec::new())
    }

    fn with(directory: Directory, arguments: Vec<String>) -> Server {
        let mut server = Server {
            child: None,
            directory,
            port: free_port(),
            peer_port: free_port(),
            arguments,
        };
        server.run();
        server
    }

    fn run(&mut self) {
        let scheme = if self.arguments.is_empty() {
            "http"
        } else {
            "https"
        };
        let client = format!("{scheme}://127.0.0.1:{}", self.port);
        let peer = format!("http://127.0.0.1:{}", self.peer_port);
        let child = Command::new("etcd")
            .arg("--data-dir")
            .arg(self.directory.0.join("etcd"))
            .args([
                "--listen-client-urls",
                &client,
                "--advertise-client-urls",
                &client,
            ])
            .args([
                "--listen-peer-urls",
                &peer,
                "--initial-advertise-peer-urls",
                &peer,
            ])
            .args(["--initial-cluster", &format!("default={peer}")])
            .args(["--unsafe-no-fsync", "--log-level", "error"])
            .args(&self.arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.child = Some(child.expect("etcd runs: install etcd-server, as testbed/test.sh does"));
        wait("etcd listens", || {
            std::net::TcpStream::connect(("127.0.0.1", self.port)).is_ok()
        });
    }

    pub(crate) fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    fn config(&self) -> Config {
        parse(&format!("etcd://127.0.0.1:{}/test", self.port)).unwrap()
    }

    /// The same, whether it answers or not.
    pub(crate) fn lazy(&self) -> Etcd {
        Etcd::new(self.config()).unwrap()
    }

    pub(crate) fn open(&self) -> Etcd {
        let mut opened = None;
        wait("etcd answers", || {
            opened = Etcd::open(self.config()).ok();
            opened.is_some()
        });
        opened.unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A port that is free now, of those that the kernel gives to nobody who does not ask for one: no connection
/// gets it meanwhile. Each process begins at another.
fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let first = std::process::id().wrapping_mul(37);
    for _ in 0..1000 {
        let place = first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = 20_000 + u16::try_from(place % 12_000).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no port is free");
}

pub(crate) fn wait(what: &str, mut is: impl FnMut() -> bool) {
    let turns = WITHIN.as_millis() / TURN.as_millis();
    for _ in 0..turns {
        if is() {
            return;
        }
        std::thread::park_timeout(TURN);
    }
    panic!("waited in vain: {what}");
}

/// Adds an account whose name is the count of those that are there, however often others are first.
fn add(objects: &Objects) -> (u64, u32) {
    for attempt in 0..1_000 {
        let made = objects.write(now(), |transaction| {
            let count = transaction.snapshot().accounts.len();
            transaction.put(account(&count.to_string()));
            Ok(())
        });
        match made {
            Ok(((), revision)) => return (revision, attempt),
            Err(WriteError::Store(StoreError::Stale { found, .. })) => {
                wait("the others' commit", || {
                    objects.snapshot().revision >= found
                });
            }
            Err(why) => panic!("{why}"),
        }
    }
    panic!("others were always first");
}

#[test]
fn control_planes_on_one_etcd_see_each_other_and_never_overwrite_each_other() {
    const PLANES: usize = 3;
    const EACH: usize = 25;
    let server = Server::start();
    let planes: Vec<Arc<Objects>> = (0..PLANES)
        .map(|_| Objects::load(Box::new(server.open())).unwrap())
        .collect();
    let start = Barrier::new(PLANES);
    std::thread::scope(|scope| {
        for objects in &planes {
            scope.spawn(|| {
                start.wait();
                for _ in 0..EACH {
                    add(objects);
                }
            });
        }
    });
    let all = (PLANES * EACH) as u64;
    for objects in &planes {
        wait("every commit everywhere", || {
            objects.snapshot().revision == all
        });
        let snapshot = objects.snapshot();
        let mut names: Vec<usize> = snapshot
            .accounts
            .iter()
            .map(|a| a.name.parse().unwrap())
            .collect();
        names.sort_unstable();
        assert_eq!(names, (0..PLANES * EACH).collect::<Vec<_>>());
    }
    // A restored backup reaches those that run.
    let mut file = Vec::new();
    planes[0].backup(&mut file).unwrap();
    add(&planes[1]);
    wait("what came after the backup", || {
        planes[0].snapshot().revision == all + 1
    });
    let restored = super::backup::restore(&server.open(), &mut &*file, true).unwrap();
    for objects in &planes {
        wait("the restored state", || {
            objects.snapshot().revision == restored.revision
        });
        assert_eq!(objects.snapshot().accounts.len(), PLANES * EACH);
    }
}

#[test]
fn without_etcd_reads_go_on_and_writes_say_why_not_and_both_recover() {
    let mut server = Server::start();
    let one = Objects::load(Box::new(server.open())).unwrap();
    let other = Objects::load(Box::new(server.open())).unwrap();
    add(&one);
    server.stop();
    assert_eq!(one.snapshot().accounts.len(), 1);
    let refused = one.write(now(), |transaction| {
        transaction.put(account("lost"));
        Ok(())
    });
    let why = refused.unwrap_err();
    let mut chain = vec![why.to_string()];
    let mut source = std::error::Error::source(&why);
    while let Some(cause) = source {
        chain.push(cause.to_string());
        source = cause.source();
    }
    let text = chain.join(": ");
    assert!(
        text.contains("127.0.0.1") || text.contains("etcd"),
        "{text}"
    );
    server.run();
    wait("a write after etcd came back", || {
        let made = one.write(now(), |transaction| {
            transaction.put(account("1"));
            Ok(())
        });
        made.is_ok()
    });
    wait("the other to see it", || {
        other.snapshot().accounts.len() == 2
    });
    assert_eq!(one.snapshot().accounts.len(), 2);
    assert!(
        Etcd::open(parse("etcd://127.0.0.1:1").unwrap())
            .unwrap_err()
            .to_string()
            .contains("the store failed")
    );
}

#[test]
fn a_node_starts_from_its_copy_without_etcd_and_follows_it_when_it_is_back() {
    let mut server = Server::start();
    let directory = Directory::new();
    let flushed = Arc::new(AtomicU64::new(0));
    let copy = || {
        let copy = Embedded::open(&directory.0.join("copy.redb")).unwrap();
        Box::new(Told(copy, Arc::clone(&flushed)))
    };
    let lazy = |server: &Server| Box::new(Etcd::new(server.config()).unwrap());
    let other = Objects::load(Box::new(server.open())).unwrap();
    add(&other);
    let node = Objects::load_or_copy(lazy(&server), copy()).unwrap();
    add(&node);
    assert_eq!(node.snapshot().accounts.len(), 2);
    // What only the watch told is in the copy too.
    add(&other);
    wait("the copy of it", || flushed.load(Ordering::SeqCst) == 3);
    drop(node);
    wait("the copy is closed", || {
        Embedded::open(&directory.0.join("copy.redb")).is_ok()
    });
    server.stop();
    let node = Objects::load_or_copy(lazy(&server), copy()).unwrap();
    assert_eq!(node.snapshot().revision, 3);
    assert_eq!(node.snapshot().accounts.len(), 3);
    let refused = node.write(now(), |transaction| {
        transaction.put(account("lost"));
        Ok(())
    });
    assert!(refused.is_err());
    server.run();
    wait("the node to follow", || node.snapshot().revision == 3);
    add(&node);
    wait("the other to see it", || {
        other.snapshot().accounts.len() == 4
    });
    server.stop();
    let empty = Directory::new();
    let copy = Box::new(Embedded::open(&empty.0.join("copy.redb")).unwrap());
    assert!(
        Objects::load_or_copy(lazy(&server), copy).is_err(),
        "there is no copy yet"
    );
}

#[test]
fn a_change_that_etcd_would_not_take_at_once_is_refused_before_it_is_tried() {
    let server = Server::start();
    let objects = Objects::load(Box::new(server.open())).unwrap();
    let put = |count: usize| {
        objects.write(now(), |transaction| {
            (0..count).for_each(|n| transaction.put(account(&n.to_string())));
            Ok(())
        })
    };
    put(126).unwrap();
    let why = put(127).unwrap_err().to_string();
    assert_eq!(
        why,
        "a change of 127 objects at once is more than the 126 that the store takes"
    );
    assert_eq!(objects.snapshot().accounts.len(), 126);
}

#[test]
fn etcd_is_spoken_to_over_tls_with_certificates_on_both_sides() {
    let directory = Directory::new();
    let authority = Authority::new();
    authority.issue(&directory.0, "server");
    authority.issue(&directory.0, "client");
    let file = |name: &str| directory.0.join(name);
    std::fs::write(file("ca.pem"), &authority.pem).unwrap();
    let text = |name: &str| file(name).to_string_lossy().into_owned();
    let arguments = [
        "--cert-file".to_owned(),
        text("server.pem"),
        "--key-file".to_owned(),
        text("server.key"),
        "--trusted-ca-file".to_owned(),
        text("ca.pem"),
        "--client-cert-auth".to_owned(),
    ];
    let (ca, identity) = (file("ca.pem"), (file("client.pem"), file("client.key")));
    let server = Server::with(directory, arguments.to_vec());
    let mut config = server.config();
    config.has_tls = true;
    config.ca = Some(ca);
    assert!(Etcd::open(config.clone()).is_err(), "without a certificate");
    config.identity = Some(identity);
    let mut opened = None;
    wait("etcd answers", || {
        opened = Etcd::open(config.clone()).ok();
        opened.is_some()
    });
    let objects = Objects::load(Box::new(opened.unwrap())).unwrap();
    assert_eq!(add(&objects), (1, 0));
    config.ca = None;
    assert!(Etcd::open(config).is_err(), "nobody vouches for the server");
}

#[test]
fn a_user_logs_in_and_nobody_else_gets_in() {
    let server = Server::start();
    drop(server.open());
    let etcdctl = |arguments: &[&str]| {
        let done = Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .args(["--endpoints", &format!("127.0.0.1:{}", server.port)])
            .args(arguments)
            .stdout(Stdio::null())
            .status();
        let status = done.expect("etcdctl runs: install etcd-client, as testbed/test.sh does");
        assert!(status.success(), "{arguments:?}");
    };
    etcdctl(&["user", "add", "root:secret"]);
    etcdctl(&["user", "grant-role", "root", "root"]);
    etcdctl(&["auth", "enable"]);
    let mut config = server.config();
    assert!(Etcd::open(config.clone()).is_err());
    config.user = Some(("root".to_owned(), "wrong".to_owned()));
    assert!(Etcd::open(config.clone()).is_err());
    config.user = Some(("root".to_owned(), "secret".to_owned()));
    let one = Objects::load(Box::new(Etcd::open(config.clone()).unwrap())).unwrap();
    let other = Objects::load(Box::new(Etcd::open(config).unwrap())).unwrap();
    add(&one);
    wait("the other to see it", || {
        other.snapshot().accounts.len() == 1
    });
}

/// A store that says which revision it has on disk.
struct Told(Embedded, Arc<AtomicU64>);

impl Store for Told {
    fn load(&self, each: Each<'_>) -> Result<u64, StoreError> {
        self.0.load(each)
    }

    fn commit(&self, after: u64, to: u64, writes: &[&Write]) -> Result<(), StoreError> {
        self.0.commit(after, to, writes)?;
        self.1.store(to, Ordering::SeqCst);
        Ok(())
    }

    fn replace(&self, revision: u64, writes: &[Write]) -> Result<(), StoreError> {
        self.0.replace(revision, writes)
    }
}

/// A certificate authority for a test.
struct Authority {
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Authority {
        let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        let pem = parameters.self_signed(&key).unwrap().pem();
        Authority {
            issuer: rcgen::Issuer::new(parameters, key),
            pem,
        }
    }

    fn issue(&self, directory: &Path, name: &str) {
        let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
        let mut parameters = rcgen::CertificateParams::new(names).unwrap();
        parameters.extended_key_usages = vec![
            rcgen::ExtendedKeyUsagePurpose::ServerAuth,
            rcgen::ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = parameters.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(directory.join(format!("{name}.pem")), certificate.pem()).unwrap();
        std::fs::write(directory.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }
}
