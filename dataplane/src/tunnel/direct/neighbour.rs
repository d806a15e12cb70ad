//! Where the neighbour of an Ethernet link is: one of each family, asked for when it is needed.
//!
//! A side is *unknown*; *asked for* (packets wait); *known*, and good for [`GOOD_FOR`]; *in doubt*
//! (packets go where it was, and questions go out while they do, to it alone or, after somebody else
//! claimed its address, to all); or *unreachable* (packets are refused, and one a second asks again).
//! Questions go out with packets, at most one a second: who has nothing to send wants to know nothing.
//!
//! **Only an answer to a question of ours changes where packets go.** What nobody asked for, an
//! announcement or somebody's own question, fills in what is unknown and puts in doubt what is known:
//! a neighbour that moved is found at once because it announces itself, one that lies has to answer
//! before the true one. RFC 4861 section 7.2.5 would take an unsolicited address over, and only then ask.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::tunnel::bucket::{Bucket, Rate};
use crate::wire::neighbour::{self, MESSAGE_LEN_MAX, Mac, Message};

/// How long an answer is good without another. RFC 4861 section 10 has 30 s for a host with many
/// neighbours; here there are two, and one that goes is to be missed within [`GOOD_FOR`] and two times
/// [`ASKED_MAX`] questions.
const GOOD_FOR: Duration = Duration::from_secs(5);
/// How long silence means that the neighbour is not there (REACHABLE_TIME of RFC 4861 section 10).
const SILENT_FOR: Duration = Duration::from_secs(30);
/// Between questions (RETRANS_TIMER of RFC 4861 section 10; RFC 1122 section 2.3.2.1 for ARP).
const ASKED_EVERY: Duration = Duration::from_secs(1);
/// Questions in a row without an answer (MAX_UNICAST_SOLICIT, MAX_MULTICAST_SOLICIT of RFC 4861
/// section 10).
const ASKED_MAX: u8 = 3;
/// How long after a question an answer is one to it.
const ANSWERED_WITHIN: Duration = Duration::from_secs(3);
/// Answers of ours: more than any neighbour asks for, and no amplifier.
const ANSWERS: Rate = Rate {
    interval: Duration::from_millis(20),
    burst: 20,
};
/// How often we say that an address is ours when somebody else says so too (DEFEND_INTERVAL of RFC
/// 5227 section 1.1).
const DEFENDED: Rate = Rate {
    interval: Duration::from_secs(10),
    burst: 1,
};

/// The addresses of a link's two ends, of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// Ours.
    pub near: IpAddr,
    /// The neighbour's.
    pub far: IpAddr,
}

/// What is known of the neighbours of a link. Cardinality: one for each Ethernet link, owned by its
/// driver. It never grows: there is one neighbour of each family, whatever a stranger says.
#[derive(Debug)]
pub struct Neighbours {
    mac: Mac,
    v4: Option<Side>,
    v6: Option<Side>,
    answers: Bucket,
}

#[derive(Debug)]
struct Side {
    end: End,
    /// Where it was last, and until when that is good.
    known: Option<(Mac, Instant)>,
    /// Somebody else claims the address: the next questions go to all.
    is_disputed: bool,
    is_unreachable: bool,
    asked_at: Option<Instant>,
    /// Questions since the last answer.
    asked: u8,
    defended: Bucket,
}

/// What to do with a packet for the neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It goes there.
    To(Mac),
    /// It waits for an answer.
    Wait,
    /// The neighbour does not answer.
    Unreachable,
    /// The link does not have its family.
    NoFamily,
}

impl Neighbours {
    /// A link on which we have the Ethernet address `mac`, and these ends: the first of each family
    /// counts.
    #[must_use]
    pub fn new(mac: Mac, ends: &[End]) -> Self {
        let side = |is_v4: bool| {
            let end = ends.iter().find(|end| end.near.is_ipv4() == is_v4);
            end.map(|end| Side::new(*end))
        };
        Self {
            mac,
            v4: side(true),
            v6: side(false),
            answers: Bucket::default(),
        }
    }

    /// Our Ethernet address.
    #[must_use]
    pub fn mac(&self) -> Mac {
        self.mac
    }

