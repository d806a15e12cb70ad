//! Content, data and wire of every type, against the examples of the RFCs.

use proptest::prelude::*;

use super::*;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn parsed(kind: Kind, content: &str) -> Rdata {
    Rdata::parse(kind, content).unwrap_or_else(|wrong| panic!("{content}: {wrong:?}"))
}

const FOO: &str = "03666f6f076578616d706c6503636f6d00";

#[test]
fn the_wire_is_that_of_the_rfcs() {
    let table: [(Kind, &str, String); 13] = [
        // RFC 9460, appendix D, figures 2 to 8.
        (Kind::Https, "0 foo.example.com.", format!("0000{FOO}")),
        (Kind::Svcb, "1 .", "000100".to_owned()),
        (
            Kind::Svcb,
            "16 foo.example.com. port=53",
            format!("0010{FOO}000300020035"),
        ),
        (
            Kind::Svcb,
            "1 foo.example.com. key667=hello",
            format!("0001{FOO}029b000568656c6c6f"),
        ),
        (
            Kind::Svcb,
            "1 foo.example.com. key667=\"hello\\210qoo\"",
            format!("0001{FOO}029b000968656c6c6fd2716f6f"),
        ),
        (
            Kind::Svcb,
            "1 foo.example.com. ipv6hint=\"2001:db8::1,2001:db8::53:1\"",
            format!(
                "0001{FOO}0006002020010db800000000000000000000000120010db8000000000000000000530001"
            ),
        ),
        (
            Kind::Svcb,
            "16 foo.example.org. alpn=h2,h3-19 mandatory=ipv4hint,alpn ipv4hint=192.0.2.1",
            "001003666f6f076578616d706c65036f7267000000000400010004000100090268320568332d3139\
             00040004c0000201"
                .to_owned(),
        ),
        // RFC 4034, section 5.4.
        (
            Kind::Ds,
            "60485 5 1 2BB183AF5F22588179A53B0A 98631FAD1A292118",
            "ec4505012bb183af5f22588179a53b0a98631fad1a292118".to_owned(),
        ),
        // RFC 8659, section 4.1: a tag's length, the tag, the value.
        (
            Kind::Caa,
            "0 ISSUE \"ca1.example.net\"",
            "0005".to_owned() + &hex(b"issue") + &hex(b"ca1.example.net"),
        ),
        // RFC 2782: priority, weight, port, target.
        (
            Kind::Srv,
            "0 5 5060 foo.example.com",
            format!("0000000513c4{FOO}"),
        ),
        // RFC 7505: no mail.
        (Kind::Mx, "0 .", "000000".to_owned()),
        // RFC 7553, section 4.4.
        (
            Kind::Uri,
            "10 1 \"ftp://ftp1.example.com/public\"",
            "000a0001".to_owned() + &hex(b"ftp://ftp1.example.com/public"),
        ),
        // RFC 1876, section 2: thousandths of a second from 2^31, centimetres from -100 km.
        (
            Kind::Loc,
            "42 21 54 N 71 06 18 W -24m 30m",
            format!(
                "00331613{:08x}{:08x}{:08x}",
                (1_u32 << 31) + ((42 * 60 + 21) * 60 + 54) * 1000,
                (1_u32 << 31) - ((71 * 60 + 6) * 60 + 18) * 1000,
                10_000_000 - 2_400
            ),
        ),
    ];
    for (kind, content, wire) in table {
        assert_eq!(hex(&parsed(kind, content).wire()), wire, "{content}");
    }
}

