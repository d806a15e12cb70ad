//! Pingora's HTTP engine around the gate, for connections that somebody else accepts.

use std::sync::Arc;

use pingora::proxy::HttpProxy;
use pingora::server::configuration::ServerConf;

use super::gate::Gate;

/// Serves HTTP on connections; owns the pool of connections to origins.
pub(crate) type Engine = HttpProxy<Gate>;

/// Tries of one request: two on fresh connections (a second address after the first failed to
/// connect), and as many on pooled ones that turn out to be closed.
const TRIES_MAX: usize = 4;

/// An engine with an empty pool for at most `pooled` connections.
pub(crate) fn engine(gate: Gate, pooled: usize) -> Arc<Engine> {
    let conf = ServerConf {
        upstream_keepalive_pool_size: pooled,
        max_retries: TRIES_MAX,
        ..ServerConf::default()
    };
    let mut engine = HttpProxy::new(gate, Arc::new(conf));
    engine.handle_init_modules();
    Arc::new(engine)
}
