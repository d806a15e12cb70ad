//! Processes on loopback, their files and ports.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

/// Longest wait for something that happens in a second or two on an idle machine.
const WITHIN: Duration = Duration::from_secs(60);

/// A process that ends with this.
pub(super) struct Process(pub(super) Child);

impl Process {
    /// `kill -9`, and waits until it is gone.
    pub(super) fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _is_killed = self.0.kill();
        let _is_gone = self.0.wait();
    }
}

/// Files and ports of a control plane and its edges.
pub(super) struct Place {
    directory: PathBuf,
    pub(super) api: u16,
    pub(super) nodes: u16,
}

impl Place {
    pub(super) fn new(name: &str) -> Place {
        Place::with(name, "", "")
    }

    /// The same, with more lines for the control plane: before its sections, and in `[nodes]`.
    pub(super) fn with(name: &str, lines: &str, nodes: &str) -> Place {
        let directory =
            std::env::temp_dir().join(format!("portcullis-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let place = Place {
            directory,
            api: port(),
            nodes: port(),
        };
        let config = format!(
            "data_dir = {:?}\napi_listen = \"127.0.0.1:{}\"\n{lines}\n\
             [nodes]\nlisten = [\"127.0.0.1:{}\"]\n{nodes}\n\
             [proxy]\nedge_addresses = [\"127.0.0.1\"]\n[dns]\nname_servers = [\"ns1.example.net\"]\n",
            place.directory.join("control"),
            place.api,
            place.nodes
        );
        std::fs::write(place.file("control.toml"), config).unwrap();
        place
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn portcullis(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
        command.args(words).env("PORTCULLIS_LOG", "info");
        command
    }

    pub(super) fn run(&self, words: &[&str]) -> Output {
        let token = self.file("control/token");
        let mut command = self.portcullis(words);
        command.env("PORTCULLIS_TOKEN_FILE", token);
        command.env("PORTCULLIS_API", format!("http://127.0.0.1:{}", self.api));
        command.output().unwrap()
    }

    fn spawn(&self, log: &str, words: &[&str]) -> Process {
        let log = self.file(&format!("{log}.log"));
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(log)
            .unwrap();
        let mut command = self.portcullis(words);
        command.stdout(Stdio::null()).stderr(log);
        Process(command.spawn().unwrap())
    }

    pub(super) fn control(&self) -> Process {
        let config = self.file("control.toml");
        let process = self.spawn("control", &["control", "--config", text(&config)]);
        self.until("the API answers", || {
            self.call("GET", "/accounts", &Value::Null).is_some()
        });
        process
    }

    pub(super) fn enrol(&self, name: &str) -> PathBuf {
        let (config, file) = (self.file("control.toml"), self.file(&format!("{name}.pem")));
        let words = [
            "control",
            "enrol",
            name,
            text(&file),
            "--config",
            text(&config),
        ];
        let done = self.run(&words);
        assert!(done.status.success(), "{done:?}");
        file
    }

    /// An edge without privileges that answers DNS and follows control planes; its configuration.
    pub(super) fn edge_config(&self, name: &str, control: &[u16]) -> Edge {
        self.edge_config_with(name, control, "")
    }

    /// The same, with more sections.
    pub(super) fn edge_config_with(&self, name: &str, control: &[u16], sections: &str) -> Edge {
        let control: Vec<_> = control
            .iter()
            .map(|port| format!("127.0.0.1:{port}"))
            .collect();
        let identity = self.file(&format!("{name}.pem"));
        let lines = format!("control = {control:?}\nidentity = {identity:?}");
        self.edge_with(name, &lines, sections)
    }

    /// One that is a control plane itself, over the store of this place's, and has a slice or the default one.
    pub(super) fn own_edge(&self, name: &str, store: &str, slice: Option<&str>) -> Edge {
        // What all share beside the store: the key that it is sealed with.
        std::fs::create_dir_all(self.file(name)).unwrap();
        let key = self.file(&format!("{name}/key"));
        std::fs::copy(self.file("control/key"), key).unwrap();
        let slice = slice.map_or_else(String::new, |slice| format!("slice = {slice:?}"));
        self.edge_with(name, &format!("{store}\n{slice}"), "")
    }

    fn edge_with(&self, name: &str, lines: &str, sections: &str) -> Edge {
        let dns = port();
        let config = format!(
            "data_dir = {:?}\napi_listen = \"127.0.0.1:{}\"\n{lines}\n\
             [router]\nuserspace = true\nworkers = 1\nuserspace_flows = 16\n\
             listen = [\"127.0.0.1:{}\"]\n[dns]\nlisten = [\"127.0.0.1:{dns}\"]\n\
             name_servers = [\"ns1.example.net\"]\n{sections}",
            self.file(name),
            port(),
            port(),
        );
        let path = self.file(&format!("{name}.toml"));
        std::fs::write(&path, config).unwrap();
        Edge {
            name: name.to_owned(),
            config: path,
            dns,
        }
    }

    /// One call of the API; `None` while it does not answer with success.
    pub(super) fn call(&self, method: &str, path: &str, body: &Value) -> Option<Value> {
        let token = std::fs::read_to_string(self.file("control/token")).ok()?;
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let mut stream = TcpStream::connect(("127.0.0.1", self.api)).ok()?;
        stream.set_read_timeout(Some(WITHIN)).unwrap();
        write!(
            stream,
            "{method} /client/v4{path} HTTP/1.1\r\nhost: api\r\nconnection: close\r\n\
             authorization: Bearer {}\r\ncontent-length: {}\r\n\r\n{body}",
            token.trim(),
            body.len()
        )
        .ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let value: Value = serde_json::from_str(body).ok()?;
        head.starts_with("HTTP/1.1 200")
            .then(|| value["result"].clone())
    }

    pub(super) fn account(&self) -> String {
        let accounts = self.call("GET", "/accounts", &Value::Null).unwrap();
        accounts[0]["id"].as_str().unwrap().to_owned()
    }

    /// What the API shows of a node.
    pub(super) fn node(&self, name: &str) -> Option<Value> {
        let nodes = self.call(
            "GET",
            &format!("/accounts/{}/nodes", self.account()),
            &Value::Null,
        )?;
        let mut nodes = nodes.as_array()?.iter();
        nodes.find(|node| node["name"] == name).cloned()
    }

    pub(super) fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let began = Instant::now();
        while !holds() {
            if began.elapsed() > WITHIN {
                panic!("never: {what}\n{}", self.logs());
            }
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }

    pub(super) fn logs(&self) -> String {
        let mut all = String::new();
        for file in std::fs::read_dir(&self.directory).unwrap().flatten() {
            if file.path().extension().is_some_and(|kind| kind == "log") {
                let text = std::fs::read_to_string(file.path()).unwrap();
                all.push_str(&format!("== {}\n{text}", file.path().display()));
            }
        }
        all
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.directory).unwrap();
    }
}

/// An edge, running or not.
pub(super) struct Edge {
    pub(super) name: String,
    config: PathBuf,
    dns: u16,
}

impl Edge {
    pub(super) fn start(&self, place: &Place) -> Process {
        place.spawn(&self.name, &["edge", "--config", text(&self.config)])
    }

