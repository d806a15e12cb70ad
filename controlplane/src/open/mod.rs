//! Opening a control plane, and what others see of it.
//!
//! In: options, a store. Out: the API's router, snapshots, answers. State: the objects, the server's keys.

mod access;
mod file;
mod hold;
mod key;
mod rekey;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use dataplane::id::VnetId;
use dataplane::program::Spec;
use ring::rand::SystemRandom;
use time::OffsetDateTime;
use tokio::sync::watch;
use uuid::Uuid;

use crate::api;
use crate::dns::{self, Authority, Edge, Question, Reply};
use crate::keys::{Keys, ParseMasterKeyError};
use crate::model::account::Account;
use crate::model::counter::Numbered;
use crate::model::lease::{Lease, Terms};
use crate::model::token::{self, Token};
use crate::model::vnet::Vnet;
use crate::model::{HexId, Timestamp};
use crate::options::Options;
use crate::program;
use crate::push::{self, Bundle, Follow, Following, IdentityError, ListenError, Listening};
use crate::status::NodeStatus;
use crate::store::backup::{BackupError, Summary};
use crate::store::{self, Objects, Sealed, Snapshot, Store, StoreError, Transaction, WriteError};
use crate::uses::Uses;

pub use access::NewTokenError;
pub use file::open_store;
pub use hold::{HoldError, Holding};
pub use rekey::rekey;

