//! Every field of every body of every resource, wrong in every way: refused with a code, the field's pointer and
//! a sentence, and nothing changes. The fields come from the document, which readers write themselves.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::body::Bytes;
use hyper::body::Frame;
use serde_json::{Value, json};

use super::stage::{NOBODY, Operation, Stage, short, with};

/// Prefixes that are none, or not to be routed (api.md 3.2).
const BAD_PREFIXES: &[&str] = &[
    "10.0.0.1/8",
    "10.0.0.0",
    "10.0.0.0/33",
    "010.0.0.0/8",
    "::ffff:10.0.0.0/104",
    "100.64.0.0/16",
    "100.96.1.0/24",
    "100.112.0.0/16",
    "172.64.128.0/20",
    "2606:4700:cf1:5000::/80",
    "2606:4700:cf1:4000::/64",
    "fd00::1/64",
];

/// Addresses of no single host.
const BAD_HOSTS: &[&str] = &[
    "127.0.0.1",
    "0.0.0.0",
    "224.0.0.1",
    "::ffff:10.0.0.1",
    "::1",
    "here",
];

/// What is wrong beyond its type, by the field's name.
const BAD_BY_NAME: &[(&str, &[&str])] = &[
    ("network", BAD_PREFIXES),
    ("prefix", BAD_PREFIXES),
    (
        "interface_address",
        &[
            "10.0.0.0/24",
            "192.0.2.0/31",
            "10.255.0.0/30",
            "::1/127",
            "10.0.0.1",
        ],
    ),
    (
        "interface_address6",
        &[
            "fd00::/64",
            "::ffff:10.0.0.0/127",
            "fe80::/127",
            "2606:4700:cf1:5000::/127",
        ],
    ),
    ("nexthop", BAD_HOSTS),
    ("cloudflare_gre_endpoint", BAD_HOSTS),
    ("customer_gre_endpoint", BAD_HOSTS),
    ("cloudflare_endpoint", BAD_HOSTS),
    ("customer_endpoint", BAD_HOSTS),
    (
        "endpoint",
        &[
            "127.0.0.1",
            "0.0.0.0:1",
            "224.0.0.1:1",
            "a.example.com:51820",
            "192.0.2.1:0",
        ],
    ),
    ("tunnel_id", &[NOBODY]),
    ("virtual_network_id", &[NOBODY]),
    (
        "content",
        &[
            "::ffff:10.0.0.1",
            "010.0.0.1",
            "10.0.0",
            "127.0.0.1",
            "224.0.0.1",
        ],
    ),
    (
        "protocol",
        &[
            "tcp",
            "tcp/0",
            "tcp/70000",
            "tcp/9-1",
            "icmp/1",
            "tcp/1-2-3",
        ],
    ),
];

/// Names that are none, or not in their one form; for zones, records and apps.
const BAD_NAMES: &[&str] = &[
    "bücher.example.com",
    "a..example.com",
    "a b",
    "-\u{7f}",
    "ex\u{202e}ample.com",
];

/// Values that the schema does not have, each with what is wrong.
fn bad_values(name: &str, schema: &Value, example: &Value) -> Vec<Value> {
    let kind = &schema["type"];
    let kind = kind.as_array().map_or(kind, |kinds| &kinds[0]).as_str();
    let bound = |of: &Value, name: &str| of[name].as_u64().map(|max| usize::try_from(max).unwrap());
    let mut bad = match kind {
        Some("boolean") => vec![json!("yes"), json!(1), json!([]), json!({})],
        Some("integer") => {
            let (min, max) = (
                schema["minimum"].as_u64().unwrap(),
                schema["maximum"].as_u64().unwrap(),
            );
            let mut bad = vec![
                json!("1"),
                json!(1.5),
                json!(-1),
                json!(1e30),
                json!(true),
                json!([1]),
            ];
            bad.push(json!(max.checked_add(1).unwrap()));
            bad.extend(min.checked_sub(1).map(|below| json!(below)));
            bad
        }
        Some("string") => vec![json!(5), json!(true), json!(["x"]), json!({"x": 1})],
        Some("array") => vec![json!("x"), json!({}), json!(5), json!([5]), json!([null])],
        Some("object") => vec![json!("x"), json!([]), json!(5)],
        // What its reader takes apart by itself.
        _ => return Vec::new(),
    };
    let text = |long: usize| json!("x".repeat(long));
    if kind == Some("string") {
        bad.extend(bound(schema, "maxLength").map(|max| text(max + 1)));
        bad.extend(["a\u{0}b", "a\nb", "\u{7f}", "a\u{85}"].map(|text| json!(text)));
        let is_parsed = schema["description"].is_string();
        if is_parsed || schema["enum"].is_array() || schema["format"] == "uuid" {
            bad.push(json!("nonsense"));
        }
    }
    if kind == Some("array") {
        let max = bound(schema, "maxItems").unwrap();
        bad.push(json!(vec!["x"; max + 1]));
        let longest = bound(&schema["items"], "maxLength");
        bad.extend(longest.map(|max| json!([text(max + 1)])));
        bad.push(json!(["a\u{0}"]));
    }
    // What is wrong as an address may be right as a name.
    let is_other = name == "content" && example != "10.0.0.50";
    let by_name = BAD_BY_NAME
        .iter()
        .filter(|(of, _)| *of == name && example.is_string() && !is_other);
    bad.extend(by_name.flat_map(|(_, texts)| texts.iter().map(|text| json!(text))));
    if name == "allowed_prefixes" {
        bad.extend(BAD_PREFIXES.iter().map(|prefix| json!([prefix])));
    }
    bad
}

