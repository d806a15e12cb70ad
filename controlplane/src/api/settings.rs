//! `/zones/{zone}/settings`

use axum::extract::State;
use http::Method;
use serde_json::{Value, json};

use super::context::{self, Shared};
use super::envelope::{Answer, one};
use super::input::{At, Body};
use super::operation::{self, BOOLEAN, COUNT, Routes, Shape, TEXT, TIME_OR_NULL, does};
use crate::model::fields::echo;
use crate::model::setting::{INVALID, Setting};
use crate::model::zone::Zone;
use crate::model::{Fields, Refusal};

/// Code of a setting that does not exist.
const UNKNOWN: u32 = 1006;

const SETTING: Shape = Shape::Named(
    "ZoneSetting",
    &Shape::Object(&[
        ("id", TEXT),
        ("value", Shape::Either(&[TEXT, COUNT])),
        ("editable", BOOLEAN),
        ("modified_on", TIME_OR_NULL),
    ]),
);

const CHANGE: operation::Body = operation::Body::Other(|| {
    let sent_back = json!({"description": "Taken as it was shown; has no effect."});
    let schema = json!({
        "type": "object",
        "properties": {
            "value": {"type": ["string", "integer"]},
            "id": sent_back, "editable": sent_back, "modified_on": sent_back,
        },
        "required": ["value"],
        "additionalProperties": false,
    });
    (schema, json!({"value": "on"}))
});

pub(super) fn routes() -> Routes {
    let (all, each) = ("/zones/{zone}/settings", "/zones/{zone}/settings/{setting}");
    let list_of = does("List the settings of a zone").gives(Shape::List(&SETTING));
    let shown = does("Show a setting of a zone").gives(SETTING);
    let changed = does("Change a setting of a zone").takes_body(CHANGE);
    Routes::new()
        .on((Method::GET, all), list, list_of)
        .on((Method::GET, each), read, shown)
        .on((Method::PATCH, each), patch, changed.gives(SETTING))
}

async fn list(State(shared): State<Shared>, At(id): At<String>) -> Answer {
    let zone = context::zone(&shared.snapshot(), &id)?;
    let shown: Vec<Value> = Setting::all().map(|one| one.show(&zone.settings)).collect();
    Ok(one(json!(shown)))
}

async fn read(State(shared): State<Shared>, At((zone, name)): At<(String, String)>) -> Answer {
    let zone = context::zone(&shared.snapshot(), &zone)?;
    Ok(one(named(&name)?.show(&zone.settings)))
}

async fn patch(
    State(shared): State<Shared>,
    At((zone, name)): At<(String, String)>,
    Body(body): Body,
) -> Answer {
    let shown = shared.write(move |transaction| {
        let zone = context::zone(transaction.snapshot(), &zone)?;
        let setting = named(&name)?;
        let fields = Fields::new(body, INVALID)?;
        let settings = setting.changed(zone.settings.clone(), fields, transaction.now())?;
        let shown = setting.show(&settings);
        transaction.put(Zone {
            settings,
            modified_on: transaction.now(),
            ..(*zone).clone()
        });
        Ok(shown)
    });
    Ok(one(shown.await?))
}

fn named(name: &str) -> Result<Setting, Refusal> {
    let unknown = || {
        let why = format!("'{}' is not a setting that is carried here.", echo(name));
        Refusal::not_found(UNKNOWN, why)
    };
    Setting::named(name).ok_or_else(unknown)
}
