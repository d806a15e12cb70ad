//! `portcullis show`: what a running node does, as tables or JSON.

use std::path::PathBuf;

use anyhow::bail;
use clap::ValueEnum;
use serde_json::Value;

use crate::{client, table};

/// Arguments of `portcullis show`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  portcullis show fib                      routes per vnet: prefix, next hop
  portcullis show return                   who owns which part of 100.64.0.0/12
  portcullis show tunnels                  endpoint, last handshake, traffic, health and its history
  portcullis show sources                  the source address of each vnet
  portcullis show counters --json          every counter, drop reasons included")]
pub(crate) struct Args {
    /// What to show.
    #[arg(value_enum)]
    what: What,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// The node's admin socket (`admin_socket` of its configuration).
    #[arg(
        long,
        env = "PORTCULLIS_SOCKET",
        default_value = "/run/portcullis/edge.sock"
    )]
    socket: PathBuf,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum What {
    /// Routes per vnet.
    Fib,
    /// Owners of the source range.
    Return,
    /// Tunnels and their state.
    Tunnels,
    /// Source addresses of the vnets.
    Sources,
    /// Counters, drop reasons included.
    Counters,
}

impl What {
    /// What a person reads first comes first.
    fn columns(self) -> &'static [&'static str] {
        match self {
            What::Fib => &["vnet", "vnet_name", "prefix", "nexthop", "chosen"],
            What::Return => &["prefix", "vnet", "node", "worker", "relay"],
            What::Tunnels => &[
                "id",
                "name",
                "vnet",
                "is_up",
                "endpoint",
                "last_handshake_secs",
                "mtu",
                "rx_packets",
                "rx_bytes",
                "tx_packets",
                "tx_bytes",
                "dropped_packets",
                "health",
            ],
            What::Sources => &["vnet", "vnet_name", "ipv4", "seen_ipv4", "ipv6"],
            What::Counters => &["counter", "value"],
        }
    }
}

/// Asks the node and prints the answer.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let what = match args.what {
        What::Fib => "fib",
        What::Return => "return",
        What::Tunnels => "tunnels",
        What::Sources => "sources",
        What::Counters => "counters",
    };
    let path = format!("/show/{what}");
    let answer = super::admin_runtime()?.block_on(client::admin(&args.socket, &path))?;
    if !answer.status.is_success() {
        bail!("{}", String::from_utf8_lossy(&answer.body));
    }
    let value = answer.json()?;
    if args.json {
        table::json(&value);
    } else {
        table::say(&text(&value, args.what.columns()));
    }
    Ok(())
}

fn text(value: &Value, columns: &[&str]) -> String {
    match value.as_array() {
        Some(rows) => {
            let shown: Vec<_> = rows.iter().map(with_health).collect();
            let histories = rows.iter().map(history);
            let histories: String = histories.collect();
            table::rows(&shown, columns) + &histories
        }
        None => table::rows(&flatten("", value), &["counter", "value"]),
    }
}

/// A row whose health fits a cell: the state and for how long, loss and round-trip time.
fn with_health(row: &Value) -> Value {
    let mut row = row.clone();
    if let Some(health) = row.get("health").filter(|health| health.is_object()) {
        let rtt = match health["rtt_us"].as_f64() {
            Some(rtt) => format!(", {:.1} ms", rtt / 1000.0),
            None => String::new(),
        };
        let state = health["state"].as_str().unwrap_or("-");
        let (since, loss) = (&health["since_secs"], &health["loss_percent"]);
        let text = format!("{state} for {since} s, {loss} % lost{rtt}");
        row["health"] = text.into();
    }
    row
}

/// The last changes of a tunnel's health, a line each; nothing when it has no health.
fn history(row: &Value) -> String {
    let transitions = row["health"]["transitions"].as_array();
    let Some(transitions) = transitions.filter(|transitions| !transitions.is_empty()) else {
        return String::new();
    };
    let word = |value: &Value| value.as_str().unwrap_or("-").replace('_', " ");
    let line = |one: &Value| {
        let (from, to) = (word(&one["from"]), word(&one["to"]));
        let reason = word(&one["reason"]);
        format!(
            "  {:>7} s ago  {from} to {to}: {reason}\n",
            one["ago_secs"].to_string()
        )
    };
    let lines: String = transitions.iter().map(line).collect();
    let name = row["name"].as_str().unwrap_or("-");
    format!("\n{name}:\n{lines}")
}

/// Nested counters as rows `drop.no_route 12`.
fn flatten(prefix: &str, value: &Value) -> Vec<Value> {
    match value {
        Value::Object(map) => map
            .iter()
            .flat_map(|(key, inner)| {
                let name = if prefix.is_empty() {
                    key.clone()
                } else {
                    format!("{prefix}.{key}")
                };
                flatten(&name, inner)
            })
            .collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            vec![serde_json::json!({"counter": prefix, "value": value})]
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn health_is_one_cell_and_its_history_follows_the_table() {
        let transition = json!({
            "ago_secs": 12, "from": "healthy", "to": "down", "reason": "no_answers",
        });
        let rows = json!([
            {"name": "a", "health": null},
            {"name": "b", "health": {
                "state": "down", "since_secs": 12, "loss_percent": 30, "rtt_us": 1540,
                "transitions": [transition],
            }},
        ]);
        let expected = "\
NAME  HEALTH
a     -
b     down for 12 s, 30 % lost, 1.5 ms

b:
       12 s ago  healthy to down: no answers
";
        assert_eq!(text(&rows, &["name", "health"]), expected);
    }
}
