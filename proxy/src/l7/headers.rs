//! Header fields that the proxy adds, overwrites and takes away, in both directions.

use std::net::IpAddr;

use http::HeaderName;
use http::header::{HeaderMap, HeaderValue, SERVER};
use pingora::Result;
use pingora::http::{RequestHeader, ResponseHeader};

use super::fault::Fault;
use super::ray::Ray;

/// What `Server` says, and our name in `CDN-Loop` (RFC 8586).
pub(super) const SERVER_NAME: &str = "portcullis";

pub(super) const CF_RAY: HeaderName = HeaderName::from_static("cf-ray");
const CF_CONNECTING_IP: HeaderName = HeaderName::from_static("cf-connecting-ip");
const CF_VISITOR: HeaderName = HeaderName::from_static("cf-visitor");
const CDN_LOOP: HeaderName = HeaderName::from_static("cdn-loop");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Only the edge may say these; every `cf-` field as well.
const OURS: [&str; 2] = ["x-real-ip", "true-client-ip"];

/// An origin's words to a reverse proxy of its own kind, not to clients.
const ACCELERATION: [&str; 4] = [
    "x-accel-buffering",
    "x-accel-charset",
    "x-accel-limit-rate",
    "x-accel-redirect",
];

/// Bounds of the product's connection limits: URL 16 KB, one field 16 KB, all fields 32 KB.
const TARGET_BYTES_MAX: usize = 16 << 10;
const FIELD_BYTES_MAX: usize = 16 << 10;
const FIELDS_BYTES_MAX: usize = 32 << 10;

/// Checks the sizes of a request's header and that it did not come through here before.
pub(super) fn check(request: &RequestHeader) -> Result<(), Fault> {
    if request.raw_path().len() > TARGET_BYTES_MAX {
        return Err(Fault::TargetTooLong);
    }
    let mut sum = 0;
    for (name, value) in &request.headers {
        let size = name.as_str().len() + value.len();
        sum += size;
        if size > FIELD_BYTES_MAX || sum > FIELDS_BYTES_MAX {
            return Err(Fault::HeaderTooLarge);
        }
    }
    if is_loop(&request.headers) {
        Err(Fault::Loop)
    } else {
        Ok(())
    }
}

fn is_loop(headers: &HeaderMap) -> bool {
    headers.get_all(CDN_LOOP).iter().any(|value| {
        value.to_str().is_ok_and(|list| {
            // cdn-info = cdn-id *( OWS ";" OWS parameter )
            list.split(',').any(|info| {
                let id = info.split(';').next().unwrap_or_default().trim();
                id.eq_ignore_ascii_case(SERVER_NAME)
            })
        })
    })
}

/// Makes the header that goes to the origin: the client's, with ours in place of what only the
/// edge may say.
pub(super) fn to_origin(
    request: &mut RequestHeader,
    client: IpAddr,
    is_https: bool,
    ray: &Ray,
) -> Result<()> {
    let spoofed: Vec<HeaderName> = request
        .headers
        .keys()
        .filter(|name| name.as_str().starts_with("cf-") || OURS.contains(&name.as_str()))
        .cloned()
        .collect();
    for name in spoofed {
        request.remove_header(&name);
    }
    let client = client.to_canonical().to_string();
    let forwarded = list(&request.headers, &X_FORWARDED_FOR, &client);
    let passed = list(&request.headers, &CDN_LOOP, SERVER_NAME);
    let scheme = if is_https { "https" } else { "http" };
    request.insert_header(CF_CONNECTING_IP, client)?;
    request.insert_header(X_FORWARDED_FOR, forwarded)?;
    request.insert_header(X_FORWARDED_PROTO, scheme)?;
    request.insert_header(CF_VISITOR, format!("{{\"scheme\":\"{scheme}\"}}"))?;
    request.insert_header(CF_RAY, ray.to_string())?;
    request.insert_header(CDN_LOOP, passed)
}

