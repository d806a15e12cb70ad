# shellcheck shell=bash
# Checks of what lies below: long paths, peers that move, many peers, floods. Sourced by check.sh.

# --- a wide-area path between client and edge ---

begin_wan() {
  "$TESTBED/wan.sh" up check pc-client wan0 pc-edge wan0
  ip -n pc-client addr add 192.0.2.1/30 dev wan0
  ip -n pc-edge addr add 192.0.2.2/30 dev wan0
  ip -n pc-client route replace "$EDGE_IP/32" via 192.0.2.2
}
end_wan() { "$TESTBED/wan.sh" down check; }

# between VALUE LOW HIGH WHAT: a number, whole or not, within its bounds.
between() {
  say "$4: $1"
  awk -v v="$1" -v low="$2" -v high="$3" 'BEGIN { exit !(v >= low && v <= high) }' && return 0
  note "$4: $1 is not between $2 and $3"
  return 1
}

# The path delays and loses what it is asked to, and the edge's connections over it and behind it use BBR.
check_wan_path() {
  trap end_wan EXIT
  begin_wan
  local seen
  "$TESTBED/wan.sh" set check 'delay 10ms loss 10%' 'delay 10ms'
  seen=$(client ping -n -q -c 1000 -i 0.001 -W 1 192.0.2.2 || true)
  between "$(sed -n 's|^rtt min[^=]*= \([0-9.]*\)/.*|\1|p' <<<"$seen")" 20 23 "shortest round trip in ms where 20 were asked for"
  # Binomial: 100 of 1000 are expected, with a standard deviation of 9.5.
  between $((1000 - $(sed -n 's/.* \([0-9]*\) received.*/\1/p' <<<"$seen"))) 50 150 "packets lost of 1000 where 10 % were asked for"
  "$TESTBED/wan.sh" set check 'delay 10ms' 'delay 10ms loss 1%'
  client curl -s -m 60 -r "0-$(((16 << 20) - 1))" -o "$RUN/wan-part" http://app.example.com/big &
  local download=$!
  wait_for 10 "connections on both sides with BBR" both_have_bbr || { kill "$download"; return 1; }
  wait "$download"
  expect "$(sha256sum <"$RUN/wan-part")" "$(head -c $((16 << 20)) "$RUN/big" | sha256sum)" "16 MiB over the path"
  rm -f "$RUN/wan-part"
}
both_have_bbr() {
  [ "$(in_ns pc-edge ss -Htin dst 192.0.2.1 | grep -c ' bbr ')" -gt 0 ] &&
    [ "$(in_ns pc-edge ss -Htin dst "$ORIGIN_IP" | grep -c ' bbr ')" -gt 0 ]
}

# --- peers that move ---

# A peer of each kind vanishes for a second in the middle of a download and returns with another address:
# site 1 behind a translator that has got another one, site 2 with another one of its own. (Debian's wireguard-go
# goes on sending from an address that its machine no longer has.) No other world has the new addresses: the edge would remember whose they were.
check_roaming() {
  trap end_roaming EXIT
  local bytes=$((24 << 20)) left wanted one two
  wanted=$(head -c "$bytes" "$RUN/big" | sha256sum)
  MOVED_1=$(sent_by 1) MOVED_2=$(sent_by 2)
  moving app "$bytes" >"$RUN/moving1" &
  one=$!
  moving wiki "$bytes" >"$RUN/moving2" &
  two=$!
  wait_for 10 "both downloads" flows
  ip -n pc-site1 link set underlay0 down
  ip -n pc-site2 link set underlay0 down
  ip -n pc-site2 addr flush dev underlay0
  left=$(now_ms)
  wait_for 5 "a second" past $((left + 1000))
  translate 198.51.100.11 198.51.100.41
  ip -n pc-site1 link set underlay0 up
  ip -n pc-site2 addr add 198.51.100.42/24 dev underlay0
  ip -n pc-site2 link set underlay0 up
  wait "$one" || return 1
  wait "$two" || return 1
  expect "$(cat "$RUN/moving1")" "$wanted" "what came from site 1"
  expect "$(cat "$RUN/moving2")" "$wanted" "what came from site 2"
  expect "$(endpoint_of site1)" 198.51.100.41:51820 "where the edge sends to site 1"
  expect "$(endpoint_of site2)" 198.51.100.42:51820 "where the edge sends to site 2"
}

# translate OWN SEEN: what site 1 sends from OWN is seen from SEEN.
translate() {
  ip -n pc-site1 addr add "$2/24" dev underlay0
  in_ns pc-site1 nft -f - <<NFT
table netdev moved {
  chain out { type filter hook egress device "underlay0" priority 0; ip saddr $1 udp sport 51820 ip saddr set $2; }
  chain in { type filter hook ingress device "underlay0" priority 0; ip daddr $2 udp dport 51820 ip daddr set $1; }
}
NFT
}

moving() {
  in_ns pc-client curl -sS -m 60 --limit-rate 12M -r "0-$(($2 - 1))" "http://$1.example.com/big" | sha256sum
}
# Both sites have sent 6 MiB since.
flows() {
  [ "$(sent_by 1)" -gt $((MOVED_1 + (6 << 20))) ] && [ "$(sent_by 2)" -gt $((MOVED_2 + (6 << 20))) ]
}
sent_by() { in_ns "pc-site$1" cat /sys/class/net/underlay0/statistics/tx_bytes; }
endpoint_of() {
  "$BIN" show tunnels --json --socket "$EDGE_SOCKET" | jq -r --arg name "$1" '.[] | select(.name == $name) | .endpoint'
}
end_roaming() {
  local n
  in_ns pc-site1 nft delete table netdev moved 2>/dev/null || true
  for n in 1 2; do
    ip -n "pc-site$n" addr flush dev underlay0
    ip -n "pc-site$n" addr add "198.51.100.1$n/24" dev underlay0
    ip -n "pc-site$n" link set underlay0 up
  done
  rm -f "$RUN/moving1" "$RUN/moving2"
  # The peers' next packets tell the edge where they are again.
  in_ns pc-site1 wg set pcs1 peer "$(in_ns pc-site1 wg show pcs1 peers)" persistent-keepalive 1
  wait_for 15 "traffic in both vnets" both_return
  in_ns pc-site1 wg set pcs1 peer "$(in_ns pc-site1 wg show pcs1 peers)" persistent-keepalive 25
}

# Site 2 says where it is as soon as something behind it asks for the edge, and else after its keepalive of 25 s.
both_return() {
  in_ns pc-origin2 ping -q -n -c 1 -W 1 "$SOURCE_SECOND" >/dev/null || true
  both_answer
}

# --- many peers, and attackers, in a world of their own ---

# A million small packets through 32 tunnels both ways: none overtakes another of its tunnel.
check_order() { LOAD_PEERS=33 "$TESTBED/load.sh" soak --packets 1000000 --peers 32; }

# Every kind of bad input as fast as 100,000 datagrams a second: counted, and the edge does not grow.
check_bad_input() { LOAD_PEERS=17 "$TESTBED/load.sh" attack --millis 300 --rounds 1 --share 0; }

# A flood of handshakes does not stop tunnels that are up. What it takes from them depends on who else uses the
# machine: that is measured by bench.sh load, and not asserted here.
check_handshake_flood() {
  LOAD_PEERS=17 "$TESTBED/load.sh" attack --millis 400 --rounds 3 --share 10 \
    --kind handshake-many-sources --kind handshake-one-source
}
