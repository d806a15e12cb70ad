//! From a question to an answer (RFC 1034, section 4.3.2, without recursion).

use std::net::IpAddr;
use std::sync::Arc;

use super::answer::{Edge, Owner, Question, Rcode, Reply, Rr, types};
use super::node::{self, Found, Node, find, zone_of};
use crate::model::rdata::push_name;
use crate::model::record::{Kind, Record, TTL_AUTO};
use crate::model::soa::{self, Soa};
use crate::model::zone::Zone;
use crate::store::Snapshot;

/// What "automatic" means: five minutes, so that a change is everywhere soon.
const TTL_DEFAULT: u32 = 300;

/// Longest chain of CNAMEs that is followed: what resolvers commonly do; longer is a loop.
const CHAIN_MAX: usize = 8;

/// What the zones of the snapshot answer.
pub fn answer(snapshot: &Snapshot, edge: Edge<'_>, question: &Question) -> Reply {
    let mut reply = Reply::default();
    let Some(zone) = zone_of(snapshot, &question.name) else {
        reply.rcode = Rcode::Refused;
        return reply;
    };
    let mut walk = Walk {
        snapshot,
        edge,
        kind: question.kind,
        account: zone.account_id,
        steps: CHAIN_MAX,
    };
    reply.is_authoritative = true;
    walk.run(zone, &question.name, &mut reply);
    reply
}

/// One question, on its way along CNAMEs. It stays in the zones of one account: what others have is
/// the client's to ask for.
struct Walk<'a> {
    snapshot: &'a Snapshot,
    edge: Edge<'a>,
    kind: u16,
    account: crate::model::HexId,
    steps: usize,
}

impl<'a> Walk<'a> {
    fn run(&mut self, zone: &Arc<Zone>, name: &str, reply: &mut Reply) {
        let (mut zone, mut name) = (Arc::clone(zone), name.to_owned());
        let mut owner = Owner::Asked;
        loop {
            let cut = node::delegation(self.snapshot, &zone, &name);
            // A DS record of a zone below is this zone's to answer (RFC 4035, section 3.1.4.1).
            let is_ours = |cut: &String| *cut == name && self.kind == Kind::Ds.code();
            if let Some(cut) = cut.filter(|cut| !is_ours(cut)) {
                self.refer(&zone, &cut, reply);
                return;
            }
            let node = match find(self.snapshot, &zone, &name) {
                Found::Node(node) => node,
                Found::Nothing => {
                    reply.rcode = Rcode::NxDomain;
                    self.nothing(&zone, reply);
                    return;
                }
            };
            let Some(target) = self.plain_cname(&zone, &node, &owner, reply) else {
                self.node(&zone, &name, &node, owner, reply);
                return;
            };
            self.steps -= 1;
            match self.own_zone(&target).filter(|_| self.steps > 0) {
                Some(next) => (zone, name) = (next, target.clone()),
                None => return,
            }
            owner = Owner::Name(target);
        }
    }

    /// Puts a CNAME that is answered as such into the reply, and returns where it leads.
    fn plain_cname(
        &self,
        zone: &Zone,
        node: &Node,
        owner: &Owner,
        reply: &mut Reply,
    ) -> Option<String> {
        let cname = node.cname()?;
        let is_asked_for = [Kind::Cname.code(), types::ANY].contains(&self.kind);
        let stands_in = node.is_proxied() && !zone.paused;
        if is_asked_for || stands_in || cname.is_flattened(&zone.name) {
            return None;
        }
        reply.answers.extend(rr(owner, cname));
        Some(cname.content.clone())
    }

