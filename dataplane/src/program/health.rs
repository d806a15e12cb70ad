//! How tunnels are probed, what state that gives, and what the state costs their routes.
//!
//! The state machine is `node/health`; here is what it is told, and what the tables are told of it.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// Added to the priority of candidates whose tunnel is degraded.
pub const DEGRADED: u32 = 500_000;
/// Added to the priority of candidates whose tunnel is down.
pub const DOWN: u32 = 1_000_000;

/// How a tunnel is probed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How often, as long as the tunnel is healthy. One that is not is probed every second.
    pub rate: Rate,
    /// What a probe is.
    pub kind: Kind,
    /// Which way the answer comes.
    pub direction: Direction,
    /// The far side's address, if not the one that the interface address or the tunnel's endpoint
    /// gives.
    pub target: Option<IpAddr>,
    /// What it takes to be healthy again.
    pub recovery: Recovery,
}

/// How often a healthy tunnel is probed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rate {
    /// Every ten seconds.
    Low,
    /// Every three seconds.
    #[default]
    Mid,
    /// Every second.
    High,
}

/// What a probe is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// An ICMP echo request, which the far side answers.
    Request,
    /// An ICMP echo reply from the far side's address to ours, which the far side only routes back.
    #[default]
    Reply,
}

/// Which way the answer to a probe comes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Past the tunnel: probes carry the addresses of the tunnel's outer ends. WireGuard and direct
    /// links have none.
    Unidirectional,
    /// Through the tunnel: probes carry the addresses of its inner ends.
    #[default]
    Bidirectional,
}

/// What it takes to be healthy again, after failed probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Recovery {
    /// Answers in a row that make a tunnel that was down a degraded one.
    pub up_after: u8,
    /// Seconds without a failed probe that make a degraded tunnel a healthy one.
    pub clean_secs: u16,
    /// Each relapse doubles that time, up to this many seconds; a tunnel that then stays healthy for
    /// as long begins anew.
    pub clean_secs_max: u16,
}

impl Recovery {
    /// Half a minute, and five for a tunnel that flaps. The product that this re-creates takes five
    /// minutes in any case, and up to thirty: `clean_secs = clean_secs_max = 300` is close to that.
    pub const DEFAULT: Self = Self {
        up_after: 3,
        clean_secs: 30,
        clean_secs_max: 300,
    };
    /// Most seconds that a recovery may take: the half hour of the product that this re-creates.
    pub const SECS_MAX: u16 = 1800;
    /// Most answers in a row that may be asked for: a minute's.
    pub const UP_AFTER_MAX: u8 = 60;
}

impl Default for Recovery {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Why a tunnel cannot be probed so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// `up_after` is out of range.
    #[error("health.recovery.up_after is 1 to {max}, not {0}", max = Recovery::UP_AFTER_MAX)]
    UpAfter(u8),
    /// A time is out of range.
    #[error("health.recovery.clean_secs and clean_secs_max are 1 to {max}, not {0}", max = Recovery::SECS_MAX)]
    Secs(u16),
    /// The longest time is shorter than the first.
    #[error("health.recovery.clean_secs_max ({max}) is less than clean_secs ({first})")]
    Order {
        /// The first time.
        first: u16,
        /// The longest.
        max: u16,
    },
    /// An address that no host has.
    #[error("health.target {0} is no address of a host")]
    Target(IpAddr),
}

impl Config {
    /// Whether its numbers can be worked with.
    ///
    /// # Errors
    /// [`ConfigError`] names the field, and what it may be.
    pub fn check(&self) -> Result<(), ConfigError> {
        let Recovery {
            up_after,
            clean_secs,
            clean_secs_max,
        } = self.recovery;
        if !(1..=Recovery::UP_AFTER_MAX).contains(&up_after) {
            return Err(ConfigError::UpAfter(up_after));
        }
        for secs in [clean_secs, clean_secs_max] {
            if !(1..=Recovery::SECS_MAX).contains(&secs) {
                return Err(ConfigError::Secs(secs));
            }
        }
        if clean_secs_max < clean_secs {
            let (first, max) = (clean_secs, clean_secs_max);
            return Err(ConfigError::Order { first, max });
        }
        match self.target {
            Some(target) if target.is_unspecified() || target.is_multicast() => {
                Err(ConfigError::Target(target))
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// What probes say of a tunnel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Nothing yet. It may be used like a healthy one: after a start all tunnels are so.
    #[default]
    Unknown,
    /// Probes are answered.
    Healthy,
    /// Some were not answered.
    Degraded,
    /// None of the last ones was answered.
    Down,
}

impl State {
    /// What is added to the priority of the tunnel's candidates. No route goes away: where all are
    /// down, the best of them takes the packets.
    #[must_use]
    pub fn penalty(self) -> u32 {
        match self {
            Self::Unknown | Self::Healthy => 0,
            Self::Degraded => DEGRADED,
            Self::Down => DOWN,
        }
    }

    /// As shown to people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Down => "down",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_is_written_by_what_differs_and_bad_numbers_are_named() {
        let config: Config =
            serde_json::from_str(r#"{"rate":"high","kind":"request","recovery":{"clean_secs":5}}"#)
                .unwrap();
        assert_eq!(config.rate, Rate::High);
        assert_eq!(config.direction, Direction::Bidirectional);
        assert_eq!(config.recovery.clean_secs_max, 300);
        assert_eq!(config.check(), Ok(()));
        assert!(serde_json::from_str::<Config>(r#"{"speed":"high"}"#).is_err());
        for (recovery, field) in [
            (r#"{"up_after":0}"#, "up_after"),
            (r#"{"up_after":61}"#, "up_after"),
            (r#"{"clean_secs":0}"#, "clean_secs"),
            (r#"{"clean_secs_max":1801}"#, "clean_secs_max"),
            (r#"{"clean_secs":20,"clean_secs_max":10}"#, "less than"),
        ] {
            let config = Config {
                recovery: serde_json::from_str(recovery).unwrap(),
                ..Config::default()
            };
            let refused = config.check().unwrap_err().to_string();
            assert!(refused.contains(field), "{refused}");
        }
        let config = Config {
            target: Some([0, 0, 0, 0].into()),
            ..Config::default()
        };
        let refused = config.check().unwrap_err().to_string();
        assert!(refused.contains("health.target 0.0.0.0"), "{refused}");
    }
}
