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
    /// Any of the tags.
    Tag,
}

/// How a filter compares a field with its text.
#[derive(Clone, Copy, Debug)]
enum How {
    Exact,
    Contains,
    StartsWith,
    EndsWith,
}

/// The operators of a parameter, and what they mean.
const OPERATORS: [(&str, How); 5] = [
    ("", How::Exact),
    (".exact", How::Exact),
    (".contains", How::Contains),
    (".startswith", How::StartsWith),
    (".endswith", How::EndsWith),
];

#[derive(Debug)]
enum Test {
    Text(Field, How, String),
    /// With `true` any of them, else all.
    Tags(bool, Vec<Test>),
    HasTags(bool),
    HasComment(bool),
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
            tests.extend(texts(params, name, field));
        }
        let has = |name| params.get(name).is_some();
        tests.extend(has("comment.present").then_some(Test::HasComment(true)));
        tests.extend(has("comment.absent").then_some(Test::HasComment(false)));
        tests.extend(tags(params)?);
        tests.extend(
            params
                .get("type")
                .map(|kind| Test::Kind(kind.to_ascii_uppercase())),
        );
        tests.extend(params.boolean("proxied")?.map(Test::Proxied));
        for name in ["shadowed_by_name", "shadowing_name"] {
            if let Some(got) = params.get(name) {
                return Err(wrong(name, "absent: it is not carried here", got));
            }
        }
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
            Test::Text(field, how, text) => {
                let texts = field.of(record);
                texts.iter().any(|own| how.holds(own, text))
            }
            Test::Tags(true, tests) => tests.iter().any(|test| test.holds(record)),
            Test::Tags(false, tests) => tests.iter().all(|test| test.holds(record)),
            Test::HasTags(has) => record.tags.is_empty() != *has,
            Test::HasComment(has) => record.comment.is_some() == *has,
            Test::Kind(kind) => record.kind.name() == kind,
            Test::Proxied(proxied) => record.proxied == *proxied,
            Test::Search(text) => {
                let fields = [Field::Name, Field::Content, Field::Comment, Field::Tag];
                let mut texts = fields.iter().flat_map(|field| field.of(record));
                texts.any(|own| own.contains(text))
            }
        }
    }
}

impl How {
    fn holds(self, own: &str, text: &str) -> bool {
        match self {
            How::Exact => own == text,
            How::Contains => own.contains(text),
            How::StartsWith => own.starts_with(text),
            How::EndsWith => own.ends_with(text),
        }
    }
}

impl Field {
    /// What the record has there, in lower case.
    fn of(self, record: &Record) -> Vec<String> {
        match self {
            Field::Name => vec![record.name.clone()],
            Field::Content => vec![record.content.to_lowercase()],
            Field::Comment => vec![record.comment.as_deref().unwrap_or("").to_lowercase()],
            Field::Tag => record.tags.iter().map(|tag| tag.to_lowercase()).collect(),
        }
    }
}

fn texts<'a>(params: &'a Params, name: &str, field: Field) -> impl Iterator<Item = Test> + use<'a> {
    let name = name.to_owned();
    OPERATORS.into_iter().flat_map(move |(operator, how)| {
        let given = params.all(&format!("{name}{operator}"));
        given
            .into_iter()
            .map(move |text| Test::Text(field, how, text.to_lowercase()))
    })
}

/// The tests of tags, which `tag_match` joins by themselves.
fn tags(params: &Params) -> Result<Option<Test>, Refusal> {
    let mut tests: Vec<Test> = texts(params, "tag", Field::Tag).collect();
    let has = |name| params.get(name).is_some();
    tests.extend(has("tag.present").then_some(Test::HasTags(true)));
    tests.extend(has("tag.absent").then_some(Test::HasTags(false)));
    let is_any = match params.get("tag_match") {
        None | Some("all") => false,
        Some("any") => true,
        Some(other) => return Err(wrong("tag_match", "any or all", other)),
    };
    Ok((!tests.is_empty()).then_some(Test::Tags(is_any, tests)))
}
