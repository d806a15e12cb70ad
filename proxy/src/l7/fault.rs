//! Why a request gets an error page: status, number and sentence of each cause.

use pingora::ErrorType;

use crate::handoff::Refused;
use crate::resolve::Unresolved;
use crate::route::LookupError;

/// A cause. Statuses 520 to 530 and the four-digit numbers are those of the product that Portcullis
/// is compatible with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The request cannot be understood; says what is wrong.
    BadRequest(&'static str),
    /// The request names an address instead of a host.
    DirectIp,
    /// The request came through this proxy before.
    Loop,
    /// The request target is longer than the bound.
    TargetTooLong,
    /// The header is larger than the bound.
    HeaderTooLarge,
    /// No zone or record for the host.
    UnknownHost,
    /// The Origin API gave no answer.
    Lookup(LookupError),
    /// The host exists, and has no address.
    NoAddress,
    /// The host's name in a private network leads to no address there.
    Unresolved(Unresolved),
    /// The hand-off was refused.
    Handoff(Refused),
    /// The origin closed early or sent something that is not HTTP.
    Unexpected,
    /// The origin refused the connection.
    OriginDown,
    /// The origin did not take the connection in time.
    ConnectTimeout,
    /// The network says that the origin cannot be reached.
    Unreachable,
    /// The origin took the request and did not answer in time.
    ReadTimeout,
    /// A mistake of ours.
    Internal,
}

/// What a page says about a fault.
pub(super) struct Text {
    /// HTTP status.
    pub(super) status: u16,
    /// The number that customers look up; equal to the status if there is none of its own.
    pub(super) code: u16,
    /// A few words.
    pub(super) title: &'static str,
    /// What happened and what to do, in one or two sentences.
    pub(super) detail: String,
}

impl Fault {
    /// The fault that an error of pingora's towards the origin means.
    pub(super) fn of_upstream(kind: &ErrorType, is_private: bool) -> Self {
        #[expect(clippy::wildcard_enum_match_arm, reason = "pingora's list is open")]
        match kind {
            ErrorType::ConnectRefused => Self::OriginDown,
            ErrorType::ConnectTimedout => Self::ConnectTimeout,
            ErrorType::ConnectNoRoute => Self::Unreachable,
            ErrorType::ReadTimedout | ErrorType::WriteTimedout => Self::ReadTimeout,
            // Binding failed: the source address is not this machine's any more.
            ErrorType::BindError | ErrorType::InternalError if is_private => Self::Unreachable,
            ErrorType::BindError | ErrorType::InternalError => Self::Internal,
            _ => Self::Unexpected,
        }
    }

    pub(super) fn text(self) -> Text {
        match self {
            Self::Handoff(refused) => handoff(refused),
            Self::Unresolved(why) => unresolved(why),
            Self::Unexpected
            | Self::OriginDown
            | Self::ConnectTimeout
            | Self::Unreachable
            | Self::ReadTimeout => self.of_origin(),
            Self::BadRequest(_)
            | Self::DirectIp
            | Self::Loop
            | Self::TargetTooLong
            | Self::HeaderTooLarge
            | Self::UnknownHost
            | Self::Lookup(_)
            | Self::NoAddress
            | Self::Internal => self.of_request(),
        }
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "`text` sends only what is listed here"
    )]
    fn of_request(self) -> Text {
        let (status, code, title, detail) = match self {
            Self::BadRequest(why) => (400, 400, "Bad request", why),
            Self::DirectIp => (
                403,
                1003,
                "Direct IP access not allowed",
                "The request names an IP address. Use the host name of the site.",
            ),
            Self::Loop => (
                508,
                508,
                "Loop detected",
                "The request came through this proxy before. The origin's address leads back to \
                 the edge.",
            ),
            Self::TargetTooLong => (414, 414, "URI too long", "The URL is longer than 16 KB."),
            Self::HeaderTooLarge => (
                431,
                431,
                "Request header too large",
                "One header field is larger than 16 KB, or all together than 32 KB.",
            ),
            Self::UnknownHost => (
                404,
                1004,
                "Host not configured",
                "No zone on this edge has a proxied record for this host. If it was added just \
                 now, try again in a moment.",
            ),
            Self::Lookup(_) => (
                530,
                1001,
                "Host look-up failed",
                "The edge could not find out where this host's origin is. Try again in a moment.",
            ),
            Self::NoAddress => (
                530,
                1016,
                "Origin has no address",
                "The host is configured, and its record has no usable address.",
            ),
            _ => (500, 500, "Internal error", "The edge made a mistake."),
        };
        Text {
            status,
            code,
            title,
            detail: detail.to_owned(),
        }
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "`text` sends only what is listed here"
    )]
    fn of_origin(self) -> Text {
        let (status, title, detail) = match self {
            Self::Unexpected => (
                520,
                "Origin sent an unexpected answer",
                "The origin closed the connection early, or answered something that is not HTTP.",
            ),
            Self::OriginDown => (
                521,
                "Origin is down",
                "The origin refused the connection. Is the web server running, and on port 80?",
            ),
            Self::ConnectTimeout => (
                522,
                "Connection to the origin timed out",
                "The origin did not answer. Does its network route the source range of the edge back \
                 through the tunnel? It is 100.64.0.0/12 unless the account chose another.",
            ),
            Self::Unreachable => (
                523,
                "Origin is unreachable",
                "The network between the edge and the origin reports that there is no way to it.",
            ),
            Self::ReadTimeout => (
                524,
                "Origin took too long",
                "The connection was made, and the origin did not answer in time.",
            ),
            _ => (500, "Internal error", "The edge made a mistake."),
        };
        Text {
            status,
            code: status,
            title,
            detail: detail.to_owned(),
        }
    }
}

fn unresolved(why: Unresolved) -> Text {
    let (status, code, title) = match why {
        Unresolved::NoWay | Unresolved::Elsewhere => (523, 523, "Origin is unreachable"),
        Unresolved::Silent
        | Unresolved::Failed
        | Unresolved::NoSuchName
        | Unresolved::NoAddress => (530, 1016, "Origin DNS error"),
        Unresolved::Busy => (530, 1200, "Too many questions"),
    };
    Text {
        status,
        code,
        title,
        detail: format!("The host is a name in a private network, and {why}."),
    }
}

fn handoff(refused: Refused) -> Text {
    let (status, code, title) = match refused {
        Refused::VnetGone | Refused::NoRoute => (523, 523, "Origin is unreachable"),
        Refused::Prohibited => (403, 1002, "DNS points to prohibited IP"),
        Refused::WrongSource => (502, 502, "Bad gateway"),
    };
    Text {
        status,
        code,
        title,
        detail: format!("The connection to the origin was not made: {refused}."),
    }
}
