# shellcheck shell=bash disable=SC2034
# What peers.sh and the benchmarks share: places, progress, peers, WireGuard pairs, samples. Sourced after lib.sh.

PEERS=$RUN/peers
RESULTS=${PORTCULLIS_BENCH_DIR:-$RUN/bench}
# The world of a benchmark has its own pid files and logs: up.sh and down.sh have theirs beside it.
RUN=$RUN/bench-world
LOGS=$RUN/logs
export PORTCULLIS_BENCH_DIR=$RESULTS

# --- progress ---

STARTED=$(now_ms)
step() { note "==> $* ($((($(now_ms) - STARTED) / 1000)) s)"; }

# watched SECONDS WHAT LOG COMMAND...: runs COMMAND with its output in LOG, says how far it is, ends it after SECONDS.
watched() {
  local seconds=$1 what=$2 log=$3 begin pid rc=0 shown=0 passed
  shift 3
  mkdir -p "$(dirname "$log")"
  begin=$(now_ms)
  timeout -k 5 "$seconds" "$@" >"$log" 2>&1 </dev/null &
  pid=$!
  # A command in the background does not see the terminal's interrupt.
  # shellcheck disable=SC2064
  trap "kill $pid 2>/dev/null; exit 130" INT TERM
  while kill -0 "$pid" 2>/dev/null; do
    sleep 0.2
    passed=$((($(now_ms) - begin) / 1000))
    if [ -t 2 ]; then
      printf '\r\033[K    %s: %s s  %.60s' "$what" "$passed" "$(tail -n 1 "$log" | tr -d '\r\t')" >&2
    elif [ $((passed - shown)) -ge 30 ]; then
      shown=$passed
      note "    $what: $passed s  $(tail -n 1 "$log" | cut -c 1-60)"
    fi
  done
  wait "$pid" || rc=$?
  trap - INT TERM
  [ ! -t 2 ] || printf '\r\033[K' >&2
  [ "$rc" = 0 ] || note "    $what failed (status $rc): see $log"
  return "$rc"
}

# --- peers ---

# Name | how to get it | what it is. The first five carry packets; onetun is a gateway to TCP ports.
PEER_TABLE='
wireguard-go           | apt wireguard-go wireguard-go                | Debian 12, without GSO
wireguard-go-backports | deb bookworm-backports wireguard-go          | the newer wireguard-go, with GSO
wireguard-go-sid       | deb sid wireguard-go                         | the newest in Debian
gotatun                | cargo gotatun-cli 0.10.2 gotatun             | Rust, a fork of boringtun
boringtun              | cargo boringtun-cli 0.7.1 boringtun-cli      | Rust, what our handshakes come from
onetun                 | cargo onetun 0.3.10 onetun                   | Rust, TCP ports by smoltcp, without privileges
'

trim() { sed -E 's/^ +| +$//g' <<<"$1"; }

peer_names() { sed -nE 's/^([a-z][a-z-]*) *\|.*/\1/p' <<<"$PEER_TABLE"; }

# peer_how NAME: the words of how to get it.
peer_how() { sed -nE "s/^$1 *\| *([^|]*[^| ]) *\|.*/\1/p" <<<"$PEER_TABLE"; }

# peer_path NAME: its program, if it is there.
peer_path() {
  local how path
  read -ra how <<<"$(peer_how "$1")"
  case ${how[0]:-} in
    apt) path=$(PATH=$PATH:/usr/sbin:/sbin command -v "${how[2]}") || return 1 ;;
    deb) path=$PEERS/$1/usr/bin/${how[2]} ;;
    cargo) path=$PEERS/bin/${how[3]} ;;
    *) return 1 ;;
  esac
  [ -x "$path" ] && printf '%s' "$path"
}

# peer_version NAME
peer_version() {
  local how
  read -ra how <<<"$(peer_how "$1")"
  case ${how[0]} in
    apt) dpkg-query -W -f '${Version}' "${how[1]}" 2>/dev/null ;;
    deb) cat "$PEERS/$1/version" ;;
    cargo) printf '%s' "${how[2]}" ;;
  esac
}

# --- the machine, as it is quoted beside numbers ---

machine() {
  local model
  model=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)
  printf '%s, %s × %s, Linux %s' "$(date -u +%F)" "$(nproc)" "${model:-processor}" "$(uname -r | cut -d. -f1,2)"
}

# --- the two programs of ours ---