/// All values of a field and one more, as one list.
fn list(headers: &HeaderMap, name: &HeaderName, more: &str) -> Vec<u8> {
    let mut joined = Vec::new();
    for value in headers.get_all(name).iter().map(HeaderValue::as_bytes) {
        joined.extend_from_slice(value);
        joined.extend_from_slice(b", ");
    }
    joined.extend_from_slice(more.as_bytes());
    joined
}

/// Makes the header that goes to the client.
pub(super) fn to_client(response: &mut ResponseHeader, ray: &Ray) -> Result<()> {
    for name in ACCELERATION {
        response.remove_header(name);
    }
    response.insert_header(SERVER, SERVER_NAME)?;
    response.insert_header(CF_RAY, ray.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::l7::ray::Rays;

    fn request(fields: &[(&'static str, &str)]) -> RequestHeader {
        let mut request = RequestHeader::build("GET", b"/", None).unwrap();
        for (name, value) in fields {
            request.append_header(*name, *value).unwrap();
        }
        request
    }

    #[test]
    fn spoofed_fields_are_replaced_and_lists_are_appended() {
        let mut request = request(&[
            ("CF-Connecting-IP", "6.6.6.6"),
            ("CF-IPCountry", "T1"),
            ("CF-Anything", "x"),
            ("X-Real-IP", "6.6.6.6"),
            ("True-Client-IP", "6.6.6.6"),
            ("X-Forwarded-For", "6.6.6.6"),
            ("X-Forwarded-For", "7.7.7.7"),
            ("X-Forwarded-Proto", "ftp"),
            ("CDN-Loop", "other; v=1"),
        ]);
        let ray = Rays::new("TST").next();
        to_origin(
            &mut request,
            "::ffff:203.0.113.2".parse().unwrap(),
            true,
            &ray,
        )
        .unwrap();
        let field = |name: &str| {
            let all: Vec<_> = request.headers.get_all(name).iter().collect();
            assert!(all.len() <= 1, "{name}");
            all.first().map(|value| value.to_str().unwrap().to_owned())
        };
        assert_eq!(field("cf-connecting-ip").as_deref(), Some("203.0.113.2"));
        assert_eq!(
            field("x-forwarded-for").as_deref(),
            Some("6.6.6.6, 7.7.7.7, 203.0.113.2")
        );
        assert_eq!(field("x-forwarded-proto").as_deref(), Some("https"));
        assert_eq!(
            field("cf-visitor").as_deref(),
            Some("{\"scheme\":\"https\"}")
        );
        assert_eq!(field("cdn-loop").as_deref(), Some("other; v=1, portcullis"));
        assert_eq!(field("cf-ray"), Some(ray.to_string()));
        for gone in ["cf-ipcountry", "cf-anything", "x-real-ip", "true-client-ip"] {
            assert_eq!(field(gone), None);
        }
    }

    #[test]
    fn ray_is_sixteen_hex_digits_and_the_location() {
        let ray = Rays::new("TST").next().to_string();
        let (number, colo) = ray.split_once('-').unwrap();
        assert_eq!((number.len(), colo), (16, "TST"));
        assert!(number.bytes().all(|b| b.is_ascii_hexdigit()));
    }

    #[test]
    fn own_name_in_cdn_loop_is_a_loop() {
        assert_eq!(
            check(&request(&[("CDN-Loop", "other, Portcullis;v=1")])),
            Err(Fault::Loop)
        );
        assert_eq!(
            check(&request(&[("CDN-Loop", "portcullis-two, other")])),
            Ok(())
        );
    }

    #[test]
    fn large_headers_are_refused() {
        let field = |bytes: usize| "x".repeat(bytes);
        assert_eq!(
            check(&request(&[("a", &field(17_000))])),
            Err(Fault::HeaderTooLarge)
        );
        let many = field(12_000);
        assert_eq!(check(&request(&[("a", &many), ("b", &many)])), Ok(()));
        let three = request(&[("a", &many), ("b", &many), ("c", &many)]);
        assert_eq!(check(&three), Err(Fault::HeaderTooLarge));
        let long = RequestHeader::build("GET", format!("/{}", field(17_000)).as_bytes(), None);
        assert_eq!(check(&long.unwrap()), Err(Fault::TargetTooLong));
    }
}
