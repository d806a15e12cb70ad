//! The API in memory: requests in, envelopes out.
