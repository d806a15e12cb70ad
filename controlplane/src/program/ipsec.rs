//! Compiles an IPsec tunnel.

use std::time::Duration;

use dataplane::tunnel::ipsec::cipher::Transform;
use dataplane::tunnel::ipsec::ike::{self, Identity, Times, dh, everything};
use dataplane::tunnel::ipsec::{self, IkeKeying, Keying};

use crate::model::tunnel::{Cipher, Encapsulation, Group, Ipsec, Prf, Role, Tunnel};

/// What a node is told of the tunnel; `None` without a key.
pub(super) fn config(tunnel: &Tunnel, ipsec: &Ipsec) -> Option<ipsec::Config> {
    let psk = ipsec.psk.as_ref()?;
    let keying = IkeKeying {
        psk: ike::Psk(psk.reveal().as_bytes().to_vec()),
        local_identity: Identity::Address(ipsec.local),
        remote_identities: identities(tunnel, ipsec),
        is_initiator: ipsec.role == Role::Initiator,
        ike: ike::IkeOffer {
            ciphers: ipsec.ike.ciphers.iter().map(cipher).collect(),
            prfs: ipsec.ike.prfs.iter().map(prf).collect(),
            groups: ipsec.ike.groups.iter().map(group).collect(),
        },
        esp: ike::EspOffer {
            ciphers: ipsec.esp.ciphers.iter().map(cipher).collect(),
            groups: ipsec.esp.groups.iter().map(group).collect(),
            esn: vec![ipsec.esp.has_esn],
        },
        local_traffic: everything(),
        remote_traffic: everything(),
        further: Vec::new(),
        times: Times {
            ike: Duration::from_secs(ipsec.ike.lifetime_secs.into()),
            child: Duration::from_secs(ipsec.esp.lifetime_secs.into()),
            dpd: Duration::from_secs(ipsec.ike.dpd_secs.into()),
        },
    };
    Some(ipsec::Config {
        local: ipsec.local,
        remote: ipsec.remote,
        keying: Keying::Ike(Box::new(keying)),
        encapsulation: match ipsec.encapsulation {
            Encapsulation::Auto => ipsec::Encapsulation::Auto,
            Encapsulation::Udp => ipsec::Encapsulation::Udp,
        },
        has_replay_protection: ipsec.has_replay_protection,
    })
}

/// Who the peer may be. An initiator asks for the first: routers that are called go by their address.
fn identities(tunnel: &Tunnel, ipsec: &Ipsec) -> Vec<Identity> {
    let known = ipsec.identities(tunnel.account_id, tunnel.id);
    let named = [
        Some(Identity::Fqdn(known.fqdn)),
        Some(Identity::Mail(known.mail)),
        Some(Identity::KeyId(known.key_id.into_bytes())),
        known.custom_fqdn.map(Identity::Fqdn),
    ];
    let address = known.address.map(Identity::Address);
    address
        .into_iter()
        .chain(named.into_iter().flatten())
        .collect()
}

fn cipher(cipher: &Cipher) -> Transform {
    match cipher {
        Cipher::Aes128Gcm16 => Transform::Aes128Gcm16,
        Cipher::Aes256Gcm16 => Transform::Aes256Gcm16,
        Cipher::Chacha20Poly1305 => Transform::Chacha20Poly1305,
        Cipher::Aes256CbcSha256 => Transform::Aes256CbcSha256,
    }
}

fn prf(prf: &Prf) -> ike::Prf {
    match prf {
        Prf::Sha256 => ike::Prf::Sha256,
        Prf::Sha384 => ike::Prf::Sha384,
    }
}

fn group(group: &Group) -> dh::Group {
    match group {
        Group::Modp2048 => dh::Group::Modp2048,
        Group::P256 => dh::Group::P256,
        Group::P384 => dh::Group::P384,
        Group::X25519 => dh::Group::X25519,
    }
}
