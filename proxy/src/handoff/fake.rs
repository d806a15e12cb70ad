//! Vnets for tests: sources and routes as plain maps, on loopback addresses anybody may bind.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use dataplane::id::VnetId;

use super::Vnets;

/// Sources and routes that a test may change at any time.
#[derive(Debug, Default)]
pub(crate) struct FakeVnets {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    sources: HashMap<VnetId, IpAddr>,
    routes: Vec<(VnetId, IpAddr)>,
}

impl FakeVnets {
    pub(crate) fn lease(&self, vnet: u16, source: &str) {
        self.with(|s| s.sources.insert(VnetId(vnet), source.parse().unwrap()));
    }

    pub(crate) fn release(&self, vnet: u16) {
        self.with(|s| s.sources.remove(&VnetId(vnet)));
    }

    pub(crate) fn route(&self, vnet: u16, to: &str) {
        self.with(|s| s.routes.push((VnetId(vnet), to.parse().unwrap())));
    }

    pub(crate) fn withdraw(&self, vnet: u16) {
        self.with(|s| s.routes.retain(|(id, _)| *id != VnetId(vnet)));
    }

    fn with<R>(&self, act: impl FnOnce(&mut State) -> R) -> R {
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Vnets for FakeVnets {
    fn source(&self, vnet: VnetId, _to: IpAddr) -> Option<IpAddr> {
        self.with(|s| s.sources.get(&vnet).copied())
    }

    fn owner(&self, source: IpAddr) -> Option<VnetId> {
        self.with(|s| {
            s.sources
                .iter()
                .find(|(_, ip)| **ip == source)
                .map(|(vnet, _)| *vnet)
        })
    }

    fn has_route(&self, vnet: VnetId, to: IpAddr) -> bool {
        self.with(|s| s.routes.contains(&(vnet, to)))
    }
}