    /// The end of the walk: a name that exists.
    fn node(&mut self, zone: &Arc<Zone>, name: &str, node: &Node, owner: Owner, reply: &mut Reply) {
        let before = reply.answers.len();
        if self.kind == types::ANY {
            // RFC 8482, section 4.2: there is something, and it can be asked for by type.
            let rdata = b"\x07RFC8482\x00".to_vec();
            let (kind, ttl) = (types::HINFO, soa::TTL);
            reply.answers.push(Rr {
                owner,
                kind,
                ttl,
                rdata,
            });
            return;
        }
        if name == zone.name {
            self.apex(zone, node, &owner, reply);
        }
        let is_apex_ns = name == zone.name && self.kind == Kind::Ns.code();
        match Kind::ALL.iter().find(|kind| kind.code() == self.kind) {
            Some(_) if is_apex_ns => {}
            Some(&kind) if kind.is_address() => self.addresses(zone, node, kind, &owner, reply),
            Some(&kind) => {
                let own = node.records.iter().filter(|r| r.kind == kind);
                let is_hidden = |r: &&Arc<Record>| {
                    r.kind == Kind::Cname
                        && ((r.proxied && !zone.paused) || r.is_flattened(&zone.name))
                };
                let shown = own.filter(|r| !is_hidden(r));
                reply
                    .answers
                    .extend(shown.filter_map(|record| rr(&owner, record)));
            }
            None => {}
        }
        level_ttl(&mut reply.answers[before..]);
        if reply.answers.len() == before {
            self.nothing(zone, reply);
        }
    }

    /// SOA and NS of the zone's own name.
    fn apex(&self, zone: &Zone, node: &Node, owner: &Owner, reply: &mut Reply) {
        if self.kind == types::SOA {
            reply
                .answers
                .extend(self.soa(zone, owner.clone(), soa::TTL));
        }
        if self.kind != Kind::Ns.code() {
            return;
        }
        let stored = node.records.iter().filter(|r| r.kind == Kind::Ns);
        let mut servers: Vec<&str> = self.edge.name_servers.iter().map(String::as_str).collect();
        servers.extend(stored.map(|record| record.content.as_str()));
        for server in distinct(servers) {
            reply.answers.push(Rr {
                owner: owner.clone(),
                kind: Kind::Ns.code(),
                ttl: soa::TTL,
                rdata: name_rdata(server),
            });
            self.glue(zone, server, reply);
        }
    }

    /// A or AAAA: the edge's addresses, those behind a flattened CNAME, or the records' own.
    fn addresses(
        &mut self,
        zone: &Arc<Zone>,
        node: &Node,
        kind: Kind,
        owner: &Owner,
        reply: &mut Reply,
    ) {
        if node.is_proxied() && !zone.paused {
            let found = self.edge_addresses(zone, node);
            let asked = found
                .into_iter()
                .filter(|ip| ip.is_ipv4() == (kind == Kind::A));
            reply.answers.extend(asked.map(|ip| Rr {
                owner: owner.clone(),
                kind: kind.code(),
                ttl: TTL_DEFAULT,
                rdata: ip_rdata(ip),
            }));
            return;
        }
        if let Some(cname) = node.cname() {
            let ttl = ttl_of(cname);
            for mut found in self.behind(&cname.content) {
                found.owner = owner.clone();
                found.ttl = found.ttl.min(ttl);
                reply.answers.push(found);
            }
            return;
        }
        // Only a paused zone comes here with a private name: what is behind it is nobody else's
        // business, paused or not.
        let is_private = node.records.iter().any(|record| record.is_private());
        let own = node
            .records
            .iter()
            .filter(|r| r.kind == kind && !is_private);
        reply
            .answers
            .extend(own.filter_map(|record| rr(owner, record)));
    }

    /// The addresses that a CNAME in our zones ends at.
    fn behind(&mut self, target: &str) -> Vec<Rr> {
        self.steps = self.steps.saturating_sub(1);
        let Some(zone) = self.own_zone(target).filter(|_| self.steps > 0) else {
            return Vec::new();
        };
        let mut inner = Reply::default();
        self.run(&zone, target, &mut inner);
        inner.answers.retain(|rr| rr.kind == self.kind);
        inner.answers
    }

