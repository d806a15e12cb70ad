# shellcheck shell=bash
# Checks of one network behind several tunnels: shares, fail-over under load, the last resort. Sourced by check.sh.

. "$TESTBED/ecmp.sh"

# A world that somebody brought up for himself stays.
begin_ecmp() {
  ECMP_WAS_UP=no ECMP_LOAD=()
  ! ecmp_is_up || ECMP_WAS_UP=yes
  trap end_ecmp EXIT
  need_for_sites
  need_for_ecmp
  install_needed
  ecmp_up
}

end_ecmp() {
  local pid
  for pid in "${ECMP_LOAD[@]}"; do
    kill "$pid" 2>/dev/null || true
  done
  if [ "$ECMP_WAS_UP" = yes ]; then ecmp_mend; else ecmp_down; fi
}

# --- shares ---

ECMP_PORTS=2000

# Two thousand flows, three packets each: every flow is on one tunnel, and the shares follow the weights 2, 1, 1. Flows choose
# among 256 buckets, so a share of a half has a standard deviation of 3 %.
check_ecmp_shares() {
  begin_ecmp
  local seen spare
  spare=$(ecmp_packets spare)
  ecmp_send "$ECMP_PORTS"
  seen=$(ecmp_seen udp_flows)
  expect "$(wc -l <<<"$seen")" "$ECMP_PORTS" "pairs of a flow and a way that it came by"
  between $(($(grep -c lan-wg <<<"$seen") * 100 / ECMP_PORTS)) 40 60 "percent of the flows on WireGuard, of weight 128"
  between $(($(grep -c lan-gre <<<"$seen") * 100 / ECMP_PORTS)) 16 34 "percent on GRE, of weight 64"
  between $(($(grep -c lan-esp <<<"$seen") * 100 / ECMP_PORTS)) 16 34 "percent on IPsec, of weight 64"
  # Again, a little later: the same.
  ecmp_send "$ECMP_PORTS"
  expect "$(ecmp_seen udp_flows | sha256sum)" "$(sha256sum <<<"$seen")" "who is where, the second time"
  expect $(($(ecmp_packets spare) - spare)) 0 "packets of these on the tunnel of lower priority"
}

# ecmp_send FLOWS: three datagrams of each, from as many ports.
ecmp_send() {
  in_ns pc-ecmp nft flush set inet paths udp_flows
  # shellcheck disable=SC2016
  in_ns pc-edge perl -MIO::Socket::INET -e '
    for (1 .. 3) {
      for my $port (20000 .. 19999 + $ARGV[1]) {
        my $socket = IO::Socket::INET->new(Proto => "udp", LocalAddr => $ARGV[0], LocalPort => $port, PeerAddr => "10.8.0.50", PeerPort => 9);
        $socket->send("x") or die "port $port: $!";
      }
      select(undef, undef, undef, 0.05);
    }' "$SOURCE_DEFAULT" "$1"
}

# ecmp_seen SET: "port way" for each flow that the origin has seen, in order.
ecmp_seen() {
  in_ns pc-ecmp nft -j list set inet paths "$1" |
    jq -r '[.nftables[].set.elem // empty | .[] | (.elem.val.concat? // .concat)] | sort_by(.[1]) | .[] | "\(.[1]) \(.[0])"'
}

# What the edge sent into a tunnel, and that beside probes: `probes_sent` counts also those that were due and did not leave.
ecmp_tx() { "$BIN" show tunnels --json --socket "$EDGE_SOCKET" | jq --arg n "ecmp-$1" '.[] | select(.name == $n) | .tx_packets'; }
ecmp_packets() {
  "$BIN" show tunnels --json --socket "$EDGE_SOCKET" |
    jq --arg n "ecmp-$1" '.[] | select(.name == $n) | .tx_packets - (.health.probes_sent // 0)'
}

# --- fail-over under load ---

