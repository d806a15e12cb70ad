//! Desired state against a naive model.
