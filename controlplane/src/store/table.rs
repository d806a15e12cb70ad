//! All objects of one kind, in a map whose copies share what did not change.

use std::sync::Arc;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;

use crate::model::Resource;

/// All objects of one kind. A clone is one count, a change copies a path of nodes.
#[derive(Clone, Debug)]
pub struct Table<R: Resource>(OrdMap<R::Id, Row<R>>);

/// An object, which is the same only as itself: objects are replaced, never changed in place.
#[derive(Clone, Debug)]
struct Row<R>(Arc<R>);

impl<R> PartialEq for Row<R> {
    fn eq(&self, other: &Row<R>) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// What became of one object from one table to a later one.
#[derive(Clone, Copy, Debug)]
pub struct Change<'a, R> {
    /// What it was; `None` when it is new.
    pub old: Option<&'a Arc<R>>,
    /// What it is; `None` when it is gone.
    pub new: Option<&'a Arc<R>>,
}

impl<R: Resource> Default for Table<R> {
    fn default() -> Table<R> {
        Table(OrdMap::new())
    }
}

impl<R: Resource> Table<R> {
    /// The object.
    pub fn get(&self, id: &R::Id) -> Option<&Arc<R>> {
        self.0.get(id).map(|row| &row.0)
    }

    /// Every object, in the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<R>> {
        self.0.values().map(|row| &row.0)
    }

    /// The object with the least id.
    pub fn first(&self) -> Option<&Arc<R>> {
        self.0.get_min().map(|(_, row)| &row.0)
    }

    /// The object with the greatest id.
    pub fn last(&self) -> Option<&Arc<R>> {
        self.0.get_max().map(|(_, row)| &row.0)
    }

    /// Every object, in the falling order of their ids.
    pub fn newest(&self) -> impl Iterator<Item = &Arc<R>> {
        self.0.values().rev().map(|row| &row.0)
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The objects that came, went or changed on the way to `newer`. Costs what changed, not what
    /// there is: parts that both share are skipped.
    pub fn changes<'a>(&'a self, newer: &'a Table<R>) -> impl Iterator<Item = Change<'a, R>> {
        self.0.diff(&newer.0).map(|item| match item {
            DiffItem::Add(_, new) => Change {
                old: None,
                new: Some(&new.0),
            },
            DiffItem::Update { old, new } => Change {
                old: Some(&old.1.0),
                new: Some(&new.1.0),
            },
            DiffItem::Remove(_, old) => Change {
                old: Some(&old.0),
                new: None,
            },
        })
    }

    /// The object exists, so; what it was.
    pub(super) fn insert(&mut self, object: Arc<R>) -> Option<Arc<R>> {
        self.0.insert(object.id(), Row(object)).map(|row| row.0)
    }

    /// The object is gone; what it was.
    pub(super) fn remove(&mut self, id: &R::Id) -> Option<Arc<R>> {
        self.0.remove(id).map(|row| row.0)
    }
}

impl<'a, R> Change<'a, R> {
    /// What the object was and what it is, as far as it was and is.
    pub fn both(&self) -> impl Iterator<Item = &'a Arc<R>> + use<'a, R> {
        self.old.into_iter().chain(self.new)
    }
}
