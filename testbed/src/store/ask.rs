//! Clients of the API: how many answers a second, and how long each takes.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use dataplane::io::clock;
use serde_json::{Value, json};

use super::sample;

/// Longest wait for an answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Whom to ask, and how much.
#[derive(Clone, Debug, clap::Args)]
pub struct Ask {
    /// The API.
    pub address: SocketAddr,
    /// The API token.
    #[arg(long)]
    pub token: String,
    /// Seconds of each load.
    #[arg(long, default_value_t = 5)]
    pub secs: u64,
    /// Connections that read, and that write.
    #[arg(long, default_value_t = 8)]
    pub readers: u32,
    /// Connections that write.
    #[arg(long, default_value_t = 64)]
    pub writers: u32,
    /// Changes one after the other.
    #[arg(long, default_value_t = 400)]
    pub changes: u32,
}

/// A connection that is kept.
pub(super) struct Client {
    stream: BufReader<TcpStream>,
    token: String,
}

impl Client {
    fn new(ask: &Ask) -> anyhow::Result<Client> {
        Client::to(ask.address, &ask.token)
    }

    pub(super) fn to(address: SocketAddr, token: &str) -> anyhow::Result<Client> {
        let stream = TcpStream::connect(address).context("cannot reach the API")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_WITHIN))?;
        Ok(Client {
            stream: BufReader::new(stream),
            token: token.to_owned(),
        })
    }

    pub(super) fn call(&mut self, method: &str, path: &str, body: &str) -> anyhow::Result<Vec<u8>> {
        let request = format!(
            "{method} /client/v4{path} HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {}\r\n\
             content-length: {}\r\n\r\n{body}",
            self.token,
            body.len()
        );
        self.stream.get_mut().write_all(request.as_bytes())?;
        let (mut line, mut length, mut is_fine) = (String::new(), 0, false);
        loop {
            line.clear();
            anyhow::ensure!(self.stream.read_line(&mut line)? > 0, "the API hung up");
            if line.starts_with("HTTP/1.1 200") {
                is_fine = true;
            }
            let lower = line.to_ascii_lowercase();
            if let Some(number) = lower.strip_prefix("content-length:") {
                length = number.trim().parse()?;
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        anyhow::ensure!(
            is_fine,
            "{method} {path}: {}",
            String::from_utf8_lossy(&body)
        );
        Ok(body)
    }

    pub(super) fn result(&mut self, path: &str) -> anyhow::Result<Value> {
        let body = self.call("GET", path, "")?;
        let value: Value = serde_json::from_slice(&body)?;
        Ok(value["result"].clone())
    }
}

/// Asks everything once over, and says what was measured.
///
/// # Errors
/// When the API does not answer, or not with success.
pub fn ask(ask: &Ask) -> anyhow::Result<Vec<String>> {
    let mut client = Client::new(ask)?;
    let zones = client.result("/zones?per_page=200")?;
    let ids = zones.as_array().into_iter().flatten();
    let zones: Vec<String> = ids
        .filter_map(|zone| Some(zone["id"].as_str()?.to_owned()))
        .collect();
    let zone = zones.first().context("there is no zone")?;
    let records = client.result(&format!("/zones/{zone}/dns_records"))?;
    let record = records[0]["id"].as_str().context("there is no record")?;
    let record = format!("/zones/{zone}/dns_records/{record}");
    let account = client.result("/accounts")?[0]["id"]
        .as_str()
        .unwrap_or("")
        .to_owned();
    let mut samples = Vec::new();
    let times = one_by_one(&mut client, ask.changes, |client, n| {
        let content = format!("203.0.113.{}", n % 250 + 1);
        client.call("PATCH", &record, &json!({"content": content}).to_string())
    })?;
    samples.push(sample(
        "one record changed",
        "ms, p50",
        percentile(&times, 50),
    ));
    samples.push(sample(
        "one record changed",
        "ms, p99",
        percentile(&times, 99),
    ));
    let page = format!("/accounts/{account}/teamnet/routes?per_page=50&page=100");
    let times = one_by_one(&mut client, 50, |client, _| client.call("GET", &page, ""))?;
    samples.push(sample(
        "page 100 of the routes",
        "ms, p50",
        percentile(&times, 50),
    ));
    let routes = format!("/accounts/{account}/teamnet/routes");
    let route = client.result(&format!("{routes}?per_page=1"))?[0].clone();
    let times = one_by_one(&mut client, 100, |client, n| {
        let body = json!({
            "network": format!("172.16.{n}.0/24"), "comment": "bench",
            "tunnel_id": route["tunnel_id"], "virtual_network_id": route["virtual_network_id"],
        });
        let made = client.call("POST", &routes, &body.to_string())?;
        let made: Value = serde_json::from_slice(&made)?;
        let id = made["result"]["id"].as_str().context("no id")?;
        client.call("DELETE", &format!("{routes}/{id}"), "")
    })?;
    samples.push(sample(
        "one route made and deleted",
        "ms, p50",
        percentile(&times, 50),
    ));
    let reads = many(ask, ask.readers, &|client, _| {
        client.call("GET", &record, "")
    })?;
    samples.push(sample("one record read", "reads/s", reads));
    let next = AtomicU64::new(0);
    let writes = many(ask, ask.writers, &|client, _| {
        let number = next.fetch_add(1, Ordering::Relaxed);
        let zone = &zones[usize::try_from(number)? % zones.len()];
        // Unlike those of an earlier run on the same store.
        let name = format!("new{}-{number}", std::process::id());
        let body = json!({"type": "TXT", "name": name, "content": "bench"}).to_string();
        client.call("POST", &format!("/zones/{zone}/dns_records"), &body)
    })?;
    samples.push(sample("records made, 64 at once", "writes/s", writes));
    Ok(samples)
}

/// Milliseconds of each call, sorted.
fn one_by_one(
    client: &mut Client,
    count: u32,
    call: impl Fn(&mut Client, u32) -> anyhow::Result<Vec<u8>>,
) -> anyhow::Result<Vec<f64>> {
    let mut times = Vec::new();
    for number in 0..count {
        let begin = clock::now();
        call(client, number)?;
        times.push(begin.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    Ok(times)
}

pub(super) fn percentile(sorted: &[f64], percent: usize) -> f64 {
    let last = sorted.len().saturating_sub(1);
    sorted.get(last * percent / 100).copied().unwrap_or(0.0)
}

type Call<'a> = dyn Fn(&mut Client, u32) -> anyhow::Result<Vec<u8>> + Sync + 'a;

/// Answers a second to so many connections at once.
fn many(ask: &Ask, connections: u32, call: &Call<'_>) -> anyhow::Result<f64> {
    let is_over = AtomicBool::new(false);
    let done = AtomicU64::new(0);
    let begin = clock::now();
    let failed = std::thread::scope(|scope| {
        let work = |number: u32| {
            let mut client = Client::new(ask)?;
            while !is_over.load(Ordering::Relaxed) {
                call(&mut client, number)?;
                done.fetch_add(1, Ordering::Relaxed);
            }
            anyhow::Ok(())
        };
        let workers: Vec<_> = (0..connections)
            .map(|n| scope.spawn(move || work(n)))
            .collect();
        // A thread that ended earlier may have left a wake-up behind.
        let whole = Duration::from_secs(ask.secs);
        while let Some(rest) = whole
            .checked_sub(begin.elapsed())
            .filter(|rest| !rest.is_zero())
        {
            std::thread::park_timeout(rest);
        }
        is_over.store(true, Ordering::Relaxed);
        let mut ends = workers.into_iter().map(|worker| worker.join());
        ends.find_map(|end| {
            let end = end.unwrap_or_else(|_| Err(anyhow::anyhow!("a client panicked")));
            end.err()
        })
    });
    if let Some(why) = failed {
        return Err(why);
    }
    Ok(done.load(Ordering::Relaxed) as f64 / begin.elapsed().as_secs_f64())
}
