//! Proposals: what we offer, what we choose of an offer, and how both are said to people.

use std::fmt::Write as _;

use crate::tunnel::ipsec::cipher::Transform as Cipher;
use crate::wire::ikev2::proposal::{Proposal, Protocol, Transform, TransformKind};

use super::config::{EspOffer, IkeOffer};
use super::dh::Group;
use super::keys::Prf;

/// HMAC-SHA2-256-128 as an integrity transform.
const SHA256_128: u16 = 12;

/// What protects the messages of an IKE SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IkeSuite {
    /// Encryption.
    pub cipher: Cipher,
    /// Key derivation.
    pub prf: Prf,
    /// Key exchange.
    pub group: Group,
}

/// What protects the packets of a child SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EspSuite {
    /// Encryption.
    pub(super) cipher: Cipher,
    /// Key exchange, if there is one.
    pub(super) group: Option<Group>,
    /// Whether sequence numbers have 64 bits.
    pub(super) has_esn: bool,
}

const fn encryption(cipher: Cipher) -> (u16, Option<u16>) {
    match cipher {
        Cipher::Aes128Gcm16 => (20, Some(128)),
        Cipher::Aes256Gcm16 => (20, Some(256)),
        Cipher::Chacha20Poly1305 => (28, None),
        Cipher::Aes256CbcSha256 => (12, Some(256)),
    }
}

const fn transform(kind: TransformKind, id: u16, key_bits: Option<u16>) -> Transform {
    Transform {
        kind,
        id,
        key_bits,
        is_understood: true,
    }
}

/// Those of `ciphers` that are AEADs in one list, the others in another: they never share a
/// proposal, because an AEAD goes without an integrity transform (RFC 5282 section 8).
fn encryptions(ciphers: &[Cipher]) -> Vec<Vec<Transform>> {
    [true, false]
        .into_iter()
        .map(|is_aead| {
            let fitting = ciphers.iter().filter(|cipher| cipher.is_aead() == is_aead);
            let mut list: Vec<_> = fitting
                .map(|cipher| {
                    let (id, bits) = encryption(*cipher);
                    transform(TransformKind::ENCRYPTION, id, bits)
                })
                .collect();
            if !is_aead && !list.is_empty() {
                list.push(transform(TransformKind::INTEGRITY, SHA256_128, None));
            }
            list
        })
        .filter(|list| !list.is_empty())
        .collect()
}

fn number(lists: Vec<Vec<Transform>>, protocol: Protocol, spi: &[u8]) -> Vec<Proposal> {
    let numbered = (1..).zip(lists);
    numbered
        .map(|(number, transforms)| Proposal {
            number,
            protocol,
            spi: spi.to_vec(),
            transforms,
        })
        .collect()
}

/// The proposals for an IKE SA; `spi` is empty in the first exchange.
#[must_use]
pub(super) fn offer_ike(offer: &IkeOffer, spi: &[u8]) -> Vec<Proposal> {
    let mut lists = encryptions(&offer.ciphers);
    for list in &mut lists {
        let prfs = offer.prfs.iter().map(|prf| prf.id());
        list.extend(prfs.map(|id| transform(TransformKind::PRF, id, None)));
        let groups = offer.groups.iter().map(|group| group.id());
        list.extend(groups.map(|id| transform(TransformKind::GROUP, id, None)));
    }
    number(lists, Protocol::IKE, spi)
}

/// The proposals for a child SA. The first child's keys come from those of the IKE SA, so its
/// proposals have no group.
#[must_use]
pub(super) fn offer_esp(offer: &EspOffer, has_groups: bool, spi: &[u8]) -> Vec<Proposal> {
    let mut lists = encryptions(&offer.ciphers);
    for list in &mut lists {
        if has_groups {
            let groups = offer.groups.iter().map(|group| group.id());
            list.extend(groups.map(|id| transform(TransformKind::GROUP, id, None)));
        }
        let esn = offer.esn.iter().map(|has_esn| u16::from(*has_esn));
        list.extend(esn.map(|id| transform(TransformKind::ESN, id, None)));
    }
    number(lists, Protocol::ESP, spi)
}

