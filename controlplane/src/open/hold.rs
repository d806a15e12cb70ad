//! The slice of an edge that is a control plane itself: its own as long as the others over the same store
//! leave it alone, which is what a lease is for.

use std::fs;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ipnet::Ipv4Net;
use uuid::Uuid;

use super::{ControlPlane, key};
use crate::model::lease::{Lease, SLICE_LEN, Terms};
use crate::model::{Refusal, Timestamp};
use crate::push::{Holder, Relay, check_free, grant};
use crate::store::{Objects, StoreError, WriteError};

/// The name of the file in the data directory that names the directory.
const FILE: &str = "edge.id";

/// Why an edge does not have its slice.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HoldError {
    /// It is no slice that could be leased.
    #[error(
        "slice {0}: an edge that shares its store with others has one of the 256 /{SLICE_LEN} of \
         100.64.0.0/12, such as 100.64.16.0/{SLICE_LEN}"
    )]
    Length(Ipv4Net),
    /// It is another edge's.
    #[error(transparent)]
    Taken(#[from] Refusal),
    /// The store is to blame.
    #[error("cannot write down whose the slice is")]
    Write(#[source] WriteError),
    /// The id of the data directory cannot be read or written.
    #[error("cannot use {path}, the id of this data directory")]
    Id {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
}

/// The slice of an edge that is a control plane itself and shares its store with others.
#[derive(Clone, Debug)]
pub struct Holding {
    objects: Arc<Objects>,
    holder: Holder,
    terms: Terms,
}

impl ControlPlane {
    /// Takes the slice that this edge's configuration names, for an edge of this name, which takes packets
    /// for the slice that came to others at `relay`. `None` when nobody shares the store: the slice is then
    /// whoever's opened it. While the store is out of reach, a slice that is held already is enough. Blocks.
    ///
    /// # Errors
    /// [`HoldError`], each with what to do about it.
    pub fn hold(
        &self,
        name: &str,
        relay: Option<SocketAddr>,
        terms: Terms,
        now: Timestamp,
    ) -> Result<Option<Holding>, HoldError> {
        let objects = Arc::clone(&self.0.objects);
        let slice = self.0.options.slice;
        if !objects.is_shared() {
            // Nodes may have followed this store, and go on without it.
            check_free(&objects.snapshot(), slice, now, terms)?;
            return Ok(None);
        }
        if slice.prefix_len() != SLICE_LEN || slice.trunc() != slice {
            return Err(HoldError::Length(slice));
        }
        let holder = Holder {
            name: name.to_owned(),
            id: id(&self.0.options.data_dir)?,
            slice: Some(slice),
            relay: Relay::Said(relay),
        };
        let holding = Holding {
            objects,
            holder,
            terms,
        };
        match holding.prolong(now) {
            Err(WriteError::Store(StoreError::Failed(why)))
                if holding.lease().is_some_and(|lease| lease.is_held(now)) =>
            {
                let error = &*why as &dyn std::error::Error;
                tracing::warn!(error, %slice, "the slice is held, and is not prolonged yet");
            }
            Err(WriteError::Refused(why)) => return Err(why.into()),
            Err(why) => return Err(HoldError::Write(why)),
            Ok(()) => {}
        }
        Ok(Some(holding))
    }
}

impl Holding {
    /// Prolongs the lease, unless there is time. Blocks.
    ///
    /// # Errors
    /// When the slice has become another's, or the store fails.
    pub fn prolong(&self, now: Timestamp) -> Result<(), WriteError> {
        grant(&self.objects, &self.holder, now, self.terms)
    }

    /// The lease, whether its time is over or not; `None` when the slice has become another's.
    pub fn lease(&self) -> Option<Lease> {
        self.holder.lease(&self.objects.snapshot()).cloned()
    }

    /// Whether it is time to prolong it.
    pub fn is_due(&self, now: Timestamp) -> bool {
        self.lease()
            .is_none_or(|lease| lease.is_due(now, self.terms))
    }
}

/// The id of a data directory, made when there is none: another directory with the same configuration is
/// another edge.
fn id(directory: &Path) -> Result<String, HoldError> {
    let path = directory.join(FILE);
    let found = match fs::read_to_string(&path) {
        Err(why) if why.kind() == ErrorKind::NotFound => {
            let new = Uuid::new_v4();
            key::write(&path, &new.to_string()).map(|()| new)
        }
        Err(why) => Err(why),
        Ok(text) => text
            .trim()
            .parse()
            .map_err(|why: uuid::Error| std::io::Error::new(ErrorKind::InvalidData, why)),
    };
    match found {
        Ok(id) => Ok(id.to_string()),
        Err(source) => Err(HoldError::Id { path, source }),
    }
}
