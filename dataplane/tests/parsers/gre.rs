//! GRE: it authenticates nobody, so packets come out of what anybody sent. They are IP, and within bounds.

use std::time::{Duration, Instant};

use dataplane::id::TunnelId;
use dataplane::packet::Outbox;
use dataplane::tunnel::gre::{Config, Device, Keepalive, Slot, TTL_DEFAULT};
use dataplane::tunnel::{DATAGRAM_LEN_MAX, Decap};
use dataplane::wire::gre::Header;

use super::{INNER, address, sent, start};

/// Tunnels with each option, under names of their own.
fn configs(at: usize) -> [(&'static str, Config); 4] {
    let plain = Config {
        local: address(at),
        remote: address(1 - at),
        key_tx: None,
        key_rx: None,
        is_checksummed: false,
        is_sequenced: false,
        keepalive: None,
        ttl: TTL_DEFAULT,
    };
    let with = |key| Config {
        key_tx: Some(key),
        key_rx: Some(key),
        ..plain.clone()
    };
    let whole = Config {
        is_checksummed: true,
        is_sequenced: true,
        ..with(8)
    };
    let kept = Config {
        keepalive: Some(Keepalive {
            interval_secs: 1,
            retries: 3,
        }),
        ..with(9)
    };
    [
        ("plain", plain.clone()),
        ("key", with(7)),
        ("whole", whole),
        ("kept", kept),
    ]
}

fn device(at: usize, now: Instant) -> (Device, Vec<(&'static str, Slot)>) {
    let mut device = Device::default();
    let slots = configs(at)
        .into_iter()
        .zip(1..)
        .map(|((name, config), id)| {
            let slot = device.put(TunnelId(id), &config, now).unwrap();
            (name, slot)
        });
    let slots = slots.collect();
    (device, slots)
}

/// What one end sends, by names that say what it is.
pub(super) fn said() -> Vec<(String, Vec<u8>)> {
    let now = start();
    let (mut device, slots) = device(0, now);
    let mut out = Outbox::new();
    let mut said = Vec::new();
    for (name, slot) in slots {
        device.encap(slot, &INNER, &mut out).unwrap();
        let packets = sent(&mut out).into_iter().map(|(_, packet)| packet);
        said.extend(packets.map(|packet| (format!("gre-{name}"), packet)));
    }
    device.handle_timeout(now + Duration::from_secs(2), &mut out);
    let keepalives = sent(&mut out).into_iter().map(|(_, packet)| packet);
    said.extend(keepalives.map(|packet| ("gre-keepalive".to_owned(), packet)));
    said
}

/// The header of whatever it is, written again.
pub(super) fn parse(bytes: &[u8]) {
    if let Ok((header, len)) = Header::parse(bytes) {
        assert!(len <= bytes.len() && len <= 16, "{header:?}");
    }
}

/// A device with every kind of tunnel.
pub(super) struct Target {
    device: Device,
    out: Outbox,
}

impl Target {
    pub(super) fn new(now: Instant) -> Self {
        let (device, _) = device(1, now);
        let out = Outbox::new();
        Self { device, out }
    }

    /// An answer is a keepalive sent back: one for each, and no longer.
    pub(super) fn take(&mut self, bytes: &[u8], now: Instant) {
        let mut buffer = vec![0; DATAGRAM_LEN_MAX];
        let between = (address(1), address(0));
        let datagram = &mut bytes.to_vec();
        let taken = self
            .device
            .decap(between, datagram, &mut buffer, now, &mut self.out);
        if let Ok(Decap::Inner { len, .. }) = taken {
            assert!(len < bytes.len() && matches!(buffer[0] >> 4, 4 | 6));
        }
        let answers = sent(&mut self.out);
        assert!(answers.len() <= 1 && answers.iter().all(|(_, packet)| packet.len() < bytes.len()));
        self.device.handle_timeout(now, &mut self.out);
        drop(sent(&mut self.out));
    }
}
