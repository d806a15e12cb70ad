//! `/zones/{zone}/dns_records/export` and `/import`: the zone as a BIND file.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::multipart::MultipartRejection;
use axum::extract::{Multipart, State};
use axum::response::{IntoResponse as _, Response};
use http::header::CONTENT_TYPE;
use serde_json::{Value, json};

use super::name::{IDENTICAL, silenced};
use super::{add, touch};
use crate::api::context::{self, Shared, now};
use crate::api::envelope::{Answer, messages};
use crate::api::input::At;
use crate::model::record::{INVALID, Record};
use crate::model::soa::{self, Soa};
use crate::model::zone::Zone;
use crate::model::zone_file::{self, BadLine, Entry};
use crate::model::{Fault, Refusal};
use crate::store::{Snapshot, Transaction};

/// Longest time for a file to arrive: a mebibyte at 280 kb/s.
const UPLOAD_WAIT_MAX: Duration = Duration::from_secs(30);

/// What the API's clients send with a file.
struct Upload {
    file: String,
    is_proxied: bool,
}

/// The zone's records as text, without an envelope.
pub(super) async fn export(State(shared): State<Shared>, At(id): At<String>) -> Answer {
    let snapshot = shared.snapshot();
    let zone = context::zone(&snapshot, &id)?;
    let apex = apex(&zone, &shared.options.name_servers);
    let records = sorted(&snapshot, &zone);
    let text = zone_file::print(&zone, &apex, records.iter().map(|record| &**record));
    Ok(([(CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response())
}

/// Adds the records of a file, all or none; those that are there already are left alone.
pub(super) async fn import(
    State(shared): State<Shared>,
    At(id): At<String>,
    parts: Result<Multipart, MultipartRejection>,
) -> Answer {
    let begun = now();
    let parts = parts.map_err(|why| Refusal::invalid(INVALID, format!("{}.", why.body_text())))?;
    let upload = match tokio::time::timeout(UPLOAD_WAIT_MAX, Upload::read(parts)).await {
        Ok(upload) => upload?,
        Err(_) => {
            let why = "The body took over 30 seconds.";
            return Err(Refusal::new(Fault::TooSlow, 10_408, why));
        }
    };
    let result = shared.write(move |transaction| {
        let zone = context::zone(transaction.snapshot(), &id)?;
        let entries = zone_file::parse(&upload.file, &zone.name, upload.is_proxied);
        add_all(transaction, &zone, entries.map_err(at_line)?)
    });
    let (result, notes) = result.await?;
    Ok(with_timing(result, &notes, begun))
}

fn with_timing(result: Value, notes: &[String], begun: crate::model::Timestamp) -> Response {
    let ended = now();
    let body = json!({
        "success": true, "errors": [], "messages": messages(notes), "result": result,
        "timing": {
            "start_time": begun,
            "end_time": ended,
            "process_time": ended.seconds_since(begun),
        },
    });
    Json(body).into_response()
}

impl Upload {
    async fn read(mut parts: Multipart) -> Result<Upload, Refusal> {
        let (mut file, mut is_proxied) = (None, false);
        while let Some(part) = parts.next_field().await.map_err(|why| broken(&why))? {
            let name = part.name().unwrap_or_default().to_owned();
            let bytes = part.bytes().await.map_err(|why| broken(&why))?;
            let text = String::from_utf8(bytes.to_vec());
            let text = text.map_err(|_why| {
                Refusal::invalid(INVALID, format!("'{name}' is not UTF-8.")).at(&name)
            })?;
            match (name.as_str(), text.trim()) {
                ("file", _) => file = Some(text),
                ("proxied", "true") => is_proxied = true,
                ("proxied", "false" | "") => is_proxied = false,
                ("proxied", _) => {
                    let why = "'proxied' must be true or false.";
                    return Err(Refusal::invalid(INVALID, why).at("proxied"));
                }
                _ => {
                    let shown = crate::model::fields::echo(&name);
                    let why = format!("'{shown}' is not a field that is carried here.");
                    return Err(Refusal::invalid(INVALID, why).at(&shown));
                }
            }
        }
        let missing = || Refusal::invalid(INVALID, "'file' is required.").at("file");
        Ok(Upload {
            file: file.ok_or_else(missing)?,
            is_proxied,
        })
    }
}

fn broken(why: &axum::extract::multipart::MultipartError) -> Refusal {
    if why.status() == http::StatusCode::PAYLOAD_TOO_LARGE {
        let message = "The body is larger than one mebibyte.";
        return Refusal::new(Fault::TooLarge, 10_413, message);
    }
    Refusal::invalid(6007, "The form broke off, or is not multipart/form-data.")
}

fn at_line(BadLine { line, why }: BadLine) -> Refusal {
    Refusal::invalid(INVALID, "DNS Validation Error")
        .at("file")
        .because(9000, format!("Line {line}: {why}."))
}

fn add_all(
    transaction: &mut Transaction,
    zone: &Zone,
    entries: Vec<Entry>,
) -> Result<(Value, Vec<String>), Refusal> {
    let parsed = entries.len();
    let mut added = Vec::new();
    for Entry { line, draft } in entries {
        let Some(draft) = draft else {
            continue;
        };
        match add(transaction, zone, draft) {
            Ok(record) => added.push(record),
            Err(refusal) if refusal.code == IDENTICAL => {}
            Err(refusal) => return Err(in_line(refusal, line)),
        }
    }
    if !added.is_empty() {
        touch(transaction, zone);
    }
    let notes = silenced(transaction.snapshot(), zone, &added);
    let result = json!({"recs_added": added.len(), "total_records_parsed": parsed});
    Ok((result, notes))
}

/// A refusal of one record, as one of the file.
fn in_line(mut refusal: Refusal, line: usize) -> Refusal {
    refusal.pointer = Some("/file".to_owned());
    match refusal.chain.first_mut() {
        Some((_, why)) => *why = format!("Line {line}: {why}"),
        None => refusal.message = format!("Line {line}: {}", refusal.message),
    }
    refusal
}

/// By name, from the zone's own downwards, then by type.
fn sorted(snapshot: &Snapshot, zone: &Zone) -> Vec<Arc<Record>> {
    let mut records: Vec<Arc<Record>> = snapshot.records_of(zone.id).cloned().collect();
    records.sort_by(|a, b| {
        let key = |r: &Record| (r.kind.name(), r.name != zone.name);
        (key(a), &a.name, &a.content).cmp(&(key(b), &b.name, &b.content))
    });
    records
}

/// The records that the zone has by itself.
fn apex(zone: &Zone, name_servers: &[String]) -> String {
    let mut lines = String::new();
    let Some(primary) = name_servers.first() else {
        return lines;
    };
    let soa = Soa { zone, primary }.zone_file();
    let (name, ttl) = (&zone.name, soa::TTL);
    lines += &format!("{name}.\t{ttl}\tIN\tSOA\t{soa}\n");
    for server in name_servers {
        lines += &format!("{name}.\t{ttl}\tIN\tNS\t{server}.\n");
    }
    lines
}
