//! Where the neighbour of an Ethernet link is: one of each family, asked for when it is needed.
//!
//! Nothing here waits for a timer. A question goes out with a packet that needs its answer, at most one a second:
//! who has nothing to send wants to know nothing. States of a side: unknown; known, and good for
//! [`GOOD_FOR`]; known, and asked again while it is used, until [`ASKED_MAX`] questions went unanswered.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::wire::neighbour::{self, MESSAGE_LEN_MAX, Mac, Message};

/// How long an answer is good without another (REACHABLE_TIME of RFC 4861 section 10).
const GOOD_FOR: Duration = Duration::from_secs(30);
/// Between questions (RETRANS_TIMER of RFC 4861 section 10; RFC 1122 section 2.3.2.1 for ARP).
const ASKED_EVERY: Duration = Duration::from_secs(1);
/// Questions in a row without an answer after which the neighbour is not where it was (MAX_UNICAST_SOLICIT of
/// RFC 4861 section 10).
const ASKED_MAX: u8 = 3;

/// What is known of the neighbour of a link. Cardinality: one for each Ethernet link, owned by its driver. It never
/// grows: there is one neighbour of each family, whatever a stranger says.
#[derive(Debug)]
pub struct Neighbours {
    mac: Mac,
    v4: Option<Side>,
    v6: Option<Side>,
}

#[derive(Debug)]
struct Side {
    ours: IpAddr,
    theirs: IpAddr,
    known: Option<(Mac, Instant)>,
    asked_at: Option<Instant>,
    /// Questions since the last answer.
    asked: u8,
}

/// What to do with a packet for the neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It goes there.
    To(Mac),
    /// It waits for an answer.
    Wait,
    /// The link does not have its family.
    NoWay,
}

impl Neighbours {
    /// A link on which we have the Ethernet address `mac`, and these addresses: ours and the neighbour's.
    #[must_use]
    pub fn new(mac: Mac, ends: &[(IpAddr, IpAddr)]) -> Self {
        let side = |is_v4: bool| {
            let end = ends.iter().find(|(ours, _)| ours.is_ipv4() == is_v4);
            end.map(|(ours, theirs)| Side {
                ours: *ours,
                theirs: *theirs,
                known: None,
                asked_at: None,
                asked: 0,
            })
        };
        Self {
            mac,
            v4: side(true),
            v6: side(false),
        }
    }

    /// Our Ethernet address.
    #[must_use]
    pub fn mac(&self) -> Mac {
        self.mac
    }

    /// Where a packet of this family goes, and the length of the question to send, which stands in `out` then; 0 for
    /// none.
    pub fn next(
        &mut self,
        is_v4: bool,
        now: Instant,
        out: &mut [u8; MESSAGE_LEN_MAX],
    ) -> (Next, usize) {
        let mac = self.mac;
        let side = if is_v4 { &mut self.v4 } else { &mut self.v6 };
        let Some(side) = side else {
            return (Next::NoWay, 0);
        };
        if let Some((at, since)) = side.known
            && now < since + GOOD_FOR
        {
            return (Next::To(at), 0);
        }
        let is_due = side.asked_at.is_none_or(|asked| now >= asked + ASKED_EVERY);
        if is_due && side.asked >= ASKED_MAX {
            side.known = None;
        }
        let at = side.known.map(|(at, _)| at);
        let mut len = 0;
        if is_due {
            side.asked = side.asked.saturating_add(1);
            side.asked_at = Some(now);
            len = neighbour::write_question(out, (side.ours, mac), side.theirs, at);
        }
        (at.map_or(Next::Wait, Next::To), len)
    }

    /// Takes a message, and returns the length of the answer to send, which stands in `out` then; 0 for none. Only
    /// what is about the two ends of the link counts.
    pub fn hear(
        &mut self,
        message: Message,
        now: Instant,
        out: &mut [u8; MESSAGE_LEN_MAX],
    ) -> usize {
        let mac = self.mac;
        let (Message::Who { target, .. } | Message::Here { target, .. }) = message;
        let side = if target.is_ipv4() {
            &mut self.v4
        } else {
            &mut self.v6
        };
        let Some(side) = side else {
            return 0;
        };
        match message {
            // RFC 826: who asks us says where it is. Somebody else's question is not ours to learn from, nor is a
            // question whether our address is free to be answered to nobody.
            Message::Who {
                sender: Some((sender, at)),
                target,
            } if target == side.ours && sender == side.theirs && at != mac => {
                side.learn(at, now);
                neighbour::write_answer(out, (side.ours, mac), (sender, at))
            }
            Message::Who { .. } => 0,
            Message::Here { target, mac: at } => {
                if target == side.theirs && at != mac {
                    side.learn(at, now);
                }
                0
            }
        }
    }
}