#[test]
fn text_is_cut_into_strings_of_255_bytes_or_as_its_quotes_say() {
    let long = "x".repeat(300);
    let wire = parsed(Kind::Txt, &long).wire();
    assert_eq!((wire.len(), wire[0], wire[256]), (302, 255, 45));
    let wire = parsed(Kind::Txt, r#""a \"b\"" "\200c""#).wire();
    assert_eq!(wire, b"\x05a \"b\"\x02\xc8c");
    // Without quotes nothing is special.
    assert_eq!(parsed(Kind::Txt, r"v=1; a\b").wire(), b"\x08v=1; a\\b");
    for bad in ["\"open", "\"a\" \"\\300\"", &format!("\"{long}\"")] {
        assert!(Rdata::parse(Kind::Txt, bad).is_err(), "{bad}");
    }
}

#[test]
fn what_no_rfc_allows_is_refused() {
    for (kind, content) in [
        (Kind::A, "10.0.0.256"),
        (Kind::A, "10.0.0.1 10.0.0.2"),
        (Kind::Aaaa, "::ffff:10.0.0.1"),
        (Kind::Caa, "256 issue \"x\""),
        (Kind::Caa, "0 is-sue \"x\""),
        (Kind::Cname, "a..b"),
        (Kind::Cname, "."),
        (Kind::Ds, "1 2 3 abc"),
        (Kind::Https, "0 . alpn=h2"),
        (Kind::Https, "1 . alpn=h2 alpn=h3"),
        (Kind::Https, "1 . mandatory=port alpn=h2"),
        (Kind::Https, "1 . mandatory=mandatory"),
        (Kind::Https, "1 . no-default-alpn"),
        (Kind::Https, "1 . key65535=x"),
        (Kind::Https, "1 . port=66000"),
        (Kind::Loc, "91 N 0 E 0m"),
        (Kind::Loc, "90 0 0.001 N 0 E 0m"),
        (Kind::Loc, "1 60 N 0 E 0m"),
        (Kind::Loc, "1 N 0 E -100000.01m"),
        (Kind::Openpgpkey, "!"),
        (Kind::Srv, "1 2"),
        (Kind::Sshfp, "1 1"),
        (Kind::Tlsa, "-1 0 0 00"),
    ] {
        assert!(Rdata::parse(kind, content).is_err(), "{kind:?} {content}");
    }
}

#[test]
fn a_place_is_shown_as_it_was_given_rounded_to_what_the_wire_can_say() {
    let place = parsed(Kind::Loc, "60 9 0.5 N 24 39 E 10.00m 25m 2000m 20m");
    assert_eq!(
        place.content(),
        "60 9 0.500 N 24 39 0.000 E 10.00m 20.00m 2000.00m 20.00m"
    );
    let data = place.data().unwrap();
    assert_eq!(data["lat_seconds"], json!(0.5));
    assert_eq!(data["long_direction"], json!("E"));
    assert_eq!(data["precision_horz"], json!(2000));
    let fields = Fields::new(data, 1004).unwrap();
    assert_eq!(Rdata::from_data(Kind::Loc, fields).unwrap(), place);
}

fn kind() -> impl Strategy<Value = Kind> {
    prop::sample::select(Kind::ALL)
}

/// Words that some type has a use for, and noise.
fn content() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        prop::sample::select(vec![
            "0",
            "1",
            "16",
            "65535",
            "N",
            "W",
            "10m",
            "issue",
            "\"x\"",
            ".",
            "a.example",
            "alpn=h2",
            "port=1",
            "mandatory=port",
            "key9=\"\\200\"",
            "AQID",
            "0102",
            "@",
            "\\",
            "-5",
            "1.5",
            "ipv4hint=192.0.2.1,192.0.2.2",
            "192.0.2.1",
            "2001:db8::1",
            "ech=AQ==",
        ])
        .prop_map(str::to_owned),
        "\\PC{0,12}",
    ];
    prop::collection::vec(word, 0..9).prop_map(|words| words.join(" "))
}

proptest! {
    #[test]
    fn what_is_read_is_shown_so_that_it_is_read_the_same(kind in kind(), content in content()) {
        if let Ok(rdata) = Rdata::parse(kind, &content) {
            let again = Rdata::parse(kind, &rdata.content()).unwrap();
            prop_assert_eq!(&again.with_priority(rdata.priority()), &rdata);
            let words = tokens(&rdata.zone_file()).unwrap();
            let filed = Rdata::from_tokens(kind, &words, Some("other.example")).unwrap();
            prop_assert_eq!(filed.wire(), rdata.wire());
            if let Some(data) = rdata.data() {
                let fields = Fields::new(data, 1004).unwrap();
                let same = Rdata::from_data(kind, fields).unwrap();
                prop_assert_eq!(same.with_priority(rdata.priority()).wire(), rdata.wire());
            }
            prop_assert!(rdata.wire().len() <= RDATA_LEN_MAX);
        }
    }
}
