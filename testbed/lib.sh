# shellcheck shell=bash disable=SC2034
# What the testbed's scripts share: paths, packages, bounded waits, processes, the API. Sourced, never run.

set -euo pipefail

TESTBED=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(dirname "$TESTBED")
RUN=$TESTBED/run
LOGS=$RUN/logs
# Unix sockets have short paths whatever the checkout's path is; `owner` says which checkout's world is up.
STATE=/run/portcullis-testbed
LOCK=/tmp/portcullis-netns.lock
NAMESPACES=(pc-client pc-edge pc-net pc-site1 pc-origin1 pc-site2 pc-origin2)

say() { printf '%s\n' "$*"; }
note() { printf '%s\n' "$*" >&2; }
die() {
  note "$(basename "$0"): $*"
  exit 1
}

require_root() {
  [ "$(id -u)" = 0 ] || die "namespaces need root: run it with sudo"
}

# One world on a machine, and one script at a time that changes it. A caller that holds the lock says so
# with PORTCULLIS_LOCKED=1.
take_lock() {
  [ -z "${PORTCULLIS_LOCKED:-}" ] || return 0
  exec 9>"$LOCK"
  flock -w 600 9 || die "another run holds $LOCK"
  export PORTCULLIS_LOCKED=1
}

# wait_for SECONDS WHAT COMMAND...: runs COMMAND every 50 ms until it succeeds; an error after SECONDS.
wait_for() {
  local seconds=$1 what=$2 deadline
  shift 2
  deadline=$(($(now_ms) + seconds * 1000))
  until "$@" >/dev/null 2>&1; do
    if [ "$(now_ms)" -ge "$deadline" ]; then
      note "waited $seconds s in vain for $what"
      return 1
    fi
    sleep 0.05
  done
}

now_ms() { printf '%s' $(($(date +%s%N) / 1000000)); }

in_ns() {
  local ns=$1
  shift
  ip netns exec "$ns" "$@"
}

has_ns() { [ -e "/run/netns/$1" ]; }

# --- processes: one file NAME.pid each, "PID STARTTIME", so that a reused PID is never taken for ours ---

