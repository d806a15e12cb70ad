//! The source address names the vnet: slices of 100.64.0.0/12, leases, and the way back.