    /// Where a packet of this family goes, and the length of the question to send, which stands in
    /// `out` then; 0 for none.
    pub fn next(
        &mut self,
        is_v4: bool,
        now: Instant,
        out: &mut [u8; MESSAGE_LEN_MAX],
    ) -> (Next, usize) {
        let mac = self.mac;
        match self.side(is_v4) {
            Some(side) => side.next(mac, now, out),
            None => (Next::NoFamily, 0),
        }
    }

    /// When a packet that waits wants [`Neighbours::next`] again: a question is due, or the neighbour
    /// given up.
    #[must_use]
    pub fn ask_again_at(&self, is_v4: bool) -> Option<Instant> {
        let side = if is_v4 { &self.v4 } else { &self.v6 };
        side.as_ref()?.asked_at.map(|asked| asked + ASKED_EVERY)
    }

    /// Takes a message, and returns the length of what to say to it, which stands in `out` then; 0 for
    /// nothing. Only what is about the two ends of the link counts.
    pub fn hear(
        &mut self,
        message: Message,
        now: Instant,
        out: &mut [u8; MESSAGE_LEN_MAX],
    ) -> usize {
        let mac = self.mac;
        let (Message::Who { target, at, .. } | Message::Here { target, at, .. }) = message;
        let mut answers = self.answers;
        let Some(side) = self.side(target.is_ipv4()) else {
            return 0;
        };
        if at == mac {
            // A loop.
            return 0;
        }
        let len = match message {
            Message::Who { sender, target, .. } => {
                if sender == Some(side.end.near) {
                    return side.defend(mac, now, out);
                }
                let claimed = sender == Some(side.end.far);
                let asked = if claimed {
                    side.claim(at, mac, now, out)
                } else {
                    0
                };
                // Whoever asks is answered: routers ask from any of their addresses (RFC 1122 section
                // 3.3.4.2), of which only the configured one is the neighbour's.
                if target == side.end.near && answers.take(ANSWERS, now) {
                    neighbour::write_answer(out, (target, mac), (sender, at))
                } else {
                    asked
                }
            }
            Message::Here { target, .. } if target == side.end.near => side.defend(mac, now, out),
            Message::Here {
                target, is_answer, ..
            } if target == side.end.far => {
                if is_answer && side.is_asked(now) {
                    side.learn(at, now);
                    0
                } else {
                    side.claim(at, mac, now, out)
                }
            }
            Message::Here { .. } => 0,
        };
        self.answers = answers;
        len
    }

    /// Writes what tells everybody where we are in this family, and returns its length; 0 when the link
    /// does not have it. For when a link comes up.
    pub fn announce(&self, is_v4: bool, out: &mut [u8; MESSAGE_LEN_MAX]) -> usize {
        let side = if is_v4 { &self.v4 } else { &self.v6 };
        side.as_ref().map_or(0, |side| {
            neighbour::write_announcement(out, (side.end.near, self.mac))
        })
    }

    /// Where the neighbour is thought to be.
    #[must_use]
    pub fn known(&self, is_v4: bool) -> Option<Mac> {
        let side = if is_v4 { &self.v4 } else { &self.v6 };
        side.as_ref()?.known.map(|(at, _)| at)
    }

    fn side(&mut self, is_v4: bool) -> Option<&mut Side> {
        let side = if is_v4 { &mut self.v4 } else { &mut self.v6 };
        side.as_mut()
    }
}

impl Side {
    fn new(end: End) -> Self {
        Self {
            end,
            known: None,
            is_disputed: false,
            is_unreachable: false,
            asked_at: None,
            asked: 0,
            defended: Bucket::default(),
        }
    }

    fn next(&mut self, mac: Mac, now: Instant, out: &mut [u8; MESSAGE_LEN_MAX]) -> (Next, usize) {
        if let Some((at, until)) = self.known
            && now < until
        {
            return (Next::To(at), 0);
        }
        // Nobody wanted to know for a while: what was learned from silence does not count any more.
        if self.asked_at.is_some_and(|asked| now >= asked + SILENT_FOR) {
            (self.asked, self.is_unreachable) = (0, false);
        }
        let len = self.ask_if_due(mac, now, out);
        let next = match self.known {
            Some((at, _)) => Next::To(at),
            None if self.is_unreachable => Next::Unreachable,
            None => Next::Wait,
        };
        (next, len)
    }