# build_release: sets BIN and BENCH. PORTCULLIS_BIN and PORTCULLIS_BENCH name ready ones.
build_release() {
  local target=${CARGO_TARGET_DIR:-$ROOT/target} build=()
  BIN=${PORTCULLIS_BIN:-$target/release/portcullis}
  BENCH=${PORTCULLIS_BENCH:-$target/release/portcullis-bench}
  [ -n "${PORTCULLIS_BIN:-}" ] || build+=(-p portcullis)
  [ -n "${PORTCULLIS_BENCH:-}" ] || build+=(-p portcullis-testbed)
  if [ "${#build[@]}" -gt 0 ]; then
    need_to_build
    install_needed
    step "building the release (the first time takes five to ten minutes on two cores)"
    watched 3600 "cargo build --release" "$LOGS/build.log" \
      cargo build --release --locked --manifest-path "$ROOT/Cargo.toml" "${build[@]}" --bins ||
      die "the release does not build: see $LOGS/build.log"
  fi
  [ -x "$BIN" ] || die "PORTCULLIS_BIN=$BIN is not a program"
  [ -x "$BENCH" ] || die "PORTCULLIS_BENCH=$BENCH is not a program"
}

# --- the bench's world: namespaces pc-bench-NAME-SIDE, gone when the script ends, however it ends ---

BENCH_NAMESPACES=()

bench_ns() {
  ip netns add "$1"
  BENCH_NAMESPACES+=("$1")
  # shellcheck disable=SC2016
  in_ns "$1" sh -c 'ip link set lo up; cd /proc/sys/net/ipv4
    for f in conf/default/rp_filter conf/all/rp_filter; do echo 0 >$f; done'
}

# wire NS1 NS2 DEVICE ADDRESS1 ADDRESS2: a veth pair with the device's name at both ends, /24.
wire() {
  ip -n "$1" link add "$3" type veth peer name "$3" netns "$2"
  ip -n "$1" addr add "$4/24" dev "$3"
  ip -n "$2" addr add "$5/24" dev "$3"
  ip -n "$1" link set "$3" up
  ip -n "$2" link set "$3" up
}

bench_down() {
  local file ns
  shopt -s nullglob
  for file in "$RUN"/*.pid; do
    stop "$(basename "$file" .pid)" || true
  done
  for ns in /run/netns/pc-bench-*; do
    ip netns del "$(basename "$ns")" 2>/dev/null || true
  done
  rm -f /run/wireguard/pcb*.sock /var/run/wireguard/pcb*.sock
  rm -rf "$STATE-bench"
  find "$RUN" -mindepth 1 -maxdepth 1 ! -name logs -exec rm -rf {} + 2>/dev/null || true
}

# Also a caller that holds the testbed's lock waits for another benchmark: their namespaces have the same names.
bench_begin() {
  require_root
  take_lock
  exec 8>"$LOCK.bench"
  flock -w 600 8 || die "another benchmark holds $LOCK.bench"
  bench_down
  rm -f "$LOGS"/*pcb-*
  mkdir -p "$RUN" "$LOGS" "$STATE-bench" "$RESULTS"
  chmod 700 "$RUN"
  trap bench_end EXIT
}

bench_end() {
  local rc=$?
  trap - EXIT
  bench_down
  exit "$rc"
}

# tunnel_device PROGRAM: starts a peer's TUN device NAME in NAMESPACE.  tunnel_device PEER NAME NAMESPACE
tunnel_device() {
  local peer=$1 name=$2 ns=$3 program
  program=$(peer_path "$peer") || die "$peer is not there: testbed/peers.sh $peer"
  case $peer in
    wireguard-go*) start "$name" "$ns" env WG_PROCESS_FOREGROUND=1 LOG_LEVEL=error "$program" "$name" ;;
    gotatun | boringtun) start "$name" "$ns" "$program" --foreground --disable-drop-privileges "$name" ;;
  esac
  wait_for 10 "$peer as $name" in_ns "$ns" wg show "$name" || die "see $LOGS/$name.log"
}

# set_peer NS DEVICE PRIVATE PORT PEER_PUBLIC ENDPOINT ALLOWED
set_peer() {
  in_ns "$1" wg set "$2" private-key <(printf '%s\n' "$3") listen-port "$4" \
    peer "$5" ${6:+endpoint "$6"} allowed-ips "$7" persistent-keepalive 25
  ip -n "$1" link set "$2" mtu 1420 up
}

# ticks NAME...: CPU time of processes and their children in clock ticks: utime, stime (proc(5), fields 14 and 15).
ticks() {
  local name pid total=0
  for name in "$@"; do
    for pid in $(family "$(pid_of "$name")"); do
      total=$((total + $(own_ticks "$pid")))
    done
  done
  printf '%s' "$total"
}

own_ticks() {
  local stat
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || { printf 0 && return 0; }
  stat=${stat##*) }
  # shellcheck disable=SC2086
  set -- $stat
  printf '%s' $((${12} + ${13}))
}

# family PID: it, and its children.
family() { printf '%s ' "$1" && cat "/proc/$1/task/"*/children 2>/dev/null; }

