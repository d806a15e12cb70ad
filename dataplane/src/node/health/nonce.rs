//! What a probe carries, so that nobody can answer for a tunnel that is not his.

use std::fmt;

use ring::hmac;

use crate::id::{TunnelId, VnetId};

/// Bytes of the code: half of SHA-256, which is beyond guessing (RFC 2104 section 5).
pub(super) const NONCE_LEN: usize = 16;

/// Bytes of what a probe carries: the code, and the tunnel's number.
pub(super) const PAYLOAD_LEN: usize = NONCE_LEN + 4;

/// The secret under which one worker's probes are coded: random, and never the same twice.
#[derive(Clone, PartialEq, Eq)]
pub struct ProbeKey(pub [u8; 32]);

impl fmt::Debug for ProbeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProbeKey(…)")
    }
}

/// What a code is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Subject {
    pub(super) tunnel: TunnelId,
    pub(super) vnet: VnetId,
    pub(super) id: u16,
    pub(super) sequence: u16,
}

impl Subject {
    fn bytes(&self) -> [u8; 10] {
        let mut bytes = [0; 10];
        bytes[..4].copy_from_slice(&self.tunnel.0.to_be_bytes());
        bytes[4..6].copy_from_slice(&self.vnet.0.to_be_bytes());
        bytes[6..8].copy_from_slice(&self.id.to_be_bytes());
        bytes[8..].copy_from_slice(&self.sequence.to_be_bytes());
        bytes
    }
}

/// The code of a probe.
pub(super) fn nonce(key: &hmac::Key, subject: &Subject) -> [u8; NONCE_LEN] {
    let tag = hmac::sign(key, &subject.bytes());
    let mut nonce = [0; NONCE_LEN];
    nonce.copy_from_slice(&tag.as_ref()[..NONCE_LEN]);
    nonce
}

/// What a probe carries.
pub(super) fn payload(key: &hmac::Key, subject: &Subject) -> [u8; PAYLOAD_LEN] {
    let mut payload = [0; PAYLOAD_LEN];
    let (code, tunnel) = payload.split_at_mut(NONCE_LEN);
    code.copy_from_slice(&nonce(key, subject));
    tunnel.copy_from_slice(&subject.tunnel.0.to_be_bytes());
    payload
}

/// The tunnel that an answer is about, if it is one at all.
pub(super) fn tunnel(payload: &[u8]) -> Option<TunnelId> {
    let (_, number) = payload.split_at_checked(NONCE_LEN)?;
    Some(TunnelId(u32::from_be_bytes(number.try_into().ok()?)))
}

/// Whether an answer carries what its probe did. Takes the same time for any wrong one.
pub(super) fn is_ours(key: &hmac::Key, subject: &Subject, payload: &[u8]) -> bool {
    let expected = self::payload(key, subject);
    if payload.len() != PAYLOAD_LEN {
        return false;
    }
    let differences = expected.iter().zip(payload).map(|(a, b)| a ^ b);
    differences.fold(0, |all, one| all | one) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_good_for_one_probe_of_one_tunnel() {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &[7; 32]);
        let subject = Subject {
            tunnel: TunnelId(1),
            vnet: VnetId(2),
            id: 3,
            sequence: 4,
        };
        let code = payload(&key, &subject);
        assert!(is_ours(&key, &subject, &code));
        assert!(!is_ours(&key, &subject, &code[..19]));
        assert_eq!(tunnel(&code), Some(TunnelId(1)));
        assert_eq!(tunnel(&code[1..]), None);
        for (number, vnet, id, sequence) in [(9, 2, 3, 4), (1, 9, 3, 4), (1, 2, 9, 4), (1, 2, 3, 9)]
        {
            let (tunnel, vnet) = (TunnelId(number), VnetId(vnet));
            let other = Subject {
                tunnel,
                vnet,
                id,
                sequence,
            };
            assert!(!is_ours(&key, &other, &code));
        }
        let other = hmac::Key::new(hmac::HMAC_SHA256, &[8; 32]);
        assert!(!is_ours(&other, &subject, &code));
        assert_eq!(format!("{:?}", ProbeKey([7; 32])), "ProbeKey(…)");
    }
}
