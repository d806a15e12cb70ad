#!/bin/bash
# The load's world: an edge and hundreds of WireGuard peers in namespaces, and what is done with it. load.sh --help
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

usage() {
  cat <<'HELP'
usage: load.sh up [PEERS]       makes pc-load-edge, pc-load-peers and pc-load-evil, starts an edge with PEERS tunnels (257)
       load.sh down             takes all of it away
       load.sh bulk|search|soak|attack [OPTION...]
                                runs portcullis-load there; brings the world up and down again unless it is up
                                portcullis-load --help and portcullis-load attack --help explain the options

PORTCULLIS_BIN names an edge to measure, else the release is built. It takes the testbed's lock: one world at a time.
HELP
}

LOAD_NAMESPACES=(pc-load-edge pc-load-peers pc-load-evil)
LOAD_RUN=$RUN/load

# What runs: a given edge (a test's) comes with a load of the same build beside it.
build_load() {
  if [ -n "${PORTCULLIS_BIN:-}" ]; then
    BIN=$PORTCULLIS_BIN LOAD=${PORTCULLIS_LOAD_BIN:-$(dirname "$PORTCULLIS_BIN")/portcullis-load}
  else
    say "building the release"
    (cd "$ROOT" && cargo build --quiet --locked --release -p portcullis -p portcullis-testbed --bins) || die "cargo build failed"
    BIN=${CARGO_TARGET_DIR:-$ROOT/target}/release/portcullis
    LOAD=$(dirname "$BIN")/portcullis-load
  fi
  [ -x "$BIN" ] && [ -x "$LOAD" ] || die "$BIN and $LOAD must be there"
}

load_up() {
  load_down
  mkdir -p "$LOGS" "$LOAD_RUN"
  chmod 700 "$RUN"
  local ns
  for ns in "${LOAD_NAMESPACES[@]}"; do
    ip netns add "$ns"
    ip -n "$ns" link set lo up
    in_ns "$ns" sh -c 'echo 0 >/proc/sys/net/ipv4/conf/default/rp_filter; echo 0 >/proc/sys/net/ipv4/conf/all/rp_filter'
  done
  load_link peers0 10.77.0.1/30 pc-load-peers 10.77.0.2/30 10.79.0.0/16
  load_link evil0 10.78.0.1/30 pc-load-evil 10.78.0.2/30 10.80.0.0/16
  ip -n pc-load-evil route add 10.77.0.1/32 via 10.78.0.1
  cat >"$LOAD_RUN/edge.toml" <<TOML
data_dir = "$LOAD_RUN/edge"
api_listen = "127.0.0.1:8787"
admin_socket = "$LOAD_RUN/edge.sock"
slice = "100.64.0.0/20"
[router]
tun = "pc-load"
listen = ["10.77.0.1:51820"]
TOML
  start load-edge pc-load-edge "$BIN" edge --config "$LOAD_RUN/edge.toml"
  ready load-edge in_ns pc-load-edge curl -s -o /dev/null -m 1 http://127.0.0.1:8787/client/v4/accounts
  in_ns pc-load-edge "$LOAD" --world "$LOAD_RUN/world.json" configure --api 127.0.0.1:8787 --token "$LOAD_RUN/edge/token" \
    --socket "$LOAD_RUN/edge.sock" --pid "$(pid_of load-edge)" --program "$BIN" --peers "$1"
}

# load_link EDGE_DEV EDGE_ADDRESS NS ADDRESS LOCAL: joins NS to the edge; all of LOCAL is that namespace's own.
load_link() {
  ip -n pc-load-edge link add "$1" type veth peer name edge0 netns "$3"
  ip -n pc-load-edge addr add "$2" dev "$1"
  ip -n "$3" addr add "$4" dev edge0
  ip -n pc-load-edge link set "$1" up
  ip -n "$3" link set edge0 up
  ip -n "$3" route add local "$5" dev lo
  ip -n pc-load-edge route add "$5" via "${4%/*}"
}

load_down() {
  local ns
  stop load-edge
  for ns in "${LOAD_NAMESPACES[@]}"; do
    ! has_ns "$ns" || ip netns del "$ns"
  done
  rm -rf "$LOAD_RUN"
}

is_load_up() { [ -r "$LOAD_RUN/world.json" ] && pid_of load-edge >/dev/null && has_ns pc-load-edge; }

command=${1:-}
case $command in
  up | down | bulk | search | soak | attack) shift ;;
  -h | --help) usage && exit 0 ;;
  *) usage >&2 && exit 2 ;;
esac
require_root
take_lock
[ "$command" != down ] || { load_down && exit 0; }
need ip iproute2
need curl curl
[ -n "${PORTCULLIS_BIN:-}" ] || need_to_build
install_needed
build_load
if [ "$command" = up ]; then
  trap load_down ERR
  load_up "${1:-257}"
  say "the load's world is up"
  exit 0
fi
if ! is_load_up; then
  trap load_down EXIT
  load_up "${LOAD_PEERS:-257}"
fi
"$LOAD" --world "$LOAD_RUN/world.json" "$command" "$@"
