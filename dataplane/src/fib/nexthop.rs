//! Where a route leads: one next hop, or several candidates, of which the best share its flows.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::id::TunnelId;

/// Most candidates of one route. A share below 1/16 is too few of [`super::group::BUCKETS`] to be
/// held to, and more parallel tunnels to one network have not been seen.
pub const CANDIDATES_MAX: usize = 16;

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
pub struct Candidate {
    /// The next hop.
    pub nexthop: Nexthop,
    /// Only candidates of the lowest priority plus penalty take flows.
    #[serde(default)]
    pub priority: u32,
    /// Its share of the flows is this by the sum of the weights of all that take some; never 0.
    #[serde(default = "one")]
    pub weight: u8,
}

fn one() -> u8 {
    1
}

impl From<Nexthop> for Candidate {
    /// One among equals.
    fn from(nexthop: Nexthop) -> Self {
        Self {
            nexthop,
            priority: 0,
            weight: 1,
        }
    }
}

/// The candidates of a route: one, or up to [`CANDIDATES_MAX`] different tunnels with priorities and
/// weights.
///
/// Two of the same members are equal, however they were listed. Written as the next hop itself
/// when there is one (whose priority and weight mean nothing, and are not kept), else as a list.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct Candidates(Members);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Members {
    /// By far the most: no heap.
    One(Nexthop),
    /// Two and more, by next hop.
    Many(Arc<[Candidate]>),
}

/// The serialized form.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    One(Nexthop),
    Many(Vec<Candidate>),
}

/// Why candidates do not make a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CandidatesError {
    /// There is none.
    #[error("a route needs a next hop")]
    Empty,
    /// There are more than [`CANDIDATES_MAX`].
    #[error("a route has at most {CANDIDATES_MAX} next hops, not {0}")]
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

impl Candidates {
    /// Several candidates, or one.
    ///
    /// # Errors
    /// [`CandidatesError`] says what does not hold.
    pub fn new(mut members: Vec<Candidate>) -> Result<Self, CandidatesError> {
        members.sort();
        let twice = members
            .windows(2)
            .find(|pair| pair[0].nexthop == pair[1].nexthop);
        if let Some(pair) = twice {
            return Err(CandidatesError::Twice(pair[0].nexthop));
        }
        if let Some(idle) = members.iter().find(|member| member.weight == 0) {
            return Err(CandidatesError::NoWeight(idle.nexthop));
        }
        match members[..] {
            [] => Err(CandidatesError::Empty),
            [one] => Ok(one.nexthop.into()),
            [first, ..] if first.nexthop == Nexthop::Local => {
                Err(CandidatesError::LocalAmongOthers)
            }
            _ if members.len() > CANDIDATES_MAX => Err(CandidatesError::TooMany(members.len())),
            _ => Ok(Self(Members::Many(members.into()))),
        }
    }

    /// Each candidate, by next hop.
    pub fn iter(&self) -> impl Iterator<Item = Candidate> + '_ {
        let (one, many) = match &self.0 {
            Members::One(nexthop) => (Some(*nexthop), &[][..]),
            Members::Many(members) => (None, &members[..]),
        };
        one.map(Candidate::from)
            .into_iter()
            .chain(many.iter().copied())
    }

    /// The only next hop; `None` when there are several candidates.
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

    /// Those that take flows: of the lowest priority plus penalty. Never none.
    pub fn chosen(&self, penalty: impl Fn(Nexthop) -> u32) -> Vec<Candidate> {
        let cost = |member: &Candidate| member.priority.saturating_add(penalty(member.nexthop));
        let lowest = self.iter().map(|member| cost(&member)).min();
        self.iter()
            .filter(|member| Some(cost(member)) == lowest)
            .collect()
    }

    /// The others; `None` when there is no other.
    #[must_use]
    pub fn without(&self, nexthop: Nexthop) -> Option<Self> {
        let others = self.iter().filter(|member| member.nexthop != nexthop);
        Self::new(others.collect()).ok()
    }
}

impl From<Nexthop> for Candidates {
    fn from(nexthop: Nexthop) -> Self {
        Self(Members::One(nexthop))
    }
}

impl TryFrom<Written> for Candidates {
    type Error = CandidatesError;

