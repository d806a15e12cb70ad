//! DNS records of every type: content and data, batches, zone files.

use axum::body::Body;
use http::Method;
use serde_json::{Value, json};

use super::{World, code, id};

/// A type, what is sent, the content that comes back, and the data.
type Case = (&'static str, Value, &'static str, Value);

fn of_content(kind: &'static str, sent: &str, shown: &'static str) -> Case {
    (kind, json!({"content": sent}), shown, Value::Null)
}

fn of_data(kind: &'static str, shown: &'static str, data: Value) -> Case {
    (kind, json!({"data": data}), shown, data)
}

fn every_type() -> Vec<Case> {
    let mail = json!({"content": "m.example", "priority": 5});
    let uri = json!({"weight": 1, "target": "https://example.com/"});
    let service = json!({"priority": 1, "target": ".", "value": "alpn=\"h3,h2\""});
    let certificate = json!({"usage": 3, "selector": 1, "matching_type": 1, "certificate": "0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b"});
    let place = json!({"lat_degrees": 37, "lat_minutes": 46, "lat_seconds": 46,
        "lat_direction": "N", "long_degrees": 122, "long_minutes": 23, "long_seconds": 35,
        "long_direction": "W", "altitude": 0, "size": 100, "precision_horz": 0,
        "precision_vert": 0});
    let shown_place = "37 46 46.000 N 122 23 35.000 W 0.00m 100.00m 0.00m 0.00m";
    let rule = json!({"order": 100, "preference": 10, "flags": "u", "service": "E2U+sip",
        "regex": "!^.*$!sip:a@example.com!", "replacement": "."});
    let shown_rule = "100 10 \"u\" \"E2U+sip\" \"!^.*$!sip:a@example.com!\" .";
    let caa = json!({"flags": 0, "tag": "issue", "value": "letsencrypt.org"});
    let cert = json!({"type": 9, "key_tag": 1, "algorithm": 2, "certificate": "TEpBNFY="});
    let key = json!({"flags": 257, "protocol": 3, "algorithm": 13, "public_key": "AQID"});
    let digest = json!({"key_tag": 1, "algorithm": 13, "digest_type": 2, "digest": "0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b"});
    let srv = json!({"priority": 10, "weight": 5, "port": 5060, "target": "sip.example.com"});
    let print = json!({"algorithm": 4, "type": 2, "fingerprint": "0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b"});
    let sent_uri = json!({"data": uri, "priority": 10});
    vec![
        of_content("A", "192.0.2.1", "192.0.2.1"),
        of_content("AAAA", "2001:DB8::1", "2001:db8::1"),
        of_data("CAA", "0 issue \"letsencrypt.org\"", caa),
        of_data("CERT", "9 1 2 TEpBNFY=", cert),
        of_content("CNAME", "Other.Example.", "other.example"),
        of_data("DNSKEY", "257 3 13 AQID", key),
        of_data(
            "DS",
            "1 13 2 0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b",
            digest,
        ),
        of_data("HTTPS", "1 . alpn=\"h3,h2\"", service.clone()),
        of_data("LOC", shown_place, place),
        ("MX", mail, "m.example", Value::Null),
        of_data("NAPTR", shown_rule, rule),
        of_content("NS", "ns.example", "ns.example"),
        of_content("OPENPGPKEY", "AQID", "AQID"),
        of_content("PTR", "host.example", "host.example"),
        of_data(
            "SMIMEA",
            "3 1 1 0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b",
            certificate.clone(),
        ),
        of_data("SRV", "5 5060 sip.example.com", srv),
        of_data(
            "SSHFP",
            "4 2 0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b",
            print,
        ),
        of_data("SVCB", "1 . alpn=\"h3,h2\"", service),
        of_data(
            "TLSA",
            "3 1 1 0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b",
            certificate,
        ),
        of_content("TXT", "v=spf1 -all", "v=spf1 -all"),
        ("URI", sent_uri, "1 \"https://example.com/\"", uri),
    ]
}

