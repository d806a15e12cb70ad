//! An IKE SA: its windows of one message each way, retransmission, and who handles what.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::id::TunnelId;
use crate::wire::ikev2::payload::{self, Chain};
use crate::wire::ikev2::proposal::Protocol;
use crate::wire::ikev2::{Exchange, Header, Malformed};

use super::context::{Context, PORT_SHARED};
use super::dh::Group;
use super::event::{Event, Failure, Path};
use super::keys::{Keys, Nonces};
use super::notify::Parts;
use super::sealed::{self, Assembly, MESSAGE_LEN_MAX, STRANGERS_LEN_MAX};
use super::stage::{Child, Stage, Task, What};
use super::suite::IkeSuite;
use super::{auth, child, inform, notify, rekey, transfer};

/// First wait for an answer; each further one is twice as long.
const RETRY_FIRST: Duration = Duration::from_secs(1);
/// Times that a request is sent: the last answer is waited for until 63 s after the first sending.
const TRIES_MAX: u32 = 6;
/// How long a responder waits for a peer to say who it is, and an old SA for its deletion.
pub(super) const HALF_OPEN: Duration = Duration::from_secs(30);
/// How often a NAT hears from us (RFC 3948 section 4).
const KEEPALIVE: Duration = Duration::from_secs(20);
/// Child SAs of an IKE SA, as the original product has it.
pub(super) const CHILDREN_MAX: usize = 100;
/// Things that wait for their turn: every child can be rekeyed and deleted once.
const TASKS_MAX: usize = 2 * CHILDREN_MAX + 4;

/// A request without an answer.
#[derive(Debug)]
struct Outstanding {
    id: u32,
    what: What,
    datagrams: Vec<Vec<u8>>,
    tries: u32,
    retry_at: Instant,
}

/// An IKE SA.
#[derive(Debug)]
pub(super) struct Sa {
    pub(super) tunnel: Option<TunnelId>,
    pub(super) is_initiator: bool,
    pub(super) ours: u64,
    pub(super) theirs: u64,
    pub(super) path: Path,
    pub(super) is_in_udp: bool,
    pub(super) is_peer_behind_nat: bool,
    pub(super) are_we_behind_nat: bool,
    pub(super) can_fragment: bool,
    pub(super) stage: Stage,
    pub(super) suite: Option<IkeSuite>,
    pub(super) keys: Option<Keys>,
    pub(super) children: Vec<Child>,
    pub(super) heard_at: Instant,
    pub(super) rekey_at: Instant,
    /// The group that the peer wants in rekeys of children.
    pub(super) child_group: Option<Group>,
    /// The IKE SA that the peer made while we were making one.
    pub(super) rival: Option<rekey::Rival>,
    /// When the NAT heard from us last for its own sake.
    kept_alive_at: Instant,
    pub(super) iv_next: u64,
    request_next: u32,
    pub(super) expected: u32,
    outstanding: Option<Outstanding>,
    answered: Vec<Vec<u8>>,
    requests: Assembly,
    responses: Assembly,
    tasks: VecDeque<Task>,
    /// Pairs that have no child, and when it is asked for again.
    missing: Vec<(usize, Instant)>,
}

impl Sa {
    pub(super) fn new(context: &mut Context, is_initiator: bool, path: Path, now: Instant) -> Self {
        Self {
            tunnel: None,
            is_initiator,
            ours: context.new_spi(),
            theirs: 0,
            path,
            is_in_udp: false,
            is_peer_behind_nat: false,
            are_we_behind_nat: false,
            can_fragment: false,
            stage: Stage::Dead,
            suite: None,
            keys: None,
            children: Vec::new(),
            heard_at: now,
            rekey_at: now,
            child_group: None,
            rival: None,
            kept_alive_at: now,
            iv_next: 0,
            request_next: 0,
            expected: 0,
            outstanding: None,
            answered: Vec::new(),
            requests: Assembly::default(),
            responses: Assembly::default(),
            tasks: VecDeque::new(),
            missing: Vec::new(),
        }
    }

