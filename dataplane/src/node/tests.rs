//! Two nodes back to back.
