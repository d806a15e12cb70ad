//! The SAs that a worker receives on, found by SPI (RFC 4301 section 4.4.2).

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::ops::Range;
use std::time::Instant;

use crate::id::{NumberHasher, TunnelId, WorkerId};
use crate::wire::esp::{Header, Spi};

use super::Discard;
use super::sa::Inbound;

/// SAs of a worker: 100 child SAs of 600 tunnels. About 1.3 KiB each, as they are made.
pub const SAS_MAX: usize = 1 << 16;

/// The bits of an SPI below those of the worker.
const SLOT_BITS: u32 = 24;

/// Why an SPI cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClaimError {
    /// 0..=255 are reserved.
    #[error("SPIs below 256 are reserved (RFC 4303 section 2.1)")]
    Reserved,
    /// An SA has it.
    #[error("SPI {0} belongs to another SA")]
    Taken(Spi),
    /// The worker has [`SAS_MAX`] SAs.
    #[error("this worker has {SAS_MAX} IPsec SAs, which is all it can have")]
    Full,
}

/// An inner packet that came out of an SA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The SA.
    pub spi: Spi,
    /// The tunnel that it belongs to.
    pub tunnel: TunnelId,
    /// Where the inner packet is in the bytes that were given.
    pub inner: Range<usize>,
}

/// The inbound SAs of one worker. SPIs that it gives out carry the worker in the top byte, by which
/// packets are steered, and a slot in the others.
#[derive(Debug)]
pub struct Sad {
    worker: WorkerId,
    next_slot: u32,
    /// Numbers here are chosen by us or by an operator, so a peer cannot make them collide.
    entries: HashMap<u32, Entry, BuildHasherDefault<NumberHasher>>,
}

#[derive(Debug)]
enum Entry {
    Reserved,
    Installed(TunnelId, Box<Inbound>),
}

/// The worker that an ESP packet is for; `None` when it is too short for a header.
#[must_use]
pub fn addressee(packet: &[u8]) -> Option<WorkerId> {
    let header = Header::parse(packet)?;
    let [worker, ..] = header.spi.0.to_be_bytes();
    Some(WorkerId(worker))
}

impl Sad {
    /// No SAs. `seed` is where the slots begin: any number, best a random one, so that after a
    /// restart an old SA's packets meet no new one.
    #[must_use]
    pub fn new(worker: WorkerId, seed: u32) -> Self {
        Self {
            worker,
            next_slot: seed % (1 << SLOT_BITS),
            entries: HashMap::default(),
        }
    }

    /// A new SPI, for an SA whose keys are not there yet.
    ///
    /// # Errors
    /// [`ClaimError::Full`].
    pub fn reserve(&mut self) -> Result<Spi, ClaimError> {
        // Among one more than there can be SAs, one is free.
        for _ in 0..=SAS_MAX {
            let slot = self.next_slot;
            self.next_slot = (slot + 1) % (1 << SLOT_BITS);
            let spi = Spi(u32::from(self.worker.0) << SLOT_BITS | slot.max(Spi::MIN.0));
            match self.claim(spi) {
                Ok(()) => return Ok(spi),
                Err(ClaimError::Taken(_)) => {}
                Err(other) => return Err(other),
            }
        }
        Err(ClaimError::Full)
    }

    /// Takes an SPI that an operator chose. Packets reach it without a detour when its top byte is
    /// the worker.
    ///
    /// # Errors
    /// [`ClaimError`], and nothing has changed.
    pub fn claim(&mut self, spi: Spi) -> Result<(), ClaimError> {
        if spi < Spi::MIN {
            return Err(ClaimError::Reserved);
        }
        if self.entries.contains_key(&spi.0) {
            return Err(ClaimError::Taken(spi));
        }
        if self.entries.len() >= SAS_MAX {
            return Err(ClaimError::Full);
        }
        self.entries.insert(spi.0, Entry::Reserved);
        Ok(())
    }

    /// Begins to receive on an SPI that was reserved or claimed. False, and nothing changed, when
    /// it was not, or has an SA already.
    #[must_use]
    pub fn install(&mut self, tunnel: TunnelId, sa: Inbound) -> bool {
        match self.entries.get_mut(&sa.spi().0) {
            Some(entry @ Entry::Reserved) => {
                *entry = Entry::Installed(tunnel, Box::new(sa));
                true
            }
            Some(Entry::Installed(..)) | None => false,
        }
    }

    /// Frees an SPI, with its SA if it has one.
    pub fn remove(&mut self, spi: Spi) {
        self.entries.remove(&spi.0);
    }

    /// How many SPIs are taken.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is taken.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The SA of an SPI, to look at.
    #[must_use]
    pub fn get(&self, spi: Spi) -> Option<&Inbound> {
        match self.entries.get(&spi.0)? {
            Entry::Installed(_, sa) => Some(sa),
            Entry::Reserved => None,
        }
    }

    /// Checks and decrypts an ESP packet in place. See [`Inbound::open`].
    ///
    /// # Errors
    /// [`Discard`].
    pub fn open(&mut self, packet: &mut [u8], now: Instant) -> Result<Opened, Discard> {
        let header = Header::parse(packet).ok_or(Discard::Truncated)?;
        let Some(Entry::Installed(tunnel, sa)) = self.entries.get_mut(&header.spi.0) else {
            return Err(Discard::SpiUnknown);
        };
        let inner = sa.open(packet, now)?;
        Ok(Opened {
            spi: header.spi,
            tunnel: *tunnel,
            inner,
        })
    }
}
