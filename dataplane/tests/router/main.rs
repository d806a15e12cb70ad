//! Routers in network namespaces: real TUN devices, real sockets, the kernel's routes. Needs root.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "all of this program is a test"
)]

mod allocations;
mod namespaces;
mod path;
mod ports;
mod relay;
mod role;
mod world;

/// Not a test: this program started again inside a namespace by the tests.
#[test]
#[ignore = "started by the tests themselves, inside a namespace"]
fn role() {
    role::play();
}
