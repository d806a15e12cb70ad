//! The names that records and apps have, per zone, with those below a name together.

use imbl::OrdMap;

use crate::model::HexId;

/// A zone, and a name with its labels turned around, each followed by a dot: `com.example.www.`.
type Key = (HexId, String);

/// Names with what has them. Clones share what did not change.
#[derive(Clone, Debug, Default)]
pub struct Names(OrdMap<Key, Holders>);

/// What has a name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Holders {
    records: usize,
    apps: Vec<HexId>,
}

impl Names {
    /// A record has the name.
    pub(super) fn add_record(&mut self, zone: HexId, name: &str) {
        self.change(zone, name, |holders| holders.records += 1);
    }

    /// One record less has the name.
    pub(super) fn remove_record(&mut self, zone: HexId, name: &str) {
        self.change(zone, name, |holders| holders.records -= 1);
    }

    /// The app has the name.
    pub(super) fn add_app(&mut self, zone: HexId, name: &str, app: HexId) {
        self.change(zone, name, |holders| holders.apps.push(app));
    }

    /// The app has the name no more.
    pub(super) fn remove_app(&mut self, zone: HexId, name: &str, app: HexId) {
        self.change(zone, name, |holders| holders.apps.retain(|id| *id != app));
    }

    /// The apps that have the name.
    pub fn apps(&self, zone: HexId, name: &str) -> &[HexId] {
        let holders = self.0.get(&(zone, turned(name)));
        holders.map_or(&[], |holders| holders.apps.as_slice())
    }

    /// Whether something has the name, or a name below it (RFC 4592, section 2.2.2: an empty
    /// non-terminal exists too).
    pub fn exists(&self, zone: HexId, name: &str) -> bool {
        let turned = turned(name);
        let start: Key = (zone, turned.clone());
        let next = self.0.range(start..).next();
        next.is_some_and(|((of, found), _)| *of == zone && found.starts_with(&turned))
    }

    fn change(&mut self, zone: HexId, name: &str, change: impl FnOnce(&mut Holders)) {
        let key = (zone, turned(name));
        let holders = self.0.entry(key.clone()).or_default();
        change(holders);
        if *holders == Holders::default() {
            self.0.remove(&key);
        }
    }
}

fn turned(name: &str) -> String {
    let mut turned = String::with_capacity(name.len() + 1);
    for label in name.rsplit('.') {
        turned += label;
        turned.push('.');
    }
    turned
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_exists_while_something_has_it_or_is_below_it() {
        let (zone, other, app) = (HexId::random(), HexId::random(), HexId::random());
        let mut names = Names::default();
        names.add_record(zone, "a.b.example.com");
        names.add_record(zone, "a.b.example.com");
        names.add_app(zone, "bb.example.com", app);
        for (name, exists) in [
            ("a.b.example.com", true),
            ("b.example.com", true),
            ("example.com", true),
            // Neither a sibling that sorts between them nor a part of a label.
            ("b-c.example.com", false),
            (".b.example.com", false),
            ("x.a.b.example.com", false),
            ("bb.example.com", true),
        ] {
            assert_eq!(names.exists(zone, name), exists, "{name}");
            assert!(!names.exists(other, name), "{name}");
        }
        names.remove_record(zone, "a.b.example.com");
        assert!(names.exists(zone, "b.example.com"));
        names.remove_record(zone, "a.b.example.com");
        assert!(!names.exists(zone, "b.example.com"));
        assert_eq!(names.apps(zone, "bb.example.com"), [app]);
        names.remove_app(zone, "bb.example.com", app);
        assert!(!names.exists(zone, "example.com"));
    }
}