    /// The SPIs of the initiator and of the responder.
    pub(super) fn spis(&self) -> (u64, u64) {
        if self.is_initiator {
            (self.ours, self.theirs)
        } else {
            (self.theirs, self.ours)
        }
    }

    pub(super) fn is_dead(&self) -> bool {
        matches!(self.stage, Stage::Dead)
    }

    pub(super) fn is_half_open(&self) -> bool {
        matches!(self.stage, Stage::Answered(..))
    }

    pub(super) fn header(&self, exchange: Exchange, is_response: bool, id: u32) -> Header {
        let (initiator_spi, responder_spi) = self.spis();
        Header {
            initiator_spi,
            responder_spi,
            exchange,
            is_initiator: self.is_initiator,
            is_response,
            message_id: id,
        }
    }

    /// Whether a request of ours has no answer yet.
    pub(super) fn asks(&self) -> Option<&What> {
        self.outstanding
            .as_ref()
            .map(|outstanding| &outstanding.what)
    }

    pub(super) fn asks_mut(&mut self) -> Option<&mut What> {
        self.outstanding
            .as_mut()
            .map(|outstanding| &mut outstanding.what)
    }

    /// Sends a request in clear, which is the first one; again when the peer wants it otherwise.
    pub(super) fn ask_in_clear(&mut self, context: &mut Context, message: Vec<u8>, now: Instant) {
        self.send(context, vec![message], What::Init, 0, now);
        self.request_next = 1;
    }

    /// Sends a request. The caller has seen that no other is under way.
    pub(super) fn ask(
        &mut self,
        context: &mut Context,
        exchange: Exchange,
        chain: &Chain,
        what: What,
        now: Instant,
    ) {
        let id = self.request_next;
        self.request_next += 1;
        let header = self.header(exchange, false, id);
        let datagrams = self.seal(header, chain);
        self.send(context, datagrams, what, id, now);
    }

    fn send(
        &mut self,
        context: &mut Context,
        datagrams: Vec<Vec<u8>>,
        what: What,
        id: u32,
        now: Instant,
    ) {
        context.transmit(self.path, &datagrams);
        self.outstanding = Some(Outstanding {
            id,
            what,
            datagrams,
            tries: 1,
            retry_at: now + RETRY_FIRST,
        });
    }

    fn seal(&mut self, header: Header, chain: &Chain) -> Vec<Vec<u8>> {
        let keys = self
            .keys
            .as_ref()
            .expect("sealed messages come after the keys");
        let cipher = if self.is_initiator {
            &keys.initiator
        } else {
            &keys.responder
        };
        sealed::seal(cipher, header, chain, self.can_fragment, &mut self.iv_next)
    }

    /// Answers the request that is being handled.
    pub(super) fn answer(&mut self, context: &mut Context, exchange: Exchange, chain: &Chain) {
        let header = self.header(exchange, true, self.expected.wrapping_sub(1));
        self.answered = self.seal(header, chain);
        context.transmit(self.path, &self.answered);
    }

    /// Notes the answer to the first request, which is in clear.
    pub(super) fn answer_in_clear(&mut self, context: &mut Context, message: Vec<u8>) {
        self.answered = vec![message];
        self.expected = 1;
        context.transmit(self.path, &self.answered);
    }

    pub(super) fn answer_again(&self, context: &mut Context) {
        context.transmit(self.path, &self.answered);
    }

    /// Queues a task, once.
    pub(super) fn want(&mut self, task: Task) {
        if !self.tasks.contains(&task) && self.tasks.len() < TASKS_MAX {
            self.tasks.push_back(task);
        }
    }

    /// Notes that a pair has no child: it is asked for again at that time.
    pub(super) fn miss(&mut self, pair: usize, at: Instant) {
        if !self.missing.iter().any(|(other, _)| *other == pair) {
            self.missing.push((pair, at));
        }
    }

