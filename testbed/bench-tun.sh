# shellcheck shell=bash
# TUN to TUN without encryption: two direct links of one site, the two back ends of a TUN port. Sourced by bench.sh.

# Name | back end | as it is called in tables | what the router is started by
TUN_TABLE='
vnethdr | offload | portcullis                          |
plain   | plain   | plain TUN (tun-tap), same router     |
batch   | offload | portcullis under SCHED_BATCH         | chrt -b 0
pinned  | offload | portcullis, all threads on one core  | taskset -c 0
'
# What is measured unless --only says otherwise: the others are what was tried to be faster.
TUN_SUBJECTS='vnethdr plain'

tun_subjects() { awk -F '|' 'NF > 1 { print $1 }' <<<"$TUN_TABLE" | tr -d ' '; }

tun_field() { trim "$(grep "^$1 " <<<"$TUN_TABLE" | cut -d '|' -f "$2")"; }

bench_tun() {
  local name round seconds=4 subjects=()
  [ "$QUICK" = no ] || seconds=1
  for name in $(tun_subjects); do
    if [ -n "$ONLY" ]; then chosen "$name"; else [[ " $TUN_SUBJECTS " = *" $name "* ]]; fi && subjects+=("$name")
  done
  [ "${#subjects[@]}" -gt 0 ] || die "none of these: $ONLY; there are $(tun_subjects | tr '\n' ' ')"
  need iperf3 iperf3
  need wg wireguard-tools
  need jq jq
  install_needed
  bench_begin
  for name in "${subjects[@]}"; do tun_up "$name"; done
  for ((round = 1; round <= ROUNDS; round++)); do
    step "tun: round $round of $ROUNDS"
    for name in "${subjects[@]}"; do
      tun_run "$name" 'one TCP stream' -t "$seconds"
      tun_run "$name" 'UDP, as much as goes' -t "$seconds" -u -b 0 -l 1360
    done
  done
}

# A router in the middle, a device of it in each of two namespaces. Its own tunnel leads nowhere: no packet goes there.
tun_up() {
  local name=$1 middle=pc-bench-$1-m a=pc-bench-$1-a b=pc-bench-$1-b site=pcb-$1-m by
  for ns in "$middle" "$a" "$b"; do bench_ns "$ns"; done
  cat >"$RUN/$site.toml" <<TOML
admin_socket = "$STATE-bench/$site.sock"
[router]
tun = "pc-tun"
tun_backend = "$(tun_field "$name" 2)"
mtu = 1420
address = "10.0.0.1"
lan = []
[wireguard]
private_key = "$(wg genkey)"
peer_public_key = "$(wg genkey | wg pubkey)"
endpoint = "127.0.0.1:9"
[[direct]]
device = "pcl-a"
prefixes = ["10.1.0.1/32"]
[[direct]]
device = "pcl-b"
prefixes = ["10.1.0.2/32"]
TOML
  read -ra by <<<"$(tun_field "$name" 4)"
  start "$site" "$middle" "${by[@]}" "$BIN" site --config "$RUN/$site.toml"
  ready "$site" "$BIN" show tunnels --socket "$STATE-bench/$site.sock"
  tun_move "$middle" pcl-a "$a" 10.1.0.1
  tun_move "$middle" pcl-b "$b" 10.1.0.2
  start "iperf-$name" "$b" iperf3 -s -B 10.1.0.2
  wait_for 20 "a first packet through $name" in_ns "$a" ping -n -c 1 -W 1 10.1.0.2
}

# tun_move FROM DEVICE TO ADDRESS
tun_move() {
  ip -n "$1" link set "$2" netns "$3"
  ip -n "$3" addr add "$4/32" dev "$2"
  ip -n "$3" link set "$2" mtu 1420 txqueuelen 10000 up
  ip -n "$3" route add default dev "$2"
}

# tun_run NAME CASE OPTION...: rate, and the router's CPU time per packet of full size.
tun_run() {
  local name=$1 case=$2 subject cpu packets
  shift 2
  subject=$(tun_field "$name" 3)
  cpu=$(ticks "pcb-$name-m")
  in_ns "pc-bench-$name-a" timeout 20 iperf3 -J -c 10.1.0.2 -B 10.1.0.1 "$@" >"$RUN/iperf.json" || return 0
  cpu=$((($(ticks "pcb-$name-m") - cpu) * 1000000 / TICKS_PER_SECOND))
  if [[ " $* " = *' -u '* ]]; then
    sample "$case" "$subject" Gb/s "$(iperf_field '(.end.sum | .bytes * 8 * (1 - .lost_percent / 100) / .seconds) / 1e9')"
    packets=$(iperf_field '.end.sum | .packets - .lost_packets')
  else
    sample "$case" "$subject" Gb/s "$(iperf_field '.end.sum_received.bits_per_second / 1e9')"
    packets=$(iperf_field '.end.sum_received.bytes / .start.tcp_mss_default')
  fi
  sample "$case" "$subject" 'µs CPU/packet' "$(divide "$cpu" "$packets")"
}
