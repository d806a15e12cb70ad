//! The addresses outside a tunnel: the edge's, and the customer's.

use std::net::IpAddr;

use crate::model::{Fields, Refusal, address};

/// Reads an outer address; what is not given stays as it was.
///
/// # Errors
/// Anything but the address of one host.
pub(super) fn read(
    fields: &mut Fields,
    name: &str,
    old: Option<IpAddr>,
) -> Result<Option<IpAddr>, Refusal> {
    let wanted = "an IP address, such as 198.51.100.11";
    let Some(ip) = fields.parsed::<IpAddr>(name, wanted)? else {
        return Ok(old);
    };
    match address::is_impossible(ip) {
        false => Ok(Some(ip)),
        true => Err(fields.refuse(name, format!("{ip} is not the address of one host."))),
    }
}

/// Whether the two ends can speak with each other.
///
/// # Errors
/// Addresses of two families, or twice the same.
pub(super) fn check(
    fields: &Fields,
    name: &str,
    edge: IpAddr,
    customer: IpAddr,
) -> Result<(), Refusal> {
    if edge.is_ipv4() != customer.is_ipv4() {
        let why = format!("{edge} and {customer}: both ends are IPv4, or both IPv6.");
        return Err(fields.refuse(name, why));
    }
    if edge == customer {
        let why = format!("{customer} is the edge's own address: give the customer's.");
        return Err(fields.refuse(name, why));
    }
    Ok(())
}
