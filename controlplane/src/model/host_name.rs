//! Host names as zones, records and apps have them.

use super::fields::echo;

/// Longest name (RFC 1035, without the trailing dot).
pub const NAME_LEN_MAX: usize = 253;

/// A host name in its one form: lower case, no trailing dot; `*` may be the first label.
///
/// # Errors
/// A sentence that says what is wrong.
pub fn normal(text: &str) -> Result<String, String> {
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    if !name.is_ascii() {
        return Err(format!(
            "'{}' is not ASCII: write it as punycode (xn--...).",
            echo(&name)
        ));
    }
    if name.is_empty() || name.len() > NAME_LEN_MAX {
        return Err(format!("A name has 1 to {NAME_LEN_MAX} characters."));
    }
    for (index, label) in name.split('.').enumerate() {
        let is_fine = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_');
        let is_label = (1..=63).contains(&label.len()) && label.bytes().all(is_fine);
        let is_wildcard = index == 0 && label == "*";
        if !(is_label || is_wildcard) {
            return Err(format!("'{}' is not a host name.", echo(&name)));
        }
    }
    Ok(name)
}

/// Whether `name` is the zone's own name or below it.
pub fn is_within(name: &str, zone: &str) -> bool {
    name.strip_suffix(zone)
        .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// The names above `name`, nearest first.
pub fn parents(name: &str) -> impl Iterator<Item = &str> {
    name.match_indices('.').map(|(dot, _)| &name[dot + 1..])
}
