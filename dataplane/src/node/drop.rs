//! Why packets go nowhere: one reason, one counter each.

use crate::tunnel::Refusal;
use crate::wire::ip::Malformed;

macro_rules! reasons {
    ($($(#[doc = $help:literal])+ $name:ident = $text:literal,)+) => {
        /// Why a packet or datagram was dropped.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum DropReason {
            $($(#[doc = $help])+ $name,)+
        }

        impl DropReason {
            /// Every reason, in the order of their counters.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// How metrics and `show counters` name it.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }

            /// One sentence for people.
            #[must_use]
            pub fn help(self) -> &'static str {
                match self { $(Self::$name => concat!($($help),+).trim_ascii(),)+ }
            }
        }
    };
}

reasons! {
    /// An inner packet that is no well-formed IP packet.
    Malformed = "malformed",
    /// From the overlay: neighbour discovery, multicast and other things of a link, not of a network.
    LinkLocalNoise = "link_local_noise",
    /// From the overlay: the source is no address that this worker lent to a vnet.
    SourceNotOurs = "source_not_ours",
    /// Out of a tunnel: an address that no single host can send from, or send to.
    NotUnicast = "not_unicast",
    /// Out of a tunnel: AllowedIPs give the source to another tunnel of the vnet, or to none.
    SourceNotAllowed = "source_not_allowed",
    /// Out of a tunnel: the source is not routed to where the packet came from, or of another node's: to no tunnel.
    SourceNotRouted = "source_not_routed",
    /// Out of a tunnel, or from another node: the destination is a source address that nobody has.
    ReturnUnknown = "return_unknown",
    /// Out of a tunnel: the destination is a source address of another node, and there is no way there.
    ReturnOtherNode = "return_other_node",
    /// Out of a tunnel, or from another node: the destination is a source address of another vnet.
    ReturnVnetMismatch = "return_vnet_mismatch",
    /// Out of a tunnel, or from another node: something that begins at a source address of ours, where only answers
    /// are taken.
    NotAskedFor = "not_asked_for",
    /// By Geneve: the sender is no other node.
    RelayStranger = "relay_stranger",
    /// From another node: the destination is no source address of ours, and nothing is handed over twice.
    RelayNotOurs = "relay_not_ours",
    /// No route to the destination in its vnet.
    NoRoute = "no_route",
    /// The route leads back to where the packet came from.
    RouteLoops = "route_loops",
    /// The vnet or the tunnel is being deleted.
    Gone = "gone",
    /// The route leads to a tunnel of another vnet.
    TunnelVnetMismatch = "tunnel_vnet_mismatch",
    /// The TTL or hop limit ran out here.
    TtlExceeded = "ttl_exceeded",
    /// Out of a tunnel: for our own address inside it, where only echo requests are answered.
    InterfaceClosed = "interface_closed",
    /// An answer to a probe that was not sent into the tunnel that it came out of, or never.
    ProbeForged = "probe_forged",
    /// Out of a tunnel: an answer to a probe that had been given up, or answered before.
    ProbeLate = "probe_late",
    /// Longer than the tunnel's MTU.
    TooBig = "too_big",
    /// No session with the peer, and nobody knows where it is.
    NoEndpoint = "no_endpoint",
    /// The neighbour on a direct link does not answer.
    NeighbourUnreachable = "neighbour_unreachable",
    /// Too many packets wait for a session with the peer.
    QueueFull = "queue_full",
    /// They waited for a session until the peer was given up.
    SessionGivenUp = "session_given_up",
    /// The outbox was full.
    OutboxFull = "outbox_full",
    /// Too many packets were on their way to the worker that owns the tunnel.
    HandoverFull = "handover_full",
    /// Handed over by a worker that was wrong about the tunnel's owner.
    HandoverLoops = "handover_loops",
    /// A datagram that is no message of a tunnel protocol.
    DatagramMalformed = "datagram_malformed",
    /// A datagram longer than any tunnel sends.
    DatagramOversized = "datagram_oversized",
    /// A datagram for a session that is not there.
    IndexUnknown = "index_unknown",
    /// A message that came before, or too late.
    Replayed = "replayed",
    /// A message that does not authenticate.
    Inauthentic = "inauthentic",
    /// An authentic message with something inside that is not IP.
    NotIp = "not_ip",
    /// An ESP packet with padding that it must not have.
    EspPadding = "esp_padding",
    /// An ESP packet whose sender has nothing to say (RFC 4303, section 2.6).
    EspDummy = "esp_dummy",
    /// An IPsec SA at the end of its life.
    SaExpired = "sa_expired",
    /// No IPsec SA with the peer is up.
    NoSa = "no_sa",
    /// A packet that the IPsec SA it came by does not carry, or that no SA carries.
    OutsideSelectors = "outside_selectors",
    /// More handshake messages from one source than it may send.
    HandshakeLimited = "handshake_limited",
    /// A handshake that was answered with a cookie, because there were too many.
    HandshakeCookie = "handshake_cookie",
    /// A handshake for no key of ours.
    UnknownIdentity = "unknown_identity",
    /// A handshake of a peer that is not configured, or of one with which nothing is in common.
    UnknownPeer = "unknown_peer",
    /// A GRE packet between addresses, or with a key, that name no tunnel.
    GreNameUnknown = "gre_name_unknown",
    /// A GRE packet whose checksum is wrong, or missing where the tunnel asks for it.
    GreChecksum = "gre_checksum",
    /// Out of a tunnel: there was congestion on its way, and the packet's transport cannot be told.
    Congestion = "congestion",
}

impl From<Malformed> for DropReason {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

impl From<Refusal> for DropReason {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Malformed => Self::DatagramMalformed,
            Refusal::Oversized => Self::DatagramOversized,
            Refusal::IndexUnknown => Self::IndexUnknown,
            Refusal::Replay => Self::Replayed,
            Refusal::Invalid => Self::Inauthentic,
            Refusal::NotIp => Self::NotIp,
            Refusal::Padding => Self::EspPadding,
            Refusal::Dummy => Self::EspDummy,
            Refusal::Expired => Self::SaExpired,
            Refusal::NoSa => Self::NoSa,
            Refusal::OutsideSelectors => Self::OutsideSelectors,
            Refusal::HandshakeLimited => Self::HandshakeLimited,
            Refusal::CookieSent => Self::HandshakeCookie,
            Refusal::UnknownIdentity => Self::UnknownIdentity,
            Refusal::UnknownPeer => Self::UnknownPeer,
            Refusal::NoEndpoint => Self::NoEndpoint,
            Refusal::QueueFull => Self::QueueFull,
            Refusal::OutboxFull => Self::OutboxFull,
            Refusal::NameUnknown => Self::GreNameUnknown,
            Refusal::Checksum => Self::GreChecksum,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_name_of_its_own_and_a_sentence() {
        let mut names: Vec<_> = DropReason::ALL.iter().map(|reason| reason.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), DropReason::ALL.len());
        assert!(DropReason::ALL.iter().all(|one| one.help().ends_with('.')));
    }
}
