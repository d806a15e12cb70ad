# shellcheck shell=bash
# The routing benchmark: TCP and UDP kernel to kernel through each WireGuard, our ESP and our GRE, on one veth pair each. Sourced by bench.sh.

# Name | program at the client's end | at the server's end | as it is called in tables
ROUTING_TABLE='
veth      | -                     | -                     | veth without tunnel
ours      | ours                  | ours                  | portcullis
esp       | esp                   | esp                   | portcullis, ESP-GCM in UDP
gre       | gre                   | gre                   | portcullis, GRE
mixed     | ours                  | wireguard-go-backports | portcullis to wireguard-go 2023
backports | wireguard-go-backports | wireguard-go-backports | wireguard-go 2023 (backports)
sid       | wireguard-go-sid      | wireguard-go-sid      | wireguard-go 2026 (sid)
gotatun   | gotatun               | gotatun               | gotatun 0.10.2
boringtun | boringtun             | boringtun             | boringtun-cli 0.7.1
debian    | wireguard-go          | wireguard-go          | wireguard-go 2022 (Debian 12)
'

routing_subjects() { sed -nE 's/^([a-z]+) *\|.*/\1/p' <<<"$ROUTING_TABLE"; }
routing_field() { trim "$(grep "^$1 " <<<"$ROUTING_TABLE" | cut -d '|' -f "$2")"; }

# For each subject that is there: where to send from and to, and the processes that carry it.
declare -A FROM TO CARRIERS

bench_routing() {
  local name round subjects=() seconds=4 few=2
  [ "$QUICK" = no ] || seconds=1 few=1
  need iperf3 iperf3
  need wg wireguard-tools
  need jq jq
  install_needed
  bench_begin
  for name in $(routing_subjects); do
    chosen "$name" || continue
    routing_there "$name" || continue
    routing_up "$name" && subjects+=("$name")
  done
  for ((round = 1; round <= ROUNDS; round++)); do
    step "routing: round $round of $ROUNDS, ${#subjects[@]} subjects"
    for name in "${subjects[@]}"; do
      routing_tcp "$name" 'one TCP stream' -t "$seconds"
    done
    # Every other round is enough for the cases that are not compared with a target.
    [ $((round % 2)) = 1 ] || continue
    for name in "${subjects[@]}"; do
      routing_tcp "$name" 'one TCP stream, reverse' -t "$few" -R
      routing_tcp "$name" 'eight TCP streams' -t "$few" -P 8
      routing_udp "$name" 'UDP, as much as goes' "$few"
    done
  done
}

# Whether both programs of a subject are there; notes the absent one.
routing_there() {
  local end
  for end in "$(routing_field "$1" 2)" "$(routing_field "$1" 3)"; do
    case $end in - | ours | esp | gre) continue ;; esac
    peer_path "$end" >/dev/null && continue
    say "$(routing_field "$1" 4): testbed/peers.sh $end" >>"$ABSENT"
    note "    $1: $end is absent"
    return 1
  done
}

routing_up() {
  local name=$1 a=pc-bench-$1-a b=pc-bench-$1-b
  bench_ns "$a"
  bench_ns "$b"
  wire "$a" "$b" wire 198.18.0.1 198.18.0.2
  tunnel_pair "$name" "$(routing_field "$name" 2)" "$(routing_field "$name" 3)"
  start "iperf-$name" "$b" iperf3 -s -B "${TO[$name]}"
  wait_for 20 "a first packet through $name" in_ns "$a" ping -n -c 1 -W 1 -I "${FROM[$name]}" "${TO[$name]}" || return 1
}

# tunnel_pair NAME CLIENT_END SERVER_END [HTTP_ADDRESS]: WireGuard between pc-bench-NAME-a and -b, 10.0.0.50 at the latter.
tunnel_pair() {
  local name=$1 a=pc-bench-$1-a b=pc-bench-$1-b near=pcb-$1-a far=pcb-$1-b key1 key2 public1
  if [ "$2" = - ]; then
    FROM["$name"]=198.18.0.1 TO["$name"]=198.18.0.2 CARRIERS["$name"]=''
    return
  fi
  if [ "$2" = esp ] || [ "$2" = gre ]; then
    site_pair "$name" "$2"
    return
  fi
  key1=$(wg genkey) key2=$(wg genkey)
  CARRIERS["$name"]="$near $far" TO["$name"]=10.0.0.50
  if [ "$2" = ours ]; then
    edge_toml "$near" 198.18.0.1 "${4:-}"
    our_edge "$near" "$a"
    public1=$(our_tunnel "$(wg pubkey <<<"$key2")" 198.18.0.2:51820)
    FROM["$name"]=$(our_source "$near")
  else
    tunnel_device "$2" "$near" "$a"
    set_peer "$a" "$near" "$key1" 51820 "$(wg pubkey <<<"$key2")" 198.18.0.2:51820 10.0.0.50/32
    ip -n "$a" addr add 10.9.0.1/32 dev "$near"
    ip -n "$a" route add 10.0.0.50/32 dev "$near"
    public1=$(wg pubkey <<<"$key1")
    FROM["$name"]=10.9.0.1
  fi
  ip -n "$b" addr add 10.0.0.50/32 dev lo
  if [ "$3" = ours ]; then
    our_site "$far" "$b" "$key2" "$public1" 198.18.0.1:51820
  else
    tunnel_device "$3" "$far" "$b"
    set_peer "$b" "$far" "$key2" 51820 "$public1" 198.18.0.1:51820 100.64.0.0/12,10.9.0.0/24
    ip -n "$b" route add 100.64.0.0/12 dev "$far"
    ip -n "$b" route add 10.9.0.0/24 dev "$far"
  fi
}

