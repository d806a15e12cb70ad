//! What a reader asks of a body, field by field: the schema that the reader enforces, told by itself.
//!
//! A reader runs on an example with a [`Log`]; [`super::Fields`] writes down each field that it is asked for.

use std::sync::{Arc, Mutex, PoisonError};

/// What a reader asked for, in order.
#[derive(Clone, Debug, Default)]
pub struct Log(Arc<Mutex<Vec<Asked>>>);

/// One field that a reader asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Where it is: `/health_check/rate`; entries of lists have `*` for their place.
    pub path: String,
    /// What it must be.
    pub form: Form,
}

/// What the value of a field must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Form {
    /// Whatever the reader makes of it.
    Any,
    /// A boolean.
    Boolean,
    /// A whole number.
    Integer {
        /// The least.
        min: u64,
        /// The greatest.
        max: u64,
    },
    /// Text without control characters.
    Text {
        /// Most characters.
        chars_max: usize,
    },
    /// Text of several lines.
    Lines {
        /// Most characters.
        chars_max: usize,
    },
    /// Text that parses as what the sentence says.
    Parsed(String),
    /// A UUID.
    Uuid,
    /// One of these words.
    Words(Vec<String>),
    /// A list of texts.
    Texts {
        /// Most characters of each.
        chars_max: usize,
    },
    /// An object whose fields were asked for too, if the example has it.
    Object {
        /// Whether the example has it.
        is_there: bool,
    },
    /// A list of objects.
    Objects {
        /// Most entries.
        max: usize,
        /// Whether the example has one.
        is_there: bool,
    },
    /// Taken and not looked at: a client sends it back as it was shown.
    Ignored,
}

impl Log {
    /// Writes down a field. What is asked of the same field later is more exact.
    pub fn note(&self, path: String, form: Form) {
        let mut asked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match asked.iter_mut().find(|asked| asked.path == path) {
            Some(known) if !matches!(form, Form::Any | Form::Ignored) => known.form = form,
            Some(_) => {}
            None => asked.push(Asked { path, form }),
        }
    }

    /// Everything that was asked for.
    pub fn asked(&self) -> Vec<Asked> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}
