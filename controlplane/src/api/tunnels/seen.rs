//! What the node says of its tunnels.

use dataplane::node::TunnelStatus;
use dataplane::program::Key;
use dataplane::program::health::State;
use serde_json::{Value, json};

use crate::api::context::{self, Shared};
use crate::model::Timestamp;
use crate::model::tunnel::Tunnel;

/// What the node says of its tunnels, asked once per request.
pub(crate) struct Seen {
    tunnels: Vec<TunnelStatus>,
    rejected: Vec<(Key, String)>,
    at: Timestamp,
}

impl Seen {
    /// Asks the node.
    pub(crate) fn now(shared: &Shared) -> Seen {
        Seen {
            tunnels: shared.status.tunnels(),
            rejected: shared.status.rejected(),
            at: context::now(),
        }
    }

    /// All that the node says of the tunnel.
    pub(crate) fn of(&self, tunnel: &Tunnel) -> Option<&TunnelStatus> {
        self.tunnels.iter().find(|seen| seen.id == tunnel.number)
    }

    /// The moment that many seconds before the node was asked.
    pub(crate) fn before(&self, secs: u64) -> Timestamp {
        self.at.before(secs)
    }

    /// The product's words: never been up, up, or no longer up (api.md 3.3).
    pub(crate) fn status(&self, tunnel: &Tunnel) -> &'static str {
        match self.of(tunnel) {
            Some(TunnelStatus {
                health: Some(health),
                ..
            }) if health.state != State::Unknown => health.state.name(),
            Some(seen) if seen.is_up => "healthy",
            Some(seen) if seen.last_handshake_secs.is_some() => "down",
            Some(_) | None => "inactive",
        }
    }

    /// Why the node has not taken the tunnel; `None` when it has, or was not told of it.
    pub(crate) fn rejection(&self, tunnel: &Tunnel) -> Option<&str> {
        let key = Key::Tunnel(tunnel.number);
        let found = self.rejected.iter().find(|(rejected, _)| *rejected == key);
        found.map(|(_, why)| why.as_str())
    }

    /// What probes say of the tunnel; `null` when it is not probed.
    pub(crate) fn health(&self, tunnel: &Tunnel) -> Value {
        let status = self.of(tunnel);
        let Some(health) = status.and_then(|status| status.health.as_ref()) else {
            return Value::Null;
        };
        let history = health.transitions.iter().map(|change| {
            json!({
                "at": self.before(change.ago_secs),
                "from": change.from.name(),
                "to": change.to.name(),
                "reason": change.reason.text(),
            })
        });
        json!({
            "state": health.state.name(),
            "since": self.before(health.since_secs),
            "probes_sent": health.probes_sent,
            "probes_lost": health.probes_lost,
            "loss_percent": health.loss_percent,
            "rtt_us": health.rtt_us,
            "history": history.collect::<Vec<Value>>(),
        })
    }

    /// What protects an IPsec tunnel, and in words why nothing does; `null` for other kinds.
    pub(crate) fn ipsec(&self, tunnel: &Tunnel) -> Value {
        let status = self.of(tunnel).and_then(|status| status.ipsec.as_ref());
        status.map_or(Value::Null, |status| json!(status))
    }

    /// What went through the tunnel.
    pub(crate) fn traffic(&self, tunnel: &Tunnel) -> Value {
        let status = self.of(tunnel);
        let count = |of: fn(&TunnelStatus) -> u64| status.map_or(0, of);
        json!({
            "tx_packets": count(|status| status.tx_packets),
            "tx_bytes": count(|status| status.tx_bytes),
            "rx_packets": count(|status| status.rx_packets),
            "rx_bytes": count(|status| status.rx_bytes),
            "dropped_packets": count(|status| status.dropped_packets),
        })
    }
}