    /// Those of the apps at the name, and all of the edge's if a record there is proxied; of the
    /// families that the zone and the records want.
    fn edge_addresses(&self, zone: &Zone, node: &Node) -> Vec<IpAddr> {
        let mut found: Vec<IpAddr> = Vec::new();
        for app in &node.apps {
            found.extend(app.edge_ips.of(self.edge.addresses));
        }
        let proxied = || node.records.iter().filter(|record| record.proxied);
        if proxied().next().is_some() {
            let no_v6 = !zone.settings.ipv6 || proxied().any(|record| record.settings.ipv4_only);
            let no_v4 = proxied().any(|record| record.settings.ipv6_only);
            let wanted = |ip: &&IpAddr| if ip.is_ipv4() { !no_v4 } else { !no_v6 };
            found.extend(self.edge.addresses.iter().filter(wanted));
        }
        distinct(found)
    }

    /// The answer of those who have the name: the servers of the zone below.
    fn refer(&self, zone: &Zone, cut: &str, reply: &mut Reply) {
        // Behind a CNAME of ours, what is known so far is the answer.
        reply.is_authoritative = !reply.answers.is_empty();
        let servers = self.snapshot.records_named(zone.id, cut);
        for server in servers.filter(|record| record.kind == Kind::Ns) {
            let owner = Owner::Name(cut.to_owned());
            reply.authorities.extend(rr(&owner, server));
            self.glue(zone, &server.content, reply);
        }
        level_ttl(&mut reply.authorities);
    }

    /// The addresses of a name server, if the zone has them.
    fn glue(&self, zone: &Zone, server: &str, reply: &mut Reply) {
        let records = self.snapshot.records_named(zone.id, server);
        let owner = Owner::Name(server.to_owned());
        let plain = records.filter(|record| record.kind.is_address() && !record.proxied);
        reply
            .additionals
            .extend(plain.filter_map(|record| rr(&owner, record)));
    }

    /// There is no such name or type (RFC 2308).
    fn nothing(&self, zone: &Zone, reply: &mut Reply) {
        let owner = Owner::Name(zone.name.clone());
        reply
            .authorities
            .extend(self.soa(zone, owner, soa::NEGATIVE_TTL));
    }

    fn soa(&self, zone: &Zone, owner: Owner, ttl: u32) -> Option<Rr> {
        let primary = self.edge.name_servers.first()?;
        Some(Rr {
            owner,
            kind: types::SOA,
            ttl,
            rdata: Soa { zone, primary }.wire(),
        })
    }

    /// The zone of a CNAME's target, if it is of the same account.
    fn own_zone(&self, target: &str) -> Option<Arc<Zone>> {
        let zone = zone_of(self.snapshot, target)?;
        (zone.account_id == self.account).then(|| Arc::clone(zone))
    }
}

fn rr(owner: &Owner, record: &Record) -> Option<Rr> {
    Some(Rr {
        owner: owner.clone(),
        kind: record.kind.code(),
        ttl: ttl_of(record),
        rdata: record.rdata()?.wire(),
    })
}

fn ttl_of(record: &Record) -> u32 {
    match record.ttl {
        TTL_AUTO => TTL_DEFAULT,
        ttl => ttl,
    }
}

/// Records of one name and type have one TTL (RFC 2181, section 5.2): the shortest.
fn level_ttl(records: &mut [Rr]) {
    let shortest = records.iter().map(|rr| rr.ttl).min().unwrap_or_default();
    records.iter_mut().for_each(|rr| rr.ttl = shortest);
}

/// The same without repetitions, in the same order.
fn distinct<T: PartialEq>(items: Vec<T>) -> Vec<T> {
    let mut kept = Vec::with_capacity(items.len());
    for item in items {
        if !kept.contains(&item) {
            kept.push(item);
        }
    }
    kept
}

fn name_rdata(name: &str) -> Vec<u8> {
    let mut rdata = Vec::new();
    push_name(&mut rdata, name);
    rdata
}

fn ip_rdata(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}
