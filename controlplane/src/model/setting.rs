//! Settings of a zone: those that change what the edge does, and those of which one value is carried.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::fields::echo;
use super::{Fields, Refusal, Timestamp};

/// Code of a setting's value that is wrong.
pub const INVALID: u32 = 1007;

/// Seconds that an origin may take to answer, when nothing is said (api.md 2.6).
const READ_TIMEOUT_DEFAULT: u16 = 100;
/// The most.
const READ_TIMEOUT_MAX: u16 = 6_000;

/// The settings of a zone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// Cleartext HTTP is sent to HTTPS.
    pub always_use_https: bool,
    /// Proxied names have the edge's IPv6 addresses too.
    pub ipv6: bool,
    /// Seconds that an origin may take to answer.
    pub proxy_read_timeout: u16,
    /// When each was set, by its name.
    pub modified_on: BTreeMap<String, Timestamp>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            always_use_https: false,
            ipv6: true,
            proxy_read_timeout: READ_TIMEOUT_DEFAULT,
            modified_on: BTreeMap::new(),
        }
    }
}

impl Settings {
    /// Seconds that an origin may take, when that was set.
    pub fn read_timeout(&self) -> Option<u16> {
        let is_set = self.modified_on.contains_key("proxy_read_timeout");
        is_set.then_some(self.proxy_read_timeout)
    }
}

/// A setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    name: &'static str,
    value: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    AlwaysUseHttps,
    Ipv6,
    ReadTimeout,
    /// It has this value, and no other is carried.
    Fixed(&'static str),
}

/// Every setting there is.
const ALL: [Setting; 12] = [
    of("0rtt", Kind::Fixed("off")),
    of("always_use_https", Kind::AlwaysUseHttps),
    of("brotli", Kind::Fixed("off")),
    of("development_mode", Kind::Fixed("off")),
    of("http2", Kind::Fixed("on")),
    of("http3", Kind::Fixed("off")),
    of("ipv6", Kind::Ipv6),
    of("min_tls_version", Kind::Fixed("1.2")),
    of("proxy_read_timeout", Kind::ReadTimeout),
    of("ssl", Kind::Fixed("flexible")),
    of("tls_1_3", Kind::Fixed("on")),
    of("websockets", Kind::Fixed("on")),
];

const fn of(name: &'static str, value: Kind) -> Setting {
    Setting { name, value }
}

impl Setting {
    /// Every setting, by name.
    pub fn all() -> impl Iterator<Item = Setting> {
        ALL.into_iter()
    }

    /// The setting of this name.
    pub fn named(name: &str) -> Option<Setting> {
        ALL.into_iter().find(|setting| setting.name == name)
    }

    /// As the API shows it.
    pub fn show(self, settings: &Settings) -> Value {
        let switch = |is_on| json!(if is_on { "on" } else { "off" });
        let value = match self.value {
            Kind::AlwaysUseHttps => switch(settings.always_use_https),
            Kind::Ipv6 => switch(settings.ipv6),
            Kind::ReadTimeout => json!(settings.proxy_read_timeout),
            Kind::Fixed(value) => json!(value),
        };
        json!({
            "id": self.name,
            "value": value,
            "editable": !matches!(self.value, Kind::Fixed(_)),
            "modified_on": settings.modified_on.get(self.name),
        })
    }

    /// The settings after the body of a change.
    ///
    /// # Errors
    /// A value that is wrong, or not carried.
    pub fn changed(
        self,
        mut settings: Settings,
        mut fields: Fields,
        now: Timestamp,
    ) -> Result<Settings, Refusal> {
        let switch = [("on", true), ("off", false)];
        match self.value {
            Kind::AlwaysUseHttps => {
                let value = fields.choice("value", &switch)?;
                settings.always_use_https = fields.required("value", value)?;
            }
            Kind::Ipv6 => {
                let value = fields.choice("value", &switch)?;
                settings.ipv6 = fields.required("value", value)?;
            }
            Kind::ReadTimeout => settings.proxy_read_timeout = seconds(&mut fields)?,
            Kind::Fixed(only) => {
                let value = fields.string("value", 64)?;
                let value = fields.required("value", value)?;
                if value != only {
                    let why = format!(
                        "'{}' is always \"{only}\" here: '{}' is not carried.",
                        self.name,
                        echo(&value)
                    );
                    return Err(fields.refuse("value", why));
                }
            }
        }
        fields.ignore(&["id", "editable", "modified_on"]);
        fields.finish()?;
        settings.modified_on.insert(self.name.to_owned(), now);
        Ok(settings)
    }
}

/// A number, or its digits: clients send both.
fn seconds(fields: &mut Fields) -> Result<u16, Refusal> {
    let text = match fields.peek("value") {
        Some(Value::String(_)) => fields.parsed("value", "a number of seconds")?,
        _ => fields.integer("value", 1..=READ_TIMEOUT_MAX)?,
    };
    let secs: u16 = fields.required("value", text)?;
    match (1..=READ_TIMEOUT_MAX).contains(&secs) {
        true => Ok(secs),
        false => {
            let why = format!("'value' must be from 1 to {READ_TIMEOUT_MAX} seconds, not {secs}.");
            Err(fields.refuse("value", why))
        }
    }
}
