//! Portcullis controlplane.