# The path of one of three tunnels is cut under 32 streams and HTTP load. Its flows go on by the others and come back when it is
# healthy again; the others lose no packet, and nobody is reset.
check_ecmp_failover() {
  begin_ecmp
  local before http moved after counts cut back
  ecmp_load
  before=$(ecmp_flows) || return 1
  http=$(ecmp_seen http | grep -v lan-wg)
  expect "$(awk '{ print $2 }' <<<"$before" | sort -u | paste -sd' ')" 'lan-esp lan-gre lan-wg' "ways that the streams take"
  ip -n pc-net link set ecmp-wg down
  cut=$(now_ms)
  wait_for 10 "the cut tunnel to be down" ecmp_states healthy healthy healthy down
  say "down $(($(now_ms) - cut)) ms after the cut"
  [ $(($(now_ms) - cut)) -le 4500 ] || { note "more than an interval of a second and two for three probes" && return 1; }
  moved=$(ecmp_flows) || return 1
  say "every stream goes on $(($(now_ms) - cut)) ms after the cut"
  expect "$(grep -c lan-wg <<<"$moved" || true)" 0 "streams on the cut tunnel"
  expect "$(join <(grep -v lan-wg <<<"$before") <(echo "$moved") | awk '$2 != $3' | wc -l)" 0 "streams of healthy tunnels that moved"
  ecmp_http_undisturbed "$http"
  ip -n pc-net link set ecmp-wg up
  back=$(now_ms)
  wait_for 15 "it to be degraded" ecmp_states healthy healthy healthy degraded
  wait_for 20 "it to be healthy" ecmp_states healthy healthy healthy healthy
  say "healthy $(($(now_ms) - back)) ms after the cut ended"
  [ $(($(now_ms) - back)) -ge 4000 ] || { note "sooner than five seconds after the last failure" && return 1; }
  after=$(ecmp_flows) || return 1
  expect "$(sha256sum <<<"$after")" "$(sha256sum <<<"$before")" "who is where after recovery"
  expect "$(in_ns pc-ecmp nft -j list counter inet paths resets | jq '[.nftables[].counter // empty | .packets] | add')" 0 "resets that reached the origin"
  counts=$(ecmp_sent_twice 5201)
  ecmp_end_load
  ecmp_streams "$before" "$counts"
  ecmp_told
}

# 32 streams of half a megabit a second, and 16 clients of HTTP that ask 50 times a second each, for half a minute.
ecmp_load() {
  in_ns pc-ecmp nft reset counter inet paths resets >/dev/null
  in_ns pc-edge timeout 60 iperf3 -J -c 10.8.0.50 -B "$SOURCE_DEFAULT" -P 32 -b 500K -l 8K -t 32 -i 1 >"$RUN/ecmp/streams.json" &
  ECMP_LOAD+=("$!")
  { cat "$TESTBED/wrk.lua" && echo 'function delay() return 20 end'; } >"$RUN/ecmp/wrk.lua"
  in_ns pc-client timeout 60 wrk -t 1 -c 16 -d 30 --timeout 20 -s "$RUN/ecmp/wrk.lua" -H 'Host: both.example.com' \
    "http://$EDGE_IP/" >"$RUN/ecmp/wrk.out" &
  ECMP_LOAD+=("$!")
  wait_for 10 "HTTP" ecmp_http_comes
}
ecmp_http_comes() { [ "$(ecmp_seen http | wc -l)" -ge 8 ]; }

# "port way" of every stream, as soon as all have been seen anew. The connection by which iperf3 talks of them is silent.
ecmp_flows() {
  ecmp_forget
  wait_for 10 "a packet of every stream" ecmp_all || return 1
  # A packet that was under way by the old way when the set was emptied would show a stream twice.
  ecmp_forget
  wait_for 10 "another packet of every stream" ecmp_all || return 1
  ecmp_seen streams
}
ecmp_forget() {
  in_ns pc-ecmp nft flush set inet paths streams
  in_ns pc-ecmp nft flush set inet paths http
}
ecmp_all() { [ "$(ecmp_seen streams | wc -l)" = 32 ]; }

# ecmp_http_undisturbed FLOWS: HTTP between edge and origin, as the edge's kernel counts it. These connections by healthy tunnels
# are all still there, and have lost nothing.
ecmp_http_undisturbed() {
  local kept
  kept=$(join <(echo "$1") <(ecmp_sent_twice 80))
  between "$(wc -l <<<"$kept")" 1 1000 "HTTP connections by healthy tunnels"
  expect "$(wc -l <<<"$1")" "$(wc -l <<<"$kept")" "of these before the cut"
  expect "$(awk '{ sum += $3 - $4 } END { print sum }' <<<"$kept")" 0 "packets that they lost"
}

# ecmp_sent_twice PORT: of every connection from the edge to that port, its own port, the packets that it sent again, and how many of
# these the other side had twice (DSACK, RFC 2883): the others were lost. A burst of the flows that move delays answers for some
# milliseconds, and a sender that asks again then (RFC 8985, tail loss probe) has lost nothing.
ecmp_sent_twice() {
  in_ns pc-edge ss -HtinO state established "dst 10.8.0.50 and dport = $1" | awk '{
    again = twice = 0
    for (i = 4; i <= NF; i++) {
      if ($i ~ /^retrans:/) { split($i, part, "/"); again = part[2] }
      if ($i ~ /^dsack_dups:/) { split($i, part, ":"); twice = part[2] }
    }
    n = split($3, local, ":")
    print local[n], again, twice
  }' | sort
}

