#!/bin/bash
# Runs every check: formatting, lints, all tests, and the tests in namespaces last and one at a time. Installs what it needs.
#   test.sh [--no-world]   without the tests that need root and namespaces
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ROOT" || exit

START=$(now_ms)
step() { say "==> $* ($((($(now_ms) - START) / 1000)) s)"; }
has_cargo() { cargo "$1" --version >/dev/null 2>&1; }

WORLD=yes
[ "${1:-}" != --no-world ] || WORLD=no
need_to_build
need_for_tests
[ "$WORLD" = no ] || need_for_world
install_needed

step "scripts"
for script in testbed/*.sh .ci/run; do bash -n "$script"; done

step "formatting"
if has_cargo fmt; then cargo fmt --all -- --check; else say "cargo fmt is not installed: skipped"; fi

step "lints"
if has_cargo clippy; then
  cargo clippy --locked --workspace --all-targets --quiet -- -D warnings
else
  say "cargo clippy is not installed: skipped"
fi

# One build for all that follows, so that no test's time limit pays for it.
step "building"
cargo build --locked --workspace --all-targets --quiet
BIN=${CARGO_TARGET_DIR:-$ROOT/target}/debug/portcullis

step "tests"
if has_cargo nextest; then
  cargo nextest run --locked --workspace --no-tests pass
else
  cargo test --locked --workspace --quiet
fi

step "models of the lock-free tables"
"$TESTBED/models.sh"

step "official clients"
PORTCULLIS_BIN=$BIN "$TESTBED/conformance.sh"

[ "$WORLD" = yes ] || { step "done, without the world" && exit 0; }
step "tests in namespaces"
require_root
take_lock
export PORTCULLIS_BIN=$BIN
trap '"$TESTBED/down.sh" --keep-logs' EXIT
if has_cargo nextest; then
  cargo nextest run --locked --workspace --test world --run-ignored all --no-fail-fast
else
  cargo test --locked -p portcullis-testbed --test world --quiet -- --include-ignored --test-threads 1
fi
trap - EXIT
"$TESTBED/down.sh"
step "IPsec against strongSwan"
"$TESTBED/ipsec.sh"
step "ESP against a real Linux kernel"
"$TESTBED/xfrm.sh"
step "everything passed"
