//! `/accounts/{account}/magic/gre_tunnels`, `ipsec_tunnels`, `cf_interconnects`.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use http::{HeaderMap, Method};
use serde_json::{Value, json};

use super::super::context::{self, Shared};
use super::super::envelope::{Answer, one, one_noting};
use super::super::input::{At, Body};
use super::super::operation::{self, Routes, Shape, does};
use super::super::tunnels::{self as any, Seen, UNKNOWN, amended, fresh, keep};
use super::about::{self, REHEARSAL};
use super::collection::{Asked, Collection};
use super::show;
use super::write::{Writing, keyed};
use crate::model::fields::{LIST_LEN_MAX, echo};
use crate::model::tunnel::{INVALID, TargetForm, Tunnel};
use crate::model::{HexId, Refusal};
use crate::store::{Snapshot, Transaction};

/// The header by which a client asks for health check targets as objects.
const NEW_TARGET: &str = "x-magic-new-hc-target";

const HEADERS: &[(&str, Shape)] = &[(NEW_TARGET, Shape::Words(&["true", "false"]))];

pub(super) fn routes(collection: Collection) -> Routes {
    let all = format!("/accounts/{{account}}/magic/{}", collection.path());
    let (all, each) = (all.as_str(), format!("{all}/{{tunnel}}"));
    let each = each.as_str();
    let about = about::of(collection);
    let many = operation::Body::Many(collection.many(), about.read, about.examples);
    let does = |summary| does(summary).heeds(HEADERS);
    let writes = |summary| does(summary).asks(REHEARSAL);
    let list_of = does("List tunnels of this kind").gives(about.listed);
    let new = writes("Make a tunnel")
        .takes(about.read, about.examples)
        .gives(about.made);
    let changed_all = writes("Change tunnels, all or none").takes_body(many);
    let shown = does("Show a tunnel").gives(about.shown);
    let changed = writes("Change a tunnel").takes_part(about.read, about.examples);
    let gone = writes("Delete a tunnel and its routes").gives(about.gone);
    Routes::new()
        .on((Method::GET, all), list, list_of)
        .on((Method::POST, all), create, new)
        .on(
            (Method::PUT, all),
            bulk,
            changed_all.gives(about.changed_all),
        )
        .on((Method::GET, each), read, shown)
        .on((Method::PUT, each), update, changed.gives(about.changed))
        .on((Method::DELETE, each), delete, gone)
        .layered(|router| router.layer(Extension(collection)))
}

async fn create(
    writing: Writing,
    Extension(collection): Extension<Collection>,
    headers: HeaderMap,
    Body(body): Body,
) -> Answer {
    let form = form(&headers)?;
    let options = writing.shared.options.clone();
    let made = writing.run(move |transaction, account| {
        let asked = Asked {
            account,
            now: transaction.now(),
            form,
        };
        let (about, kind) = collection.read(transaction.snapshot(), body, None, asked)?;
        let tunnel = fresh(transaction, account, about, kind)?;
        keep(transaction, &options, std::slice::from_ref(&tunnel)).map_err(|(_, why)| why)?;
        Ok(tunnel)
    });
    let made = made.await?;
    let shown = show::tunnel(&Seen::now(&writing.shared), &made, form);
    Ok(one(writing.made(shown, collection.many())))
}

async fn list(
    State(shared): State<Shared>,
    Extension(collection): Extension<Collection>,
    At(account): At<String>,
    headers: HeaderMap,
) -> Answer {
    let form = form(&headers)?;
    let snapshot = shared.snapshot();
    let account = context::account(&snapshot, &account)?;
    let seen = Seen::now(&shared);
    let found = snapshot.tunnels_in(account.id);
    let shown: Vec<Value> = found
        .filter(|tunnel| collection.has(tunnel))
        .map(|tunnel| show::tunnel(&seen, tunnel, form))
        .collect();
    Ok(one(keyed(&[(collection.many(), json!(shown))])))
}

async fn read(
    State(shared): State<Shared>,
    Extension(collection): Extension<Collection>,
    At((account, id)): At<(String, String)>,
    headers: HeaderMap,
) -> Answer {
    let form = form(&headers)?;
    let snapshot = shared.snapshot();
    let account = context::account(&snapshot, &account)?;
    let tunnel = find(&snapshot, account.id, collection, &id)?;
    let shown = show::tunnel(&Seen::now(&shared), &tunnel, form);
    Ok(one(keyed(&[(collection.one(), shown)])))
}

async fn update(
    writing: Writing,
    Extension(collection): Extension<Collection>,
    At((_, id)): At<(String, String)>,
    headers: HeaderMap,
    Body(body): Body,
) -> Answer {
    let form = form(&headers)?;
    let options = writing.shared.options.clone();
    let changed = writing.run(move |transaction, account| {
        let tunnel = change(transaction, collection, (account, &id), (body, form))?;
        keep(transaction, &options, std::slice::from_ref(&tunnel)).map_err(|(_, why)| why)?;
        Ok(tunnel)
    });
    let changed = changed.await?;
    let shown = show::tunnel(&Seen::now(&writing.shared), &changed, form);
    Ok(one(writing.done("modified", collection.one(), shown)))
}