    /// Takes a message that was found to be for this SA, of an exchange after the first.
    pub(super) fn handle(
        &mut self,
        context: &mut Context,
        path: Path,
        message: &[u8],
        now: Instant,
    ) {
        let Ok((header, ..)) = Header::parse(message) else {
            return;
        };
        let Some(keys) = &self.keys else { return };
        let cipher = if self.is_initiator {
            &keys.responder
        } else {
            &keys.initiator
        };
        if header.is_initiator == self.is_initiator {
            return;
        }
        let Some(opened) = sealed::open(cipher, message) else {
            context.count_forged();
            return;
        };
        let id = header.message_id;
        self.heard_at = now;
        self.follow(context, path);
        if header.is_response {
            if self
                .outstanding
                .as_ref()
                .is_none_or(|outstanding| outstanding.id != id)
            {
                return;
            }
            if let Ok(Some((first, plain))) = self.responses.add(id, opened, MESSAGE_LEN_MAX) {
                self.handle_response(context, header.exchange, (first, &plain), now);
            }
        } else if id.wrapping_add(1) == self.expected {
            // A fragmented request is answered again once, not once per fragment (RFC 7383 2.6.1).
            if opened.fragment.is_none_or(|(at, _)| at == 1) {
                self.answer_again(context);
            }
        } else if id == self.expected
            && let Ok(Some((first, plain))) = self.requests.add(id, opened, self.request_len_max())
        {
            self.expected += 1;
            self.handle_request(context, header.exchange, (first, &plain), now);
        }
    }

    /// The peer is where its last authentic message came from, when a NAT may have moved it.
    fn follow(&mut self, context: &mut Context, path: Path) {
        if self.is_half_open() {
            // The initiator moves to the shared port (RFC 7296 section 2.23).
            self.path = path;
        }
        if path == self.path || !self.is_peer_behind_nat || !matches!(self.stage, Stage::Up) {
            return;
        }
        self.path = path;
        if let Some(tunnel) = self.tunnel {
            context.event(Event::Moved { tunnel, path });
        }
    }

    fn handle_request(
        &mut self,
        context: &mut Context,
        exchange: Exchange,
        (first, plain): (u8, &[u8]),
        now: Instant,
    ) {
        let payloads = match payload::parse(first, plain) {
            Ok(payloads) => payloads,
            Err(error) => return self.refuse_malformed(context, exchange, error),
        };
        match (&self.stage, exchange) {
            (Stage::Answered(..), Exchange::IKE_AUTH) => {
                if !transfer::leave(self, context, (first, plain)) {
                    auth::request(self, context, &payloads, now);
                }
            }
            (Stage::Up | Stage::Replaced(_), Exchange::CREATE_CHILD_SA) => {
                let is_ike = Parts::of(&payloads)
                    .and_then(|parts| parts.sa?.first())
                    .is_some_and(|proposal| proposal.protocol == Protocol::IKE);
                if is_ike {
                    rekey::request(self, context, &payloads, now);
                } else {
                    child::request(self, context, &payloads, now);
                }
            }
            (Stage::Up | Stage::Replaced(_), Exchange::INFORMATIONAL) => {
                inform::request(self, context, &payloads, now);
            }
            _ => self.refuse(context, exchange, notify::INVALID_SYNTAX, &[]),
        }
    }

    fn refuse_malformed(&mut self, context: &mut Context, exchange: Exchange, error: Malformed) {
        match error {
            Malformed::UnknownCritical(kind) => {
                self.refuse(
                    context,
                    exchange,
                    notify::UNSUPPORTED_CRITICAL_PAYLOAD,
                    &[kind],
                );
            }
            Malformed::Length | Malformed::Version | Malformed::Value | Malformed::TooMany => {
                self.refuse(context, exchange, notify::INVALID_SYNTAX, &[]);
                if self.is_half_open() {
                    self.die(context, Failure::Protocol("it sent a malformed IKE_AUTH"));
                }
            }
        }
    }

    /// Answers with an error and nothing else.
    pub(super) fn refuse(
        &mut self,
        context: &mut Context,
        exchange: Exchange,
        kind: u16,
        data: &[u8],
    ) {
        let mut chain = Chain::new();
        chain.notify(kind, data);
        self.answer(context, exchange, &chain);
    }

