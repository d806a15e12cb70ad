//! How tunnels and static routes look in answers.

use serde_json::{Value, json};

use super::super::tunnels::Seen;
use crate::model::static_route::StaticRoute;
use crate::model::tunnel::{Gre, HealthCheck, Ipsec, Kind, TargetForm, Tunnel};
use crate::store::Snapshot;

/// A tunnel. What the product does not have stands beside what it has.
pub(super) fn tunnel(seen: &Seen, tunnel: &Tunnel, form: TargetForm) -> Value {
    let mut shown = json!({
        "id": tunnel.id.simple(),
        "name": tunnel.name,
        "description": tunnel.description,
        "interface_address": tunnel.interface.ipv4,
        "interface_address6": tunnel.interface.ipv6,
        "customer_interface_address": tunnel.interface.customer_sides().find(|ip| ip.is_ipv4()),
        "customer_interface_address6": tunnel.interface.customer_sides().find(|ip| ip.is_ipv6()),
        "mtu": tunnel.mtu,
        "automatic_return_routing": false,
        "virtual_network_id": tunnel.virtual_network_id,
        "allowed_prefixes": tunnel.allowed_prefixes,
        "tun_type": tunnel.tun_type(),
        "status": seen.status(tunnel),
        "health": seen.health(tunnel),
        "rejected": seen.rejection(tunnel),
        "traffic": seen.traffic(tunnel),
        "created_on": tunnel.created_at,
        "modified_on": tunnel.modified_at,
    });
    let outside = match &tunnel.kind {
        Kind::Gre(gre) => {
            add_gre(&mut shown, gre);
            Some(gre.remote)
        }
        Kind::Ipsec(ipsec) => {
            add_ipsec(&mut shown, tunnel, ipsec);
            shown["ipsec_status"] = seen.ipsec(tunnel);
            ipsec.remote
        }
        Kind::Interconnect(link) => {
            shown["device"] = json!(link.device);
            shown["vlan"] = json!(link.vlan);
            None
        }
        Kind::WireGuard(_) => None,
    };
    let check = tunnel.health_check.unwrap_or_else(HealthCheck::off);
    shown["health_check"] = check.show(check.default_target(tunnel, outside), form);
    shown
}

fn add_gre(shown: &mut Value, gre: &Gre) {
    shown["cloudflare_gre_endpoint"] = json!(gre.local);
    shown["customer_gre_endpoint"] = json!(gre.remote);
    shown["ttl"] = json!(gre.ttl);
    shown["key_tx"] = json!(gre.key_tx);
    shown["key_rx"] = json!(gre.key_rx);
    shown["checksum"] = json!(gre.is_checksummed);
    shown["sequence"] = json!(gre.is_sequenced);
    shown["keepalive"] = match gre.keepalive {
        Some(keepalive) => json!({
            "interval_secs": keepalive.interval_secs,
            "retries": keepalive.retries,
        }),
        None => Value::Null,
    };
}

fn add_ipsec(shown: &mut Value, tunnel: &Tunnel, ipsec: &Ipsec) {
    shown["cloudflare_endpoint"] = json!(ipsec.local);
    shown["customer_endpoint"] = json!(ipsec.remote.map_or_else(String::new, |ip| ip.to_string()));
    shown["allow_null_cipher"] = json!(false);
    shown["replay_protection"] = json!(ipsec.has_replay_protection);
    shown["psk_metadata"] = json!({"last_generated_on": ipsec.psk_set_at});
    shown["custom_remote_identities"] = json!({"fqdn_id": ipsec.fqdn_id.as_deref().unwrap_or("")});
    shown["ike_identities"] = ipsec.identities(tunnel.account_id, tunnel.id).show();
    shown["role"] = json!(ipsec.role.name());
    shown["encapsulation"] = json!(ipsec.encapsulation.name());
    shown["ike"] = ipsec.ike.show();
    shown["esp"] = ipsec.esp.show();
}

/// A static route.
pub(super) fn route(snapshot: &Snapshot, route: &StaticRoute) -> Value {
    let tunnel = snapshot.tunnels.get(&route.tunnel_id);
    json!({
        "id": route.id,
        "prefix": route.prefix,
        "nexthop": route.nexthop,
        "priority": route.priority,
        "weight": route.weight,
        "description": route.description,
        "scope": {},
        "virtual_network_id": route.virtual_network_id,
        "tunnel_id": route.tunnel_id.simple(),
        "tunnel_name": tunnel.map(|tunnel| tunnel.name.as_str()),
        "tun_type": tunnel.map(|tunnel| tunnel.tun_type()),
        "created_on": route.created_on,
        "modified_on": route.modified_on,
    })
}
