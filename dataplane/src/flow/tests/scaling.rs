//! The cost of a packet does not depend on how many flows there are.

use super::attack::Client;
use super::*;

/// The shortest time of a transaction, among `many` open flows.
fn cost(many: usize) -> Duration {
    let mut bed = with(|config| {
        config.flows_max = many;
        config.buffer_bytes = 2048;
    });
    let mut clients: Vec<Client> = (0..many)
        .map(|_| Client::connected(&mut bed, "100.64.0.2", "10.0.0.50:80"))
        .collect();
    // The same flows in both cases, so that the caches are as warm.
    let step = many / 100;
    let round = |clients: &mut Vec<Client>, bed: &mut Bed| {
        let start = clock::now();
        for client in clients.iter_mut().step_by(step) {
            client.transact(bed);
        }
        clock::now() - start
    };
    let shortest = (0..30).map(|_| round(&mut clients, &mut bed)).min();
    bed.pass(Duration::from_secs(1));
    bed.drain();
    shortest.unwrap()
}

#[test]
fn a_transaction_among_many_flows_costs_no_multiple_of_one_among_few() {
    let (few, many) = (cost(100), cost(20_000));
    // 200 times as many flows. Caches may double the cost; a walk over all flows makes it fifty times as high.
    assert!(many < few * 12, "{few:?} among 100, {many:?} among 20000");
}