TICKS_PER_SECOND=$(getconf CLK_TCK)

# sample CASE SUBJECT UNIT NUMBER: one round's number of one thing.
sample() { printf '%s\t%s\t%s\t%s\n' "$@" >>"$SAMPLES"; }

# divide A B [DIGITS]: a quotient for `sample`; nothing when B is 0.
divide() { awk -v a="$1" -v b="$2" -v d="${3:-4}" 'BEGIN { if (b > 0) printf "%.*f", d, a / b }'; }

# --- our edge, and its configuration through the API ---

# edge_toml NAME UNDERLAY [HTTP_ADDRESS]: writes run/NAME.toml
edge_toml() {
  cat >"$RUN/$1.toml" <<TOML
data_dir = "$RUN/$1"
api_listen = "127.0.0.1:8787"
admin_socket = "$STATE-bench/$1.sock"
slice = "100.64.0.0/20"
[router]
tun = "pc-tun"
mtu = 1420
listen = ["$2:51820"]
endpoint = "$2:51820"
[proxy]
http = [${3:+\"$3:80\"}]
edge_addresses = [${3:+\"$3\"}]
TOML
}

# our_edge NAME NAMESPACE: starts it, and aims `api` at it.
our_edge() {
  start "$1" "$2" "$BIN" edge --config "$RUN/$1.toml"
  API_NAMESPACE=$2 API_URL=http://127.0.0.1:8787/client/v4
  ready "$1" edge_answers
  API_TOKEN=$(cat "$RUN/$1/token")
  ACCOUNT_ID=$(api GET /accounts | jq -er '.[0].id')
  VNET=$(api GET "/accounts/$ACCOUNT_ID/teamnet/virtual_networks" | jq -er '.[0].id')
}

# our_tunnel PEER_PUBLIC ENDPOINT: a tunnel that leads to 10.0.0.50; prints the edge's public key.
our_tunnel() {
  local answer
  answer=$(api POST "/accounts/$ACCOUNT_ID/wireguard_tunnels" "$(jq -nc --arg vnet "$VNET" --arg key "$1" --arg at "$2" \
    '{name:"bench", virtual_network_id:$vnet, peer_public_key:$key, endpoint:$at, mtu:1420, persistent_keepalive:25}')")
  api POST "/accounts/$ACCOUNT_ID/teamnet/routes" "$(jq -nc --arg t "$(field id <<<"$answer")" --arg v "$VNET" \
    '{network:"10.0.0.50/32", tunnel_id:$t, virtual_network_id:$v}')" >/dev/null
  field public_key <<<"$answer"
}

# our_site NAME NAMESPACE PRIVATE EDGE_PUBLIC EDGE_ENDPOINT: the private side of ours, with 10.0.0.50 behind it.
our_site() {
  cat >"$RUN/$1.toml" <<TOML
admin_socket = "$STATE-bench/$1.sock"
[router]
tun = "pc-tun"
mtu = 1420
listen = ["0.0.0.0:51820"]
address = "10.0.0.50"
lan = ["10.0.0.50/32"]
[wireguard]
private_key = "$3"
peer_public_key = "$4"
endpoint = "$5"
keepalive = 25
TOML
  start "$1" "$2" "$BIN" site --config "$RUN/$1.toml"
  ready "$1" "$BIN" show tunnels --socket "$STATE-bench/$1.sock"
}

# our_source NAME: the source address of the edge's vnet.
our_source() { "$BIN" show sources --json --socket "$STATE-bench/$1.sock" | jq -er '.[0].ipv4'; }

# io_counter NAME FIELD: one counter of a node's ports.
io_counter() {
  "$BIN" show counters --json --socket "$STATE-bench/$1.sock" | jq -er --arg field "$2" '.router.io[$field]'
}
