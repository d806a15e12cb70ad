//! One peer: its session state, where it is (it roams on whatever authenticates), when to try again.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use boringtun::noise::errors::WireGuardError;
use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519;

use crate::id::TunnelId;
use crate::packet::{Outbox, Way};
use crate::tunnel::{Decap, Refusal};
use crate::wire::ecn;

use super::Config;
use super::identity::Identity;

/// Packets that wait for a session, per peer: a burst of first packets, not a stream. boringtun
/// itself would keep 256.
pub const QUEUE_LEN_MAX: usize = 64;

/// Bytes that a handshake initiation needs (WireGuard protocol, "First Message").
const INITIATION_LEN: usize = 148;
/// Bytes of a data message besides the packet.
pub(super) const DATA_OVERHEAD: u16 = 32;
/// Messages back to which a router may report one: a quarter of a second at a million packets a second.
const RECENT: u64 = 1 << 18;
/// First byte of a data message.
const DATA: u8 = 4;

/// Time after which boringtun sends an initiation again.
const REKEY_TIMEOUT: Duration = Duration::from_secs(5);
/// Added to it at random, so that two peers that start together do not stay together (WireGuard
/// paper, section 6.1).
const JITTER_MAX_MS: u64 = 333;

/// One WireGuard peer.
pub(super) struct Peer {
    pub(super) tunnel: TunnelId,
    pub(super) config: Config,
    /// Index into the device's identities.
    pub(super) identity: usize,
    pub(super) mtu: u16,
    pub(super) endpoint: Option<SocketAddr>,
    /// An `EndpointChanged` waits to be polled.
    pub(super) is_reported: bool,
    pub(super) given_up_packets: u64,
    tunn: Tunn,
    queued: usize,
    last_handshake: Option<Instant>,
    /// We answered a handshake, and wait for the first packet that proves it.
    is_confirming: bool,
    retry_at: Option<Instant>,
    jitter: u64,
    /// Receiver index and counter of the last data message.
    last_data: Option<(u32, u64)>,
}

impl Peer {
    /// A peer without a session.
    pub(super) fn new(
        tunnel: TunnelId,
        config: &Config,
        mtu: u16,
        index: u32,
        (identity_index, identity): (usize, &Identity),
    ) -> Self {
        let seed = config.peer.0.first_chunk().expect("thirty-two bytes");
        Self {
            tunnel,
            identity: identity_index,
            mtu,
            endpoint: config.endpoint,
            is_reported: false,
            given_up_packets: 0,
            tunn: Tunn::new(
                identity.secret(),
                x25519::PublicKey::from(config.peer.0),
                config.preshared_key.map(|key| key.0),
                config.keepalive,
                index,
                Some(identity.unlimited()),
            ),
            config: config.clone(),
            queued: 0,
            last_handshake: None,
            is_confirming: false,
            retry_at: None,
            jitter: u64::from_le_bytes(*seed) | 1,
            last_data: None,
        }
    }

    /// Whether a session is wanted even without traffic.
    fn is_persistent(&self) -> bool {
        self.config.endpoint.is_some() || self.config.keepalive.is_some_and(|secs| secs > 0)
    }

    /// Whether there is a session that can carry packets.
    pub(super) fn is_up(&self) -> bool {
        self.tunn.time_since_last_handshake().is_some()
    }

    pub(super) fn since_handshake(&self, now: Instant) -> Option<Duration> {
        self.last_handshake
            .map(|at| now.saturating_duration_since(at))
    }

    /// Sends a handshake initiation, if it is known whither.
    pub(super) fn initiate(&mut self, now: Instant, out: &mut Outbox) {
        let mut message = [0; INITIATION_LEN];
        if self.endpoint.is_none() {
            return;
        }
        if let TunnResult::WriteToNetwork(message) =
            self.tunn.format_handshake_initiation(&mut message, true)
        {
            send(self.endpoint, message, out);
            self.schedule_retry(now);
        }
    }

