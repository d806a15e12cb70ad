//! Where a route leads: one next hop, or several that share its flows by weight.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::id::TunnelId;

/// Most next hops of one route. A share below 1/16 is too few of [`super::group::BUCKETS`] to be
/// held to, and more parallel tunnels to one network have not been seen.
pub const NEXTHOPS_MAX: usize = 16;

/// One next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Nexthop {
    /// Hand the packet to this machine's own network stack (a site's LAN lies behind it).
    Local,
    /// Encapsulate into this tunnel of the same vnet.
    Tunnel(TunnelId),
}

/// One of several next hops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Weighted {
    /// The next hop.
    pub nexthop: Nexthop,
    /// Its share of the flows is this by the sum of all weights; never 0.
    pub weight: u8,
}

/// The next hops of a route: one, or up to [`NEXTHOPS_MAX`] different tunnels with weights.
///
/// Two of the same members are equal, however they were listed. Written as the next hop itself
/// when there is one, else as a list.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct Nexthops(Members);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Members {
    /// By far the most: no heap.
    One(Nexthop),
    /// Two and more, by next hop.
    Many(Arc<[Weighted]>),
}

/// The serialized form.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    One(Nexthop),
    Many(Vec<Weighted>),
}

/// Why next hops do not make a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NexthopsError {
    /// There is none.
    #[error("a route needs a next hop")]
    Empty,
    /// There are more than [`NEXTHOPS_MAX`].
    #[error("a route has at most {NEXTHOPS_MAX} next hops, not {0}")]
    TooMany(usize),
    /// One is listed twice.
    #[error("a route lists {0:?} twice")]
    Twice(Nexthop),
    /// A weight is 0.
    #[error("the weight of {0:?} is 0")]
    NoWeight(Nexthop),
    /// The own network stack is one of several.
    #[error("the node's own network cannot be one of several next hops")]
    LocalAmongOthers,
}

impl Nexthops {
    /// Several next hops, or one.
    ///
    /// # Errors
    /// [`NexthopsError`] says what does not hold.
    pub fn new(mut members: Vec<Weighted>) -> Result<Self, NexthopsError> {
        members.sort();
        let twice = members
            .windows(2)
            .find(|pair| pair[0].nexthop == pair[1].nexthop);
        if let Some(pair) = twice {
            return Err(NexthopsError::Twice(pair[0].nexthop));
        }
        if let Some(idle) = members.iter().find(|member| member.weight == 0) {
            return Err(NexthopsError::NoWeight(idle.nexthop));
        }
        match members[..] {
            [] => Err(NexthopsError::Empty),
            [one] => Ok(one.nexthop.into()),
            [first, ..] if first.nexthop == Nexthop::Local => Err(NexthopsError::LocalAmongOthers),
            _ if members.len() > NEXTHOPS_MAX => Err(NexthopsError::TooMany(members.len())),
            _ => Ok(Self(Members::Many(members.into()))),
        }
    }

    /// Each next hop with its weight, by next hop.
    pub fn iter(&self) -> impl Iterator<Item = Weighted> + '_ {
        let (one, many) = match &self.0 {
            Members::One(nexthop) => (Some(*nexthop), &[][..]),
            Members::Many(members) => (None, &members[..]),
        };
        one.map(|nexthop| Weighted { nexthop, weight: 1 })
            .into_iter()
            .chain(many.iter().copied())
    }

    /// The only next hop; `None` when there are several.
    pub fn single(&self) -> Option<Nexthop> {
        match &self.0 {
            Members::One(nexthop) => Some(*nexthop),
            Members::Many(_) => None,
        }
    }

    /// Whether `nexthop` is one of them.
    pub fn contains(&self, nexthop: Nexthop) -> bool {
        self.iter().any(|member| member.nexthop == nexthop)
    }

    /// The others; `None` when there is no other.
    #[must_use]
    pub fn without(&self, nexthop: Nexthop) -> Option<Self> {
        let others = self.iter().filter(|member| member.nexthop != nexthop);
        Self::new(others.collect()).ok()
    }
}

impl From<Nexthop> for Nexthops {
    fn from(nexthop: Nexthop) -> Self {
        Self(Members::One(nexthop))
    }
}

impl TryFrom<Written> for Nexthops {
    type Error = NexthopsError;

    fn try_from(written: Written) -> Result<Self, NexthopsError> {
        match written {
            Written::One(nexthop) => Ok(nexthop.into()),
            Written::Many(members) => Self::new(members),
        }
    }
}

impl From<Nexthops> for Written {
    fn from(nexthops: Nexthops) -> Self {
        match nexthops.0 {
            Members::One(nexthop) => Self::One(nexthop),
            Members::Many(members) => Self::Many(members.to_vec()),
        }
    }
}

#[cfg(not(portcullis_loom))]
#[cfg(test)]
mod tests {
    use super::*;

    fn tunnel(id: u32, weight: u8) -> Weighted {
        Weighted {
            nexthop: Nexthop::Tunnel(TunnelId(id)),
            weight,
        }
    }

    #[test]
    fn one_next_hop_is_written_as_itself_and_several_as_a_list() {
        let one = Nexthops::from(Nexthop::Tunnel(TunnelId(7)));
        let many = Nexthops::new(vec![tunnel(2, 3), tunnel(1, 1)]).unwrap();
        for (nexthops, written) in [
            (one, r#"{"tunnel":7}"#),
            (Nexthop::Local.into(), r#""local""#),
            (
                many,
                r#"[{"nexthop":{"tunnel":1},"weight":1},{"nexthop":{"tunnel":2},"weight":3}]"#,
            ),
        ] {
            assert_eq!(serde_json::to_string(&nexthops).unwrap(), written);
            let read: Nexthops = serde_json::from_str(written).unwrap();
            assert_eq!(read, nexthops);
        }
    }

    #[test]
    fn what_makes_no_route_is_refused_also_when_it_is_read() {
        let local = Weighted {
            nexthop: Nexthop::Local,
            weight: 1,
        };
        let many = (0..17).map(|id| tunnel(id, 1)).collect();
        for (members, why) in [
            (vec![], NexthopsError::Empty),
            (many, NexthopsError::TooMany(17)),
            (
                vec![tunnel(1, 1), tunnel(1, 2)],
                NexthopsError::Twice(tunnel(1, 1).nexthop),
            ),
            (
                vec![tunnel(1, 1), tunnel(2, 0)],
                NexthopsError::NoWeight(tunnel(2, 0).nexthop),
            ),
            (vec![tunnel(1, 1), local], NexthopsError::LocalAmongOthers),
        ] {
            let written = serde_json::to_string(&members).unwrap();
            let read: Result<Nexthops, _> = serde_json::from_str(&written);
            assert!(read.unwrap_err().to_string().contains(&why.to_string()));
            assert_eq!(Nexthops::new(members), Err(why));
        }
    }
}
