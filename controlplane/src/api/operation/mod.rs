//! Routes that say what they are: the one way to serve a path, and what `/openapi.json` is made from.
//!
//! In: a method, a path, its handler, and what it is [`About`]. Out: the router, and the document. State: none.
//! Bodies are described by the readers that read them ([`body`]), answers by a [`Shape`] beside the function
//! that makes them.

pub(super) mod body;
mod document;
mod shape;

use std::sync::Arc;

use axum::Router;
use axum::handler::Handler;
use axum::middleware::from_fn_with_state;
use axum::routing::MethodFilter;
use http::Method;

use super::context::Shared;
use super::input::only_known;
use crate::model::{Fields, Refusal};

pub(super) use body::Body;
pub(super) use document::document_route;
pub(super) use shape::{
    BOOLEAN, COUNT, HEX_ID, IP, NUMBER, PREFIX, Shape, TEXT, TIME, TIME_OR_NULL, UUID,
};

/// The account of examples.
pub(super) const ACCOUNT_ID: &str = "023e105f4ecef8ad9ca31a8372d0c353";
/// The vnet of examples.
pub(super) const VNET_ID: &str = "f70ff985-a4ef-4643-bbbc-4a0ed4fc8415";
/// The tunnel of examples.
pub(super) const TUNNEL_ID: &str = "c1744f8b-faa1-48a4-9e5c-02ac921467fa";

/// What is left of what was deleted.
pub(super) const GONE: Shape = Shape::Object(&[("id", HEX_ID)]);

/// Routes, and what each of them is.
pub(super) struct Routes {
    router: Router<Shared>,
    operations: Vec<Operation>,
}

/// One method of one path.
pub(super) struct Operation {
    method: Method,
    path: String,
    about: About,
}

/// What an operation is.
pub(super) struct About {
    summary: &'static str,
    query: Vec<(&'static str, Shape)>,
    headers: Vec<(&'static str, Shape)>,
    body: Option<Body>,
    answer: Answer,
}

/// What an operation answers when it succeeds.
enum Answer {
    /// One thing in the envelope.
    One(Shape),
    /// The same, of a form, with how long it took.
    Timed(Shape),
    /// A list in the envelope, with or without pages.
    List(Shape),
    /// A thing without envelope.
    Plain(Shape),
    /// Text.
    Text,
}

/// What an operation does, in a few words.
pub(super) fn does(summary: &'static str) -> About {
    About {
        summary,
        query: Vec::new(),
        headers: Vec::new(),
        body: None,
        answer: Answer::One(Shape::Any),
    }
}

impl Routes {
    /// None.
    pub(super) fn new() -> Routes {
        Routes {
            router: Router::new(),
            operations: Vec::new(),
        }
    }

    /// Serves a method of a path. A list refuses parameters of the query that it does not describe: a
    /// filter that is not carried would answer with what was not asked for.
    ///
    /// # Panics
    /// When the method is none of axum's, or of that path already.
    pub(super) fn on<H: Handler<T, Shared>, T: 'static>(
        mut self,
        (method, path): (Method, &str),
        handler: H,
        about: About,
    ) -> Routes {
        let filter = MethodFilter::try_from(method.clone()).expect("a method of HTTP");
        let mut route = axum::routing::on(filter, handler);
        if let Answer::List(_) = about.answer {
            let known: Arc<[&'static str]> = about.query.iter().map(|(name, _)| *name).collect();
            route = route.route_layer(from_fn_with_state(known, only_known));
        }
        self.router = self.router.route(path, route);
        self.operations.push(Operation {
            method,
            path: path.to_owned(),
            about,
        });
        self
    }

    /// These and those.
    pub(super) fn and(mut self, other: Routes) -> Routes {
        self.router = self.router.merge(other.router);
        self.operations.extend(other.operations);
        self
    }

    /// The same, with the router changed in a way that serves the same paths: a layer.
    pub(super) fn layered(
        mut self,
        layer: impl FnOnce(Router<Shared>) -> Router<Shared>,
    ) -> Routes {
        self.router = layer(self.router);
        self
    }

    /// The same, all of them below `prefix`.
    pub(super) fn below(mut self, prefix: &str) -> Routes {
        self.router = Router::new().nest(prefix, self.router);
        for operation in &mut self.operations {
            operation.path.insert_str(0, prefix);
        }
        self
    }

    /// The router, and what it serves.
    pub(super) fn into_parts(self) -> (Router<Shared>, Vec<Operation>) {
        (self.router, self.operations)
    }
}

impl About {
    /// Parameters of the query.
    pub(super) fn asks(mut self, query: &[(&'static str, Shape)]) -> About {
        self.query.extend_from_slice(query);
        self
    }

    /// Headers.
    pub(super) fn heeds(mut self, headers: &[(&'static str, Shape)]) -> About {
        self.headers.extend_from_slice(headers);
        self
    }

    /// Pages of a list of these, at most `max` on each.
    pub(super) fn lists(mut self, of: Shape, max: i64) -> About {
        self.query.push(("page", Shape::Integer(1, i64::MAX)));
        self.query.push(("per_page", Shape::Integer(1, max)));
        self.answer = Answer::List(of);
        self
    }

    /// A list of these, on one page.
    pub(super) fn lists_all(mut self, of: Shape) -> About {
        self.answer = Answer::List(of);
        self
    }

    /// One of these.
    pub(super) fn gives(mut self, shape: Shape) -> About {
        self.answer = Answer::One(shape);
        self
    }

    /// One of these, and how long it took.
    pub(super) fn gives_timed(mut self, shape: Shape) -> About {
        self.answer = Answer::Timed(shape);
        self
    }

    /// One of these, without envelope.
    pub(super) fn gives_plain(mut self, shape: Shape) -> About {
        self.answer = Answer::Plain(shape);
        self
    }

    /// Text, without envelope.
    pub(super) fn gives_text(mut self) -> About {
        self.answer = Answer::Text;
        self
    }

    /// A body that `read` reads, as these `examples` of it show.
    pub(super) fn takes(self, read: Read, examples: Examples) -> About {
        self.takes_body(Body::Whole(read, examples))
    }

    /// The same, of which only what changes must be there.
    pub(super) fn takes_part(self, read: Read, examples: Examples) -> About {
        self.takes_body(Body::Part(read, examples))
    }

    /// A body that is described otherwise.
    pub(super) fn takes_body(mut self, body: Body) -> About {
        self.body = Some(body);
        self
    }
}

/// What reads a body: the very function that the handler calls.
pub(super) type Read = fn(Fields) -> Result<(), Refusal>;

/// Bodies that are taken, which together have every field.
pub(super) type Examples = fn() -> Vec<serde_json::Value>;
