//! Configures an edge through its API, as a customer's program would: many calls, one connection.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use dataplane::tunnel::wireguard::{PrivateKey, PublicKey};
use serde_json::{Value, json};

use super::world;

/// For one answer: far more than a durable write takes.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest answer that is read.
const ANSWER_MAX: u64 = 1 << 20;

/// A connection to an edge's API. Plain HTTP/1.1 without anything that this API does not do: a
/// client library would bring an async runtime for two kinds of call.
#[derive(Debug)]
pub struct Api {
    stream: BufReader<TcpStream>,
    token: String,
    account: String,
}

impl Api {
    /// Connects, and asks for the account's id.
    ///
    /// # Errors
    /// When the API does not answer, or refuses the token.
    pub fn connect(to: SocketAddr, token: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(to).with_context(|| format!("no API at {to}"))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        let mut api = Self {
            stream: BufReader::new(stream),
            token: token.trim().to_owned(),
            account: String::new(),
        };
        let accounts = api.call("GET", "/accounts", None)?;
        let account = accounts[0]["id"].as_str().context("no account")?;
        account.clone_into(&mut api.account);
        Ok(api)
    }

    /// Makes a tunnel for a peer and routes its prefix there; returns the edge's public key.
    ///
    /// # Errors
    /// When the API refuses.
    pub fn add_peer(&mut self, peer: usize, key: &PrivateKey) -> anyhow::Result<PublicKey> {
        let base = format!("/accounts/{}", self.account);
        let tunnel = self.call(
            "POST",
            &format!("{base}/wireguard_tunnels"),
            Some(&json!({
                "name": format!("peer{peer}"), "peer_public_key": key.public().to_base64(),
                "allowed_prefixes": [world::prefix(peer)], "mtu": 1420,
            })),
        )?;
        let route = json!({"network": world::prefix(peer), "tunnel_id": tunnel["id"]});
        self.call("POST", &format!("{base}/teamnet/routes"), Some(&route))?;
        let key = tunnel["public_key"]
            .as_str()
            .context("the tunnel shows no key")?;
        Ok(key.parse()?)
    }

    fn call(&mut self, method: &str, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        let body = body.map(Value::to_string).unwrap_or_default();
        let request = format!(
            "{method} /client/v4{path} HTTP/1.1\r\nHost: edge\r\nAuthorization: Bearer {}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.token,
            body.len()
        );
        self.stream.get_mut().write_all(request.as_bytes())?;
        let len = self.read_head()?;
        ensure!(len <= ANSWER_MAX, "an answer of {len} bytes");
        let mut answer = String::new();
        self.stream.by_ref().take(len).read_to_string(&mut answer)?;
        let mut answer: Value = serde_json::from_str(&answer)?;
        if answer["success"] != true {
            bail!("the API refused {method} {path}: {answer}");
        }
        Ok(answer["result"].take())
    }

    /// Reads an answer's head; returns its body's length.
    fn read_head(&mut self) -> anyhow::Result<u64> {
        let mut len = 0;
        loop {
            let mut line = String::new();
            let read = self.stream.read_line(&mut line).context("no answer")?;
            ensure!(read > 0, "the API closed the connection");
            let line = line.trim_end().to_ascii_lowercase();
            if line.is_empty() {
                return Ok(len);
            }
            if let Some(value) = line.strip_prefix("content-length:") {
                len = value.trim().parse()?;
            }
        }
    }
}