#[tokio::test]
async fn every_type_is_made_by_content_or_data_and_shown_as_both() {
    let world = World::new().await;
    let zone = world.zone("example.com").await;
    let records = format!("/zones/{zone}/dns_records");
    for (kind, mut body, content, data) in every_type() {
        body["type"] = json!(kind);
        body["name"] = json!(format!("{kind}.example.com"));
        let made = world.made(&records, body).await;
        assert_eq!(made["content"], json!(content), "{kind}");
        assert_eq!(made.get("data").unwrap_or(&Value::Null), &data, "{kind}");
        let path = format!("{records}/{}", id(&made));
        // What came back can be sent back, and its content alone says the same.
        let (status, same) = world.call(Method::PUT, &path, made.clone()).await;
        assert_eq!(
            (status, &same["result"]["content"]),
            (200, &json!(content)),
            "{same}"
        );
        let alone = json!({"type": kind, "name": made["name"], "content": content,
            "priority": made.get("priority")});
        let (status, same) = world.call(Method::PUT, &path, alone).await;
        assert_eq!(
            (status, same["result"].get("data")),
            (200, made.get("data")),
            "{same}"
        );
        let (_, list) = world.get(&format!("{records}?type={kind}")).await;
        assert_eq!(list["result"][0]["id"], made["id"]);
    }
}

/// Bodies without a name, and what is wrong in them.
/// Digests that are not as long as their algorithm makes them.
fn wrong_digests() -> Vec<(Value, &'static str)> {
    vec![
        (json!({"type": "DS", "content": "1 13 2 0a0b"}), "/content"),
        (
            json!({"type": "DS", "data": {"key_tag": 1, "algorithm": 8, "digest_type": 1, "digest": "00"}}),
            "/data/digest",
        ),
        (
            json!({"type": "SSHFP", "data": {"algorithm": 4, "type": 2, "fingerprint": "0000000000000000000000000000000000000000"}}),
            "/data/fingerprint",
        ),
        (
            json!({"type": "TLSA", "data": {"usage": 3, "selector": 1, "matching_type": 2, "certificate": "0000000000000000000000000000000000000000000000000000000000000000"}}),
            "/data/certificate",
        ),
    ]
}

fn wrong_fields() -> Vec<(Value, &'static str)> {
    vec![
        (
            json!({"type": "CAA", "data": {"flags": 256, "tag": "issue", "value": "x"}}),
            "/data/flags",
        ),
        (
            json!({"type": "CAA", "data": {"flags": 0, "tag": "issue"}}),
            "/data/value",
        ),
        (
            json!({"type": "SRV", "data": {"priority": 1, "weight": 1, "port": 1, "target": "a b"}}),
            "/data/target",
        ),
        (
            json!({"type": "SRV", "data": {"weight": 1, "port": 1, "target": "a"}}),
            "/data/priority",
        ),
        (
            json!({"type": "TLSA", "data": {"usage": 3, "selector": 1, "matching_type": 1, "certificate": "xyz"}}),
            "/data/certificate",
        ),
        (
            json!({"type": "DS", "data": {"key_tag": 1, "algorithm": 1, "digest_type": 1, "digest": "0000000000000000000000000000000000000000", "more": 1}}),
            "/data/more",
        ),
        (
            json!({"type": "LOC", "data": {"lat_degrees": 1, "long_degrees": 1}}),
            "/data/lat_direction",
        ),
        (
            json!({"type": "A", "data": {"content": "192.0.2.1"}}),
            "/data",
        ),
        (json!({"type": "A", "data": "192.0.2.1"}), "/data"),
        (
            json!({"type": "CAA", "content": "0 issue \"a\"", "data": {"flags": 0, "tag": "issue", "value": "b"}}),
            "/data",
        ),
        (json!({"type": "MX", "content": "a.example"}), "/priority"),
        (
            json!({"type": "MX", "content": "5 a.example", "priority": 6}),
            "/priority",
        ),
        (
            json!({"type": "A", "content": "192.0.2.1", "settings": {"ipv4_only": true}}),
            "/settings/ipv4_only",
        ),
        (
            json!({"type": "A", "content": "192.0.2.1", "settings": {"flatten_cname": true}}),
            "/settings/flatten_cname",
        ),
        (
            json!({"type": "CNAME", "content": "a.example", "settings": {"flatten_cname": true}}),
            "/content",
        ),
        (json!({"type": "SPF", "content": "x"}), "/type"),
        (json!({"type": "TXT"}), "/content"),
    ]
}

#[tokio::test]
async fn a_wrong_field_of_data_is_pointed_at() {
    let world = World::new().await;
    let zone = world.zone("example.com").await;
    let records = format!("/zones/{zone}/dns_records");
    for (mut body, pointer) in wrong_fields().into_iter().chain(wrong_digests()) {
        body["name"] = json!("x");
        let (status, refused) = world.post(&records, body.clone()).await;
        assert_eq!((status, code(&refused)), (400, 1004), "{body}");
        assert_eq!(
            refused["errors"][0]["source"]["pointer"],
            json!(pointer),
            "{body} {refused}"
        );
    }
    let apex = json!({"type": "CNAME", "name": "@", "content": "a.example"});
    assert_eq!(code(&world.post(&records, apex).await.1), 1004);
    assert_eq!(world.get(&records).await.1["result"], json!([]));
}