/// Every field of the example that the schema has, with bad values for it.
fn mistakes(schema: &Value, example: &Value, at: &str) -> Vec<(String, Value)> {
    let mut found = vec![(format!("{at}/no_such_field"), json!(1))];
    for (name, of) in schema["properties"].as_object().unwrap() {
        let pointer = format!("{at}/{name}");
        let Some(given) = example.get(name) else {
            continue;
        };
        found.extend(
            bad_values(name, of, given)
                .into_iter()
                .map(|bad| (pointer.clone(), bad)),
        );
        // An object of which nothing is carried is refused as a whole.
        let has_fields = of["properties"]
            .as_object()
            .is_some_and(|all| !all.is_empty());
        if has_fields && given.is_object() {
            found.extend(mistakes(of, given, &pointer));
        }
        if of["items"]["properties"].is_object() && given[0].is_object() {
            found.extend(mistakes(&of["items"], &given[0], &format!("{pointer}/0")));
        }
    }
    for name in schema["required"].as_array().into_iter().flatten() {
        found.push((format!("{at}/{}", name.as_str().unwrap()), Value::Null));
    }
    found
}

#[tokio::test]
async fn every_field_of_every_body_is_refused_by_its_pointer_when_it_is_wrong_and_nothing_changes()
{
    let mut stage = Stage::only().await;
    let (mut count, mut failures) = (0, Vec::new());
    for operation in Operation::all(stage.world.document().await) {
        let path = stage.path(&operation.method, &operation.template).await;
        for example in &operation.examples {
            let example = stage.real(example);
            let mut cases = mistakes(&operation.schema, &example, "");
            if ["/zones", "/dns_records"]
                .iter()
                .any(|end| path.ends_with(end))
            {
                cases.extend(
                    BAD_NAMES
                        .iter()
                        .map(|name| ("/name".to_owned(), json!(name))),
                );
            }
            if path.ends_with("/apps") {
                cases.extend(
                    BAD_NAMES
                        .iter()
                        .map(|name| ("/dns/name".to_owned(), json!(name))),
                );
            }
            for (pointer, bad) in cases {
                let body = with(&example, &pointer, bad.clone());
                let (_, answer) = stage.refused(&operation.method, &path, &body).await;
                let got = answer["errors"][0]["source"]["pointer"]
                    .as_str()
                    .unwrap_or("none");
                if !(got == pointer || got.starts_with(&format!("{pointer}/"))) {
                    let what = format!("{} {path} {pointer} {}", operation.method, short(&bad));
                    failures.push(format!("{what}: points at {got}: {answer}"));
                }
                count += 1;
            }
        }
        stage.taken_as_shown(&operation, &path).await;
    }
    assert!(
        failures.is_empty(),
        "{} of {count}:\n{}",
        failures.len(),
        failures.join("\n")
    );
    assert!(count > 2_000, "{count}");
}

#[tokio::test]
async fn bodies_that_are_no_object_broken_deep_or_large_are_refused_by_every_operation() {
    let mut stage = Stage::only().await;
    let deep = format!("{{\"name\":{}1{}}}", "[".repeat(5_000), "]".repeat(5_000));
    let large = format!("{{\"name\":\"{}\"}}", "x".repeat(10 << 20));
    for operation in Operation::all(stage.world.document().await) {
        let path = stage.path(&operation.method, &operation.template).await;
        let before = stage.revision();
        for (body, expected) in [
            ("[]", 400),
            ("\"x\"", 400),
            ("5", 400),
            ("{", 400),
            ("{\"name\":}", 400),
            ("{\"a\":1,\"a\"}", 400),
            ("\u{feff}{}", 400),
            (&deep, 400),
            (&large, 413),
        ] {
            let request =
                stage
                    .world
                    .request(operation.method.clone(), &path, Body::from(body.to_owned()));
            let (status, text) = stage.world.raw(request).await;
            let what = format!(
                "{} {path} {}",
                operation.method,
                &body[..body.len().min(20)]
            );
            assert_eq!(status, expected, "{what}: {text}");
        }
        let not_utf8 = Body::from(b"{\"name\":\"\xff\xfe\"}".to_vec());
        let request = stage
            .world
            .request(operation.method.clone(), &path, not_utf8);
        assert_eq!(stage.world.raw(request).await.0, 400, "{path}");
        assert_eq!(stage.revision(), before, "{path}");
    }
}

/// A body that never arrives.
struct Stalled;

impl hyper::body::Body for Stalled {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Pending
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_arrive_is_given_up_by_every_operation() {
    let mut stage = Stage::only().await;
    for operation in Operation::all(stage.world.document().await) {
        let path = stage.path(&operation.method, &operation.template).await;
        let before = stage.revision();
        let request = stage
            .world
            .request(operation.method.clone(), &path, Body::new(Stalled));
        let begun = tokio::time::Instant::now();
        assert_eq!(
            stage.world.raw(request).await.0,
            408,
            "{} {path}",
            operation.method
        );
        assert!(begun.elapsed().as_secs() <= 31, "{path}");
        assert_eq!(stage.revision(), before, "{path}");
    }
}