    pub(super) fn encap(
        &mut self,
        buffer: &mut [u8],
        len: usize,
        now: Instant,
        out: &mut Outbox,
    ) -> Result<(), Refusal> {
        let to = self.endpoint.ok_or(Refusal::NoEndpoint)?;
        if self.queued >= QUEUE_LEN_MAX {
            return Err(Refusal::QueueFull);
        }
        let padded_len = padded_len(len, self.mtu).clamp(len, buffer.len());
        buffer[len..padded_len].fill(0);
        let room = (padded_len + usize::from(DATA_OVERHEAD)).max(INITIATION_LEN);
        // Congestion shows outside (RFC 6040 section 4.1); the DSCP of what is inside is nobody's
        // business there, as the kernel's WireGuard has it.
        let way = Way {
            class: ecn::class(buffer) & ecn::MASK,
            ..Way::wireguard(to)
        };
        let room = out.reserve(way, room).ok_or(Refusal::OutboxFull)?;
        match self.tunn.encapsulate(&buffer[..padded_len], room) {
            TunnResult::WriteToNetwork(message) => {
                let (is_data, len) = (message[0] == DATA, message.len());
                if is_data {
                    self.last_data = numbers(message);
                }
                out.commit(len);
                if !is_data {
                    self.queued += 1;
                    self.schedule_retry(now);
                }
                Ok(())
            }
            TunnResult::Done => {
                self.queued += 1;
                Ok(())
            }
            TunnResult::Err(_)
            | TunnResult::WriteToTunnelV4(..)
            | TunnResult::WriteToTunnelV6(..) => Err(Refusal::Invalid),
        }
    }

    /// Whether `message` begins like a data message of the last ones that were sent.
    pub(super) fn has_sent(&self, message: &[u8]) -> bool {
        let (Some((index, counter)), Some((last_index, last))) = (numbers(message), self.last_data)
        else {
            return false;
        };
        let is_recent = counter <= last && last - counter < RECENT;
        message.first() == Some(&DATA) && index == last_index && is_recent
    }

    /// A data message for this peer's index. `Ok` means that it authenticated.
    pub(super) fn data(
        &mut self,
        from: SocketAddr,
        datagram: &[u8],
        buffer: &mut [u8],
        now: Instant,
        out: &mut Outbox,
    ) -> Result<Decap, Refusal> {
        let decap = match self.tunn.decapsulate(None, datagram, buffer) {
            TunnResult::Done => Decap::Control,
            TunnResult::WriteToTunnelV4(packet, _) | TunnResult::WriteToTunnelV6(packet, _) => {
                Decap::Inner {
                    tunnel: self.tunnel,
                    len: packet.len(),
                }
            }
            TunnResult::Err(error) => return Err(refusal(&error)),
            TunnResult::WriteToNetwork(_) => return Err(Refusal::Invalid),
        };
        self.endpoint = Some(from);
        if std::mem::take(&mut self.is_confirming) {
            self.last_handshake = Some(now);
            self.retry_at = None;
        }
        if self.queued > 0 {
            self.drain(out);
        }
        Ok(decap)
    }

    /// An initiation that says to be of this peer. `Ok` means that it authenticated.
    pub(super) fn initiation(
        &mut self,
        from: SocketAddr,
        datagram: &[u8],
        buffer: &mut [u8],
        out: &mut Outbox,
    ) -> Result<Decap, Refusal> {
        match self.tunn.decapsulate(None, datagram, buffer) {
            TunnResult::WriteToNetwork(response) => {
                self.endpoint = Some(from);
                send(self.endpoint, response, out);
                self.is_confirming = true;
                Ok(Decap::Control)
            }
            TunnResult::Err(error) => Err(refusal(&error)),
            TunnResult::Done
            | TunnResult::WriteToTunnelV4(..)
            | TunnResult::WriteToTunnelV6(..) => Err(Refusal::Invalid),
        }
    }

    /// A response to our initiation. `Ok` means that it authenticated, and there is a session.
    pub(super) fn response(
        &mut self,
        from: SocketAddr,
        datagram: &[u8],
        buffer: &mut [u8],
        now: Instant,
        out: &mut Outbox,
    ) -> Result<Decap, Refusal> {
        match self.tunn.decapsulate(None, datagram, buffer) {
            TunnResult::WriteToNetwork(keepalive) => {
                self.endpoint = Some(from);
                send(self.endpoint, keepalive, out);
                self.last_handshake = Some(now);
                self.is_confirming = false;
                self.retry_at = None;
                self.drain(out);
                Ok(Decap::Control)
            }
            TunnResult::Err(error) => Err(refusal(&error)),
            TunnResult::Done
            | TunnResult::WriteToTunnelV4(..)
            | TunnResult::WriteToTunnelV6(..) => Err(Refusal::Invalid),
        }
    }