/// Why a control plane did not open.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The data directory cannot be made or entered.
    #[error(
        "cannot use the data directory {path}: make it writable for this user, or name another"
    )]
    DataDir {
        /// The directory.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Another process has the store.
    #[error("{path} is open in another process: stop that one, or name another data directory")]
    InUse {
        /// The store's file.
        path: PathBuf,
    },
    /// The store's file cannot be opened.
    #[error("cannot open the store {path}")]
    Database {
        /// The store's file.
        path: PathBuf,
        /// The store's reason.
        source: store::OpenError,
    },
    /// What is stored cannot be read.
    #[error("cannot read the store")]
    Store(#[from] StoreError),
    /// The first account could not be made, or secrets could not be sealed.
    #[error("cannot write the first objects")]
    FirstStart(#[source] Box<WriteError>),
    /// The server's key cannot be read or written.
    #[error("cannot use the file of the server's key, {path}")]
    KeyFile {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The server's key is none.
    #[error("{path} holds no server key")]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: ParseMasterKeyError,
    },
    /// The system has no randomness.
    #[error("the system gives no random bytes for a token")]
    Random,
}

/// What exists, opened. Clones share one state.
#[derive(Clone, Debug)]
pub struct ControlPlane(Arc<Inner>);

struct Inner {
    objects: Arc<Objects>,
    keys: Arc<Keys>,
    uses: Arc<Uses>,
    options: Options,
    first_token: Option<String>,
    origin_token: String,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner")
            .field("objects", &self.objects)
            .finish_non_exhaustive()
    }
}

impl ControlPlane {
    /// Opens the store in `options.data_dir`, making an account and a token when it is new.
    ///
    /// # Errors
    /// [`OpenError`], each with what to do about it.
    pub fn open(options: Options) -> Result<ControlPlane, OpenError> {
        let store = open_store(&options)?;
        let keys = key::keys(&options, &store)?;
        let store = file::sealed(store, &keys, &options, file::STORE)?;
        let objects = Objects::load(Box::new(store))?;
        key::seal_all(&objects, &keys, false)?;
        ControlPlane::over(objects, keys, options)
    }

    /// Opens what is in `store`, making an account and a token when it is new.
    ///
    /// # Errors
    /// [`OpenError`], each with what to do about it.
    pub fn open_on(store: Box<dyn Store>, options: Options) -> Result<ControlPlane, OpenError> {
        let keys = key::keys(&options, &*store)?;
        let store = Sealed::new(store, Arc::clone(&keys));
        let has_plain = store.has_plain();
        let objects = Objects::load(Box::new(store))?;
        key::seal_all(&objects, &keys, has_plain.load(Ordering::Relaxed))?;
        ControlPlane::over(objects, keys, options)
    }

    /// Opens what is in a shared `store`, or what a copy of it in `options.data_dir` has while the store
    /// is out of reach.
    ///
    /// # Errors
    /// [`OpenError`], each with what to do about it.
    pub fn open_shared(store: Box<dyn Store>, options: Options) -> Result<ControlPlane, OpenError> {
        let copy = file::open(&options, file::COPY)?;
        let keys = key::keys(&options, &*store)?;
        let copy = file::sealed(copy, &keys, &options, file::COPY)?;
        let store = Sealed::new(store, Arc::clone(&keys));
        let has_plain = store.has_plain();
        let objects = Objects::load_or_copy(Box::new(store), Box::new(copy))?;
        key::seal_all(&objects, &keys, has_plain.load(Ordering::Relaxed))?;
        ControlPlane::over(objects, keys, options)
    }

    /// Opens a node's copy of what its control plane has, for [`ControlPlane::follow`]. Nothing can be
    /// changed in it. A copy that is damaged is put aside: the control plane has everything.
    ///
    /// # Errors
    /// [`OpenError`], each with what to do about it.
    pub fn open_replica(options: Options) -> Result<ControlPlane, OpenError> {
        let (objects, keys) = match replica(&options) {
            Ok(opened) => opened,
            Err(why @ (OpenError::InUse { .. } | OpenError::DataDir { .. })) => return Err(why),
            Err(damaged) => {
                let path = options.data_dir.join(file::REPLICA);
                let why = &damaged as &dyn std::error::Error;
                tracing::warn!(path = %path.display(), error = why, "a damaged copy is put aside");
                let aside = path.with_extension("damaged");
                let unusable = |source| OpenError::DataDir {
                    path: path.clone(),
                    source,
                };
                std::fs::rename(&path, aside).map_err(unusable)?;
                replica(&options)?
            }
        };
        let origin_token =
            token::secret(&SystemRandom::new()).map_err(|_unspecified| OpenError::Random)?;
        Ok(ControlPlane(Arc::new(Inner {
            objects,
            keys,
            uses: Arc::default(),
            options,
            first_token: None,
            origin_token,
        })))
    }

    /// Follows a control plane over the network, for as long as what is returned lives.
    ///
    /// # Errors
    /// When the system has no thread for it.
    pub fn follow(&self, follow: Follow) -> std::io::Result<Following> {
        Following::start(Arc::clone(&self.0.objects), follow)
    }

    /// Serves nodes on these addresses, for as long as what is returned lives.
    ///
    /// # Errors
    /// [`ListenError`], each with what to do about it.
    pub fn serve_nodes(
        &self,
        listen: &[SocketAddr],
        terms: Terms,
    ) -> Result<Listening, ListenError> {
        Listening::start(Arc::clone(&self.0.objects), listen, terms)
    }

    /// The slice of the source range that was leased to the node which has this identity.
    pub fn lease(&self, bundle: &Bundle) -> Option<Lease> {
        push::lease_of(&self.snapshot(), bundle.certificate_sha256()).cloned()
    }

    /// Makes a node, or gives it a new certificate; the bundle that the node needs. Blocks.
    ///
    /// # Errors
    /// [`IdentityError`], each with what to do about it.
    pub fn enrol(&self, name: &str, account: Option<HexId>) -> Result<String, IdentityError> {
        let now = Timestamp::new(OffsetDateTime::now_utc());
        push::enrol(&self.0.objects, name, account, now)
    }

    fn over(
        objects: Arc<Objects>,
        keys: Arc<Keys>,
        options: Options,
    ) -> Result<ControlPlane, OpenError> {
        let random = SystemRandom::new();
        let no_random = |_: ring::error::Unspecified| OpenError::Random;
        let origin_token = token::secret(&random).map_err(no_random)?;
        let mut first_token = None;
        if objects.snapshot().accounts.iter().next().is_none() {
            let now = Timestamp::new(OffsetDateTime::now_utc());
            let secret = token::secret(&random).map_err(no_random)?;
            let token = Token::unrestricted("first", keys.hash(&secret), now);
            let made = objects.write(now, |transaction| {
                first_account(transaction, token);
                Ok(())
            });
            match made {
                Ok(_) => first_token = Some(secret),
                // Another control plane was first.
                Err(WriteError::Store(StoreError::Stale { .. })) => {}
                Err(why) => return Err(OpenError::FirstStart(Box::new(why))),
            }
        }
        Ok(ControlPlane(Arc::new(Inner {
            objects,
            keys,
            uses: Arc::default(),
            options,
            first_token,
            origin_token,
        })))
    }

    /// What is stored, for tests that go around the API.
    #[cfg(test)]
    pub(crate) fn objects(&self) -> &Objects {
        &self.0.objects
    }

    /// The API token that was made, only at the very first start: it is stored as a hash.
    pub fn first_token(&self) -> Option<String> {
        self.0.first_token.clone()
    }

    /// The token for `/origin/v1`, fresh per start; for the proxy.
    pub fn origin_token(&self) -> String {
        self.0.origin_token.clone()
    }

    /// Everything under `/client/v4` and `/origin/v1`.
    pub fn router(&self, status: Arc<dyn NodeStatus>) -> axum::Router {
        api::router(api::Context {
            objects: Arc::clone(&self.0.objects),
            keys: Arc::clone(&self.0.keys),
            uses: Arc::clone(&self.0.uses),
            limits: api::Limits::new(self.0.options.requests_per_sec_max),
            options: self.0.options.clone(),
            origin_token: self.0.origin_token.clone(),
            status,
        })
    }

    /// Everything that exists, for [`program`]. It stays as it is, however long it is kept.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.0.objects.snapshot()
    }

    /// The newest revision, as it changes. [`ControlPlane::snapshot`] is at least as new.
    pub fn revision(&self) -> watch::Receiver<u64> {
        self.0.objects.revision()
    }

    /// Writes everything that is stored to `out`, secrets sealed. Blocks.
    ///
    /// # Errors
    /// When the store or `out` fails.
    pub fn backup(&self, out: &mut dyn std::io::Write) -> Result<Summary, BackupError> {
        self.0.objects.backup(out)
    }

    /// The desired state of the node at the newest revision.
    pub fn spec(&self) -> Spec {
        program::spec(&self.0.objects.snapshot(), self.here())
    }

    /// The edge of this configuration, now, for [`program`].
    pub fn here(&self) -> program::Here {
        program::Here {
            slice: self.0.options.slice,
            now: Timestamp::new(OffsetDateTime::now_utc()),
        }
    }
}

