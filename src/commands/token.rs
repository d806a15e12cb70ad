//! `portcullis ctl token create permissions=…`: names of permissions instead of the API's policies.

use anyhow::{Context as _, bail};
use hyper::Method;
use serde_json::{Map, Value, json};

use super::objects::{Api, Noun};

/// The field that stands for policies.
const PERMISSIONS: &str = "permissions";

/// Replaces `permissions="DNS Write, Zone Read"` by a policy that gives them on the zone, or on the
/// account and its zones.
pub(super) async fn spelled_out(
    api: &Api,
    zone: Option<&str>,
    mut fields: Map<String, Value>,
) -> anyhow::Result<Map<String, Value>> {
    let Some(names) = fields.remove(PERMISSIONS) else {
        return Ok(fields);
    };
    if fields.contains_key("policies") {
        bail!("give {PERMISSIONS} or policies, not both");
    }
    let names = names
        .as_str()
        .with_context(|| format!("write {PERMISSIONS}=\"DNS Write, Zone Read\""))?;
    let path = "/user/tokens/permission_groups";
    let known = api.call(Method::GET, path, None).await?;
    let known = known.as_array().map(Vec::as_slice).unwrap_or_default();
    let groups = groups(names, known)?;
    let resource = match zone {
        Some(zone) => {
            let id = api.find("/zones", Noun::Zone, zone).await?;
            format!("com.cloudflare.api.account.zone.{id}")
        }
        None => {
            let account = api.in_account("").await?;
            let id = account.trim_start_matches("/accounts/").trim_matches('/');
            format!("com.cloudflare.api.account.{id}")
        }
    };
    let policy = json!({
        "effect": "allow", "permission_groups": groups, "resources": {resource: "*"},
    });
    fields.insert("policies".to_owned(), json!([policy]));
    Ok(fields)
}

/// The ids of the groups with these names, whatever the case.
fn groups(names: &str, known: &[Value]) -> anyhow::Result<Vec<Value>> {
    let name_of = |group: &Value| group["name"].as_str().unwrap_or_default().to_owned();
    let mut groups = Vec::new();
    for name in names.split(',').map(str::trim) {
        let is_it = |group: &&Value| name_of(group).eq_ignore_ascii_case(name);
        let Some(group) = known.iter().find(is_it) else {
            let all: Vec<String> = known.iter().map(name_of).collect();
            bail!(
                "there is no permission '{name}': there are {}",
                all.join(", ")
            );
        };
        groups.push(json!({"id": group["id"]}));
    }
    Ok(groups)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_are_found_by_name_and_a_wrong_one_is_answered_with_all() {
        let known = [
            json!({"id": "1", "name": "DNS Read"}),
            json!({"id": "2", "name": "DNS Write"}),
        ];
        let found = groups("dns write, DNS Read", &known).expect("both are there");
        assert_eq!(found, [json!({"id": "2"}), json!({"id": "1"})]);
        let why = groups("DNS Edit", &known)
            .expect_err("it is none")
            .to_string();
        assert!(
            why.contains("'DNS Edit'") && why.contains("DNS Read, DNS Write"),
            "{why}"
        );
    }
}
