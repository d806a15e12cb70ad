//! Header codecs that etherparse does not have in one pass, and checksums.
//!
//! In: bytes from a TUN or out of a tunnel. Out: typed facts, flow hashes, rewritten fields, ICMP
//! errors.
//! No state; nothing here allocates, and no input makes it panic.

pub mod checksum;
pub mod echo;
pub mod ecn;
pub mod esp;
pub mod flow;
pub mod geneve;
pub mod gre;
pub mod icmp;
pub mod ikev2;
pub mod ip;
pub mod mss;
pub mod neighbour;
pub mod translate;
