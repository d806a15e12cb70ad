#!/bin/bash
# Runs one check of the world that is up, by name:  check.sh NAME | check.sh --list
# Demo and tests share these. A check prints what it saw, ends with 0 or 1, and leaves the world as it found it.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
. "$TESTBED/configure.sh"
. "$TESTBED/checks-paths.sh"
. "$TESTBED/checks-faults.sh"
. "$TESTBED/checks-underlay.sh"
. "$TESTBED/checks-userspace.sh"
. "$TESTBED/checks-names.sh"
. "$TESTBED/checks-private.sh"
. "$TESTBED/checks-range.sh"
. "$TESTBED/checks-gre.sh"
. "$TESTBED/checks-sites.sh"
. "$TESTBED/checks-ecmp.sh"
. "$TESTBED/checks-ipsec.sh"
. "$TESTBED/checks-direct.sh"
. "$TESTBED/checks-multi.sh"

# expect ACTUAL EXPECTED WHAT
expect() {
  if [ "$1" != "$2" ]; then
    note "$3: expected '$2', saw '$1'"
    return 1
  fi
  say "$3: $1"
}

# A pattern of `case` instead of a fixed text.
expect_like() {
  # shellcheck disable=SC2254
  case $1 in
    $2) say "$3: $1" ;;
    *) note "$3: expected something like '$2', saw '$1'" && return 1 ;;
  esac
}

# tunnel_dropped NAME: packets of that tunnel of the edge that were dropped, whatever the reason. What the edge's counters have more
# is of others: the kernel, for one, still tries to close connections whose route is gone.
tunnel_dropped() {
  "$BIN" show tunnels --json --socket "$EDGE_SOCKET" | jq -er --arg t "$1" '.[] | select(.name == $t) | .dropped_packets'
}

client() { in_ns pc-client "$@"; }
get() { client curl -sS -m 15 --cacert "$CA_FILE" "$@"; }
status() { get -o /dev/null -w '%{http_code}' "$@"; }

if [ "${1:-}" = --list ]; then
  declare -F | sed -n 's/^declare -f check_//p'
  exit 0
fi
declare -F "check_${1:-}" >/dev/null || die "no such check: ${1:-}; check.sh --list names them"
require_root
load_env
BIN=$PORTCULLIS_BIN
"check_$1"