# site_pair NAME KIND: portcullis site at both ends, as a router of a customer would have it.
site_pair() {
  local name=$1 kind=$2 near=pcb-$1-a far=pcb-$1-b mtu=1464
  # As much as our WireGuard carries in a packet, for comparison.
  [ "$kind" = gre ] || mtu=1420
  CARRIERS["$name"]="$near $far" FROM["$name"]=10.9.0.1 TO["$name"]=10.0.0.50
  # The one that answers first: the other's first request finds it.
  "${kind}_says" 198.18.0.2 198.18.0.1 false | site_end "$far" "pc-bench-$1-b" 10.0.0.50 10.9.0.1 "$mtu"
  "${kind}_says" 198.18.0.1 198.18.0.2 true | site_end "$near" "pc-bench-$1-a" 10.9.0.1 10.0.0.50 "$mtu"
}

# gre_says LOCAL REMOTE INITIATES
gre_says() {
  cat <<TOML
[gre]
local = "$1"
remote = "$2"
key = 1
TOML
}

# esp_says LOCAL REMOTE INITIATES: keys of IKEv2, AES-128-GCM in UDP.
esp_says() {
  cat <<TOML
[ipsec]
local = "$1"
remote = "$2"
local_identity = "$1"
remote_identity = "$2"
psk = "a key of both ends"
initiates = $3
encapsulation = "udp"
esp = ["aes128-gcm16"]
TOML
}

# site_end NAME NAMESPACE ADDRESS FAR_ADDRESS MTU: standard input is what its tunnel is.
site_end() {
  ip -n "$2" addr add "$3/32" dev lo
  {
    cat <<TOML
admin_socket = "$STATE-bench/$1.sock"
[router]
tun = "$1"
mtu = $5
address = "$3"
lan = ["$3/32"]
TOML
    cat
    say "routes = [\"$4/32\"]"
  } >"$RUN/$1.toml"
  start "$1" "$2" "$BIN" site --config "$RUN/$1.toml"
  ready "$1" "$BIN" show tunnels --socket "$STATE-bench/$1.sock"
}

# iperf NAME OPTION...: one run; its JSON in run/iperf.json.
iperf() {
  local name=$1
  shift
  in_ns "pc-bench-$name-a" timeout 20 iperf3 -J -c "${TO[$name]}" -B "${FROM[$name]}" "$@" >"$RUN/iperf.json" ||
    { note "    $name: iperf3: $(jq -r .error "$RUN/iperf.json" 2>/dev/null)" && return 1; }
}
iperf_field() { jq -r "$1 // 0" "$RUN/iperf.json"; }

# routing_tcp NAME CASE OPTION...: rate, CPU time per packet of full size, retransmissions; ours also packets a call.
routing_tcp() {
  local name=$1 case=$2 subject before after packets
  shift 2
  subject=$(routing_field "$name" 4)
  before=$(carried "$name")
  iperf "$name" "$@" || return 0
  after=$(carried "$name")
  sample "$case" "$subject" Gb/s "$(iperf_field '.end.sum_received.bits_per_second / 1e9')"
  [ "$name" != veth ] || return 0
  packets=$(iperf_field '.end.sum_received.bytes / .start.tcp_mss_default')
  routing_cost "$case" "$subject" "$packets" "$before" "$after"
  sample "$case" "$subject" retransmits/GB "$(iperf_field '.end.sum_sent.retransmits / (.end.sum_received.bytes / 1e9)')"
}

routing_udp() {
  local name=$1 case=$2 subject before after
  subject=$(routing_field "$name" 4)
  before=$(carried "$name")
  iperf "$name" -u -b 0 -l 1360 -t "$3" || return 0
  after=$(carried "$name")
  sample "$case" "$subject" Gb/s "$(iperf_field '(.end.sum | .bytes * 8 * (1 - .lost_percent / 100) / .seconds) / 1e9')"
  [ "$name" = veth ] || routing_cost "$case" "$subject" "$(iperf_field '.end.sum | .packets - .lost_packets')" "$before" "$after"
}

# carried NAME: what its processes have used so far: CPU ticks, and of our edge datagrams and calls of each direction.
carried() {
  local name=$1 edge=pcb-$1-a
  # shellcheck disable=SC2086
  printf '%s' "$(ticks ${CARRIERS[$name]})"
  case $(routing_field "$name" 2) in ours | esp) ;; *) return 0 ;; esac
  "$BIN" show counters --json --socket "$STATE-bench/$edge.sock" |
    jq -r '.router.io | " \(.udp_send_datagrams) \(.udp_sends) \(.udp_recv_datagrams) \(.udp_recvs)"'
}

# routing_cost CASE SUBJECT PACKETS BEFORE AFTER
routing_cost() {
  local before after cpu
  read -ra before <<<"$4"
  read -ra after <<<"$5"
  cpu=$(((after[0] - before[0]) * 1000000 / TICKS_PER_SECOND))
  sample "$1" "$2" 'µs CPU/packet, both ends' "$(divide "$cpu" "$3")"
  [ "${#after[@]}" -gt 1 ] || return 0
  sample "$1" "$2" 'packets sent/call' "$(divide $((after[1] - before[1])) $((after[2] - before[2])))"
  sample "$1" "$2" 'packets received/call' "$(divide $((after[3] - before[3])) $((after[4] - before[4])))"
}
