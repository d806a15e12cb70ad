//! The two directions of an ESP SA in tunnel mode (RFC 4303).

use std::fmt;
use std::ops::Range;
use std::time::Instant;

use crate::wire::esp::{self, Header, Spi};

use super::Discard;
use super::cipher::{Associated, Cipher, ICV_LEN, Transform};
use super::lifetime::{Lifetime, Meter, Phase};
use super::window::Window;

/// What both directions of an SA are made from.
#[derive(Clone)]
pub struct Keys {
    /// The receiver's name of the SA.
    pub spi: Spi,
    /// How packets are protected.
    pub transform: Transform,
    /// [`Transform::key_len`] bytes.
    pub key: Vec<u8>,
    /// Whether sequence numbers have 64 bits (RFC 4303 section 2.2.1).
    pub has_esn: bool,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys")
            .field("spi", &self.spi)
            .field("transform", &self.transform)
            .field("has_esn", &self.has_esn)
            .finish_non_exhaustive()
    }
}

/// The direction that sends. One worker owns it.
#[derive(Debug)]
pub struct Outbound {
    spi: Spi,
    cipher: Cipher,
    has_esn: bool,
    /// The number that was given last.
    sequence: u64,
    /// What is added to it for the initialization vector.
    iv_base: u64,
    meter: Meter,
}

impl Outbound {
    /// The sender of an SA; `None` when the key has the wrong length or the SPI is reserved.
    #[must_use]
    pub fn new(keys: &Keys, lifetime: Lifetime, now: Instant) -> Option<Self> {
        (keys.spi >= Spi::MIN).then_some(())?;
        Some(Self {
            spi: keys.spi,
            cipher: Cipher::new(keys.transform, &keys.key)?,
            has_esn: keys.has_esn,
            sequence: 0,
            iv_base: 0,
            meter: Meter::new(lifetime, now),
        })
    }

    /// Has initialization vectors begin at a random number. For keys that may have been used before,
    /// in another life of this process: none of them may come twice under one key (RFC 4106 section 2).
    #[must_use]
    pub fn with_iv_base(mut self, random: u64) -> Self {
        self.iv_base = random;
        self
    }

    /// The peer's name of this SA.
    #[must_use]
    pub fn spi(&self) -> Spi {
        self.spi
    }

    /// How packets are protected.
    #[must_use]
    pub fn transform(&self) -> Transform {
        self.cipher.transform()
    }

    /// What it has done.
    #[must_use]
    pub fn meter(&self) -> &Meter {
        &self.meter
    }

    /// Where it is in its life. Out of sequence numbers is dead.
    #[must_use]
    pub fn phase(&self, now: Instant) -> Phase {
        if self.sequence >= last_sequence(self.has_esn) {
            return Phase::Dead;
        }
        self.meter.phase(now)
    }

    /// Whether `packet` begins like one of the last that were sealed.
    #[must_use]
    pub fn has_sealed(&self, packet: &[u8]) -> bool {
        /// A quarter of a second at a million packets a second.
        const RECENT: u32 = 1 << 18;
        let Some([a, b, c, d, e, f, g, h]) = packet.first_chunk() else {
            return false;
        };
        let last = Sequence::of(self.spi, self.sequence);
        let [.., i, j, k, l] = *last.header() else {
            return false;
        };
        let [sequence, last_sequence] = [[*e, *f, *g, *h], [i, j, k, l]].map(u32::from_be_bytes);
        let age = last_sequence.wrapping_sub(sequence);
        let is_recent = age < RECENT && u64::from(age) < self.sequence;
        last.header().starts_with(&[*a, *b, *c, *d]) && is_recent
    }

    /// The longest inner packet whose ESP packet has at most `room` bytes.
    #[must_use]
    pub fn fits(&self, room: u16) -> Option<u16> {
        let lens = (1..=room).rev();
        lens.into_iter()
            .find(|len| self.sealed_len(usize::from(*len)) <= usize::from(room))
    }

    /// Bytes of the ESP packet that an inner packet becomes.
    #[must_use]
    pub fn sealed_len(&self, inner_len: usize) -> usize {
        let transform = self.cipher.transform();
        let body_len = (inner_len + esp::TRAILER_LEN).next_multiple_of(transform.pad_to());
        esp::HEADER_LEN + transform.iv_len() + body_len + ICV_LEN
    }

