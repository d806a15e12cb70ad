//! Notifications that are sent or understood (RFC 7296 section 3.10.1).

use crate::wire::ikev2::payload::{Notify, Payload};

pub(super) const UNSUPPORTED_CRITICAL_PAYLOAD: u16 = 1;
pub(super) const INVALID_SYNTAX: u16 = 7;
pub(super) const NO_PROPOSAL_CHOSEN: u16 = 14;
pub(super) const INVALID_KE_PAYLOAD: u16 = 17;
pub(super) const AUTHENTICATION_FAILED: u16 = 24;
pub(super) const NO_ADDITIONAL_SAS: u16 = 35;
pub(super) const TS_UNACCEPTABLE: u16 = 38;
pub(super) const TEMPORARY_FAILURE: u16 = 43;
pub(super) const CHILD_SA_NOT_FOUND: u16 = 44;
pub(super) const INITIAL_CONTACT: u16 = 16384;
pub(super) const NAT_DETECTION_SOURCE_IP: u16 = 16388;
pub(super) const NAT_DETECTION_DESTINATION_IP: u16 = 16389;
pub(super) const COOKIE: u16 = 16390;
pub(super) const REKEY_SA: u16 = 16393;
pub(super) const FRAGMENTATION_SUPPORTED: u16 = 16430;

/// Below this, a notification is an error.
const STATUS_MIN: u16 = 16384;

/// The first notification of a kind.
pub(super) fn find<'p, 'a>(payloads: &'p [Payload<'a>], kind: u16) -> Option<&'p Notify<'a>> {
    notifies(payloads).find(|notify| notify.kind == kind)
}

/// The first error.
pub(super) fn error<'p, 'a>(payloads: &'p [Payload<'a>]) -> Option<&'p Notify<'a>> {
    notifies(payloads).find(|notify| notify.kind < STATUS_MIN)
}

/// All notifications.
pub(super) fn notifies<'p, 'a>(
    payloads: &'p [Payload<'a>],
) -> impl Iterator<Item = &'p Notify<'a>> {
    payloads.iter().filter_map(|payload| match payload {
        Payload::Notify(notify) => Some(notify),
        Payload::Sa(_)
        | Payload::Ke { .. }
        | Payload::IdI(_)
        | Payload::IdR(_)
        | Payload::Auth { .. }
        | Payload::Nonce(_)
        | Payload::Delete { .. }
        | Payload::Vendor(_)
        | Payload::TsI(_)
        | Payload::TsR(_)
        | Payload::Cp(_)
        | Payload::Unused { .. } => None,
    })
}

/// The payloads of a message by kind, the first of each.
#[derive(Debug, Default)]
pub(super) struct Parts<'p, 'a> {
    pub(super) sa: Option<&'p [crate::wire::ikev2::proposal::Proposal]>,
    pub(super) ke: Option<(u16, &'a [u8])>,
    pub(super) nonce: Option<&'a [u8]>,
    pub(super) id_i: Option<crate::wire::ikev2::payload::Id<'a>>,
    pub(super) id_r: Option<crate::wire::ikev2::payload::Id<'a>>,
    pub(super) auth: Option<(u8, &'a [u8])>,
    pub(super) ts_i: Option<&'p [crate::wire::ikev2::payload::Selector]>,
    pub(super) ts_r: Option<&'p [crate::wire::ikev2::payload::Selector]>,
}

impl<'p, 'a> Parts<'p, 'a> {
    /// Sorts payloads. `None` when one that may come once comes twice.
    pub(super) fn of(payloads: &'p [Payload<'a>]) -> Option<Self> {
        let mut parts = Self::default();
        for payload in payloads {
            let is_first = match payload {
                Payload::Sa(proposals) => parts.sa.replace(proposals).is_none(),
                Payload::Ke { group, data } => parts.ke.replace((*group, data)).is_none(),
                Payload::Nonce(data) => parts.nonce.replace(data).is_none(),
                Payload::IdI(id) => parts.id_i.replace(*id).is_none(),
                Payload::IdR(id) => parts.id_r.replace(*id).is_none(),
                Payload::Auth { method, data } => parts.auth.replace((*method, data)).is_none(),
                Payload::TsI(selectors) => parts.ts_i.replace(selectors).is_none(),
                Payload::TsR(selectors) => parts.ts_r.replace(selectors).is_none(),
                Payload::Notify(_)
                | Payload::Delete { .. }
                | Payload::Vendor(_)
                | Payload::Cp(_)
                | Payload::Unused { .. } => true,
            };
            if !is_first {
                return None;
            }
        }
        Some(parts)
    }
}