    /// A cookie reply: kept for the next initiation.
    pub(super) fn cookie(&mut self, datagram: &[u8], buffer: &mut [u8]) -> Result<Decap, Refusal> {
        match self.tunn.decapsulate(None, datagram, buffer) {
            TunnResult::Done => Ok(Decap::Control),
            TunnResult::Err(error) => Err(refusal(&error)),
            TunnResult::WriteToNetwork(_)
            | TunnResult::WriteToTunnelV4(..)
            | TunnResult::WriteToTunnelV6(..) => Err(Refusal::Invalid),
        }
    }

    /// Lets boringtun look at its timers.
    pub(super) fn handle_timeout(&mut self, now: Instant, out: &mut Outbox) {
        let jitter_max = Duration::from_millis(JITTER_MAX_MS);
        if self
            .retry_at
            .is_some_and(|at| now < at && at - now <= jitter_max)
        {
            return;
        }
        let mut message = [0; INITIATION_LEN];
        match self.tunn.update_timers(&mut message) {
            TunnResult::WriteToNetwork(message) => {
                let is_data = message[0] == DATA;
                send(self.endpoint, message, out);
                if !is_data {
                    self.schedule_retry(now);
                }
            }
            TunnResult::Err(WireGuardError::ConnectionExpired) => self.expire(now, out),
            TunnResult::Done
            | TunnResult::Err(_)
            | TunnResult::WriteToTunnelV4(..)
            | TunnResult::WriteToTunnelV6(..) => {}
        }
    }

    /// After REKEY_ATTEMPT_TIME (90 s) boringtun gives up and forgets sessions and queue. The same
    /// `Tunn` begins again: a new one would forget the newest initiation's timestamp, and take a replay of it.
    pub(super) fn expire(&mut self, now: Instant, out: &mut Outbox) {
        self.given_up_packets += u64::try_from(self.queued).expect("at most QUEUE_LEN_MAX");
        self.queued = 0;
        self.retry_at = None;
        if self.is_persistent() {
            self.initiate(now, out);
        }
    }

    /// Sends what waited for the session that there is.
    fn drain(&mut self, out: &mut Outbox) {
        // Persistent keepalives may wait in boringtun's own queue besides what was counted here.
        const BORINGTUN_QUEUE_LEN_MAX: usize = 256;
        let mut message = [0; crate::tunnel::DATAGRAM_LEN_MAX];
        for _ in 0..BORINGTUN_QUEUE_LEN_MAX {
            let TunnResult::WriteToNetwork(message) =
                self.tunn.decapsulate(None, &[], &mut message)
            else {
                break;
            };
            if !send(self.endpoint, message, out) {
                self.given_up_packets += 1;
            }
        }
        self.queued = 0;
    }

    /// When the next initiation is due if this one stays without an answer.
    fn schedule_retry(&mut self, now: Instant) {
        // xorshift64 (Marsaglia 2003): what matters is only that peers differ.
        self.jitter ^= self.jitter << 13;
        self.jitter ^= self.jitter >> 7;
        self.jitter ^= self.jitter << 17;
        let jitter = Duration::from_millis(self.jitter % (JITTER_MAX_MS + 1));
        self.retry_at = Some(now + REKEY_TIMEOUT + jitter);
    }
}

/// Sends a short message. False when there was no room or no destination.
fn send(to: Option<SocketAddr>, message: &[u8], out: &mut Outbox) -> bool {
    let Some(room) = to.and_then(|to| out.reserve(Way::wireguard(to), message.len())) else {
        return false;
    };
    room[..message.len()].copy_from_slice(message);
    out.commit(message.len());
    true
}

/// Receiver index and counter of a data message (WireGuard protocol, "Subsequent Messages").
fn numbers(message: &[u8]) -> Option<(u32, u64)> {
    let index = message.get(4..)?.first_chunk()?;
    let counter = message.get(8..)?.first_chunk()?;
    Some((u32::from_le_bytes(*index), u64::from_le_bytes(*counter)))
}

/// Packets are padded to a multiple of 16 bytes, but not beyond the tunnel's MTU (WireGuard paper,
/// section 5.4.6).
pub(super) fn padded_len(len: usize, mtu: u16) -> usize {
    len.next_multiple_of(16).min(usize::from(mtu)).max(len)
}

