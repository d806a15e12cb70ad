//! The filters and orders of a list of records (api.md 2.2).

use std::sync::Arc;

use crate::api::input::{Params, wrong};
use crate::model::Refusal;
use crate::model::record::Record;

/// Which records, in which order.
#[derive(Debug)]
pub(super) struct Filter {
    tests: Vec<Test>,
    is_any: bool,
    order: Order,
    is_descending: bool,
}

#[derive(Clone, Copy, Debug)]
enum Field {
    Name,
    Content,
    Comment,
}

#[derive(Debug)]
enum Test {
    Exact(Field, String),
    Contains(Field, String),
    StartsWith(Field, String),
    EndsWith(Field, String),
    HasComment(bool),
    HasTag(String),
    Kind(String),
    Proxied(bool),
    Search(String),
}

#[derive(Clone, Copy, Debug)]
enum Order {
    Kind,
    Name,
    Content,
    Ttl,
    Proxied,
}

impl Filter {
    /// Reads the query.
    ///
    /// # Errors
    /// A parameter whose value means nothing.
    pub(super) fn read(params: &Params) -> Result<Filter, Refusal> {
        let mut tests = Vec::new();
        let fields = [
            ("name", Field::Name),
            ("content", Field::Content),
            ("comment", Field::Comment),
        ];
        for (name, field) in fields {
            type Make = fn(Field, String) -> Test;
            let operators: [(&str, Make); 5] = [
                ("", Test::Exact),
                (".exact", Test::Exact),
                (".contains", Test::Contains),
                (".startswith", Test::StartsWith),
                (".endswith", Test::EndsWith),
            ];
            for (operator, make) in operators {
                if let Some(text) = params.get(&format!("{name}{operator}")) {
                    tests.push(make(field, text.to_lowercase()));
                }
            }
        }
        let presence = [("comment.present", true), ("comment.absent", false)];
        tests.extend(
            presence
                .into_iter()
                .filter_map(|(name, has)| params.get(name).map(|_| Test::HasComment(has))),
        );
        let tag = params.get("tag").or_else(|| params.get("tag.exact"));
        tests.extend(tag.map(|tag| Test::HasTag(tag.to_owned())));
        tests.extend(
            params
                .get("type")
                .map(|kind| Test::Kind(kind.to_ascii_uppercase())),
        );
        tests.extend(params.boolean("proxied")?.map(Test::Proxied));
        tests.extend(
            params
                .get("search")
                .map(|text| Test::Search(text.to_lowercase())),
        );
        Ok(Filter {
            tests,
            is_any: match params.get("match") {
                None | Some("all") => false,
                Some("any") => true,
                Some(other) => return Err(wrong("match", "any or all", other)),
            },
            order: match params.get("order") {
                None | Some("type") => Order::Kind,
                Some("name") => Order::Name,
                Some("content") => Order::Content,
                Some("ttl") => Order::Ttl,
                Some("proxied") => Order::Proxied,
                Some(other) => {
                    return Err(wrong("order", "type, name, content, ttl or proxied", other));
                }
            },
            is_descending: params.is_descending()?,
        })
    }

    /// Whether the record is in the list.
    pub(super) fn is_wanted(&self, record: &Record) -> bool {
        let mut results = self.tests.iter().map(|test| test.holds(record));
        match self.is_any && !self.tests.is_empty() {
            true => results.any(|holds| holds),
            false => results.all(|holds| holds),
        }
    }

    /// Puts the list in order; equals by id, so that pages do not overlap.
    pub(super) fn sort(&self, records: &mut [Arc<Record>]) {
        records.sort_by(|a, b| {
            let order = match self.order {
                Order::Kind => a
                    .kind
                    .name()
                    .cmp(b.kind.name())
                    .then_with(|| a.name.cmp(&b.name)),
                Order::Name => a.name.cmp(&b.name),
                Order::Content => a.content.cmp(&b.content),
                Order::Ttl => a.ttl.cmp(&b.ttl),
                Order::Proxied => a.proxied.cmp(&b.proxied),
            };
            order.then_with(|| a.id.cmp(&b.id))
        });
        if self.is_descending {
            records.reverse();
        }
    }
}

impl Test {
    fn holds(&self, record: &Record) -> bool {
        match self {
            Test::Exact(field, text) => field.of(record) == *text,
            Test::Contains(field, text) => field.of(record).contains(text),
            Test::StartsWith(field, text) => field.of(record).starts_with(text),
            Test::EndsWith(field, text) => field.of(record).ends_with(text),
            Test::HasComment(has) => record.comment.is_some() == *has,
            Test::HasTag(tag) => record.tags.contains(tag),
            Test::Kind(kind) => record.kind.name() == kind,
            Test::Proxied(proxied) => record.proxied == *proxied,
            Test::Search(text) => {
                let fields = [Field::Name, Field::Content, Field::Comment];
                fields.iter().any(|field| field.of(record).contains(text))
            }
        }
    }
}

impl Field {
    fn of(self, record: &Record) -> String {
        match self {
            Field::Name => record.name.clone(),
            Field::Content => record.content.to_lowercase(),
            Field::Comment => record.comment.as_deref().unwrap_or("").to_lowercase(),
        }
    }
}
