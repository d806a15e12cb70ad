//! `portcullis ctl audit`: who changed what.

use serde_json::{Map, Value, json};

use super::objects::Api;
use crate::table;

/// Arguments of `portcullis ctl audit`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  portcullis ctl audit                                   of the account, the newest first
  portcullis ctl audit zone.name=example.com action.type=delete
  portcullis ctl audit since=2030-01-01T00:00:00Z actor.ip=192.0.2.0/24
  portcullis ctl audit --user                            of tokens, which belong to no account")]
pub(crate) struct Args {
    /// Only entries with action.type, actor.ip, actor.email (the token's name), zone.name, since or before.
    #[arg(value_name = "KEY=VALUE")]
    filters: Vec<String>,
    /// What belongs to no account.
    #[arg(long)]
    user: bool,
}

/// The columns of the table.
const COLUMNS: [&str; 7] = ["when", "token", "from", "action", "type", "id", "changed"];

pub(super) async fn run(args: &Args, api: &Api, is_json: bool) -> anyhow::Result<()> {
    let path = match args.user {
        true => "/user/audit_logs".to_owned(),
        false => api.in_account("audit_logs").await?,
    };
    let entries = api.all(&format!("{path}{}", query(&args.filters)?)).await?;
    if is_json {
        table::json(&Value::Array(entries));
        return Ok(());
    }
    let rows: Vec<Value> = entries.iter().map(row).collect();
    table::say(&table::rows(&rows, &COLUMNS));
    Ok(())
}

/// The filters as a query; what means something in one is written in hex.
fn query(filters: &[String]) -> anyhow::Result<String> {
    let mut query = String::new();
    for filter in filters {
        let Some((key, value)) = filter.split_once('=') else {
            anyhow::bail!("'{filter}' is not KEY=VALUE");
        };
        query.push(if query.is_empty() { '?' } else { '&' });
        for (part, end) in [(key, "="), (value, "")] {
            for byte in part.bytes() {
                match byte {
                    b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' => {
                        query.push(char::from(byte));
                    }
                    other => query.push_str(&format!("%{other:02X}")),
                }
            }
            query.push_str(end);
        }
    }
    Ok(query)
}

fn row(entry: &Value) -> Value {
    json!({
        "when": entry["when"],
        "token": entry["metadata"]["token_name"],
        "from": entry["actor"]["ip"],
        "action": entry["action"]["type"],
        "type": entry["resource"]["type"],
        "id": entry["resource"]["id"],
        "changed": changed(&entry["oldValueJson"], &entry["newValueJson"]),
    })
}

/// What differs, or what there is to know the object by.
fn changed(old: &Value, new: &Value) -> String {
    let none = Map::new();
    let fields = |value: &Value| value.as_object().cloned();
    let name = |object: &Map<String, Value>| {
        let mut names = ["name", "network", "prefix", "hostname"].iter();
        names
            .find_map(|field| object.get(*field))
            .map_or(String::new(), |name| {
                name.as_str().unwrap_or_default().to_owned()
            })
    };
    match (fields(old), fields(new)) {
        (Some(old), Some(new)) => {
            let differs = |(field, value): &(&String, &Value)| {
                old.get(*field) != Some(*value) && !field.starts_with("modified")
            };
            let told = new.iter().filter(differs).map(|(field, value)| {
                let before = old.get(field).unwrap_or(&Value::Null);
                format!("{field}: {before} -> {value}")
            });
            told.collect::<Vec<_>>().join(", ")
        }
        (Some(only), None) | (None, Some(only)) => name(&only),
        (None, None) => name(&none),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_told_by_its_fields_and_anything_else_by_its_name() {
        let old = json!({"name": "a", "paused": false, "modified_on": "1"});
        let new = json!({"name": "a", "paused": true, "modified_on": "2"});
        assert_eq!(changed(&old, &new), "paused: false -> true");
        assert_eq!(changed(&Value::Null, &new), "a");
        assert_eq!(
            changed(&json!({"network": "10.0.0.0/8"}), &Value::Null),
            "10.0.0.0/8"
        );
    }

    #[test]
    fn what_means_something_in_a_query_is_not_taken_for_it() {
        let filters = [
            "zone.name=a&b".to_owned(),
            "since=2030-01-01T00:00:00+01:00".to_owned(),
        ];
        let query = query(&filters).expect("two filters");
        assert_eq!(
            query,
            "?zone.name=a%26b&since=2030-01-01T00%3A00%3A00%2B01%3A00"
        );
        assert!(super::query(&["zone".to_owned()]).is_err());
    }
}
