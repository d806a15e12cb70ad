//! Worlds to try Portcullis in, and what becomes of measurements. The worlds in network namespaces
//! are made by the scripts beside this package; the one here runs in memory.

pub mod load;
pub mod report;
pub mod sim;
pub mod store;
