//! A zone: a domain name and everything below it that no other zone has.

use serde::{Deserialize, Serialize};

use super::setting::Settings;
use super::{Fields, HexId, Refusal, Resource, Timestamp, host_name};

/// Code of a refused zone field.
pub const INVALID: u32 = 1049;

/// A zone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Zone {
    /// Its id.
    pub id: HexId,
    /// Whose it is.
    pub account_id: HexId,
    /// The domain, lower case, no trailing dot.
    pub name: String,
    /// A paused zone's hosts are not served.
    pub paused: bool,
    /// What the edge does with its names.
    #[serde(default)]
    pub settings: Settings,
    /// Grows with each change of its records (RFC 1035, section 3.3.13); wraps around.
    #[serde(default)]
    pub serial: u32,
    /// When it was made.
    pub created_on: Timestamp,
    /// When it last changed.
    pub modified_on: Timestamp,
}

/// What a request to make a zone says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewZone {
    /// The domain.
    pub name: String,
    /// The account, when it was named.
    pub account_id: Option<HexId>,
}

impl NewZone {
    /// Reads the body of `POST /zones`.
    ///
    /// # Errors
    /// A field that is wrong, missing or not carried.
    pub fn read(mut fields: Fields) -> Result<NewZone, Refusal> {
        let name = fields.string("name", host_name::NAME_LEN_MAX + 1)?;
        let name = fields.required("name", name)?;
        let name = host_name::normal(&name).map_err(|why| fields.refuse("name", why))?;
        let is_domain = name.contains('.')
            && !name.contains(['*', '_'])
            && name.parse::<std::net::IpAddr>().is_err();
        if !is_domain {
            return Err(fields.refuse(
                "name",
                format!("'{name}' is not a domain name such as example.com."),
            ));
        }
        let account_id = match fields.object("account")? {
            Some(mut account) => {
                account.ignore(&["name"]);
                let id = account.parsed("id", "an account id (32 hex digits)")?;
                account.finish()?;
                id
            }
            None => None,
        };
        read_type(&mut fields)?;
        fields.ignore(&["jump_start"]);
        fields.finish()?;
        Ok(NewZone { name, account_id })
    }
}

impl Zone {
    /// Reads the body of `PATCH /zones/{id}`: whether the zone is to be paused.
    ///
    /// # Errors
    /// A field that is wrong or not carried.
    pub fn read_patch(mut fields: Fields) -> Result<Option<bool>, Refusal> {
        let paused = fields.boolean("paused")?;
        read_type(&mut fields)?;
        fields.finish()?;
        Ok(paused)
    }

    /// The zone after `PATCH /zones/{id}`.
    ///
    /// # Errors
    /// A field that is wrong or not carried.
    pub fn patched(&self, fields: Fields, now: Timestamp) -> Result<Zone, Refusal> {
        Ok(Zone {
            paused: Zone::read_patch(fields)?.unwrap_or(self.paused),
            modified_on: now,
            ..self.clone()
        })
    }
}

impl Resource for Zone {
    const KIND: &'static str = "zone";
    const ON_NODES: bool = true;
    type Id = HexId;

    fn id(&self) -> HexId {
        self.id
    }
}

fn read_type(fields: &mut Fields) -> Result<(), Refusal> {
    match fields.string("type", 32)?.as_deref() {
        None | Some("full") => Ok(()),
        Some(_) => Err(fields.refuse("type", "Only zones of type 'full' are carried here.")),
    }
}