/// The proposal that says what was chosen.
#[must_use]
pub(super) fn answer_ike(suite: IkeSuite, number_of: u8, spi: &[u8]) -> Vec<Proposal> {
    let offer = IkeOffer {
        ciphers: vec![suite.cipher],
        prfs: vec![suite.prf],
        groups: vec![suite.group],
    };
    renumber(offer_ike(&offer, spi), number_of)
}

/// The proposal that says what was chosen.
#[must_use]
pub(super) fn answer_esp(suite: EspSuite, number_of: u8, spi: &[u8]) -> Vec<Proposal> {
    let offer = EspOffer {
        ciphers: vec![suite.cipher],
        groups: suite.group.into_iter().collect(),
        esn: vec![suite.has_esn],
    };
    renumber(offer_esp(&offer, true, spi), number_of)
}

fn renumber(mut proposals: Vec<Proposal>, number: u8) -> Vec<Proposal> {
    for proposal in &mut proposals {
        proposal.number = number;
    }
    proposals
}

/// Chooses from proposals for an IKE SA: the offerer's first proposal that has something of ours of
/// each kind, and of each kind what we like best; the group of the offerer's public value, `sent`,
/// when we take it at all, because another one costs a round trip.
#[must_use]
pub(super) fn choose_ike<'p>(
    proposals: &'p [Proposal],
    offer: &IkeOffer,
    sent: Option<u16>,
) -> Option<(IkeSuite, &'p Proposal)> {
    proposals
        .iter()
        .filter(|proposal| proposal.protocol == Protocol::IKE)
        .find_map(|proposal| {
            let prf = offer
                .prfs
                .iter()
                .find(|prf| has(proposal, TransformKind::PRF, prf.id()))?;
            let fits = |group: &Group| has(proposal, TransformKind::GROUP, group.id());
            let groups = || offer.groups.iter().copied().filter(fits);
            let group = groups()
                .find(|group| Some(group.id()) == sent)
                .or_else(|| groups().next())?;
            let suite = IkeSuite {
                cipher: choose_cipher(proposal, &offer.ciphers)?,
                prf: *prf,
                group,
            };
            Some((suite, proposal))
        })
}

/// What an answer says was chosen; `None` when it is not one proposal with one of each kind that is known.
#[must_use]
pub(super) fn chosen_ike(answer: &[Proposal]) -> Option<IkeSuite> {
    let known = IkeOffer {
        ciphers: vec![
            Cipher::Aes128Gcm16,
            Cipher::Aes256Gcm16,
            Cipher::Chacha20Poly1305,
            Cipher::Aes256CbcSha256,
        ],
        groups: Group::ALL.to_vec(),
        ..IkeOffer::default()
    };
    let (suite, _) = choose_ike(answer, &known, None)?;
    (answer.len() == 1).then_some(suite)
}

/// Chooses from proposals for a child SA. `sent` is the group of the offerer's public value, if it
/// sent one. In the first exchange (`has_groups` false) groups are not looked at.
#[must_use]
pub(super) fn choose_esp<'p>(
    proposals: &'p [Proposal],
    offer: &EspOffer,
    has_groups: bool,
    sent: Option<u16>,
) -> Option<(EspSuite, &'p Proposal)> {
    proposals
        .iter()
        .filter(|proposal| proposal.protocol == Protocol::ESP && proposal.spi.len() == 4)
        .find_map(|proposal| {
            let cipher = choose_cipher(proposal, &offer.ciphers)?;
            let has_esn = *offer.esn.iter().find(|has_esn| {
                let id = u16::from(**has_esn);
                has(proposal, TransformKind::ESN, id)
            })?;
            let group = if has_groups {
                choose_group(proposal, &offer.groups, sent)?
            } else {
                None
            };
            let suite = EspSuite {
                cipher,
                group,
                has_esn,
            };
            Some((suite, proposal))
        })
}