#[tokio::test]
async fn records_that_cannot_be_beside_each_other_are_refused_with_the_documented_codes() {
    let world = World::new().await;
    let zone = world.zone("example.com").await;
    let records = format!("/zones/{zone}/dns_records");
    let record = |name: &str, kind: &str, content: &str| json!({"name": name, "type": kind, "content": content});
    for (first, second, expected) in [
        (
            record("a", "A", "192.0.2.1"),
            record("a", "A", "192.0.2.1"),
            81_058,
        ),
        (
            record("b", "A", "192.0.2.1"),
            record("b", "CNAME", "x.example"),
            81_053,
        ),
        (
            record("c", "CNAME", "x.example"),
            record("c", "AAAA", "::2"),
            81_053,
        ),
        (
            record("d", "CNAME", "x.example"),
            record("d", "TXT", "t"),
            81_053,
        ),
        (
            record("e", "NS", "ns.example"),
            record("e", "TXT", "t"),
            81_056,
        ),
        (
            record("f", "NS", "ns.example"),
            record(
                "f",
                "DS",
                "1 13 2 0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b",
            ),
            0,
        ),
        (
            record("g", "NS", "ns.example"),
            record("g", "NS", "ns2.example"),
            0,
        ),
        (
            record("h", "TXT", "same"),
            record("h", "TXT", "\"same\""),
            81_058,
        ),
        (record("@", "NS", "ns.example"), record("@", "TXT", "t"), 0),
    ] {
        world.made(&records, first).await;
        let (_, answer) = world.post(&records, second.clone()).await;
        assert_eq!(code(&answer), expected, "{second}");
    }
    let (_, answer) = world
        .post(&records, record("x.example.org.", "A", "192.0.2.1"))
        .await;
    assert_eq!(code(&answer), 1004);
}

#[tokio::test]
async fn a_name_has_no_more_records_than_an_answer_has_room_for() {
    let world = World::new().await;
    let zone = world.zone("example.com").await;
    let records = format!("/zones/{zone}/dns_records");
    let post = |n: usize| json!({"name": "many", "type": "A", "content": format!("192.0.2.{n}")});
    let posts: Vec<Value> = (0..200).map(post).collect();
    let batch = json!({"posts": posts});
    assert_eq!(world.post(&format!("{records}/batch"), batch).await.0, 200);
    assert_eq!(code(&world.post(&records, post(200)).await.1), 1004);
    let long = |n: usize| json!({"name": "long", "type": "TXT", "content": format!("{n}{}", "x".repeat(4_000))});
    let posts: Vec<Value> = (0..14).map(long).collect();
    let batch = json!({"posts": posts});
    assert_eq!(world.post(&format!("{records}/batch"), batch).await.0, 200);
    let (_, refused) = world.post(&records, long(14)).await;
    assert_eq!(
        refused["errors"][0]["source"]["pointer"], "/content",
        "{refused}"
    );
}

#[tokio::test]
async fn a_batch_is_done_in_its_order_and_whole_or_not_at_all() {
    let world = World::new().await;
    let zone = world.zone("example.com").await;
    let records = format!("/zones/{zone}/dns_records");
    let record = |name: &str, content: &str| json!({"name": name, "type": "A", "content": content});
    let gone = id(&world.made(&records, record("a", "192.0.2.1")).await);
    let patched = id(&world.made(&records, record("b", "192.0.2.2")).await);
    let put = id(&world.made(&records, record("c", "192.0.2.3")).await);
    let batch = |last: Value| {
        json!({
            // Only in this order is the name `a` free for a CNAME.
            "posts": [{"name": "a", "type": "CNAME", "content": "x.example"}, last],
            "deletes": [{"id": gone}],
            "patches": [{"id": patched, "comment": "new"}],
            "puts": [{"id": put, "name": "d", "type": "TXT", "content": "t"}],
        })
    };
    let path = format!("{records}/batch");
    let revision = *world.plane.revision().borrow();
    let (status, refused) = world.post(&path, batch(record("e", "nonsense"))).await;
    assert_eq!((status, code(&refused)), (400, 1004));
    assert_eq!(
        refused["errors"][0]["source"]["pointer"],
        "/posts/1/content"
    );
    assert_eq!(*world.plane.revision().borrow(), revision);
    let (status, done) = world.post(&path, batch(record("e", "192.0.2.5"))).await;
    assert_eq!(status, 200, "{done}");
    assert_eq!(*world.plane.revision().borrow(), revision + 1);
    let result = &done["result"];
    assert_eq!(result["deletes"][0]["name"], "a.example.com");
    assert_eq!(result["patches"][0]["comment"], "new");
    assert_eq!(result["puts"][0]["type"], "TXT");
    assert_eq!(result["posts"].as_array().unwrap().len(), 2);
    let unknown = json!({"patches": [{"id": gone, "ttl": 60}]});
    let (status, refused) = world.post(&path, unknown).await;
    assert_eq!((status, code(&refused)), (404, 81_044));
    let many: Vec<Value> = (0..3_501).map(|_| json!({"id": "x"})).collect();
    assert_eq!(
        code(&world.post(&path, json!({"deletes": many})).await.1),
        1004
    );
}