# The start time of a process in clock ticks (proc(5), /proc/PID/stat field 22).
start_time() {
  local stat
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
  stat=${stat##*) }
  # shellcheck disable=SC2086
  set -- $stat
  [ "$1" != Z ] || return 1
  printf '%s' "${20}"
}

# Prints the PID of process NAME if it runs.
pid_of() {
  local pid start
  [ -r "$RUN/$1.pid" ] || return 1
  read -r pid start <"$RUN/$1.pid" || return 1
  [ -n "$start" ] && [ "$(start_time "$pid")" = "$start" ] || return 1
  printf '%s' "$pid"
}

# start NAME NAMESPACE COMMAND...: in the background, log in run/logs/NAME.log. Nothing if it runs already.
start() {
  local name=$1 ns=$2
  shift 2
  pid_of "$name" >/dev/null && return 0
  mkdir -p "$LOGS"
  setsid ip netns exec "$ns" "$@" >>"$LOGS/$name.log" 2>&1 </dev/null 8>&- 9>&- &
  record_pid "$name" $!
}

record_pid() {
  printf '%s %s\n' "$2" "$(start_time "$2")" >"$RUN/$1.pid" ||
    die "$1 ended at once: see $LOGS/$1.log"
}

gone() { ! pid_of "$1" >/dev/null; }

# stop NAME [SIGNAL]: ends process NAME; SIGKILL after 10 s.
stop() {
  local name=$1 pid
  if pid=$(pid_of "$name"); then
    kill "-${2:-TERM}" "$pid" 2>/dev/null || true
    wait_for 10 "$name to end" gone "$name" || kill -KILL "$pid" 2>/dev/null || true
    wait_for 5 "$name to be gone" gone "$name" || true
  fi
  rm -f "$RUN/$name.pid"
}

# --- packages ---

# need BINARY PACKAGE: remembers PACKAGE when BINARY is missing; install_needed installs all of them.
NEEDED=()
need() {
  PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null || NEEDED+=("$2")
}

install_needed() {
  [ "${#NEEDED[@]}" -gt 0 ] || return 0
  require_root
  say "installing: ${NEEDED[*]}"
  # Debian starts a service when it installs it; we want the programs only.
  local policy=/usr/sbin/policy-rc.d made=no rc=0
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    made=yes
  fi
  install_packages || rc=$?
  [ "$made" = no ] || rm -f "$policy"
  [ "$rc" = 0 ] || die "apt-get could not install ${NEEDED[*]}: see $LOGS/apt.log"
}

install_packages() {
  mkdir -p "$LOGS"
  local apt=(env DEBIAN_FRONTEND=noninteractive apt-get -y -q --no-install-recommends)
  "${apt[@]}" install "${NEEDED[@]}" >"$LOGS/apt.log" 2>&1 && return 0
  apt-get -q update >>"$LOGS/apt.log" 2>&1 &&
    "${apt[@]}" install "${NEEDED[@]}" >>"$LOGS/apt.log" 2>&1
}

# For the tests of the store for many machines.
need_for_tests() {
  need etcd etcd-server
  need etcdctl etcd-client
}

need_to_build() {
  need cc build-essential
  need make build-essential
  need c++ build-essential
  need cmake cmake
  command -v cargo >/dev/null || die "cargo is missing: install Rust (https://rustup.rs) first"
}

# For uml.sh, which wan.sh and the GRE checks use.
need_for_path() {
  need linux.uml user-mode-linux
  need insmod kmod
  need ethtool ethtool
  need tc iproute2
  need cc build-essential
}

need_for_world() {
  need_for_path
  need ip iproute2
  need nft nftables
  need ping iputils-ping
  need flock util-linux
  need setsid util-linux
  need wireguard-go wireguard-go
  need wg wireguard-tools
  need nginx nginx
  need redis-server redis-server
  need redis-cli redis-tools
  need dnsmasq dnsmasq-base
  need python3 python3
  need dig bind9-dnsutils
  need named-checkzone bind9-utils
  need curl curl
  need jq jq
  need openssl openssl
  [ -e /etc/ssl/certs/ca-certificates.crt ] || NEEDED+=(ca-certificates)
}

# --- the binary ---

# Builds the binary unless PORTCULLIS_BIN names one; sets BIN.
build() {
  if [ -n "${PORTCULLIS_BIN:-}" ]; then
    BIN=$PORTCULLIS_BIN
    [ -x "$BIN" ] || die "PORTCULLIS_BIN=$BIN is not a program"
    return
  fi
  say "building portcullis (the first time takes some minutes)"
  (cd "$ROOT" && cargo build --quiet --locked --bin portcullis) || die "cargo build failed"
  BIN=${CARGO_TARGET_DIR:-$ROOT/target}/debug/portcullis
}

# --- the API ---

# api METHOD PATH [JSON]: one API call from inside the edge's namespace. Prints the answer's `result`; an error if the answer
# is not a success. With API_TRACE=1 the curl command goes to standard error first.
api() {
  local method=$1 path=$2 body=${3:-} answer
  local args=(-sS -m 10 -X "$method")
  [ -z "${API_TRACE:-}" ] || trace_call "$method" "$path" "$body"
  [ -z "$body" ] || args+=(-H 'Content-Type: application/json' --data "$body")
  answer=$(in_ns "${API_NAMESPACE:-pc-edge}" curl "${args[@]}" -H "Authorization: Bearer $API_TOKEN" "$API_URL$path") || return 1
  if [ "$(jq -r '.success' <<<"$answer" 2>/dev/null)" != true ]; then
    note "the API refused $method $path: $answer"
    return 1
  fi
  jq -c '.result' <<<"$answer"
}

trace_call() {
  local method=$1 path=$2 body=$3 verb=''
  { [ "$method" = GET ] && [ -z "$body" ]; } || verb="-X $method "
  # The reader expands $API_URL and $API_TOKEN after `. testbed/run/env`.
  # shellcheck disable=SC2016
  printf '$ ip netns exec pc-edge curl %s"$API_URL%s" -H "Authorization: Bearer $API_TOKEN"' "$verb" "$path" >&2
  [ -z "$body" ] || printf " \\\\\n    --json '%s'" "$body" >&2
  printf '\n' >&2
}

# field NAME: reads an API result from standard input and prints one of its fields.
field() { jq -er ".$1"; }

load_env() {
  [ -r "$RUN/env" ] || die "no world is up: run testbed/up.sh first"
  # shellcheck disable=SC1091
  . "$RUN/env"
}

# --- a whole world: every namespace exists, every process runs ---

PROCESSES=(nginx1 redis1 dns1 nginx2 redis2 dns2 wireguard1 edge site2)

world_exists() {
  local ns
  [ -r "$RUN/env" ] || return 1
  for ns in "${NAMESPACES[@]}"; do
    has_ns "$ns" || return 1
  done
}

world_runs() {
  local name
  world_exists || return 1
  for name in "${PROCESSES[@]}"; do
    pid_of "$name" >/dev/null || return 1
  done
}

# patient RUNNER... ping OPTION...: a ping with an interval below a second. It waits for the last answer no longer than that interval,
# or two round trips: on a busy machine too short. So where some are missing, those count that its kernel has got 2 s later.
patient() {
  local runner=() count='' arg before said status=0
  for arg in "$@"; do
    [ "$arg" != ping ] || break
    runner+=("$arg")
  done
  count=$(sed -nE 's/.* -c ([0-9]+) .*/\1/p' <<<"$*")
  before=$(echo_replies "${runner[@]}")
  said=$("$@") || status=$?
  printf '%s\n' "$said"
  case $said in *', 0 received'* | *', 0% packet loss'*) return "$status" ;; esac
  for _ in {1..20}; do
    if [ $(($(echo_replies "${runner[@]}") - before)) = "$count" ]; then
      say "all $count came, the last one late: 0% packet loss"
      return 0
    fi
    sleep 0.1
  done
  return "$status"
}
# Answers to pings that a kernel has got since it was started. RFC 2011, RFC 2466.
echo_replies() {
  "$@" cat /proc/net/snmp /proc/net/snmp6 | awk '$1 == "Icmp:" && !n { n = split($0, name); next }
    $1 == "Icmp:" { for (i = 2; i <= n; i++) if (name[i] == "InEchoReps") sum += $i }
    $1 == "Icmp6InEchoReplies" { sum += $2 }
    END { print sum + 0 }'
}

# Echo requests that origin 1 or 2 has seen: counted there, not by what is being tested.
echoes() {
  in_ns "pc-origin$1" nft -j list counter inet portcullis echo_requests |
    jq -r '[.nftables[].counter // empty | .packets] | add'
}

start_edge() {
  start edge pc-edge "$BIN" edge --config "$RUN/edge.toml"
}

# The edge serves when its API answers at all; 401 or 403 without a token is an answer.
edge_answers() {
  in_ns "${API_NAMESPACE:-pc-edge}" curl -s -o /dev/null -m 1 "http://127.0.0.1:8787/client/v4/accounts"
}

# ready NAME COMMAND...: process NAME has come to where COMMAND succeeds; an error at once if it has ended.
ready() {
  local name=$1
  shift
  wait_for 20 "$name to serve" come_or_gone "$name" "$@" && pid_of "$name" >/dev/null && return 0
  note "--- end of $LOGS/$name.log:"
  tail -n 5 "$LOGS/$name.log" >&2 || true
  die "$name does not serve: see $LOGS/$name.log"
}
come_or_gone() {
  local name=$1
  shift
  "$@" || gone "$name"
}

wait_edge() { ready edge edge_answers; }