/// The group of a child: what both have, or none when neither wants one. An offerer's group is
/// taken also where we ask for none: it costs little, and its keys are better for it.
fn choose_group(proposal: &Proposal, ours: &[Group], sent: Option<u16>) -> Option<Option<Group>> {
    let mut offered = proposal
        .transforms
        .iter()
        .filter(|t| t.kind == TransformKind::GROUP)
        .peekable();
    let may_do_without = offered.peek().is_none() || has(proposal, TransformKind::GROUP, 0);
    if ours.is_empty() && may_do_without {
        return Some(None);
    }
    let ours = if ours.is_empty() {
        &Group::ALL[..]
    } else {
        ours
    };
    let fitting = || {
        let ours = ours.iter().copied();
        ours.filter(|group| has(proposal, TransformKind::GROUP, group.id()))
    };
    let group = fitting()
        .find(|group| Some(group.id()) == sent)
        .or_else(|| fitting().next())?;
    Some(Some(group))
}

fn choose_cipher(proposal: &Proposal, ciphers: &[Cipher]) -> Option<Cipher> {
    let integrity = |id| has(proposal, TransformKind::INTEGRITY, id);
    let asks_integrity = proposal
        .transforms
        .iter()
        .any(|t| t.kind == TransformKind::INTEGRITY && t.id != 0);
    ciphers.iter().copied().find(|cipher| {
        let (id, bits) = encryption(*cipher);
        let is_offered = proposal.transforms.iter().any(|t| {
            t.is_understood
                && t.kind == TransformKind::ENCRYPTION
                && (t.id, t.key_bits) == (id, bits)
        });
        let is_authenticated = if cipher.is_aead() {
            !asks_integrity || integrity(0)
        } else {
            integrity(SHA256_128)
        };
        is_offered && is_authenticated
    })
}

fn has(proposal: &Proposal, kind: TransformKind, id: u16) -> bool {
    let mut transforms = proposal.transforms.iter();
    transforms.any(|t| t.is_understood && t.kind == kind && t.id == id)
}

/// Proposals in the words of the registry, for people: `AES_GCM_16_256 PRF_SHA2_256 DH_31; …`.
#[must_use]
pub(super) fn describe(proposals: &[Proposal]) -> String {
    let mut text = String::new();
    for (at, proposal) in proposals.iter().enumerate() {
        text.push_str(if at == 0 { "" } else { "; " });
        for (at, transform) in proposal.transforms.iter().enumerate() {
            text.push_str(if at == 0 { "" } else { " " });
            describe_one(*transform, &mut text);
        }
    }
    text
}

fn describe_one(transform: Transform, text: &mut String) {
    let name = match (transform.kind, transform.id) {
        (TransformKind::ENCRYPTION, 3) => "3DES",
        (TransformKind::ENCRYPTION, 12) => "AES_CBC",
        (TransformKind::ENCRYPTION, 13) => "AES_CTR",
        (TransformKind::ENCRYPTION, 18) => "AES_GCM_8",
        (TransformKind::ENCRYPTION, 19) => "AES_GCM_12",
        (TransformKind::ENCRYPTION, 20) => "AES_GCM_16",
        (TransformKind::ENCRYPTION, 28) => "CHACHA20_POLY1305",
        (TransformKind::PRF, 2) => "PRF_SHA1",
        (TransformKind::PRF, 5) => "PRF_SHA2_256",
        (TransformKind::PRF, 6) => "PRF_SHA2_384",
        (TransformKind::PRF, 7) => "PRF_SHA2_512",
        (TransformKind::INTEGRITY, 0) => "AUTH_NONE",
        (TransformKind::INTEGRITY, 2) => "AUTH_SHA1_96",
        (TransformKind::INTEGRITY, 12) => "AUTH_SHA2_256_128",
        (TransformKind::INTEGRITY, 13) => "AUTH_SHA2_384_192",
        (TransformKind::INTEGRITY, 14) => "AUTH_SHA2_512_256",
        (TransformKind::ESN, 0) => "NO_ESN",
        (TransformKind::ESN, 1) => "ESN",
        (TransformKind::GROUP, _) => "DH",
        _ => "UNKNOWN",
    };
    text.push_str(name);
    let number = match name {
        "DH" | "UNKNOWN" => Some(transform.id),
        _ => transform.key_bits,
    };
    if let Some(number) = number {
        write!(text, "_{number}").expect("a string takes everything");
    }
}