    /// Writes the ESP packet of the inner packet `inner` to the beginning of `packet`, which has
    /// room for [`Outbound::sealed_len`] bytes; the length written.
    ///
    /// # Errors
    /// [`Discard::NotIp`]; [`Discard::Expired`] when the SA is dead; [`Discard::NoRoom`]. No
    /// sequence number is used up then.
    pub fn seal(
        &mut self,
        inner: &[u8],
        now: Instant,
        packet: &mut [u8],
    ) -> Result<usize, Discard> {
        let next_header = match inner.first().map(|byte| byte >> 4) {
            Some(4) => esp::NEXT_IPV4,
            Some(6) => esp::NEXT_IPV6,
            _ => return Err(Discard::NotIp),
        };
        if self.phase(now) == Phase::Dead {
            return Err(Discard::Expired);
        }
        let len = self.sealed_len(inner.len());
        let packet = packet.get_mut(..len).ok_or(Discard::NoRoom)?;
        self.sequence += 1;
        self.meter.count(inner.len());
        let iv_len = self.cipher.transform().iv_len();
        let body_at = esp::HEADER_LEN + iv_len;
        let (head, rest) = packet.split_at_mut(body_at);
        let (body, icv) = rest.split_at_mut(len - body_at - ICV_LEN);
        write_plaintext(inner, next_header, body);
        let associated = Sequence::of(self.spi, self.sequence);
        head[..esp::HEADER_LEN].copy_from_slice(associated.header());
        self.cipher.write_iv(
            self.sequence.wrapping_add(self.iv_base),
            &mut head[esp::HEADER_LEN..],
        );
        let iv = &head[esp::HEADER_LEN..];
        icv.copy_from_slice(&self.cipher.seal(associated.view(self.has_esn), iv, body));
        Ok(len)
    }

    #[cfg(test)]
    pub(super) fn skip_to(&mut self, sequence: u64) {
        self.sequence = sequence;
    }
}

/// The direction that receives. One worker owns it.
#[derive(Debug)]
pub struct Inbound {
    spi: Spi,
    cipher: Cipher,
    has_esn: bool,
    has_replay_check: bool,
    window: Window,
    meter: Meter,
}

impl Inbound {
    /// The receiver of an SA; `None` when the key has the wrong length or the SPI is reserved.
    /// Without `has_replay_check` a packet is taken as often as it comes: for senders that do not
    /// number their packets as one.
    #[must_use]
    pub fn new(
        keys: &Keys,
        has_replay_check: bool,
        lifetime: Lifetime,
        now: Instant,
    ) -> Option<Self> {
        (keys.spi >= Spi::MIN).then_some(())?;
        Some(Self {
            spi: keys.spi,
            cipher: Cipher::new(keys.transform, &keys.key)?,
            has_esn: keys.has_esn,
            has_replay_check,
            window: Window::new(),
            meter: Meter::new(lifetime, now),
        })
    }

    /// Our name of this SA.
    #[must_use]
    pub fn spi(&self) -> Spi {
        self.spi
    }

    /// What it has done.
    #[must_use]
    pub fn meter(&self) -> &Meter {
        &self.meter
    }

    /// Where it is in its life.
    #[must_use]
    pub fn phase(&self, now: Instant) -> Phase {
        self.meter.phase(now)
    }

    /// Checks and decrypts an ESP packet, from its SPI to its ICV, in place. Where in it the inner
    /// packet is: it begins like an IP packet of the version that the trailer says, and is as long
    /// as its header says; what a sender put behind it to hide its length is left out (RFC 4303
    /// section 2.7).
    ///
    /// # Errors
    /// [`Discard`]. The window moves only for authentic packets.
    pub fn open(&mut self, packet: &mut [u8], now: Instant) -> Result<Range<usize>, Discard> {
        let header = Header::parse(packet).ok_or(Discard::Truncated)?;
        if header.spi != self.spi {
            return Err(Discard::SpiUnknown);
        }
        if self.phase(now) == Phase::Dead {
            return Err(Discard::Expired);
        }
        let transform = self.cipher.transform();
        let body_at = esp::HEADER_LEN + transform.iv_len();
        if packet.len() < body_at + esp::TRAILER_LEN + ICV_LEN {
            return Err(Discard::Truncated);
        }
        let sequence = self.sequence_of(header.sequence).ok_or(Discard::Replay)?;
        if self.has_replay_check && !self.window.is_fresh(sequence) {
            return Err(Discard::Replay);
        }
        let associated = Sequence::of(self.spi, sequence);
        let (head, sealed) = packet.split_at_mut(body_at);
        let iv = &head[esp::HEADER_LEN..];
        let body_len = self
            .cipher
            .open(associated.view(self.has_esn), iv, sealed)
            .ok_or(Discard::Forged)?;
        if !self.window.note(sequence) && self.has_replay_check {
            return Err(Discard::Replay);
        }
        let inner_len = inner_len(&sealed[..body_len], transform.pad_to())?;
        self.meter.count(inner_len);
        Ok(body_at..body_at + inner_len)
    }

