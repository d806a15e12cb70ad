//! Header codecs that etherparse does not have, and checksums.
