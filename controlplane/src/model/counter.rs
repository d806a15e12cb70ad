//! The last number given to a vnet or tunnel, so that numbers are not soon reused.

use serde::{Deserialize, Serialize};

use super::Resource;

/// What is numbered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Numbered {
    /// Virtual networks, 1..=65535.
    Vnet,
    /// Tunnels, 1..=u32::MAX.
    Tunnel,
}

impl std::fmt::Display for Numbered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Numbered::Vnet => "vnet",
            Numbered::Tunnel => "tunnel",
        })
    }
}

impl std::str::FromStr for Numbered {
    type Err = ();

    fn from_str(text: &str) -> Result<Numbered, ()> {
        match text {
            "vnet" => Ok(Numbered::Vnet),
            "tunnel" => Ok(Numbered::Tunnel),
            _ => Err(()),
        }
    }
}

/// The last number that was given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counter {
    /// What it numbers.
    pub of: Numbered,
    /// The last number given.
    pub last: u32,
}

impl Counter {
    /// The next free number after `last` in 1..=`max`, around the end; `None` when all are used.
    pub fn next_fit(last: u32, max: u32, is_used: impl Fn(u32) -> bool) -> Option<u32> {
        (last.saturating_add(1)..=max)
            .chain(1..=last.min(max))
            .find(|&number| !is_used(number))
    }
}

impl Resource for Counter {
    const KIND: &'static str = "counter";
    const IS_AUDITED: bool = false;
    type Id = Numbered;

    fn id(&self) -> Numbered {
        self.of
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_not_reused_while_others_are_left() {
        assert_eq!(Counter::next_fit(0, 3, |_| false), Some(1));
        assert_eq!(Counter::next_fit(1, 3, |n| n == 3), Some(2));
        assert_eq!(Counter::next_fit(2, 3, |n| n == 3), Some(1));
        assert_eq!(Counter::next_fit(3, 3, |_| true), None);
    }
}