ecmp_end_load() {
  local pid
  for pid in "${ECMP_LOAD[@]}"; do
    wait "$pid" || { note "the load ended with $?: $(tail -c 300 "$RUN/ecmp/streams.json")" && return 1; }
  done
  ECMP_LOAD=()
}

# ecmp_streams FLOWS COUNTS: what became of every stream, by the way that it had before the cut.
ecmp_streams() {
  local told wrk
  told=$(jq -r --arg flows "$1" --arg counts "$2" '
    def table: split("\n") | map(split(" ") | {key: .[0], value: .[1:]}) | from_entries;
    ($flows | table) as $way | ($counts | table) as $count
    | (.start.connected | map({key: (.socket | tostring), value: (.local_port | tostring)}) | from_entries) as $port
    | [.end.streams[].sender | .port = $port[.socket | tostring] | .way = $way[.port][0]] as $ends
    | [.intervals[1:-1][].streams[] | .way = $way[$port[.socket | tostring]][0]] as $seconds
    | ("lan-esp", "lan-gre", "lan-wg") as $w
    | [$ends[] | select(.way == $w)] as $mine
    | [$mine[] | $count[.port] | map(tonumber)] as $again
    | [$seconds[] | select(.way == $w) | .bits_per_second / 1000 | floor] as $rates
    | "\($w) \($mine | length) \($again | map(.[0]) | add) \($again | map(.[0] - .[1]) | add) \($rates | min) \($mine | map(.max_rtt / 1000 | floor) | max)"
    ' "$RUN/ecmp/streams.json")
  say "way, streams, packets sent again, of these lost, kbit/s of the slowest second of any, ms of the longest round trip"
  say "$told"
  expect "$(awk '$1 != "lan-wg" { sum += $4 } END { print sum }' <<<"$told")" 0 "packets that streams of healthy tunnels lost"
  between "$(awk '$1 == "lan-wg" { print $4 }' <<<"$told")" 1 100000 "packets that streams of the cut tunnel lost"
  between "$(awk '$1 != "lan-wg" { print $6 }' <<<"$told" | sort -n | tail -n 1)" 0 500 "ms of the longest round trip of these"
  # 500 kbit/s were asked for.
  between "$(awk '$1 != "lan-wg" { print $5 }' <<<"$told" | sort -n | head -n 1)" 300 1000 "kbit/s of the slowest second of a healthy tunnel's stream"
  read -r -a wrk < <(grep RESULT "$RUN/ecmp/wrk.out")
  say "HTTP: ${wrk[4]} requests, half within ${wrk[2]} ms, 99 % within ${wrk[3]} ms, ${wrk[5]} failed"
  expect "${wrk[5]}" 0 "HTTP requests that failed"
}

# The API has the state, and how it came about.
ecmp_told() {
  local id seen
  id=$(api GET "/accounts/$ACCOUNT_ID/wireguard_tunnels?name=ecmp-wg" | jq -r '[.[] | select(.name == "ecmp-wg") | .id][0]')
  seen=$(api GET "/accounts/$ACCOUNT_ID/wireguard_tunnels/$id" | jq -r '.health | .state, (.history[:3] | reverse[] | "\(.from)-\(.to)")' | paste -sd' ')
  expect "$seen" 'healthy healthy-down down-degraded degraded-healthy' "what the API says of the tunnel"
  "$BIN" show tunnels --socket "$EDGE_SOCKET"
}

# --- the last resort ---

# Where all tunnels of a priority are down the next has everything; where that is down too, one that is down is tried.
check_ecmp_priority() {
  begin_ecmp
  ecmp_send 200
  local before spare
  before=$(ecmp_seen udp_flows)
  ip -n pc-net link set ecmp-wg down
  ip -n pc-net link set ecmp-esp down
  ecmp_linux 'ip link set gre1 down'
  wait_for 10 "three tunnels to be down" ecmp_states down down healthy down
  spare=$(ecmp_tx spare)
  ecmp_send 200
  expect "$(ecmp_seen udp_flows | awk '{ print $2 }' | sort | uniq -c | awk '{ print $1, $2 }')" '200 lan-gre' "flows by the Linux router"
  between $(($(ecmp_tx spare) - spare)) 600 700 "packets on the tunnel of lower priority"
  ecmp_mend
  ecmp_send 200
  expect "$(ecmp_seen udp_flows | sha256sum)" "$(sha256sum <<<"$before")" "who is where after recovery"
}

# Everything as it was.
ecmp_mend() {
  ip -n pc-net link set ecmp-wg up
  ip -n pc-net link set ecmp-esp up
  ecmp_linux 'ip link set gre1 up; ip route replace 100.64.0.0/12 dev gre1 metric 1'
  wait_for 40 "all tunnels to be healthy" ecmp_states healthy healthy healthy healthy
}
