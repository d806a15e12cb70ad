//! Portcullis proxy.