    fn handle_response(
        &mut self,
        context: &mut Context,
        exchange: Exchange,
        (first, plain): (u8, &[u8]),
        now: Instant,
    ) {
        let expected = match self.asks() {
            Some(What::Init) | None => return,
            Some(What::Auth) => Exchange::IKE_AUTH,
            Some(What::RekeyChild(_) | What::RekeyIke(_)) => Exchange::CREATE_CHILD_SA,
            Some(What::DeleteChild(_) | What::DeleteIke | What::Dpd) => Exchange::INFORMATIONAL,
        };
        if exchange != expected {
            return;
        }
        let what = self.outstanding.take().expect("looked at above").what;
        let Ok(payloads) = payload::parse(first, plain) else {
            return self.die(context, Failure::Protocol("it sent a malformed answer"));
        };
        match what {
            What::Auth => auth::response(self, context, &payloads, now),
            What::RekeyChild(asked) => child::response(self, context, *asked, &payloads, now),
            What::RekeyIke(asked) => rekey::response(self, context, *asked, &payloads, now),
            What::DeleteChild(spi_in) => {
                child::remove(self, context, spi_in, now);
                inform::begin_anew_if_empty(self, context);
            }
            What::DeleteIke => inform::deleted(self, context),
            What::Init | What::Dpd => {}
        }
        self.advance(context, now);
    }

    /// How long a request may be that comes in pieces.
    fn request_len_max(&self) -> usize {
        match self.stage {
            Stage::Answered(..) => STRANGERS_LEN_MAX,
            Stage::Init(_) | Stage::Auth(..) | Stage::Up | Stage::Replaced(_) | Stage::Dead => {
                MESSAGE_LEN_MAX
            }
        }
    }

    /// The answer to the first request came.
    pub(super) fn settle(&mut self) {
        self.outstanding = None;
    }

    /// Begins the next task, if nothing is under way.
    pub(super) fn advance(&mut self, context: &mut Context, now: Instant) {
        while self.outstanding.is_none() && matches!(self.stage, Stage::Up | Stage::Replaced(_)) {
            let Some(task) = self.tasks.pop_front() else {
                return;
            };
            let is_up = matches!(self.stage, Stage::Up);
            match task {
                Task::NewChild(pair) if is_up => child::ask_another(self, context, pair, now),
                Task::RekeyChild(spi_in) if is_up => child::ask(self, context, spi_in, now),
                Task::RekeyIke if is_up => rekey::ask(self, context, now),
                Task::DeleteChild(spi_in) if is_up => {
                    inform::delete_child(self, context, spi_in, now)
                }
                Task::DeleteIke => inform::delete_ike(self, context, now),
                Task::Dpd => self.ask(
                    context,
                    Exchange::INFORMATIONAL,
                    &Chain::new(),
                    What::Dpd,
                    now,
                ),
                Task::NewChild(_) | Task::RekeyChild(_) | Task::RekeyIke | Task::DeleteChild(_) => {
                }
            }
        }
    }

    /// Ends the SA and says so. Its children go with it.
    pub(super) fn die(&mut self, context: &mut Context, failure: Failure) {
        let stage = std::mem::replace(&mut self.stage, Stage::Dead);
        if let Some(What::RekeyChild(asked)) = self.outstanding.take().map(|asked| asked.what) {
            context.sad.remove(asked.spi_in());
        }
        for child in std::mem::take(&mut self.children) {
            context.child_down(self.tunnel, child.spi_in);
        }
        if let Stage::Auth(_, spi_in) = stage {
            context.sad.remove(spi_in);
        }
        match (stage, self.tunnel) {
            (Stage::Up, Some(tunnel)) => context.event(Event::Down { tunnel, failure }),
            (Stage::Replaced(_) | Stage::Dead, _) => return,
            (_, tunnel) => context.event(Event::Failed {
                tunnel,
                remote: self.path.remote,
                failure,
            }),
        }
        if let (true, Some(tunnel)) = (self.is_initiator, self.tunnel) {
            context.retry_later(tunnel);
        }
    }

