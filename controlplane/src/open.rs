//! Opening a control plane, and what others see of it.

use std::path::PathBuf;
use std::sync::Arc;

use dataplane::id::VnetId;
use dataplane::program::Spec;
use ring::rand::SystemRandom;
use time::OffsetDateTime;
use tokio::sync::watch;
use uuid::Uuid;

use crate::api;
use crate::dns::{self, Authority, Edge, Question, Reply};
use crate::keys::{Keys, MasterKey, ParseMasterKeyError};
use crate::model::account::Account;
use crate::model::counter::Numbered;
use crate::model::key_check::KeyCheck;
use crate::model::token::{self, Token};
use crate::model::vnet::Vnet;
use crate::model::{HexId, Timestamp};
use crate::options::Options;
use crate::program;
use crate::status::NodeStatus;
use crate::store::{Embedded, Objects, Sealed, Snapshot, StoreError, Transaction, WriteError};

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
        source: Box<redb::Error>,
    },
    /// What is stored cannot be read.
    #[error("cannot read the store")]
    Store(#[from] StoreError),
    /// The first account could not be made, or secrets could not be sealed.
    #[error("cannot write the first objects")]
    FirstStart(#[source] Box<WriteError>),
    /// The server's key cannot be read.
    #[error("cannot read the server's key {path}")]
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
        let random = SystemRandom::new();
        let no_random = |_: ring::error::Unspecified| OpenError::Random;
        let store = open_store(&options)?;
        let (master, is_new) = master_key(&options)?;
        let keys = Arc::new(Keys::new(&master));
        let store = Sealed::new(store, Arc::clone(&keys));
        let has_plain = store.has_plain();
        let objects = Objects::load(Box::new(store))?;
        // Only a store that holds nothing sealed may get a new key: then it is written first.
        if is_new {
            write_key(&options.data_dir.join(KEY_FILE), &master)?;
        }
        seal_all(
            &objects,
            has_plain.load(std::sync::atomic::Ordering::Relaxed),
        )?;
        let origin_token = token::secret(&random).map_err(no_random)?;
        let mut first_token = None;
        if objects.snapshot().accounts.iter().next().is_none() {
            let now = Timestamp::new(OffsetDateTime::now_utc());
            let secret = token::secret(&random).map_err(no_random)?;
            let token = Token {
                id: HexId::random(),
                name: "first".to_owned(),
                account_id: None,
                salt: None,
                hash: keys.hash(&secret),
                issued_on: now,
                modified_on: None,
                policies: None,
                bounds: token::Bounds::default(),
            };
            objects
                .write(now, |transaction| {
                    first_account(transaction, token);
                    Ok(())
                })
                .map_err(|why| OpenError::FirstStart(Box::new(why)))?;
            first_token = Some(secret);
        }
        Ok(ControlPlane(Arc::new(Inner {
            objects: Arc::new(objects),
            keys,
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

    /// What is stored, for tests that look behind the API.
    #[cfg(test)]
    pub(crate) fn objects(&self) -> Arc<Objects> {
        Arc::clone(&self.0.objects)
    }

    /// Everything under `/client/v4` and `/origin/v1`.
    pub fn router(&self, status: Arc<dyn NodeStatus>) -> axum::Router {
        api::router(api::Context {
            objects: Arc::clone(&self.0.objects),
            keys: Arc::clone(&self.0.keys),
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

    /// The desired state of the node at the newest revision.
    pub fn spec(&self) -> Spec {
        program::spec(&self.0.objects.snapshot())
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

fn open_store(options: &Options) -> Result<Embedded, OpenError> {
    let unusable = |source| OpenError::DataDir {
        path: options.data_dir.clone(),
        source,
    };
    std::fs::create_dir_all(&options.data_dir).map_err(unusable)?;
    let path = options.data_dir.join("portcullis.redb");
    keep_private(&path).map_err(unusable)?;
    Embedded::open(&path).map_err(|why| {
        if matches!(why, redb::Error::DatabaseAlreadyOpen) {
            return OpenError::InUse { path };
        }
        OpenError::Database {
            path,
            source: Box::new(why),
        }
    })
}

/// The name of the key's file in the data directory.
const KEY_FILE: &str = "key";

/// The key that was given, or is in the data directory, or is new and not written yet.
fn master_key(options: &Options) -> Result<(MasterKey, bool), OpenError> {
    if let Some(key) = options.key {
        return Ok((key, false));
    }
    let path = options.data_dir.join(KEY_FILE);
    match std::fs::read_to_string(&path) {
        Ok(text) => match text.parse() {
            Ok(key) => Ok((key, false)),
            Err(source) => Err(OpenError::Key { path, source }),
        },
        Err(why) if why.kind() == std::io::ErrorKind::NotFound => {
            let key = MasterKey::generate().ok().ok_or(OpenError::Random)?;
            Ok((key, true))
        }
        Err(source) => Err(OpenError::KeyFile { path, source }),
    }
}

/// Writes a new key, for its owner only. Durable before anything is sealed with it.
fn write_key(path: &std::path::Path, key: &MasterKey) -> Result<(), OpenError> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut open = std::fs::OpenOptions::new();
    let made = open.write(true).create_new(true).mode(0o600).open(path);
    let written = made.and_then(|mut file| {
        file.write_all(format!("{}\n", key.to_base64()).as_bytes())?;
        file.sync_all()?;
        std::fs::File::open(path.parent().unwrap_or(path))?.sync_all()
    });
    written.map_err(|source| OpenError::KeyFile {
        path: path.to_owned(),
        source,
    })
}

/// Writes again what an older version stored in clear, and a text to know the key by.
fn seal_all(objects: &Objects, has_plain: bool) -> Result<(), OpenError> {
    let snapshot = objects.snapshot();
    if !has_plain && !snapshot.key_checks.is_empty() {
        return Ok(());
    }
    let sealed = objects.write(Timestamp::new(OffsetDateTime::now_utc()), |transaction| {
        transaction.put(KeyCheck {
            text: "the key is right".to_owned(),
        });
        if has_plain {
            transaction.write_secrets();
        }
        Ok(())
    });
    sealed.map_err(|why| OpenError::FirstStart(Box::new(why)))?;
    Ok(())
}

/// The store holds private keys: only its owner reads it, from its first byte on.
fn keep_private(path: &std::path::Path) -> std::io::Result<()> {
    use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
    let mut open = std::fs::OpenOptions::new();
    let file = open
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)?;
    file.set_permissions(std::fs::Permissions::from_mode(0o600))
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
