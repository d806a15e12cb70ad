//! `[ipsec]` of a site: IKEv2 with a pre-shared key, or keys of both operators.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use dataplane::tunnel::ipsec::cipher::Transform;
use dataplane::tunnel::ipsec::ike::{EspOffer, Identity, IkeOffer, Pair, Psk, Times, everything};
use dataplane::tunnel::ipsec::{self, Encapsulation, IkeKeying, Keying, StaticKeying};
use dataplane::wire::ikev2::payload::Selector;
use serde::Deserialize;

/// `[ipsec]` of a site.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SiteIpsec {
    /// This machine's address towards the edge.
    pub(crate) local: IpAddr,
    /// The edge.
    pub(crate) remote: IpAddr,
    /// What both know, or:
    psk: Option<String>,
    /// a file that holds it. Or:
    psk_file: Option<PathBuf>,
    /// no IKE at all.
    #[serde(rename = "static")]
    fixed: Option<Static>,
    /// Who this side is: an address, `name@host`, `keyid:anything` or a domain name.
    local_identity: Option<String>,
    /// Who the edge is, likewise.
    remote_identity: Option<String>,
    /// Whether this side begins; default yes.
    initiates: Option<bool>,
    /// What packets go in: `udp`, or `auto` for UDP only where there is a NAT, or with static keys `raw`.
    #[serde(default = "udp")]
    encapsulation: Encapsulation,
    /// What may protect packets, best first; default AES-GCM, ChaCha20-Poly1305, AES-CBC.
    esp: Option<Vec<Transform>>,
    /// Seconds after which a child SA is rekeyed.
    rekey_secs: Option<u64>,
    /// Seconds after which the IKE SA is rekeyed.
    rekey_ike_secs: Option<u64>,
    /// Whether packets that came before are dropped.
    #[serde(default = "yes")]
    replay_protection: bool,
    /// What has a child SA of its own, in place of one for everything.
    #[serde(default)]
    child: Vec<Child>,
    /// What is reached through the edge; default 100.64.0.0/12 and the IPv6 source range.
    pub(crate) routes: Option<Vec<ipnet::IpNet>>,
}

/// `[[ipsec.child]]`: what one child SA carries.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Child {
    /// Networks of this side.
    local: Vec<ipnet::IpNet>,
    /// Networks of the edge's side.
    remote: Vec<ipnet::IpNet>,
}

/// `[ipsec.static]`: two SAs that are never changed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Static {
    /// What protects packets.
    esp: Transform,
    /// Whether sequence numbers have 64 bits.
    #[serde(default)]
    esn: bool,
    /// The SPI of what comes.
    spi_in: u32,
    /// The SPI of what goes.
    spi_out: u32,
    /// A file with the key of what comes in hexadecimal: as `ip xfrm` takes it, the salt behind the key.
    key_in_file: PathBuf,
    /// The same for what goes.
    key_out_file: PathBuf,
}

fn yes() -> bool {
    true
}

fn udp() -> Encapsulation {
    Encapsulation::Udp
}

impl SiteIpsec {
    /// The tunnel as the router is told of it.
    pub(crate) fn tunnel(&self) -> anyhow::Result<ipsec::Config> {
        let keying = match &self.fixed {
            Some(fixed) => Keying::Static(Box::new(self.fixed(fixed)?)),
            None => Keying::Ike(Box::new(self.ike()?)),
        };
        Ok(ipsec::Config {
            local: self.local,
            remote: Some(self.remote),
            keying,
            encapsulation: self.encapsulation,
            has_replay_protection: self.replay_protection,
        })
    }

    fn ike(&self) -> anyhow::Result<IkeKeying> {
        let identity = |field: &str, text: &Option<String>| {
            let text = text.as_deref().unwrap_or_default();
            let parsed = text.parse::<Identity>();
            parsed.map_err(|reason| anyhow::anyhow!("[ipsec] {field}: {reason}"))
        };
        let times = Times::default();
        let child = self.rekey_secs.map_or(times.child, Duration::from_secs);
        let ike = self.rekey_ike_secs.map_or(times.ike, Duration::from_secs);
        if child.is_zero() || ike.is_zero() {
            anyhow::bail!("[ipsec] rekey_secs and rekey_ike_secs are at least 1");
        }
        let mut esp = EspOffer::default();
        if let Some(ciphers) = &self.esp {
            esp.ciphers.clone_from(ciphers);
        }
        let mut children = self.child.iter().map(Child::pair);
        let first = children.next().unwrap_or_else(|| Pair {
            local: everything(),
            remote: everything(),
        });
        Ok(IkeKeying {
            psk: Psk(self.psk()?.into_bytes()),
            local_identity: identity("local_identity", &self.local_identity)?,
            remote_identities: vec![identity("remote_identity", &self.remote_identity)?],
            is_initiator: self.initiates.unwrap_or(true),
            ike: IkeOffer::default(),
            esp,
            local_traffic: first.local,
            remote_traffic: first.remote,
            further: children.collect(),
            times: Times {
                ike,
                child,
                ..times
            },
        })
    }

    fn psk(&self) -> anyhow::Result<String> {
        match (&self.psk, &self.psk_file) {
            (Some(psk), None) => Ok(psk.clone()),
            (None, Some(path)) => std::fs::read_to_string(path)
                .map(|text| text.trim().to_owned())
                .with_context(|| format!("cannot read psk_file {}", path.display())),
            (None, None) | (Some(_), Some(_)) => {
                anyhow::bail!("[ipsec] needs either psk or psk_file, or [ipsec.static]")
            }
        }
    }

