//! How a tunnel is probed (api.md 4.2 and 4.3); the recovery is ours.

use std::net::IpAddr;

use dataplane::program::health::{Config, Direction, Kind, Rate, Recovery};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Tunnel;
use crate::model::fields::echo;
use crate::model::{Fields, Refusal, address};

/// How a tunnel is probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// Whether it is.
    pub is_enabled: bool,
    /// How often.
    pub rate: Rate,
    /// What a probe is.
    pub kind: Kind,
    /// Which way the answer comes.
    pub direction: Direction,
    /// Where probes go, if not to the tunnel's other end.
    pub target: Option<IpAddr>,
    /// What it takes to be healthy again.
    pub recovery: Recovery,
}

/// How a client writes the target: `x-magic-new-hc-target` tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetForm {
    /// `"192.0.2.1"`, or `""` for the default.
    Text,
    /// `{"saved": "192.0.2.1"}`.
    Object,
}

impl Default for HealthCheck {
    /// The documented defaults; both ways through the tunnel, as private origins need it.
    fn default() -> HealthCheck {
        HealthCheck {
            is_enabled: true,
            rate: Rate::Mid,
            kind: Kind::Reply,
            direction: Direction::Bidirectional,
            target: None,
            recovery: Recovery::DEFAULT,
        }
    }
}

impl HealthCheck {
    /// No probes.
    pub fn off() -> HealthCheck {
        HealthCheck {
            is_enabled: false,
            ..HealthCheck::default()
        }
    }

    /// Reads `health_check`; what is not given stays as it was. `null` stops the probes.
    ///
    /// # Errors
    /// A field that is wrong.
    pub fn read(
        fields: &mut Fields,
        old: Option<HealthCheck>,
        form: TargetForm,
    ) -> Result<Option<HealthCheck>, Refusal> {
        if fields.is_null("health_check") {
            return Ok(None);
        }
        let Some(mut inner) = fields.object("health_check")? else {
            return Ok(old);
        };
        let old = old.unwrap_or_default();
        let rates = [("low", Rate::Low), ("mid", Rate::Mid), ("high", Rate::High)];
        let kinds = [("request", Kind::Request), ("reply", Kind::Reply)];
        let directions = [
            ("unidirectional", Direction::Unidirectional),
            ("bidirectional", Direction::Bidirectional),
        ];
        let read = HealthCheck {
            is_enabled: inner.boolean("enabled")?.unwrap_or(old.is_enabled),
            rate: inner.choice("rate", &rates)?.unwrap_or(old.rate),
            kind: inner.choice("type", &kinds)?.unwrap_or(old.kind),
            direction: inner
                .choice("direction", &directions)?
                .unwrap_or(old.direction),
            target: target(&mut inner, old.target, form)?,
            recovery: recovery(&mut inner, old.recovery)?,
        };
        inner.finish()?;
        Ok(Some(read))
    }

    /// As nodes are told; `None` when they are not to probe.
    pub fn config(&self) -> Option<Config> {
        self.is_enabled.then_some(Config {
            rate: self.rate,
            kind: self.kind,
            direction: self.direction,
            target: self.target,
            recovery: self.recovery,
        })
    }

    /// As the API shows it, on a tunnel whose probes by default go to `effective`.
    pub fn show(&self, effective: Option<IpAddr>, form: TargetForm) -> Value {
        let rate = match self.rate {
            Rate::Low => "low",
            Rate::Mid => "mid",
            Rate::High => "high",
        };
        let kind = match self.kind {
            Kind::Request => "request",
            Kind::Reply => "reply",
        };
        let direction = match self.direction {
            Direction::Unidirectional => "unidirectional",
            Direction::Bidirectional => "bidirectional",
        };
        let saved = self.target.map_or_else(String::new, |ip| ip.to_string());
        let target = match form {
            TargetForm::Text => json!(saved),
            TargetForm::Object => json!({"saved": saved, "effective": self.target.or(effective)}),
        };
        json!({
            "enabled": self.is_enabled,
            "rate": rate,
            "type": kind,
            "direction": direction,
            "target": target,
            "recovery": {
                "up_after": self.recovery.up_after,
                "clean_secs": self.recovery.clean_secs,
                "clean_secs_max": self.recovery.clean_secs_max,
            },
        })
    }

    /// Where probes go when no target is saved: the far end inside, or outside (api.md 4.3).
    pub fn default_target(&self, tunnel: &Tunnel, outside: Option<IpAddr>) -> Option<IpAddr> {
        match self.direction {
            Direction::Bidirectional => tunnel.interface.customer_sides().next(),
            Direction::Unidirectional => outside,
        }
    }
}

fn target(
    inner: &mut Fields,
    old: Option<IpAddr>,
    form: TargetForm,
) -> Result<Option<IpAddr>, Refusal> {
    if inner.is_null("target") {
        return Ok(None);
    }
    let given = match (form, inner.peek("target")) {
        (_, None) => return Ok(old),
        (TargetForm::Text, Some(Value::Object(_))) => {
            let why = "'target' is an address here; with the header 'x-magic-new-hc-target: true' \
                       it is {\"saved\": ADDRESS}.";
            return Err(inner.refuse("target", why));
        }
        (TargetForm::Object, Some(Value::String(_))) => {
            let why = "With the header 'x-magic-new-hc-target: true', 'target' is \
                       {\"saved\": ADDRESS}, not ADDRESS.";
            return Err(inner.refuse("target", why));
        }
        (TargetForm::Text, Some(_)) => inner.string("target", 64)?,
        (TargetForm::Object, Some(_)) => {
            let Some(mut object) = inner.object("target")? else {
                return Ok(old);
            };
            let saved = object.string("saved", 64)?;
            object.ignore(&["effective"]);
            object.finish()?;
            match saved {
                Some(saved) => Some(saved),
                None => return Ok(old),
            }
        }
    };
    let text = given.unwrap_or_default();
    if text.is_empty() {
        return Ok(None);
    }
    match text.parse::<IpAddr>() {
        Ok(ip) if !address::is_impossible(ip) => Ok(Some(ip)),
        Ok(_) | Err(_) => {
            let why = format!("'{}' is not the address of one host.", echo(&text));
            Err(inner.refuse("target", why))
        }
    }
}

fn recovery(inner: &mut Fields, old: Recovery) -> Result<Recovery, Refusal> {
    let Some(mut fields) = inner.object("recovery")? else {
        return Ok(old);
    };
    let up_after = fields.integer("up_after", 1..=Recovery::UP_AFTER_MAX)?;
    let clean = fields.integer("clean_secs", 1..=Recovery::SECS_MAX)?;
    let max = fields.integer("clean_secs_max", 1..=Recovery::SECS_MAX)?;
    let clean_secs = clean.unwrap_or(old.clean_secs);
    let clean_secs_max = max.unwrap_or_else(|| old.clean_secs_max.max(clean_secs));
    if clean_secs_max < clean_secs {
        let why = format!(
            "'clean_secs_max' ({clean_secs_max}) must not be less than 'clean_secs' ({clean_secs})."
        );
        return Err(fields.refuse("clean_secs_max", why));
    }
    fields.finish()?;
    Ok(Recovery {
        up_after: up_after.unwrap_or(old.up_after),
        clean_secs,
        clean_secs_max,
    })
}