impl Side {
    fn learn(&mut self, at: Mac, now: Instant) {
        self.known = Some((at, now));
        self.asked = 0;
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

    fn both() -> Vec<(IpAddr, IpAddr)> {
        vec![
            (ip("10.8.0.0"), ip("10.8.0.1")),
            (ip("fd00:8::"), ip("fd00:8::1")),
        ]
    }

    /// The other way round.
    fn theirs() -> Vec<(IpAddr, IpAddr)> {
        both()
            .into_iter()
            .map(|(ours, theirs)| (theirs, ours))
            .collect()
    }

    fn heard(frame: &[u8]) -> Message {
        let payload = &frame[HEADER_LEN..];
        let read = if frame[12..14] == [8, 6] {
            parse_arp(payload)
        } else {
            parse_ndp(payload)
        };
        read.unwrap()
    }

    #[test]
    fn two_links_find_each_other_in_both_families() {
        for is_v4 in [true, false] {
            let now = start();
            let (mut us, mut them) = (
                Neighbours::new(US, &both()),
                Neighbours::new(THEM, &theirs()),
            );
            let (mut question, mut answer) = ([0; MESSAGE_LEN_MAX], [0; MESSAGE_LEN_MAX]);
            let (next, len) = us.next(is_v4, now, &mut question);
            assert_eq!(next, Next::Wait);
            let len = them.hear(heard(&question[..len]), now, &mut answer);
            assert_ne!(len, 0);
            // Who was asked knows where to answer.
            assert_eq!(them.next(is_v4, now, &mut question), (Next::To(US), 0));
            assert_eq!(us.hear(heard(&answer[..len]), now, &mut question), 0);
            assert_eq!(us.next(is_v4, now, &mut question), (Next::To(THEM), 0));
        }
    }

    #[test]
    fn a_question_goes_out_once_a_second_however_many_packets_wait() {
        let mut us = Neighbours::new(US, &both());
        let mut out = [0; MESSAGE_LEN_MAX];
        let mut now = start();
        let mut asked = 0;
        for _ in 0..100 {
            let (next, len) = us.next(true, now, &mut out);
            assert_eq!(next, Next::Wait);
            asked += usize::from(len > 0);
            now += Duration::from_millis(50);
        }
        assert_eq!(asked, 5);
    }

    #[test]
    fn a_neighbour_that_does_not_answer_any_more_is_forgotten_and_one_that_moves_is_followed() {
        let mut us = Neighbours::new(US, &both());
        let mut out = [0; MESSAGE_LEN_MAX];
        let mut now = start();
        let here = |mac| Message::Here {
            target: ip("10.8.0.1"),
            mac,
        };
        us.hear(here(THEM), now, &mut out);
        now += GOOD_FOR;
        let mut nexts = Vec::new();
        for _ in 0..4 {
            let (next, len) = us.next(true, now, &mut out);
            assert_ne!(len, 0);
            nexts.push((next, Mac(out[..6].try_into().unwrap())));
            now += ASKED_EVERY;
        }
        // Asked where it was, three times, then everybody.
        let there = (Next::To(THEM), THEM);
        assert_eq!(nexts, [there, there, there, (Next::Wait, Mac::BROADCAST)]);
        us.hear(here(OTHER), now, &mut out);
        assert_eq!(us.next(true, now, &mut out), (Next::To(OTHER), 0));
    }

    #[test]
    fn nobody_elses_address_is_answered_for_or_learned() {
        let mut us = Neighbours::new(US, &both());
        let (mut out, now) = ([0; MESSAGE_LEN_MAX], start());
        let who = |sender: Option<&str>, target| Message::Who {
            sender: sender.map(|sender| (ip(sender), OTHER)),
            target: ip(target),
        };
        for message in [
            // For somebody else, by somebody else, by nobody, for the neighbour itself.
            who(Some("10.8.0.1"), "10.8.0.7"),
            who(Some("10.8.0.7"), "10.8.0.0"),
            who(None, "10.8.0.0"),
            who(Some("10.8.0.0"), "10.8.0.1"),
            who(Some("fd00:8::7"), "fd00:8::"),
            Message::Here {
                target: ip("10.8.0.7"),
                mac: OTHER,
            },
            Message::Here {
                target: ip("10.8.0.0"),
                mac: OTHER,
            },
            // What comes back to us by a loop.
            Message::Here {
                target: ip("10.8.0.1"),
                mac: US,
            },
        ] {
            assert_eq!(us.hear(message, now, &mut out), 0, "{message:?}");
        }
        for is_v4 in [true, false] {
            assert_eq!(us.next(is_v4, now, &mut out).0, Next::Wait);
        }
    }

    #[test]
    fn a_family_without_an_address_has_no_way() {
        let mut us = Neighbours::new(US, &both()[..1]);
        let (mut out, now) = ([0; MESSAGE_LEN_MAX], start());
        assert_eq!(us.next(false, now, &mut out), (Next::NoWay, 0));
        let message = Message::Here {
            target: ip("fd00:8::1"),
            mac: THEM,
        };
        assert_eq!(us.hear(message, now, &mut out), 0);
    }
}
