#!/bin/bash
# Runs loom's models of the lock-free tables, in their own build directory: loom's cfg is for a whole build.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ROOT" || exit

# One cfg for our atomics, one for crossbeam-epoch's.
export RUSTFLAGS="--cfg portcullis_loom --cfg crossbeam_loom"
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$ROOT/target}/models
timeout 300 cargo test --locked --quiet -p portcullis-models --lib
