//! The host that a request is for, in one spelling: lower case, no port, no final dot.

use std::net::{IpAddr, Ipv6Addr};

use http::header::HOST;
use pingora::http::RequestHeader;

use super::fault::Fault;

/// Longest host name, RFC 1035 section 3.1 without the length bytes.
const HOST_BYTES_MAX: usize = 253;

/// The host of a request.
///
/// # Errors
/// There is none, there are several, or it is not a host name.
pub(super) fn of_request(request: &RequestHeader) -> Result<String, Fault> {
    let mut named = request.headers.get_all(HOST).iter();
    let header = match (named.next(), named.next()) {
        (_, Some(_)) => return Err(Fault::BadRequest("The request has more than one Host.")),
        (Some(value), None) => {
            let text = value.to_str();
            Some(text.map_err(|_not_ascii| Fault::BadRequest("The Host is not a host name."))?)
        }
        (None, None) => None,
    };
    // RFC 9112 section 3.2.2: the authority of an absolute-form target beats the Host field.
    let authority = request
        .uri
        .authority()
        .map(http::uri::Authority::as_str)
        .or(header);
    match authority {
        None | Some("") => Err(Fault::BadRequest("The request has no Host.")),
        Some(authority) => parse(authority),
    }
}

fn parse(authority: &str) -> Result<String, Fault> {
    const BAD: Fault = Fault::BadRequest("The Host is not a host name.");
    if let Some(rest) = authority.strip_prefix('[') {
        let address = rest
            .split_once(']')
            .map(|(address, _)| address.parse::<Ipv6Addr>());
        return Err(match address {
            Some(Ok(_)) => Fault::DirectIp,
            _ => BAD,
        });
    }
    let name = match authority.split_once(':') {
        Some((name, port)) if port.is_empty() || port.parse::<u16>().is_ok() => name,
        Some(_) => return Err(BAD),
        None => authority,
    };
    if name.parse::<IpAddr>().is_ok() {
        return Err(Fault::DirectIp);
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    let is_name = name.len() <= HOST_BYTES_MAX
        && name.split('.').all(|label| {
            let known = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
            (1..=63).contains(&label.len()) && label.bytes().all(known)
        });
    if is_name {
        Ok(name.to_ascii_lowercase())
    } else {
        Err(BAD)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(hosts: &[&str]) -> Result<String, Fault> {
        let mut request = RequestHeader::build("GET", b"/", None).unwrap();
        for host in hosts {
            request.append_header(HOST, *host).unwrap();
        }
        of_request(&request)
    }

    #[test]
    fn host_has_one_spelling() {
        for spelling in [
            "app.example.com",
            "APP.Example.COM",
            "app.example.com:8080",
            "app.example.com.",
        ] {
            assert_eq!(of(&[spelling]), Ok("app.example.com".to_owned()));
        }
    }

    #[test]
    fn what_is_no_host_name_is_a_bad_request() {
        for bad in [
            "", "a b", "a..b", "a/b", "user@a", "a:b", "a:99999", "-\u{e4}", "[::1", "%2e",
        ] {
            assert!(matches!(of(&[bad]), Err(Fault::BadRequest(_))), "{bad}");
        }
        assert!(matches!(of(&[]), Err(Fault::BadRequest(_))));
        assert!(matches!(
            of(&["a.example", "b.example"]),
            Err(Fault::BadRequest(_))
        ));
        assert!(matches!(
            of(&["x".repeat(64).as_str()]),
            Err(Fault::BadRequest(_))
        ));
    }

    #[test]
    fn address_instead_of_a_name_is_refused() {
        for address in [
            "203.0.113.1",
            "203.0.113.1:80",
            "[2001:db8::1]",
            "[2001:db8::1]:443",
        ] {
            assert_eq!(of(&[address]), Err(Fault::DirectIp));
        }
    }
}