fn refusal(error: &WireGuardError) -> Refusal {
    match error {
        WireGuardError::NoCurrentSession | WireGuardError::WrongIndex => Refusal::IndexUnknown,
        WireGuardError::InvalidCounter
        | WireGuardError::DuplicateCounter
        | WireGuardError::WrongTai64nTimestamp => Refusal::Replay,
        WireGuardError::InvalidPacket => Refusal::NotIp,
        WireGuardError::DestinationBufferTooSmall
        | WireGuardError::IncorrectPacketLength
        | WireGuardError::UnexpectedPacket
        | WireGuardError::WrongPacketType
        | WireGuardError::WrongKey
        | WireGuardError::InvalidTai64nTimestamp
        | WireGuardError::InvalidMac
        | WireGuardError::InvalidAeadTag
        | WireGuardError::LockFailed
        | WireGuardError::ConnectionExpired
        | WireGuardError::UnderLoad => Refusal::Invalid,
    }
}

#[cfg(test)]
mod tests {
    use super::super::PrivateKey;
    use super::*;
    use crate::packet::Transmit;

    fn peer(endpoint: Option<SocketAddr>, peer: u8) -> Peer {
        let config = Config {
            private_key: PrivateKey([1; 32]),
            peer: PrivateKey([peer; 32]).public(),
            preshared_key: None,
            endpoint,
            keepalive: None,
        };
        let identity = Identity::new(&config.private_key);
        Peer::new(TunnelId(1), &config, 1420, 1, (0, &identity))
    }

    #[expect(clippy::disallowed_methods, reason = "the root of a test's time")]
    fn start() -> Instant {
        Instant::now()
    }

    fn initiations(out: &mut Outbox) -> usize {
        let mut count = 0;
        while let Some(Transmit::Underlay { bytes, .. }) = out.poll_transmit() {
            count += bytes.chunks(INITIATION_LEN).count();
        }
        count
    }

    #[test]
    fn after_giving_up_a_configured_peer_begins_again_and_an_unconfigured_one_waits() {
        let (now, mut out) = (start(), Outbox::new());
        let to = Some(SocketAddr::from(([192, 0, 2, 1], 1)));
        let mut configured = peer(to, 2);
        configured.expire(now, &mut out);
        assert_eq!(initiations(&mut out), 1);
        let mut waiting = peer(None, 2);
        waiting.endpoint = to;
        waiting.expire(now, &mut out);
        assert_eq!(initiations(&mut out), 0);
        // Traffic wakes it.
        waiting.encap(&mut [0; 64], 40, now, &mut out).unwrap();
        assert_eq!(initiations(&mut out), 1);
    }

    #[test]
    fn what_waited_for_a_peer_that_is_given_up_is_counted() {
        let (now, mut out) = (start(), Outbox::new());
        let mut peer = peer(Some(SocketAddr::from(([192, 0, 2, 1], 1))), 2);
        for _ in 0..5 {
            peer.encap(&mut [0; 64], 40, now, &mut out).unwrap();
        }
        peer.expire(now, &mut out);
        assert_eq!(peer.given_up_packets, 5);
    }

    #[test]
    fn retries_come_after_five_seconds_and_up_to_a_third_more_and_peers_differ() {
        let (now, mut out) = (start(), Outbox::new());
        let to = Some(SocketAddr::from(([192, 0, 2, 1], 1)));
        let mut delays: Vec<_> = (2..60)
            .map(|n| {
                let mut peer = peer(to, n);
                peer.initiate(now, &mut out);
                peer.retry_at.unwrap() - now
            })
            .collect();
        assert!(
            delays
                .iter()
                .all(|d| (5000..=5333).contains(&d.as_millis()))
        );
        delays.sort();
        delays.dedup();
        assert!(delays.len() > 30, "{delays:?}");
    }

    #[test]
    fn padding_stops_at_the_mtu_and_never_shortens() {
        for (len, mtu, expected) in [
            (1, 1420, 16),
            (16, 1420, 16),
            (17, 1420, 32),
            (1419, 1420, 1420),
            (1420, 1420, 1420),
            (1421, 1420, 1421),
        ] {
            assert_eq!(padded_len(len, mtu), expected);
        }
    }
}
