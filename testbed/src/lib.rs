//! Worlds to try Portcullis in. Those in network namespaces are made by the scripts beside this
//! package; the one here runs in memory.

pub mod sim;