/// A form as HTTP clients send it (RFC 7578).
async fn import(world: &World, records: &str, file: &str, proxied: &str) -> (u16, Value) {
    let part = |name: &str, more: &str, text: &str| {
        format!("--edge\r\nContent-Disposition: form-data; name=\"{name}\"{more}\r\n\r\n{text}\r\n")
    };
    let form = part("file", "; filename=\"zone.txt\"", file) + &part("proxied", "", proxied);
    let mut request = world.request(
        Method::POST,
        &format!("{records}/import"),
        Body::from(form + "--edge--\r\n"),
    );
    let kind = "multipart/form-data; boundary=edge".parse().unwrap();
    request.headers_mut().insert("content-type", kind);
    let (status, text) = world.raw(request).await;
    (status, serde_json::from_str(&text).unwrap())
}

#[tokio::test]
async fn a_zone_file_is_read_with_all_its_shorthands() {
    let world = World::new().await;
    let zone = world.zone("example.com").await;
    let records = format!("/zones/{zone}/dns_records");
    let file = r#"$TTL 1h
@   IN SOA ns1 hostmaster ( 2024 ; serial
        7200 3600 1209600 300 )
    IN NS  ns1.example.net.
    MX  10 mail
www 300 IN A 192.0.2.1 ; front page
    IN 600 A 192.0.2.2
$ORIGIN sub.example.com.
@   A 192.0.2.3
a   CNAME @
t   TXT ( "one; two"
          "three" ) ; cf_tags=team:web
"#;
    let (status, done) = import(&world, &records, file, "false").await;
    assert_eq!(status, 200, "{done}");
    assert_eq!(
        done["result"],
        json!({"recs_added": 6, "total_records_parsed": 8})
    );
    assert!(done["timing"]["process_time"].is_number());
    let (_, list) = world.get(&format!("{records}?order=name")).await;
    let seen: Vec<String> = list["result"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| {
            let text = |field: &str| r[field].as_str().unwrap_or("-").to_owned();
            format!(
                "{} {} {} {} {}",
                text("name"),
                r["ttl"],
                text("type"),
                text("content"),
                text("comment")
            )
        })
        .collect();
    let wanted = [
        "a.sub.example.com 3600 CNAME sub.example.com -",
        "example.com 3600 MX mail.example.com -",
        "sub.example.com 3600 A 192.0.2.3 -",
        "t.sub.example.com 3600 TXT \"one; two\" \"three\" -",
        "www.example.com 300 A 192.0.2.1 front page",
        "www.example.com 600 A 192.0.2.2 -",
    ];
    let mut seen = seen;
    seen.sort();
    assert_eq!(seen, wanted);
    for (bad, line) in [
        ("www A 192.0.2.9\nx A nonsense", 2),
        ("x IN FOO y", 1),
        ("x 5 A 192.0.2.1", 1),
        ("x A ( 192.0.2.1", 1),
        ("\n\nother.example. A 192.0.2.1", 3),
        ("a.sub TXT beside-a-cname", 1),
    ] {
        let (status, refused) = import(&world, &records, bad, "").await;
        assert_eq!(status, 400, "{bad}");
        assert!(
            refused.to_string().contains(&format!("Line {line}: ")),
            "{bad}: {refused}"
        );
        assert_eq!(world.get(&records).await.1["result_info"]["total_count"], 6);
    }
}