/// Changes several, all or none.
async fn bulk(
    writing: Writing,
    Extension(collection): Extension<Collection>,
    headers: HeaderMap,
    Body(body): Body,
) -> Answer {
    let form = form(&headers)?;
    let options = writing.shared.options.clone();
    let many = collection.many();
    let changed = writing.run(move |transaction, account| {
        let bodies = entries(body, many, INVALID)?;
        let mut tunnels = Vec::with_capacity(bodies.len());
        for (index, (id, body)) in bodies.into_iter().enumerate() {
            let tunnel = change(transaction, collection, (account, &id), (body, form));
            let tunnel = tunnel.map_err(|why| why.within(&format!("/{many}/{index}")))?;
            tunnels.push(tunnel);
        }
        keep(transaction, &options, &tunnels)
            .map_err(|(index, why)| why.within(&format!("/{many}/{index}")))?;
        Ok(tunnels)
    });
    let changed = changed.await?;
    let seen = Seen::now(&writing.shared);
    let shown: Vec<Value> = changed
        .iter()
        .map(|tunnel| show::tunnel(&seen, tunnel, form))
        .collect();
    Ok(one(writing.done("modified", many, shown)))
}

async fn delete(
    writing: Writing,
    Extension(collection): Extension<Collection>,
    At((_, id)): At<(String, String)>,
    headers: HeaderMap,
) -> Answer {
    let form = form(&headers)?;
    let seen = Seen::now(&writing.shared);
    let deleted = writing.run(move |transaction, account| {
        let tunnel = find(transaction.snapshot(), account, collection, &id)?;
        let notes = any::delete(transaction, &tunnel)?;
        Ok((show::tunnel(&seen, &tunnel, form), notes))
    });
    let (shown, notes) = deleted.await?;
    let result = writing.done("deleted", collection.one(), shown);
    Ok(one_noting(result, &notes))
}

/// The tunnel of this id as the body wants it, not yet kept.
fn change(
    transaction: &Transaction,
    collection: Collection,
    (account, id): (HexId, &str),
    (body, form): (Value, TargetForm),
) -> Result<Tunnel, Refusal> {
    let old = find(transaction.snapshot(), account, collection, id)?;
    let asked = Asked {
        account,
        now: transaction.now(),
        form,
    };
    let (about, kind) = collection.read(transaction.snapshot(), body, Some(&old), asked)?;
    amended(transaction, &old, about, kind)
}

pub(super) fn find(
    snapshot: &Snapshot,
    account: HexId,
    collection: Collection,
    id: &str,
) -> Result<Arc<Tunnel>, Refusal> {
    let found = any::find(snapshot, account, id)?;
    match collection.has(&found) {
        true => Ok(found),
        false => Err(Refusal::not_found(
            UNKNOWN,
            format!(
                "There is no such tunnel among the {} of this account.",
                collection.path()
            ),
        )),
    }
}

/// The entries of a bulk body, each with the id that it names.
pub(super) fn entries(body: Value, many: &str, code: u32) -> Result<Vec<(String, Value)>, Refusal> {
    let wrong = |why: String| Refusal::invalid(code, why).at(many);
    let Value::Object(mut body) = body else {
        return Err(wrong(format!("The body must be {{\"{many}\": […]}}.")));
    };
    if let Some(other) = body.keys().find(|key| *key != many) {
        let other = echo(other);
        let why = format!("'{other}' is not a field that is carried here.");
        return Err(Refusal::invalid(code, why).at(&other));
    }
    let list = match body.remove(many) {
        Some(Value::Array(list)) if list.len() <= LIST_LEN_MAX => list,
        Some(Value::Array(_)) => {
            return Err(wrong(format!(
                "'{many}' may have at most {LIST_LEN_MAX} entries."
            )));
        }
        Some(_) | None => return Err(wrong(format!("'{many}' must be a list of objects."))),
    };
    let mut seen = std::collections::BTreeSet::new();
    let mut entries = Vec::with_capacity(list.len());
    for (index, entry) in list.into_iter().enumerate() {
        let at = format!("{many}/{index}/id");
        let Some(id) = entry["id"].as_str().map(str::to_owned) else {
            let why = format!("Each of '{many}' is an object with the 'id' of what is changed.");
            return Err(Refusal::invalid(code, why).at(&at));
        };
        if !seen.insert(id.clone()) {
            let why = format!("'{many}' names one id twice.");
            return Err(Refusal::invalid(code, why).at(&at));
        }
        entries.push((id, entry));
    }
    Ok(entries)
}

fn form(headers: &HeaderMap) -> Result<TargetForm, Refusal> {
    match headers.get(NEW_TARGET).map(http::HeaderValue::as_bytes) {
        None | Some(b"false") => Ok(TargetForm::Text),
        Some(b"true") => Ok(TargetForm::Object),
        Some(_) => {
            let why = "The header 'x-magic-new-hc-target' is true or false.";
            Err(Refusal::invalid(INVALID, why))
        }
    }
}