impl Authority for ControlPlane {
    fn answer(&self, question: &Question) -> Reply {
        let edge = Edge {
            addresses: &self.0.options.edge_addresses,
            name_servers: &self.0.options.name_servers,
        };
        dns::answer(&self.0.objects.snapshot(), edge, question)
    }
}

/// A node's copy, sealed with a key of the node's own.
fn replica(options: &Options) -> Result<(Arc<Objects>, Arc<Keys>), OpenError> {
    let copy = file::open(options, file::REPLICA)?;
    let keys = key::keys(options, &copy)?;
    let copy = Sealed::new(Box::new(copy), Arc::clone(&keys));
    Ok((Objects::replica(Box::new(copy))?, keys))
}

fn first_account(transaction: &mut Transaction, token: Token) {
    let account = Account {
        id: HexId::random(),
        name: "default".to_owned(),
        created_on: transaction.now(),
    };
    transaction.put(token);
    let number = transaction.number(Numbered::Vnet, u32::from(u16::MAX), |_, _| false);
    let number = number.and_then(|number| u16::try_from(number).ok());
    transaction.put(Vnet {
        id: Uuid::new_v4(),
        account_id: account.id,
        number: VnetId(number.expect("a new store has given no number yet")),
        name: "default".to_owned(),
        comment: String::new(),
        is_default_network: true,
        created_at: transaction.now(),
    });
    transaction.put(account);
}