    /// Static keys. What only IKE has says that somebody expects IKE.
    fn fixed(&self, fixed: &Static) -> anyhow::Result<StaticKeying> {
        let of_ike = [
            ("psk", self.psk.is_some()),
            ("psk_file", self.psk_file.is_some()),
            ("local_identity", self.local_identity.is_some()),
            ("remote_identity", self.remote_identity.is_some()),
            ("initiates", self.initiates.is_some()),
            ("esp", self.esp.is_some()),
            ("rekey_secs", self.rekey_secs.is_some()),
            ("rekey_ike_secs", self.rekey_ike_secs.is_some()),
            ("child", !self.child.is_empty()),
        ];
        if let Some((field, _)) = of_ike.iter().find(|(_, is_given)| *is_given) {
            anyhow::bail!("[ipsec] has {field} and [ipsec.static]: without IKE leave {field} out");
        }
        Ok(StaticKeying {
            transform: fixed.esp,
            has_esn: fixed.esn,
            spi_in: fixed.spi_in,
            spi_out: fixed.spi_out,
            key_in: key("key_in_file", &fixed.key_in_file)?,
            key_out: key("key_out_file", &fixed.key_out_file)?,
        })
    }
}

impl Child {
    fn pair(&self) -> Pair {
        let of = |nets: &[ipnet::IpNet]| nets.iter().map(selector).collect();
        Pair {
            local: of(&self.local),
            remote: of(&self.remote),
        }
    }
}

/// Everything from or to a network.
fn selector(net: &ipnet::IpNet) -> Selector {
    Selector {
        protocol: 0,
        ports: (0, u16::MAX),
        addresses: (net.network(), net.broadcast()),
    }
}

/// A key in hexadecimal, with or without `0x`.
fn key(field: &str, path: &Path) -> anyhow::Result<Vec<u8>> {
    let text = std::fs::read_to_string(path);
    let text = text.with_context(|| format!("cannot read {field} {}", path.display()))?;
    let digits = text.trim();
    let digits = digits.strip_prefix("0x").unwrap_or(digits).as_bytes();
    let pairs = digits.chunks(2).map(|pair| match pair {
        [high, low] => Some(hex(*high)? << 4 | hex(*low)?),
        _ => None,
    });
    // The text is not shown: most of it may be right.
    let key: Option<Vec<u8>> = pairs.collect();
    key.with_context(|| {
        format!(
            "[ipsec.static] {field}: {} holds no key in hexadecimal",
            path.display()
        )
    })
}

fn hex(digit: u8) -> Option<u8> {
    let value = char::from(digit).to_digit(16)?;
    u8::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMON: &str = "local = \"192.0.2.1\"\nremote = \"192.0.2.2\"\n";

    fn read(text: &str) -> anyhow::Result<ipsec::Config> {
        toml::from_str::<SiteIpsec>(&format!("{COMMON}{text}"))?.tunnel()
    }

    #[test]
    fn static_keys_are_read_as_ip_xfrm_writes_them() {
        let dir = std::env::temp_dir().join(format!("portcullis-keys-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let file = |name: &str, text: &str| {
            std::fs::write(dir.join(name), text).unwrap();
            dir.join(name).display().to_string()
        };
        let (good, bare) = (format!("0x{}\n", "0aF1".repeat(10)), "00".repeat(20));
        let keys = |key_in: &str, key_out: &str| {
            format!(
                "[static]\nesp = \"aes128-gcm16\"\nesn = true\nspi_in = 4097\nspi_out = 4098\n\
                 key_in_file = \"{}\"\nkey_out_file = \"{}\"\n",
                file("in", key_in),
                file("out", key_out),
            )
        };
        let raw = format!("encapsulation = \"raw\"\n{}", keys(&good, &bare));
        let config = read(&raw).unwrap();
        let Keying::Static(keying) = config.keying else {
            panic!("{config:?}");
        };
        assert_eq!(config.encapsulation, Encapsulation::Raw);
        assert_eq!(keying.key_in, [0x0a, 0xf1].repeat(10));
        assert_eq!(keying.key_out, [0; 20]);
        assert!(keying.has_esn && (keying.spi_in, keying.spi_out) == (4097, 4098));
        for wrong in ["", "0x12345", "xy"] {
            let wrong = if wrong.is_empty() { "0g" } else { wrong };
            let refused = read(&keys(&good, wrong)).unwrap_err().to_string();
            assert!(refused.contains("key_out_file"), "{refused}");
        }
        let refused = read(&format!("psk = \"x\"\n{}", keys(&good, &bare)));
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains("leave psk out"), "{refused}");
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn ike_needs_a_key_and_names() {
        for (text, words) in [
            ("", "psk"),
            ("psk = \"x\"", "local_identity"),
            ("psk = \"x\"\nlocal_identity = \"a\"", "remote_identity"),
            ("psk = \"x\"\nrekey_secs = 0", "rekey_secs"),
        ] {
            let refused = read(text).unwrap_err().to_string();
            assert!(refused.contains(words), "{refused}");
        }
        let names = "psk = \"x\"\nlocal_identity = \"a.example\"\nremote_identity = \"b@example\"";
        assert!(matches!(read(names).unwrap().keying, Keying::Ike(_)));
        let children = format!(
            "{names}\n[[child]]\nlocal = [\"10.1.0.0/16\"]\nremote = [\"0.0.0.0/0\", \"::/0\"]\n\
             [[child]]\nlocal = [\"10.2.0.9/16\"]\nremote = [\"10.9.0.0/24\"]"
        );
        let Keying::Ike(keying) = read(&children).unwrap().keying else {
            panic!("static");
        };
        assert_eq!((keying.remote_traffic.len(), keying.further.len()), (2, 1));
        let ends: (IpAddr, IpAddr) = ([10, 2, 0, 0].into(), [10, 2, 255, 255].into());
        assert_eq!(keying.further[0].local[0].addresses, ends);
    }
}
