//! What a packet asks besides: the group of a route, the return table, and a vnet's source address.

use std::hint::black_box;
use std::net::Ipv4Addr;

use criterion::{BenchmarkId, Criterion, Throughput};
use dataplane::fib::return_table::{Owner, Writer};
use dataplane::fib::{Candidate, Candidates, Nexthop, pin, routes};
use dataplane::id::{NodeId, TunnelId, VnetId, WorkerId, Workers};
use dataplane::source::{Leases, Slice, Sources};
use ipnet::{IpNet, Ipv4Net};

use super::subjects::{Address, Random};
use super::{BATCH, TURN};

/// Tunnels of the vnet that routes lead to.
const TUNNELS: u32 = 256;

/// The whole way from a destination to a tunnel: prefix, group, next hop.
pub(crate) fn routes<A: Address>(
    criterion: &mut Criterion,
    name: &str,
    prefixes: &[(A, u8)],
    keys: &[A],
) {
    let mut writer = routes::Writer::new();
    for ((address, len), n) in prefixes.iter().zip(0_u32..) {
        let prefix = IpNet::new((*address).into(), *len).expect("a length of its family");
        let tunnel = |id: u32| Nexthop::Tunnel(TunnelId(id % TUNNELS));
        // One in eight leads to two tunnels.
        let nexthops = if n % 8 == 0 {
            let members = [n / 8, n / 8 + 1].map(|id| Candidate::from(tunnel(id)));
            Candidates::new(members.to_vec()).expect("two different tunnels")
        } else {
            tunnel(n / 8).into()
        };
        writer
            .insert(prefix, &nexthops)
            .expect("room for a million routes");
    }
    let mut group = criterion.benchmark_group(format!("lpm/{name} to the tunnel"));
    group.throughput(Throughput::Elements(TURN as u64));
    let mut turns = keys.chunks_exact(TURN).cycle();
    let table = writer.table();
    group.bench_function(BenchmarkId::new("portcullis", "1M"), |b| {
        b.iter(|| {
            let turn = turns.next().expect("a cycle has no end");
            let mut sum = 0_u32;
            for batch in turn.chunks(BATCH) {
                let guard = pin();
                for (key, flow) in batch.iter().zip(0_u32..) {
                    let group = table
                        .lookup((*key).into(), &guard)
                        .expect("a key has a prefix");
                    if let Nexthop::Tunnel(id) = group.nexthop(|| flow << 26) {
                        sum = sum.wrapping_add(id.0);
                    }
                }
            }
            black_box(sum)
        });
    });
    group.finish();
}

/// The owner of an address of 100.64.0.0/12: 4096 workers of a /24 each, or each /24 shared.
pub(crate) fn returns(criterion: &mut Criterion) {
    let mut random = Random::new(3);
    let mut keys = Vec::new();
    for _ in 0..TURN {
        let offset = u32::try_from(random.below(1 << 20)).expect("20 bits");
        keys.push(Ipv4Addr::from_bits(0x6440_0000 + offset));
    }
    let mut group = criterion.benchmark_group("lpm/return table");
    group.throughput(Throughput::Elements(TURN as u64));
    for (case, len) in [("a 24 each", 24), ("vnets share a 24", 28)] {
        let mut writer = Writer::new();
        for n in 0..1_u32 << (len - 12) {
            let [_, node, low, _] = (n << 8).to_be_bytes();
            let owner = Owner {
                vnet: VnetId(u16::try_from(n).expect("16 bits")),
                node: NodeId(node ^ low),
                worker: WorkerId(low % 64),
            };
            let first = Ipv4Addr::from_bits(0x6440_0000 + (n << (32 - len)));
            let prefix = Ipv4Net::new(first, len).expect("a length of IPv4");
            writer.set(prefix, owner).expect("inside of the range");
        }
        let table = writer.table();
        for key in &keys {
            let offset = key.to_bits() - 0x6440_0000;
            let owner = table.lookup(*key).expect("every address has an owner");
            assert_eq!(u32::from(owner.vnet.0), offset >> (32 - len));
        }
        group.bench_function(BenchmarkId::new("portcullis", case), |b| {
            b.iter(|| {
                let vnets = keys
                    .iter()
                    .map(|key| table.lookup(*key).map_or(0, |o| o.vnet.0));
                black_box(vnets.fold(0_u16, u16::wrapping_add))
            });
        });
    }
    group.finish();
}

/// The source address that a connection of a vnet is bound to: once per connection, not per packet.
pub(crate) fn sources(criterion: &mut Criterion) {
    let slice = Slice::new("100.64.0.0/20".parse().expect("a prefix")).expect("a slice");
    let (mut leases, sources) = (Leases::new(slice, Workers::ONE), Sources::default());
    for vnet in 1..=250 {
        leases.lease(VnetId(vnet)).expect("253 addresses");
    }
    sources.publish(&leases);
    let mut random = Random::new(4);
    let mut vnets = Vec::new();
    for _ in 0..TURN {
        vnets.push(VnetId(
            u16::try_from(1 + random.below(250)).expect("16 bits"),
        ));
    }
    let mut group = criterion.benchmark_group("lpm/source of a vnet");
    group.throughput(Throughput::Elements(TURN as u64));
    group.bench_function(BenchmarkId::new("portcullis", 250), |b| {
        b.iter(|| {
            for vnet in &vnets {
                black_box(sources.of(*vnet));
            }
        });
    });
    group.finish();
}
