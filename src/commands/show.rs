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
  portcullis show tunnels                  endpoint, last handshake, traffic
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
            What::Return => &["prefix", "vnet", "node", "worker"],
            What::Tunnels => &[
                "id",
                "name",
                "vnet",
                "is_up",
                "endpoint",
                "last_handshake_secs",
                "rx_packets",
                "rx_bytes",
                "tx_packets",
                "tx_bytes",
                "dropped_packets",
            ],
            What::Sources => &["vnet", "vnet_name", "ipv4", "ipv6"],
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
        Some(rows) => table::rows(rows, columns),
        None => table::rows(&flatten("", value), &["counter", "value"]),
    }
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