    fn ask_if_due(&mut self, mac: Mac, now: Instant, out: &mut [u8; MESSAGE_LEN_MAX]) -> usize {
        if self.asked_at.is_some_and(|asked| now < asked + ASKED_EVERY) {
            return 0;
        }
        if self.asked >= ASKED_MAX {
            // Not where it was: everybody is asked. Nobody answered that either: it is not there.
            self.is_unreachable = self.known.is_none();
            self.known = None;
            self.asked = if self.is_unreachable { ASKED_MAX } else { 0 };
        }
        self.asked = self.asked.saturating_add(1);
        self.asked_at = Some(now);
        let at = self.known.map(|(at, _)| at).filter(|_| !self.is_disputed);
        neighbour::write_question(out, (self.end.near, mac), self.end.far, at)
    }

    /// Whether an answer now would be one to a question of ours.
    fn is_asked(&self, now: Instant) -> bool {
        let is_recent = |asked| now < asked + ANSWERED_WITHIN;
        self.asked > 0 && self.asked_at.is_some_and(is_recent)
    }

    fn learn(&mut self, at: Mac, now: Instant) {
        self.known = Some((at, now + GOOD_FOR));
        self.is_disputed = false;
        self.is_unreachable = false;
        self.asked = 0;
    }

    /// Somebody says unasked that the neighbour is at `at`: the length of a question about it.
    fn claim(&mut self, at: Mac, mac: Mac, now: Instant, out: &mut [u8; MESSAGE_LEN_MAX]) -> usize {
        match &mut self.known {
            Some((known, _)) if *known == at => 0,
            Some((_, until)) => {
                *until = (*until).min(now);
                if !self.is_disputed {
                    self.is_disputed = true;
                    self.asked = 0;
                }
                self.ask_if_due(mac, now, out)
            }
            None => {
                self.known = Some((at, now));
                (self.is_unreachable, self.asked) = (false, 0);
                0
            }
        }
    }

