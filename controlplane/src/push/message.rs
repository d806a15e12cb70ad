//! What is said between a control plane and a node, version 1.
//!
//! The node begins with [`FromNode::Hello`], the control plane answers with [`ToNode::Welcome`] or
//! [`ToNode::Refused`]. Then steps go one way and acknowledgements the other, each as soon as there is
//! something to say, and [`ToNode::Alive`] and [`FromNode::Alive`] when there is nothing. A part that a
//! version does not know ends the connection: nothing is skipped in silence.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::time::Duration;

use dataplane::node::TunnelStatus;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

/// The version of all this.
pub(super) const VERSION: u32 = 1;

/// Each side says something at least so often.
pub(super) const ALIVE_EVERY: Duration = Duration::from_secs(5);

/// A side that is silent for so long is gone: three times nothing was heard.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(16);

/// A node says what its tunnels do so often.
pub(super) const REPORT_EVERY: Duration = Duration::from_secs(5);

/// Tunnels in a part of that: some kilobytes each at most, with the history of their health.
pub(super) const REPORT_TUNNELS: usize = 50;

/// Refusals that a node names; of more it says how many there are.
pub(super) const REFUSED_MAX: usize = 200;

/// Longest reason of a refusal, in bytes.
pub(super) const REASON_BYTES_MAX: usize = 400;

/// Half to all of a time, at random: so that what began together does not go on together.
pub(super) fn jittered(time: Duration) -> Duration {
    let [random, ..] = Uuid::new_v4().into_bytes();
    time / 2 + time / 2 * u32::from(random) / 255
}

/// From the control plane.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum ToNode<'a> {
    /// The node is who it says.
    Welcome {
        /// This start of this control plane: revisions that a node knows of another are of no use.
        epoch: Uuid,
        /// The name that the node's certificate stands for.
        name: String,
    },
    /// It is not, or not any more, or another version.
    Refused {
        /// A sentence.
        reason: String,
    },
    /// A part of a step to a revision.
    #[serde(borrow)]
    Step(Step<'a>),
    /// Nothing new.
    Alive {},
}

/// A part of a step from one revision to a later one.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Step<'a> {
    /// The revision on which it is to be applied; none: these objects are all there are.
    pub(super) base: Option<u64>,
    /// The revision to which it leads.
    pub(super) revision: u64,
    /// Whether no more parts of it follow.
    pub(super) is_last: bool,
    /// What changed.
    #[serde(borrow)]
    pub(super) writes: Vec<Change<'a>>,
}

/// One object.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Change<'a> {
    /// `KIND/ID`.
    #[serde(borrow)]
    pub(super) key: Cow<'a, str>,
    /// Its JSON; without, it is gone.
    #[serde(borrow)]
    pub(super) value: Option<&'a RawValue>,
}

/// From a node.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum FromNode {
    /// The first of all.
    Hello {
        /// Its [`VERSION`].
        version: u32,
        /// The revision that it has, and of which start of a control plane.
        has: Option<(Uuid, u64)>,
        /// Where it takes packets for its slice that came to other nodes. Without, as nodes of before
        /// that say: it takes none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        relay: Option<SocketAddr>,
    },
    /// What it has taken.
    Ack {
        /// Everything up to this revision is in its tables, but for:
        revision: u64,
        /// objects that it could not take, at most [`REFUSED_MAX`] of them.
        refused: Vec<Refused>,
        /// How many there are in all.
        refused_total: usize,
    },
    /// It cannot go on from what it has, and wants everything.
    Resync {
        /// A sentence.
        reason: String,
    },
    /// A part of what its tunnels do, every [`REPORT_EVERY`].
    Tunnels {
        /// At most [`REPORT_TUNNELS`] of them.
        tunnels: Vec<TunnelStatus>,
        /// Whether no more parts of it follow.
        is_last: bool,
    },
    /// Nothing new.
    Alive {},
}

/// An object that a node could not take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Refused {
    /// `KIND/ID`.
    pub object: String,
    /// Why, in words.
    pub reason: String,
}

impl Refused {
    /// An object and a reason, cut to what a node may say.
    pub(super) fn new(object: String, mut reason: String) -> Refused {
        if reason.len() > REASON_BYTES_MAX {
            let ends = (0..=REASON_BYTES_MAX).rev();
            let end = ends.into_iter().find(|end| reason.is_char_boundary(*end));
            reason.truncate(end.unwrap_or(0));
            reason.push('…');
        }
        Refused { object, reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_as_they_were_written() {
        let json = r#"{"step":{"base":4,"revision":5,"is_last":true,"writes":[{"key":"zone/a\"b","value":{"id": 1}},{"key":"zone/c","value":null}]}}"#;
        let ToNode::Step(step) = serde_json::from_str(json).unwrap() else {
            panic!("not a step");
        };
        assert_eq!((step.base, step.revision, step.is_last), (Some(4), 5, true));
        assert_eq!(step.writes[0].key, "zone/a\"b");
        assert_eq!(step.writes[0].value.unwrap().get(), r#"{"id": 1}"#);
        assert!(step.writes[1].value.is_none());
        assert_eq!(serde_json::to_string(&ToNode::Step(step)).unwrap(), json);
    }

    #[test]
    fn what_is_not_known_is_refused() {
        assert!(serde_json::from_str::<ToNode<'_>>(r#"{"dance":{}}"#).is_err());
        assert!(serde_json::from_str::<FromNode>(r#"{"alive":{"x":1}}"#).is_err());
    }

    #[test]
    fn a_hello_without_a_relay_is_as_it_was_before_there_were_any() {
        let old = r#"{"hello":{"version":1,"has":null}}"#;
        let FromNode::Hello { relay: None, .. } = serde_json::from_str(old).unwrap() else {
            panic!("not a hello without a relay");
        };
        let (version, has) = (VERSION, None);
        let relay = |relay| FromNode::Hello {
            version,
            has,
            relay,
        };
        assert_eq!(serde_json::to_string(&relay(None)).unwrap(), old);
        let new = r#"{"hello":{"version":1,"has":null,"relay":"192.0.2.1:6081"}}"#;
        let address = "192.0.2.1:6081".parse().unwrap();
        assert_eq!(serde_json::to_string(&relay(Some(address))).unwrap(), new);
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let cut = Refused::new("zone/a".to_owned(), "ö".repeat(REASON_BYTES_MAX));
        assert!(cut.reason.len() <= REASON_BYTES_MAX + 3);
        assert!(cut.reason.ends_with("ö…"));
    }
}