    /// When there is something to do.
    pub(super) fn next_timeout(&self, context: &Context) -> Option<Instant> {
        let retry_at = self
            .outstanding
            .as_ref()
            .map(|outstanding| outstanding.retry_at);
        match &self.stage {
            Stage::Answered(_, until) => return Some(*until),
            Stage::Replaced(until) => return Some(retry_at.map_or(*until, |at| at.min(*until))),
            Stage::Init(_) | Stage::Auth(..) | Stage::Dead => return retry_at,
            Stage::Up => {}
        }
        if retry_at.is_some() {
            return retry_at;
        }
        let dpd_at = context
            .config(self.tunnel)
            .map(|config| self.heard_at + config.times.dpd);
        let rekey_at = self.children.iter().filter_map(Child::due_at).min();
        let missing_at = self.missing.iter().map(|(_, at)| *at).min();
        let keepalive_at = self.keepalive_at();
        [
            Some(self.rekey_at),
            dpd_at,
            rekey_at,
            missing_at,
            keepalive_at,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// When our NAT is to hear from us, so that it keeps our address for the peer.
    fn keepalive_at(&self) -> Option<Instant> {
        let is_shared = self.path.local.port() == PORT_SHARED;
        (self.are_we_behind_nat && is_shared).then_some(self.kept_alive_at + KEEPALIVE)
    }

    /// Does what is due.
    pub(super) fn handle_timeout(&mut self, context: &mut Context, now: Instant) {
        let until = match &self.stage {
            Stage::Answered(_, until) | Stage::Replaced(until) => Some(*until),
            Stage::Init(_) | Stage::Auth(..) | Stage::Up | Stage::Dead => None,
        };
        if until.is_some_and(|until| now >= until) {
            return self.die(context, Failure::Unreachable);
        }
        if let Some(outstanding) = &mut self.outstanding {
            if now < outstanding.retry_at {
                return;
            }
            if outstanding.tries >= TRIES_MAX {
                return self.die(context, Failure::Unreachable);
            }
            outstanding.retry_at = now + RETRY_FIRST * (1 << outstanding.tries);
            outstanding.tries += 1;
            context.transmit(self.path, &outstanding.datagrams);
            return;
        }
        if !matches!(self.stage, Stage::Up) {
            return;
        }
        if self.keepalive_at().is_some_and(|at| now >= at) {
            self.kept_alive_at = now;
            context.keep_alive(self.path);
        }
        if now >= self.rekey_at {
            self.want(Task::RekeyIke);
        }
        let missing = self.missing.extract_if(.., |(_, at)| now >= *at);
        let missing = missing.map(|(pair, _)| Task::NewChild(pair));
        let due: Vec<Task> = self
            .children
            .iter()
            .filter_map(|child| child.due(now))
            .chain(missing)
            .collect();
        for task in due {
            self.want(task);
        }
        let dpd = context.config(self.tunnel).map(|config| config.times.dpd);
        if self.tasks.is_empty() && dpd.is_some_and(|dpd| now >= self.heard_at + dpd) {
            self.want(Task::Dpd);
        }
        self.advance(context, now);
    }

    /// The tasks that a successor has to do.
    pub(super) fn take_tasks(&mut self) -> VecDeque<Task> {
        let mut tasks = std::mem::take(&mut self.tasks);
        let missing = std::mem::take(&mut self.missing).into_iter();
        tasks.extend(missing.map(|(pair, _)| Task::NewChild(pair)));
        tasks
    }

    /// Becomes the successor of an SA: its keys, in its place, with its first message numbers.
    pub(super) fn succeed(&mut self, old: &Self, suite: IkeSuite, nonces: &Nonces, shared: &[u8]) {
        let keys = old.keys.as_ref().expect("an SA that is up has keys");
        let seed = keys.rekey_seed(nonces, shared);
        self.keys = Some(Keys::derive(
            (suite.prf, suite.cipher),
            &seed,
            nonces,
            self.spis(),
        ));
        self.suite = Some(suite);
        self.tunnel = old.tunnel;
        self.is_in_udp = old.is_in_udp;
        self.is_peer_behind_nat = old.is_peer_behind_nat;
        self.are_we_behind_nat = old.are_we_behind_nat;
        self.can_fragment = old.can_fragment;
        self.stage = Stage::Up;
    }
}