    fn try_from(written: Written) -> Result<Self, CandidatesError> {
        match written {
            Written::One(nexthop) => Ok(nexthop.into()),
            Written::Many(members) => Self::new(members),
        }
    }
}

impl From<Candidates> for Written {
    fn from(nexthops: Candidates) -> Self {
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

    fn tunnel(id: u32, weight: u8) -> Candidate {
        Candidate {
            nexthop: Nexthop::Tunnel(TunnelId(id)),
            priority: 0,
            weight,
        }
    }

    #[test]
    fn one_next_hop_is_written_as_itself_and_several_as_a_list() {
        let one = Candidates::from(Nexthop::Tunnel(TunnelId(7)));
        let many = Candidates::new(vec![tunnel(2, 3), tunnel(1, 1)]).unwrap();
        for (nexthops, written) in [
            (one, r#"{"tunnel":7}"#),
            (Nexthop::Local.into(), r#""local""#),
            (
                many,
                r#"[{"nexthop":{"tunnel":1},"priority":0,"weight":1},{"nexthop":{"tunnel":2},"priority":0,"weight":3}]"#,
            ),
        ] {
            assert_eq!(serde_json::to_string(&nexthops).unwrap(), written);
            let read: Candidates = serde_json::from_str(written).unwrap();
            assert_eq!(read, nexthops);
        }
    }

    #[test]
    fn what_makes_no_route_is_refused_also_when_it_is_read() {
        let local = Candidate {
            nexthop: Nexthop::Local,
            priority: 0,
            weight: 1,
        };
        let many = (0..17).map(|id| tunnel(id, 1)).collect();
        for (members, why) in [
            (vec![], CandidatesError::Empty),
            (many, CandidatesError::TooMany(17)),
            (
                vec![tunnel(1, 1), tunnel(1, 2)],
                CandidatesError::Twice(tunnel(1, 1).nexthop),
            ),
            (
                vec![tunnel(1, 1), tunnel(2, 0)],
                CandidatesError::NoWeight(tunnel(2, 0).nexthop),
            ),
            (vec![tunnel(1, 1), local], CandidatesError::LocalAmongOthers),
        ] {
            let written = serde_json::to_string(&members).unwrap();
            let read: Result<Candidates, _> = serde_json::from_str(&written);
            assert!(read.unwrap_err().to_string().contains(&why.to_string()));
            assert_eq!(Candidates::new(members), Err(why));
        }
    }

    #[test]
    fn the_lowest_priority_with_its_penalty_is_chosen_and_the_last_resort_stays() {
        let candidate = |id, priority| Candidate {
            priority,
            ..tunnel(id, 1)
        };
        let all = Candidates::new(vec![
            candidate(1, 100),
            candidate(2, 100),
            candidate(3, 200),
            candidate(4, u32::MAX),
        ])
        .unwrap();
        let chosen = |penalties: &[(u32, u32)]| {
            let penalty = |nexthop| {
                let of = |(id, _): &&(u32, u32)| Nexthop::Tunnel(TunnelId(*id)) == nexthop;
                penalties.iter().find(of).map_or(0, |(_, penalty)| *penalty)
            };
            let chosen = all.chosen(penalty).into_iter();
            let chosen = chosen.map(|member| match member.nexthop {
                Nexthop::Tunnel(id) => id.0,
                Nexthop::Local => 0,
            });
            chosen.collect::<Vec<_>>()
        };
        assert_eq!(chosen(&[]), [1, 2]);
        assert_eq!(chosen(&[(1, 500_000)]), [2]);
        assert_eq!(chosen(&[(1, 500_000), (2, 1_000_000)]), [3]);
        // Degraded before down, and with the same penalty the priorities decide again.
        let all_down: Vec<_> = (1..=4).map(|id| (id, 1_000_000)).collect();
        assert_eq!(chosen(&all_down), [1, 2]);
        assert_eq!(chosen(&[(1, 1_000_000), (2, 500_000), (3, 1_000_000)]), [2]);
        let one = Candidates::from(Nexthop::Local);
        assert_eq!(one.chosen(|_| u32::MAX), [Nexthop::Local.into()]);
    }
}