    /// Somebody says that our address is theirs.
    fn defend(&mut self, mac: Mac, now: Instant, out: &mut [u8; MESSAGE_LEN_MAX]) -> usize {
        if !self.defended.take(DEFENDED, now) {
            return 0;
        }
        neighbour::write_announcement(out, (self.end.near, mac))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::neighbour::{HEADER_LEN, parse_arp, parse_ndp};

    const US: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const THEM: Mac = Mac([2, 0, 0, 0, 0, 2]);
    const OTHER: Mac = Mac([2, 0, 0, 0, 0, 3]);

    #[expect(clippy::disallowed_methods, reason = "the root of a test's time")]
    fn start() -> Instant {
        Instant::now()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn ends() -> [End; 2] {
        [("10.8.0.0", "10.8.0.1"), ("fd00:8::", "fd00:8::1")].map(|(near, far)| End {
            near: ip(near),
            far: ip(far),
        })
    }

    fn us() -> Neighbours {
        Neighbours::new(US, &ends())
    }

    fn heard(frame: &[u8]) -> Message {
        let payload = &frame[HEADER_LEN..];
        let from = Mac(frame[6..12].try_into().unwrap());
        let read = if frame[12..14] == [8, 6] {
            parse_arp(payload)
        } else {
            parse_ndp(payload, from)
        };
        read.unwrap()
    }

    fn here(at: Mac, is_answer: bool) -> Message {
        Message::Here {
            target: ip("10.8.0.1"),
            at,
            is_answer,
        }
    }

    fn who(sender: Option<&str>, at: Mac, target: &str) -> Message {
        Message::Who {
            sender: sender.map(ip),
            at,
            target: ip(target),
        }
    }

    fn to(frame: &[u8]) -> Mac {
        Mac(frame[..6].try_into().unwrap())
    }

    #[test]
    fn two_links_find_each_other_in_both_families() {
        for is_v4 in [true, false] {
            let now = start();
            let theirs = ends().map(|end| End {
                near: end.far,
                far: end.near,
            });
            let (mut us, mut them) = (us(), Neighbours::new(THEM, &theirs));
            let (mut question, mut answer) = ([0; MESSAGE_LEN_MAX], [0; MESSAGE_LEN_MAX]);
            let (next, len) = us.next(is_v4, now, &mut question);
            assert_eq!(next, Next::Wait);
            let len = them.hear(heard(&question[..len]), now, &mut answer);
            assert_ne!(len, 0);
            // Who was asked knows where to answer, and makes sure.
            let (next, asked) = them.next(is_v4, now, &mut question);
            assert_eq!((next, to(&question)), (Next::To(US), US));
            assert_ne!(asked, 0);
            assert_eq!(us.hear(heard(&answer[..len]), now, &mut question), 0);
            assert_eq!(us.next(is_v4, now, &mut question), (Next::To(THEM), 0));
        }
    }

    #[test]
    fn a_question_goes_out_once_a_second_and_after_three_the_neighbour_is_unreachable() {
        let (mut us, mut out, begin) = (us(), [0; MESSAGE_LEN_MAX], start());
        let (mut asked, mut unreachable_at) = (0, None);
        for ms in (0..10_000).step_by(50) {
            let now = begin + Duration::from_millis(ms);
            let (next, len) = us.next(true, now, &mut out);
            asked += usize::from(len > 0);
            if next == Next::Unreachable {
                unreachable_at.get_or_insert(ms);
            } else {
                assert_eq!((next, unreachable_at), (Next::Wait, None));
            }
        }
        assert_eq!((asked, unreachable_at), (10, Some(3000)));
        // It is back, and says so by asking for us.
        let now = begin + Duration::from_secs(10);
        assert_ne!(
            us.hear(who(Some("10.8.0.1"), THEM, "10.8.0.0"), now, &mut out),
            0
        );
        assert_eq!(us.next(true, now, &mut out).0, Next::To(THEM));
    }

    #[test]
    fn a_packet_after_a_long_silence_waits_for_an_answer_again() {
        let (mut us, mut out, mut now) = (us(), [0; MESSAGE_LEN_MAX], start());
        for _ in 0..5 {
            us.next(true, now, &mut out);
            now += ASKED_EVERY;
        }
        assert_eq!(us.next(true, now, &mut out).0, Next::Unreachable);
        now += SILENT_FOR;
        assert_eq!(us.next(true, now, &mut out).0, Next::Wait);
        assert_eq!(us.ask_again_at(true), Some(now + ASKED_EVERY));
    }

    #[test]
    fn one_that_does_not_answer_any_more_is_forgotten_and_one_elsewhere_found() {
        let (mut us, mut out, mut now) = (us(), [0; MESSAGE_LEN_MAX], start());
        us.next(true, now, &mut out);
        us.hear(here(THEM, true), now, &mut out);
        now += GOOD_FOR;
        let mut nexts = Vec::new();
        for _ in 0..4 {
            let (next, len) = us.next(true, now, &mut out);
            assert_ne!(len, 0);
            nexts.push((next, to(&out)));
            now += ASKED_EVERY;
        }
        // Asked where it was, three times, then everybody.
        let there = (Next::To(THEM), THEM);
        assert_eq!(nexts, [there, there, there, (Next::Wait, Mac::BROADCAST)]);
        us.hear(here(OTHER, true), now, &mut out);
        assert_eq!(us.next(true, now, &mut out), (Next::To(OTHER), 0));
    }

    #[test]
    fn what_nobody_asked_for_changes_no_way_but_has_all_asked() {
        let claims = [
            here(OTHER, false),
            // An answer to no question.
            here(OTHER, true),
            who(Some("10.8.0.1"), OTHER, "10.8.0.1"),
            who(Some("10.8.0.1"), OTHER, "10.8.0.9"),
        ];
        for claim in claims {
            let (mut us, mut out, mut now) = (us(), [0; MESSAGE_LEN_MAX], start());
            us.next(true, now, &mut out);
            us.hear(here(THEM, true), now, &mut out);
            now += Duration::from_secs(10);
            let len = us.hear(claim, now, &mut out);
            assert_ne!(len, 0, "{claim:?}");
            assert_eq!(to(&out), Mac::BROADCAST);
            assert_eq!(
                us.next(true, now, &mut out),
                (Next::To(THEM), 0),
                "{claim:?}"
            );
            // The true one answers, and what the liar says then is new gossip.
            us.hear(here(THEM, true), now, &mut out);
            us.hear(here(OTHER, true), now, &mut out);
            assert_eq!(us.next(true, now, &mut out).0, Next::To(THEM), "{claim:?}");
        }
    }

    #[test]
    fn a_flood_of_claims_has_all_asked_once_a_second() {
        let (mut us, mut out, begin) = (us(), [0; MESSAGE_LEN_MAX], start());
        us.next(true, begin, &mut out);
        us.hear(here(THEM, true), begin, &mut out);
        let mut asked = 0;
        for ms in (1000..3000).step_by(10) {
            let now = begin + Duration::from_millis(ms);
            asked += usize::from(us.hear(here(OTHER, false), now, &mut out) > 0);
        }
        assert_eq!(asked, 2);
    }

    #[test]
    fn a_neighbour_that_moved_says_so_and_is_followed_when_it_answers() {
        let (mut us, mut out, mut now) = (us(), [0; MESSAGE_LEN_MAX], start());
        us.next(true, now, &mut out);
        us.hear(here(THEM, true), now, &mut out);
        now += Duration::from_secs(2);
        us.hear(who(Some("10.8.0.1"), OTHER, "10.8.0.1"), now, &mut out);
        us.hear(here(OTHER, true), now, &mut out);
        assert_eq!(us.next(true, now, &mut out), (Next::To(OTHER), 0));
    }

    #[test]
    fn whoever_asks_for_us_is_answered_but_not_learned_from() {
        // From an address behind the router, from a link-local one, from none.
        for (sender, target) in [
            (Some("10.7.0.1"), "10.8.0.0"),
            (None, "10.8.0.0"),
            (Some("fe80::7"), "fd00:8::"),
            (None, "fd00:8::"),
        ] {
            let (mut us, mut out, now) = (us(), [0; MESSAGE_LEN_MAX], start());
            let len = us.hear(who(sender, THEM, target), now, &mut out);
            assert_ne!(len, 0, "{sender:?}");
            let said = heard(&out[..len]);
            assert!(matches!(said, Message::Here { target: of, at: US, .. } if of == ip(target)));
            assert_eq!(us.next(target.contains('.'), now, &mut out).0, Next::Wait);
        }
    }

    #[test]
    fn nobody_elses_address_is_answered_for_or_learned() {
        let (mut us, mut out, now) = (us(), [0; MESSAGE_LEN_MAX], start());
        let elsewhere = |target, at| Message::Here {
            target: ip(target),
            at,
            is_answer: true,
        };
        for message in [
            who(Some("10.8.0.7"), OTHER, "10.8.0.9"),
            who(Some("fd00:8::7"), OTHER, "fd00:8::9"),
            who(None, OTHER, "10.8.0.1"),
            elsewhere("10.8.0.7", OTHER),
            // What comes back to us by a loop.
            elsewhere("10.8.0.1", US),
            who(Some("10.8.0.1"), US, "10.8.0.0"),
        ] {
            assert_eq!(us.hear(message, now, &mut out), 0, "{message:?}");
        }
        for is_v4 in [true, false] {
            assert_eq!(us.next(is_v4, now, &mut out).0, Next::Wait);
        }
    }

    #[test]
    fn our_address_is_defended_but_not_in_a_quarrel_without_end() {
        let (mut us, mut out, begin) = (us(), [0; MESSAGE_LEN_MAX], start());
        let mut defended = 0;
        for secs in 0..20 {
            let now = begin + Duration::from_secs(secs);
            let claim = who(Some("10.8.0.0"), OTHER, "10.8.0.0");
            let len = us.hear(claim, now, &mut out);
            defended += usize::from(len > 0);
            assert!(len == 0 || to(&out) == Mac::BROADCAST);
        }
        assert_eq!(defended, 2);
    }

    #[test]
    fn a_flood_of_questions_gets_few_answers() {
        let (mut us, mut out, now) = (us(), [0; MESSAGE_LEN_MAX], start());
        let question = who(Some("10.8.0.77"), OTHER, "10.8.0.0");
        let answers = (0..1000)
            .filter(|_| us.hear(question, now, &mut out) > 0)
            .count();
        assert_eq!(answers, 20);
    }

    #[test]
    fn a_family_without_an_address_has_no_way() {
        let mut us = Neighbours::new(US, &ends()[..1]);
        let (mut out, now) = ([0; MESSAGE_LEN_MAX], start());
        assert_eq!(us.next(false, now, &mut out), (Next::NoFamily, 0));
        let message = Message::Here {
            target: ip("fd00:8::1"),
            at: THEM,
            is_answer: true,
        };
        assert_eq!(us.hear(message, now, &mut out), 0);
        assert_eq!(us.announce(false, &mut out), 0);
        assert_ne!(us.announce(true, &mut out), 0);
    }
}
