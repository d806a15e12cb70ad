//! A write below `/accounts/{account}/magic`: rehearsed or carried out, and what is answered.

use std::collections::HashMap;

use axum::extract::FromRequestParts;
use http::request::Parts;
use serde_json::{Value, json};

use super::super::context::{self, Shared};
use super::super::input::{At, Params};
use crate::model::{HexId, Refusal};
use crate::store::Transaction;

/// What a request wants to change, or with `validate_only` only wants to know of.
pub(super) struct Writing {
    pub(super) shared: Shared,
    account: String,
    is_rehearsal: bool,
}

impl FromRequestParts<Shared> for Writing {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, shared: &Shared) -> Result<Writing, Refusal> {
        let params = Params::from_request_parts(parts, shared).await?;
        let At(path) = At::<HashMap<String, String>>::from_request_parts(parts, shared).await?;
        Ok(Writing {
            shared: shared.clone(),
            // A path without one is not served here.
            account: path.get("account").cloned().unwrap_or_default(),
            is_rehearsal: params.boolean("validate_only")?.unwrap_or(false),
        })
    }
}

impl Writing {
    /// Only asks, as the body says, too.
    pub(super) fn rehearsed_if(mut self, is_rehearsal: bool) -> Writing {
        self.is_rehearsal |= is_rehearsal;
        self
    }

    /// Makes the change to the account, or finds out whether it would be refused.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Transaction, HexId) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let account = self.account.clone();
        let change = move |transaction: &mut Transaction| {
            let account = context::account(transaction.snapshot(), &account)?.id;
            change(transaction, account)
        };
        match self.is_rehearsal {
            true => self.shared.rehearse(change).await,
            false => self.shared.write(change).await,
        }
    }

    /// What was made. Clients read the object itself, the product's documents show a list (api.md 0).
    pub(super) fn made(&self, mut shown: Value, many: &str) -> Value {
        if self.is_rehearsal {
            shown["id"] = Value::Null;
        }
        let list = json!([shown]);
        shown[many] = list;
        shown
    }

    /// What was `modified` or `deleted`, and whether it was.
    pub(super) fn done(&self, how: &str, what: &str, shown: impl Into<Value>) -> Value {
        keyed(&[
            (how, json!(!self.is_rehearsal)),
            (&format!("{how}_{what}"), shown.into()),
        ])
    }
}

/// An object of these keys.
pub(super) fn keyed(pairs: &[(&str, Value)]) -> Value {
    let pairs = pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), value.clone()));
    Value::Object(pairs.collect())
}
