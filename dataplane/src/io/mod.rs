//! Everything that touches the system: TUN, UDP, clock, worker thread, handle.
