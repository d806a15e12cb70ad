//! Portcullis testbed.
