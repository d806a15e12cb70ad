//! The origin of a layer-4 app that is a name: one that resolvers in a private network know.

use serde::{Deserialize, Serialize};

use super::fields::echo;
use super::spectrum::{Connectivity, Ports};
use super::{Fields, Refusal, host_name};

/// Code of an `origin_dns` that is wrong.
pub const INVALID: u32 = 11_001;

/// The name that has an origin's addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OriginDns {
    /// The name, lower case.
    pub name: String,
    /// Which of its addresses are used.
    pub family: Connectivity,
    /// The ports; as many as at the edge.
    pub ports: Ports,
}

impl OriginDns {
    /// Reads `origin_dns` and `origin_port`; `edge` has the ports of the edge.
    ///
    /// # Errors
    /// A field that is wrong, missing or not carried (api.md 5.3).
    pub fn read(fields: &mut Fields, edge: Ports) -> Result<OriginDns, Refusal> {
        let origin = fields.object("origin_dns")?;
        let mut origin = fields.required("origin_dns", origin).map_err(ours)?;
        let name = origin.string("name", host_name::NAME_LEN_MAX + 1)?;
        let name = origin.required("name", name).map_err(ours)?;
        let name = host_name::normal(&name).map_err(|why| ours(origin.refuse("name", why)))?;
        let family = read_family(&mut origin)?;
        if origin.has("ttl") {
            let why = "'ttl' is not carried here: an answer is kept as long as the resolver says, for at \
                       most five minutes.";
            return Err(ours(origin.refuse("ttl", why)));
        }
        origin.finish()?;
        let ports = read_ports(fields)?;
        if ports.span() != edge.span() {
            let why = "'origin_port' must have as many ports as the edge.";
            return Err(Refusal::invalid(INVALID, why).at("origin_port"));
        }
        Ok(OriginDns {
            name,
            family,
            ports,
        })
    }
}

/// The same refusal, with the code of this field.
fn ours(refusal: Refusal) -> Refusal {
    Refusal {
        code: INVALID,
        ..refusal
    }
}

fn read_family(origin: &mut Fields) -> Result<Connectivity, Refusal> {
    match origin.string("type", 16)?.as_deref() {
        None | Some("") => Ok(Connectivity::All),
        Some("A") => Ok(Connectivity::Ipv4),
        Some("AAAA") => Ok(Connectivity::Ipv6),
        Some(other) => {
            let why = format!(
                "'origin_dns.type' may be A, AAAA or empty for both; '{}' is not carried here.",
                echo(other)
            );
            Err(ours(origin.refuse("type", why)))
        }
    }
}

/// A number, or a text with a port or a range.
fn read_ports(fields: &mut Fields) -> Result<Ports, Refusal> {
    let refuse = |why: String| Err(Refusal::invalid(INVALID, why).at("origin_port"));
    let text = match fields.take("origin_port") {
        None => return refuse("'origin_port' is required with origin_dns.".to_owned()),
        Some(serde_json::Value::String(text)) => text,
        Some(other) => other.to_string(),
    };
    match text.parse() {
        Ok(ports) => Ok(ports),
        Err(()) => refuse(format!(
            "'origin_port' must be a port from 1 to 65535, or a range such as \"1000-2000\", not {}.",
            echo(&text)
        )),
    }
}

/// How the API shows ports: one is a number.
pub fn shown(ports: Ports) -> serde_json::Value {
    match ports.span() {
        0 => ports.first.into(),
        _ => ports.to_string().into(),
    }
}

#[cfg(test)]
mod tests {
    use crate::model::spectrum::App;

    #[test]
    fn an_app_that_was_stored_before_there_were_names_is_read_and_written_as_it_was() {
        let old = r#"{"id":"0000000000000000000000000000000a","zone_id":"0000000000000000000000000000000b",
            "transport":"tcp","ports":{"first":6379,"last":6379},"hostname":"redis.example.com",
            "origins":[{"ip":"10.0.0.50","ports":{"first":6379,"last":6379}}],"virtual_network_id":null,
            "edge_ips":{"type":"dynamic","connectivity":"all"},"created_on":"2026-01-02T03:04:05Z",
            "modified_on":"2026-01-02T03:04:05Z"}"#;
        let app: App = serde_json::from_str(old).unwrap();
        assert_eq!(app.origin_dns, None);
        let old: serde_json::Value = serde_json::from_str(old).unwrap();
        let new = serde_json::to_value(&app).unwrap();
        assert_eq!(
            new.as_object().unwrap().len(),
            old.as_object().unwrap().len()
        );
        assert_eq!(
            (&new["origins"], &new["hostname"]),
            (&old["origins"], &old["hostname"])
        );
    }
}
