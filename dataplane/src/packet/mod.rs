//! Packets in memory: offload metadata, splitting, coalescing, trains of datagrams.