    fn sequence_of(&self, low: u32) -> Option<u64> {
        let high = if self.has_esn {
            self.window.infer_high(low)?
        } else {
            0
        };
        let sequence = u64::from(high) << 32 | u64::from(low);
        (sequence > 0).then_some(sequence)
    }
}

/// The last sequence number that may be sent: none comes twice (RFC 4303 section 3.3.3).
const fn last_sequence(has_esn: bool) -> u64 {
    if has_esn { u64::MAX } else { u32::MAX as u64 }
}

/// SPI and 64-bit sequence number in all the orders that they are authenticated in.
struct Sequence {
    /// SPI, high half, low half: the AAD with ESN (RFC 4106 section 5).
    extended: [u8; 12],
    /// SPI, low half: the header, and the AAD without ESN.
    plain: [u8; esp::HEADER_LEN],
}

impl Sequence {
    fn of(spi: Spi, sequence: u64) -> Self {
        let (spi, sequence) = (spi.0.to_be_bytes(), sequence.to_be_bytes());
        let mut extended = [0; 12];
        extended[..4].copy_from_slice(&spi);
        extended[4..].copy_from_slice(&sequence);
        let mut plain = [0; esp::HEADER_LEN];
        plain[..4].copy_from_slice(&spi);
        plain[4..].copy_from_slice(&sequence[4..]);
        Self { extended, plain }
    }

    fn header(&self) -> &[u8] {
        &self.plain
    }

    fn view(&self, has_esn: bool) -> Associated<'_> {
        if has_esn {
            Associated {
                aead: &self.extended,
                before: &self.plain,
                // A MAC reads the high half last, where it would stand (RFC 4303 section 2.2.1).
                after: &self.extended[4..8],
            }
        } else {
            Associated::header(&self.plain)
        }
    }
}

/// Fills `body` with the inner packet, padding of 1, 2, 3 (RFC 4303 section 2.4), its length and
/// the next header.
fn write_plaintext(inner: &[u8], next_header: u8, body: &mut [u8]) {
    let (plain, trailer) = body.split_at_mut(inner.len());
    plain.copy_from_slice(inner);
    let pad_len = trailer.len() - esp::TRAILER_LEN;
    for (number, byte) in (1..).zip(&mut trailer[..pad_len]) {
        *byte = number;
    }
    trailer[pad_len] = u8::try_from(pad_len).expect("padding is shorter than a block");
    trailer[pad_len + 1] = next_header;
}

/// The length of the inner packet in a decrypted body.
fn inner_len(body: &[u8], pad_to: usize) -> Result<usize, Discard> {
    let (payload, &[pad_len, next_header]) = body.split_last_chunk().ok_or(Discard::Padding)?;
    if !body.len().is_multiple_of(pad_to) {
        return Err(Discard::Padding);
    }
    let payload_len = payload.len().checked_sub(usize::from(pad_len));
    let (payload, padding) = payload.split_at(payload_len.ok_or(Discard::Padding)?);
    if !(1..).zip(padding).all(|(number, byte)| number == *byte) {
        return Err(Discard::Padding);
    }
    let version = payload.first().map(|byte| byte >> 4);
    let len = match (next_header, version) {
        (esp::NEXT_NONE, _) => return Err(Discard::Dummy),
        (esp::NEXT_IPV4, Some(4)) => length_at(payload, 2).ok_or(Discard::NotIp)?,
        (esp::NEXT_IPV6, Some(6)) => 40 + length_at(payload, 4).ok_or(Discard::NotIp)?,
        (esp::NEXT_IPV4 | esp::NEXT_IPV6, _) => return Err(Discard::NotIp),
        _ => return Err(Discard::NextHeader),
    };
    let shortest = if version == Some(4) { 20 } else { 40 };
    if len < shortest || len > payload.len() {
        return Err(Discard::NotIp);
    }
    Ok(len)
}

fn length_at(packet: &[u8], at: usize) -> Option<usize> {
    let bytes = packet.get(at..at + 2)?;
    Some(usize::from(u16::from_be_bytes([bytes[0], bytes[1]])))
}
