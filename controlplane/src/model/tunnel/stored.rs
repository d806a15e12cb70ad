//! The stored form of a tunnel, of this version and of those before.
//!
//! Before there were kinds every tunnel was a WireGuard tunnel, whose fields stood beside the others.

use std::net::SocketAddr;

use dataplane::id::TunnelId;
use dataplane::tunnel::wireguard::{PresharedKey, PublicKey};
use ipnet::IpNet;
use serde::Deserialize;
use uuid::Uuid;

use super::{HealthCheck, Interface, Kind, Tunnel, WireGuard};
use crate::model::{HexId, Timestamp};

#[derive(Deserialize)]
pub(super) struct Stored {
    id: Uuid,
    account_id: HexId,
    number: TunnelId,
    name: String,
    #[serde(default)]
    description: String,
    virtual_network_id: Uuid,
    #[serde(default)]
    interface: Interface,
    allowed_prefixes: Vec<IpNet>,
    mtu: u16,
    #[serde(default)]
    health_check: Option<HealthCheck>,
    kind: Option<Kind>,
    created_at: Timestamp,
    modified_at: Option<Timestamp>,
    // Before there were kinds:
    peer_public_key: Option<PublicKey>,
    preshared_key: Option<PresharedKey>,
    endpoint: Option<SocketAddr>,
    persistent_keepalive: Option<u16>,
}

/// Neither a kind, nor a WireGuard peer.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the tunnel has neither a kind nor a peer_public_key")]
pub(super) struct NoKind;

impl TryFrom<Stored> for Tunnel {
    type Error = NoKind;

    fn try_from(stored: Stored) -> Result<Tunnel, NoKind> {
        let before = stored.peer_public_key.map(|peer_public_key| {
            Kind::WireGuard(WireGuard {
                peer_public_key,
                preshared_key: stored.preshared_key,
                endpoint: stored.endpoint,
                persistent_keepalive: stored.persistent_keepalive.unwrap_or(0),
            })
        });
        Ok(Tunnel {
            id: stored.id,
            account_id: stored.account_id,
            number: stored.number,
            name: stored.name,
            description: stored.description,
            virtual_network_id: stored.virtual_network_id,
            interface: stored.interface,
            allowed_prefixes: stored.allowed_prefixes,
            mtu: stored.mtu,
            health_check: stored.health_check,
            kind: stored.kind.or(before).ok_or(NoKind)?,
            created_at: stored.created_at,
            modified_at: stored.modified_at.unwrap_or(stored.created_at),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written by the version before kinds, but for the keys, which are RFC 7748's.
    const RELEASED: &str = r#"{"id":"7b3c1d0e-55a1-4f3c-9c0a-0f4d2f1f8a11",
        "account_id":"023e105f4ecef8ad9ca31a8372d0c353","number":7,"name":"office",
        "virtual_network_id":"1b3c1d0e-55a1-4f3c-9c0a-0f4d2f1f8a12",
        "peer_public_key":"hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=",
        "preshared_key":"dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=",
        "endpoint":"198.51.100.11:51820","allowed_prefixes":["10.0.0.0/8"],"mtu":1420,
        "persistent_keepalive":25,"created_at":"2026-11-22T10:00:00.5Z"}"#;

    #[test]
    fn a_tunnel_of_the_version_before_kinds_is_read_and_written_as_wireguard() {
        let tunnel: Tunnel = serde_json::from_str(RELEASED).unwrap();
        assert_eq!(
            (tunnel.number, tunnel.name.as_str(), tunnel.mtu),
            (TunnelId(7), "office", 1420)
        );
        let Kind::WireGuard(wireguard) = &tunnel.kind else {
            panic!("{tunnel:?}");
        };
        assert_eq!(
            wireguard.endpoint,
            Some("198.51.100.11:51820".parse().unwrap())
        );
        assert_eq!(wireguard.persistent_keepalive, 25);
        assert!(wireguard.preshared_key.is_some());
        assert_eq!(tunnel.interface, Interface::default());
        assert_eq!(tunnel.modified_at, tunnel.created_at);
        let again: Tunnel = serde_json::from_slice(&serde_json::to_vec(&tunnel).unwrap()).unwrap();
        assert_eq!(again, tunnel);
    }

    #[test]
    fn a_tunnel_of_no_kind_is_not_read() {
        let without = RELEASED.replace("peer_public_key", "something_else");
        let why = serde_json::from_str::<Tunnel>(&without).unwrap_err();
        assert!(why.to_string().contains("neither a kind"), "{why}");
    }
}
