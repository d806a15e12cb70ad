//! A store with as much in it as wanted: zones with records, vnets with tunnels and routes.

use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::Context as _;
use controlplane::model::account::Account;
use controlplane::model::record::{Kind, Record, Settings};
use controlplane::model::route::Route;
use controlplane::model::token::{self, Token};
use controlplane::model::tunnel::{self, Identity, Interface, Tunnel, WireGuard};
use controlplane::model::vnet::Vnet;
use controlplane::model::zone::Zone;
use controlplane::model::{HexId, Resource, Timestamp};
use controlplane::store::{Embedded, Store as _, Write};
use controlplane::{Keys, MasterKey};
use dataplane::id::{TunnelId, VnetId};
use dataplane::tunnel::wireguard::{PrivateKey, PublicKey};
use ipnet::Ipv4Net;
use ring::rand::SystemRandom;
use uuid::Uuid;

/// Tunnels of a vnet, and routes of a tunnel: 10.0.0.0/8 has room for six times as many /24.
const TUNNELS: u32 = 10;
const ROUTES: u32 = 1_000;

/// How much there is.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Size {
    /// Zones.
    #[arg(long, default_value_t = 10_000)]
    pub zones: u32,
    /// Records, spread over the zones.
    #[arg(long, default_value_t = 100_000)]
    pub records: u32,
    /// Routes: a thousand to a tunnel, ten tunnels to a vnet.
    #[arg(long, default_value_t = 1_000_000)]
    pub routes: u32,
}

/// Fills a new store in `directory` and leaves the API token in its file `token`.
///
/// # Errors
/// When there is a store already, or it cannot be written.
pub fn fill(directory: &Path, size: Size) -> anyhow::Result<()> {
    std::fs::create_dir_all(directory).context("cannot make the directory")?;
    let path = directory.join("portcullis.redb");
    anyhow::ensure!(!path.exists(), "{} exists", path.display());
    let store = Embedded::open(&path)?;
    let now = Timestamp::new(time::OffsetDateTime::UNIX_EPOCH);
    let account = HexId::random();
    let mut writes = Vec::new();
    let random = SystemRandom::new();
    let no_random = "no random bytes";
    let secret = token::secret(&random).ok().context(no_random)?;
    let key = MasterKey::generate().ok().context(no_random)?;
    std::fs::write(directory.join("token"), &secret).context("cannot write the token")?;
    std::fs::write(directory.join("key"), key.to_base64()).context("cannot write the key")?;
    let token = Token::unrestricted("bench", Keys::new(&key).hash(&secret), now);
    put(&mut writes, &token)?;
    put(
        &mut writes,
        &Account {
            id: account,
            name: "bench".into(),
            created_on: now,
        },
    )?;
    let key = PrivateKey([7; 32]);
    put(
        &mut writes,
        &Identity {
            account_id: account,
            private_key: key,
        },
    )?;
    zones(&mut writes, size, account, now)?;
    routes(&mut writes, size, account, now)?;
    store.replace(1, &writes)?;
    Ok(())
}

fn put<R: Resource>(writes: &mut Vec<Write>, object: &R) -> anyhow::Result<()> {
    writes.push(Write {
        key: format!("{}/{}", R::KIND, object.id()),
        value: Some(serde_json::to_vec(object)?),
    });
    Ok(())
}

fn zones(
    writes: &mut Vec<Write>,
    size: Size,
    account_id: HexId,
    now: Timestamp,
) -> anyhow::Result<()> {
    let each = size.records.checked_div(size.zones).unwrap_or(0);
    for number in 0..size.zones {
        let zone = Zone {
            id: HexId::random(),
            account_id,
            name: format!("zone{number}.example"),
            paused: false,
            settings: Default::default(),
            serial: 1,
            created_on: now,
            modified_on: now,
        };
        put(writes, &zone)?;
        for record in 0..each {
            let address = Ipv4Addr::from(0xcb00_7100 | (record & 0xff));
            let record = Record {
                id: HexId::random(),
                zone_id: zone.id,
                name: format!("host{record}.{}", zone.name),
                kind: Kind::A,
                content: address.to_string(),
                ttl: 1,
                proxied: true,
                asked_private: false,
                virtual_network_id: None,
                priority: None,
                settings: Settings::default(),
                comment: None,
                tags: Vec::new(),
                created_on: now,
                modified_on: now,
                comment_modified_on: None,
                tags_modified_on: None,
            };
            put(writes, &record)?;
        }
    }
    Ok(())
}

fn routes(
    writes: &mut Vec<Write>,
    size: Size,
    account_id: HexId,
    now: Timestamp,
) -> anyhow::Result<()> {
    let tunnels = size.routes.div_ceil(ROUTES).max(1);
    let mut vnet = Uuid::nil();
    for tunnel in 0..tunnels {
        if tunnel.is_multiple_of(TUNNELS) {
            vnet = Uuid::new_v4();
            let number = u16::try_from(tunnel / TUNNELS + 1).context("too many vnets")?;
            put(writes, &vnet_of(vnet, account_id, number, now))?;
        }
        let id = Uuid::new_v4();
        put(writes, &tunnel_of(id, account_id, vnet, tunnel + 1, now))?;
        let done = tunnel * ROUTES;
        for route in 0..ROUTES.min(size.routes.saturating_sub(done)) {
            let number = (tunnel % TUNNELS) * ROUTES + route;
            let network = Ipv4Net::new(Ipv4Addr::from(0x0a00_0000 | (number << 8)), 24)?;
            let route = Route {
                id: Uuid::new_v4(),
                account_id,
                network: network.into(),
                tunnel_id: id,
                virtual_network_id: vnet,
                comment: String::new(),
                created_at: now,
            };
            put(writes, &route)?;
        }
    }
    Ok(())
}

fn vnet_of(id: Uuid, account_id: HexId, number: u16, now: Timestamp) -> Vnet {
    Vnet {
        id,
        account_id,
        number: VnetId(number),
        name: format!("vnet{number}"),
        comment: String::new(),
        is_default_network: number == 1,
        created_at: now,
    }
}

fn tunnel_of(id: Uuid, account_id: HexId, vnet: Uuid, number: u32, now: Timestamp) -> Tunnel {
    let mut peer = [0; 32];
    peer[..4].copy_from_slice(&number.to_be_bytes());
    Tunnel {
        id,
        account_id,
        number: TunnelId(number),
        name: format!("tunnel{number}"),
        description: String::new(),
        virtual_network_id: vnet,
        interface: Interface::default(),
        allowed_prefixes: Vec::new(),
        mtu: 1420,
        health_check: None,
        kind: tunnel::Kind::WireGuard(WireGuard {
            peer_public_key: PublicKey(peer),
            preshared_key: None,
            endpoint: None,
            persistent_keepalive: 0,
        }),
        created_at: now,
        modified_at: now,
    }
}