    /// The address that the edge's DNS has for `www.example.com`; `None` while it has none.
    pub(super) fn answer(&self) -> Option<Ipv4Addr> {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(200)))
            .unwrap();
        // RFC 1035 section 4.1: id 7, one question, no recursion; www.example.com, A, IN.
        let mut question = vec![0, 7, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in ["www", "example", "com", ""] {
            question.push(u8::try_from(label.len()).unwrap());
            question.extend(label.as_bytes());
        }
        question.extend([0, 1, 0, 1]);
        socket.send_to(&question, ("127.0.0.1", self.dns)).unwrap();
        let mut bytes = [0; 512];
        let length = socket.recv(&mut bytes).ok()?;
        // The one answer is last, and its address the last of it.
        let is_one = bytes[6..8] == [0, 1];
        let address: [u8; 4] = bytes[..length].last_chunk().copied()?;
        is_one.then(|| Ipv4Addr::from(address))
    }
}

pub(super) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A port that is free now over TCP and UDP, of those that the kernel gives to nobody who does not ask for one: no
/// connection gets it meanwhile. Each process begins at another.
pub(super) fn port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let first = std::process::id().wrapping_mul(37);
    for _ in 0..1000 {
        let place = first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = 20_000 + u16::try_from(place % 12_000).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        if TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok() {
            return port;
        }
    }
    panic!("no port is free");
}

/// A zone with `www.example.com`; the path of the record.
pub(super) fn record(place: &Place) -> String {
    let zone = place
        .call("POST", "/zones", &json!({"name": "example.com"}))
        .unwrap();
    let records = format!("/zones/{}/dns_records", zone["id"].as_str().unwrap());
    let www = json!({"type": "A", "name": "www.example.com", "content": "192.0.2.1"});
    let www = place.call("POST", &records, &www).unwrap();
    format!("{records}/{}", www["id"].as_str().unwrap())
}

/// An etcd on loopback; `testbed/test.sh` installs Debian's `etcd-server`. The `store` of a control plane.
pub(super) fn etcd(place: &Path) -> (Process, String) {
    let (client, peer) = (port(), port());
    let client = format!("http://127.0.0.1:{client}");
    let peer = format!("http://127.0.0.1:{peer}");
    let child = Command::new("etcd")
        .arg("--data-dir")
        .arg(place)
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
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let child = child.expect("etcd runs: install etcd-server, as testbed/test.sh does");
    let store = client.replace("http://", "etcd://");
    let process = Process(child);
    let began = Instant::now();
    while !is_healthy(client.trim_start_matches("http://")) {
        assert!(began.elapsed() < WITHIN, "etcd does not answer");
        std::thread::park_timeout(Duration::from_millis(20));
    }
    (process, format!("store = \"{store}/test\""))
}

/// Whether an etcd has a leader and takes requests.
fn is_healthy(address: &str) -> bool {
    let asked = TcpStream::connect(address).and_then(|mut stream| {
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"GET /health HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    });
    asked.is_ok_and(|answer| answer.contains(r#""health":"true""#))
}
