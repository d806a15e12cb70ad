//! Ethernet ports that go and come back.

use crate::namespaces::router;
use crate::world::World;

/// A cable between the router's port and a neighbour: addresses on the link are all that it has.
fn plug(world: &World, side: &'static str) {
    world.cable((side, "cni0"), ("one", "eth0"));
    world.run("one", "ip addr add 10.8.0.1/31 dev eth0");
    world.run("one", "ip link set eth0 up");
}

#[test]
fn a_port_that_was_deleted_is_taken_again_as_soon_as_it_is_back() {
    for side in ["edge", "site"] {
        let mut world = World::new(1500);
        world.add("one");
        plug(&world, side);
        let mut router = router(&world, side, &[("PC_ETHER", "cni0"), ("PC_WORKERS", "2")]);
        router.line("ready");
        for _ in 0..4 {
            // A neighbour is asked for again every second.
            world.run("one", "ping -n -c 1 -i 0.2 -w 4 10.8.0.0");
            world.run(side, "ip link del cni0");
            let gone = world.output("one", "ping -n -c 1 -W 1 10.8.0.0");
            assert!(!gone.status.success(), "there is no cable");
            plug(&world, side);
        }
        world.run("one", "ping -n -c 1 -i 0.2 -w 4 10.8.0.0");
        router.stop();
    }
}

#[test]
fn a_port_that_came_back_too_small_is_left_alone_until_it_is_large_enough() {
    let mut world = World::new(1500);
    world.add("one");
    plug(&world, "edge");
    let mut edge = router(&world, "edge", &[("PC_ETHER", "cni0")]);
    edge.line("ready");
    world.run("edge", "ip link del cni0");
    world.cable(("edge", "cni0"), ("one", "eth0"));
    // The link's packets have 1420 bytes.
    world.run("edge", "ip link set cni0 mtu 1300");
    world.run("one", "ip addr add 10.8.0.1/31 dev eth0");
    world.run("one", "ip link set eth0 up");
    let small = world.output("one", "ping -n -c 2 -W 1 10.8.0.0");
    assert!(!small.status.success());
    world.run("edge", "ip link set cni0 mtu 1500");
    world.run("one", "ping -n -c 1 -i 0.2 -w 4 10.8.0.0");
    edge.stop();
}
