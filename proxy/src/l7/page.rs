//! Error pages: small HTML for people, JSON for programs that ask for it.

use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, SERVER};
use pingora::Result;
use pingora::http::{RequestHeader, ResponseHeader};

use super::fault::{Fault, Text};
use super::headers::{CF_RAY, SERVER_NAME};
use super::ray::Ray;

/// The header and body of a fault's page.
pub(super) fn page(fault: Fault, ray: &Ray, request: &RequestHeader) -> Result<Page> {
    let text = fault.text();
    let (kind, body) = if wants_json(request) {
        ("application/json", json(&text, ray))
    } else {
        ("text/html; charset=utf-8", html(&text, ray))
    };
    let mut header = ResponseHeader::build(text.status, Some(6))?;
    header.insert_header(SERVER, SERVER_NAME)?;
    header.insert_header(CF_RAY, ray.to_string())?;
    header.insert_header(CONTENT_TYPE, kind)?;
    header.insert_header(CONTENT_LENGTH, body.len().to_string())?;
    header.insert_header(CACHE_CONTROL, "private, no-store")?;
    Ok(Page {
        header,
        body: Bytes::from(body),
    })
}

/// A page, ready to be sent.
pub(super) struct Page {
    pub(super) header: ResponseHeader,
    pub(super) body: Bytes,
}

fn wants_json(request: &RequestHeader) -> bool {
    let accept = request
        .headers
        .get(ACCEPT)
        .and_then(|value| value.to_str().ok());
    accept.is_some_and(|list| list.contains("application/json") && !list.contains("text/html"))
}

// Nothing in a page comes from the request, so nothing has to be escaped.
fn html(text: &Text, ray: &Ray) -> String {
    let Text {
        code,
        title,
        detail,
        ..
    } = text;
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\">\
         <title>{code}: {title}</title></head>\n<body>\n<h1>Error {code}: {title}</h1>\n\
         <p>{detail}</p>\n<p>Ray ID: <code>{ray}</code></p>\n</body>\n</html>\n"
    )
}

fn json(text: &Text, ray: &Ray) -> String {
    let value = serde_json::json!({
        "error": true,
        "status": text.status,
        "error_code": text.code,
        "title": text.title,
        "detail": text.detail,
        "ray_id": ray.to_string(),
    });
    format!("{value}\n")
}
