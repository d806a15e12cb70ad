//! Round trips, and bytes that are no message.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::collection::vec;
use proptest::prelude::*;

use super::payload::{self, Chain, Id, Notify, PAYLOADS_MAX, Payload, Raws, Selector, kind};
use super::proposal::{Proposal, Protocol, Transform, TransformKind};
use super::{Exchange, Header, Malformed};

/// A payload that owns its bytes, so that proptest can make it.
#[derive(Clone, Debug)]
enum Owned {
    Sa(Vec<Proposal>),
    Bytes(u8, u16, Vec<u8>),
    Selectors(bool, Vec<Selector>),
    Spis(u8, Vec<[u8; 4]>),
}

impl Owned {
    fn with<R>(&self, f: impl FnOnce(&Payload<'_>) -> R) -> R {
        match self {
            Self::Sa(proposals) => f(&Payload::Sa(proposals.clone())),
            Self::Selectors(true, selectors) => f(&Payload::TsI(selectors.clone())),
            Self::Selectors(false, selectors) => f(&Payload::TsR(selectors.clone())),
            Self::Spis(protocol, spis) => f(&Payload::Delete {
                protocol: Protocol(*protocol),
                spis: spis.as_flattened(),
                spi_len: 4,
            }),
            Self::Bytes(which, number, data) => {
                let [_, low] = number.to_be_bytes();
                let id = Id { kind: low, data };
                f(&match which % 9 {
                    0 => Payload::Ke {
                        group: *number,
                        data,
                    },
                    1 => Payload::IdI(id),
                    2 => Payload::IdR(id),
                    3 => Payload::Auth { method: low, data },
                    4 => Payload::Nonce(data),
                    5 => Payload::Vendor(data),
                    6 => Payload::Cp(data),
                    7 => Payload::Unused {
                        kind: kind::EAP,
                        data,
                    },
                    _ => Payload::Notify(Notify {
                        protocol: Protocol(low),
                        spi: &data[..8],
                        kind: *number,
                        data: &data[8..],
                    }),
                })
            }
        }
    }
}

fn transform() -> impl Strategy<Value = Transform> {
    (any::<u8>(), any::<u16>(), any::<Option<u16>>()).prop_map(|(kind, id, key_bits)| Transform {
        kind: TransformKind(kind),
        id,
        key_bits,
        is_understood: true,
    })
}

fn proposal() -> impl Strategy<Value = Proposal> {
    let spi = prop::sample::select(vec![0_usize, 4, 8]).prop_flat_map(|len| vec(any::<u8>(), len));
    (any::<u8>(), any::<u8>(), spi, vec(transform(), 1..=64)).prop_map(
        |(number, protocol, spi, transforms)| Proposal {
            number,
            protocol: Protocol(protocol),
            spi,
            transforms,
        },
    )
}

fn selector() -> impl Strategy<Value = Selector> {
    let v4 = || any::<u32>().prop_map(|n| IpAddr::V4(Ipv4Addr::from(n)));
    let v6 = || any::<u128>().prop_map(|n| IpAddr::V6(Ipv6Addr::from(n)));
    (
        any::<u8>(),
        any::<(u16, u16)>(),
        prop_oneof![(v4(), v4()), (v6(), v6())],
    )
        .prop_map(|(protocol, ports, addresses)| Selector {
            protocol,
            ports,
            addresses,
        })
}

fn owned() -> impl Strategy<Value = Owned> {
    prop_oneof![
        vec(proposal(), 1..5).prop_map(Owned::Sa),
        (any::<u8>(), any::<u16>(), vec(any::<u8>(), 16..=256))
            .prop_map(|(which, number, data)| Owned::Bytes(which, number, data)),
        (any::<bool>(), vec(selector(), 1..10)).prop_map(|(is_i, s)| Owned::Selectors(is_i, s)),
        (any::<u8>(), vec(any::<[u8; 4]>(), 0..10)).prop_map(|(p, spis)| Owned::Spis(p, spis)),
    ]
}

fn header() -> Header {
    Header {
        initiator_spi: 0x0102_0304_0506_0708,
        responder_spi: 0,
        exchange: Exchange::IKE_SA_INIT,
        is_initiator: true,
        is_response: false,
        message_id: 0,
    }
}

/// RFC 7296 section 3.1, drawn by hand: an empty informational request.
#[test]
fn the_header_is_laid_out_as_the_rfc_draws_it() {
    let message = Header {
        initiator_spi: 0x1111_1111_1111_1112,
        responder_spi: 0x2222_2222_2222_2223,
        exchange: Exchange::INFORMATIONAL,
        is_initiator: true,
        is_response: true,
        message_id: 7,
    }
    .with(&Chain::new());
    let drawn = [
        0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x12, 0x22, 0x22, 0x22, 0x22, 0x22, 0x22, 0x22,
        0x23, 0x00, 0x20, 37, 0x28, 0, 0, 0, 7, 0, 0, 0, 28,
    ];
    assert_eq!(message, drawn);
}

/// RFC 7296 section 3.3: AES-CBC with 256 bits, SHA2-256, as a first proposal of ESP.
#[test]
fn a_proposal_is_laid_out_as_the_rfc_draws_it() {
    let mut chain = Chain::new();
    let transform = |kind, id, key_bits| Transform {
        kind,
        id,
        key_bits,
        is_understood: true,
    };
    chain.push(&Payload::Sa(vec![Proposal {
        number: 1,
        protocol: Protocol::ESP,
        spi: vec![1, 2, 3, 4],
        transforms: vec![
            transform(TransformKind::ENCRYPTION, 12, Some(256)),
            transform(TransformKind::INTEGRITY, 12, None),
            transform(TransformKind::ESN, 0, None),
        ],
    }]));
    let drawn = [
        0, 0, 0, 44, // the payload, the last one
        0, 0, 0, 40, 1, 3, 4, 3, 1, 2, 3, 4, // the proposal, the last one
        3, 0, 0, 12, 1, 0, 0, 12, 0x80, 14, 1, 0, // more follow; key length 256
        3, 0, 0, 8, 3, 0, 0, 12, //
        0, 0, 0, 8, 5, 0, 0, 0,
    ];
    assert_eq!((chain.first(), chain.bytes()), (kind::SA, &drawn[..]));
}

#[test]
fn an_unknown_payload_is_refused_only_when_it_is_critical() {
    assert_eq!(payload::parse(200, &[0, 0, 0, 4]), Ok(vec![]));
    let critical = payload::parse(200, &[0, 0x80, 0, 4]);
    assert_eq!(critical, Err(Malformed::UnknownCritical(200)));
    // Of a known one the bit says nothing (RFC 7296 section 2.5).
    assert_eq!(
        payload::parse(kind::VENDOR, &[0, 0x80, 0, 4]),
        Ok(vec![Payload::Vendor(&[])])
    );
}

#[test]
fn a_transform_with_an_unknown_attribute_is_marked() {
    let mut body = vec![0, 0, 0, 24, 1, 1, 0, 1, 0, 0, 0, 16, 1, 0, 0, 12];
    body.extend([0x80, 14, 1, 0, 0x80, 99, 0, 1]);
    body[11] = 16;
    let proposals = super::proposal::parse(&body).unwrap();
    assert!(!proposals[0].transforms[0].is_understood);
}

#[test]
fn more_payloads_than_anybody_sends_are_refused() {
    let chain: Vec<u8> = (0..=PAYLOADS_MAX)
        .flat_map(|at| [if at == PAYLOADS_MAX { 0 } else { kind::VENDOR }, 0, 0, 4])
        .collect();
    assert_eq!(
        payload::parse(kind::VENDOR, &chain),
        Err(Malformed::TooMany)
    );
    assert!(payload::parse(kind::VENDOR, &chain[4..]).is_ok());
}

#[test]
fn an_encrypted_payload_is_the_last_one() {
    let mut raws = Raws::new(kind::SK, &[kind::ID_I, 0, 0, 5, 9]);
    let sealed = raws.next().unwrap().unwrap();
    assert_eq!((sealed.next, sealed.body), (kind::ID_I, &[9][..]));
    assert_eq!(raws.next(), None);
    let mut followed = Raws::new(kind::SK, &[kind::ID_I, 0, 0, 5, 9, 0, 0, 0, 4]);
    assert_eq!(followed.next(), Some(Err(Malformed::Length)));
    assert_eq!(
        payload::parse(kind::SK, &[0, 0, 0, 4]),
        Err(Malformed::Value)
    );
}

#[test]
fn a_header_that_contradicts_its_message_is_malformed() {
    let message = header().with(&Chain::new());
    assert!(Header::parse(&message).is_ok());
    assert_eq!(Header::parse(&message[..27]), Err(Malformed::Length));
    assert_eq!(
        Header::parse(&[&message[..], &[0]].concat()),
        Err(Malformed::Length)
    );
    let with = |at: usize, byte: u8| {
        let mut message = message.clone();
        message[at] = byte;
        Header::parse(&message).map(|_| ())
    };
    assert_eq!(with(17, 0x10), Err(Malformed::Version), "IKEv1");
    assert_eq!(with(17, 0x30), Err(Malformed::Version));
    assert_eq!(with(17, 0x21), Ok(()), "a minor version");
    let mut nameless = message.clone();
    nameless[..8].fill(0);
    assert_eq!(Header::parse(&nameless).map(|_| ()), Err(Malformed::Value));
}

proptest! {
    #[test]
    fn payloads_are_read_as_they_were_written(owned in vec(owned(), 0..8)) {
        let mut chain = Chain::new();
        for payload in &owned {
            payload.with(|payload| { chain.push(payload); });
        }
        let message = header().with(&chain);
        let (head, first, body) = Header::parse(&message).unwrap();
        prop_assert_eq!(head, header());
        let read = payload::parse(first, body).unwrap();
        prop_assert_eq!(read.len(), owned.len());
        for (read, written) in read.iter().zip(&owned) {
            written.with(|written| assert_eq!(read, written));
        }
    }

    #[test]
    fn a_cut_chain_is_malformed(owned in vec(owned(), 1..4), at: prop::sample::Index) {
        let mut chain = Chain::new();
        for payload in &owned {
            payload.with(|payload| { chain.push(payload); });
        }
        let cut = &chain.bytes()[..at.index(chain.bytes().len())];
        prop_assert!(payload::parse(chain.first(), cut).is_err());
    }

    #[test]
    fn bent_payloads_never_panic(
        owned in vec(owned(), 1..4), bends in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut chain = Chain::new();
        for payload in &owned {
            payload.with(|payload| { chain.push(payload); });
        }
        let mut bytes = chain.bytes().to_vec();
        for (at, byte) in bends {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(read) = payload::parse(chain.first(), &bytes) {
            prop_assert!(read.len() <= PAYLOADS_MAX);
            // What was read can be written, and reads the same again.
            let mut again = Chain::new();
            for payload in &read {
                again.push(payload);
            }
            prop_assert_eq!(payload::parse(again.first(), again.bytes()).is_ok(), !is_lossy(&read));
        }
    }

    #[test]
    fn random_bytes_never_panic(first: u8, bytes in vec(any::<u8>(), 0..300)) {
        let payloads = payload::parse(first, &bytes);
        prop_assert!(payloads.is_err() || payloads.is_ok_and(|read| read.len() <= PAYLOADS_MAX));
        prop_assert!(Header::parse(&bytes).is_err() || bytes.len() >= 28);
    }
}

/// Whether a list came out empty because all that was in it was unknown: that cannot be written.
fn is_lossy(read: &[Payload<'_>]) -> bool {
    read.iter().any(|payload| {
        matches!(payload, Payload::TsI(selectors) | Payload::TsR(selectors) if selectors.is_empty())
    })
}