#[tokio::test]
async fn an_exported_zone_is_imported_as_the_same_records() {
    let world = World::new().await;
    let (old, new) = (
        world.zone("example.com").await,
        world.zone("example.org").await,
    );
    let records = format!("/zones/{old}/dns_records");
    for (kind, mut body, ..) in every_type() {
        body["type"] = json!(kind);
        body["name"] = json!(format!("{kind}.example.com"));
        body["comment"] = json!("as it was");
        body["tags"] = json!(["team:web"]);
        world.made(&records, body).await;
    }
    let tunnel = world.tunnel("site", None).await;
    world.route("10.0.0.0/8", &tunnel, None).await;
    let proxied = json!({"name": "app", "type": "A", "content": "10.0.0.50", "proxied": true});
    world.made(&records, proxied).await;
    let export = world.request(Method::GET, &format!("{records}/export"), Body::empty());
    let (status, file) = world.raw(export).await;
    assert_eq!(status, 200);
    assert!(
        file.contains("example.com.\t3600\tIN\tNS\tns1.example.net."),
        "{file}"
    );
    // The same again adds nothing.
    let (_, again) = import(&world, &records, &file, "false").await;
    assert_eq!(again["result"]["recs_added"], 0, "{again}");
    let moved = file.replace("example.com", "example.org");
    let (status, done) = import(
        &world,
        &format!("/zones/{new}/dns_records"),
        &moved,
        "false",
    )
    .await;
    assert_eq!(
        (status, &done["result"]["recs_added"]),
        (200, &json!(22)),
        "{done}"
    );
    let seen = async |zone: &str| {
        let (_, list) = world.get(&format!("/zones/{zone}/dns_records")).await;
        let shown = |r: &Value| {
            let fields = [
                "name", "type", "content", "data", "priority", "proxied", "ttl", "comment", "tags",
            ];
            let kept: Vec<&Value> = fields.iter().map(|field| &r[*field]).collect();
            json!(kept)
                .to_string()
                .replace("example.com", "example.org")
        };
        let mut seen: Vec<String> = list["result"]
            .as_array()
            .unwrap()
            .iter()
            .map(shown)
            .collect();
        seen.sort();
        seen
    };
    assert_eq!(seen(&new).await, seen(&old).await);
}

#[tokio::test]
async fn records_are_found_by_their_tags_and_comments() {
    let world = World::new().await;
    let zone = world.zone("example.com").await;
    let records = format!("/zones/{zone}/dns_records");
    for (name, tags) in [
        ("a", json!(["team:web", "env:prod"])),
        ("b", json!(["team:db"])),
        ("c", json!([])),
    ] {
        let body = json!({"name": name, "type": "A", "content": "192.0.2.1", "tags": tags});
        world.made(&records, body).await;
    }
    for (query, names) in [
        ("tag=team:web", "a"),
        ("tag.exact=TEAM:db", "b"),
        ("tag.startswith=team", "ab"),
        ("tag.endswith=prod", "a"),
        ("tag.contains=e", "ab"),
        ("tag.present=true", "ab"),
        ("tag.absent=true", "c"),
        ("tag=team:web&tag=team:db", ""),
        ("tag=team:web&tag=team:db&tag_match=any", "ab"),
        ("tag=team:web&name=c.example.com&match=any", "ac"),
        ("search=team", "ab"),
        ("order=name&direction=desc&tag.present=true", "ba"),
    ] {
        let (_, list) = world.get(&format!("{records}?{query}")).await;
        let shown = list["result"].as_array().unwrap().iter();
        let seen: String = shown
            .map(|r| r["name"].as_str().unwrap()[..1].to_owned())
            .collect();
        let mut sorted: Vec<char> = seen.chars().collect();
        if !query.starts_with("order") {
            sorted.sort_unstable();
        }
        assert_eq!(sorted.iter().collect::<String>(), names, "{query}");
    }
    assert_eq!(
        world.get(&format!("{records}?shadowing_name=x")).await.0,
        400
    );
}

#[test]
fn a_record_of_the_first_version_is_still_read() {
    let old = json!({
        "id": "023e105f4ecef8ad9ca31a8372d0c353", "zone_id": "023e105f4ecef8ad9ca31a8372d0c354",
        "name": "example.com", "type": "MX", "content": "mail.example.com", "ttl": 1,
        "proxied": false, "asked_private": false, "virtual_network_id": null, "priority": 10,
        "comment": null, "tags": [], "created_on": "2026-01-01T00:00:00Z",
        "modified_on": "2026-01-01T00:00:00Z",
    });
    let record: crate::model::record::Record = serde_json::from_value(old).unwrap();
    let said = record.rdata().unwrap();
    assert_eq!(said.zone_file(), "10 mail.example.com.");
}
