# shellcheck shell=bash
# Checks of IPsec tunnels that the API made, in a world of their own beside the edge's. Sourced by check.sh.

. "$TESTBED/ipsec-world.sh"

# The world is left as it was found: with its IPsec part, or without.
begin_ipsec() {
  need_for_ipsec_world
  install_needed
  ipsec_is_up || trap ipsec_world_down EXIT
  ipsec_world_up
  . "$RUN/ipsec.env"
}

through() { patient in_ns pc-edge ping -n -q -i 0.05 -W 2 -I "$SOURCE_IPSEC" "$@"; }
ipsec_health() { [ "$(ipsec_shown "$1" .health.state)" = "$2" ]; }
# A tunnel that is older than its other end has been down, and is degraded for a while.
ipsec_answers() { ipsec_health "$1" healthy || ipsec_health "$1" degraded; }
answers_by_vpn() { [ "$(get --resolve "vpn.example.com:80:$EDGE_IP" http://vpn.example.com/)" = originipsec ]; }
mss() { in_ns pc-ipsec-origin nft -j list counter inet portcullis "$1" | jq -r '[.nftables[].counter // empty | .packets] | add'; }

# The customer's name, its origin's address that two others have too, all sizes, all the way, and back after a crash.
check_ipsec_strongswan() {
  local seen
  begin_ipsec
  wait_for 10 "probes to be answered" ipsec_answers "$TUNNEL_IPSEC"
  seen=$(through -c 20 10.0.0.50)
  expect_like "$seen" '* 0% packet loss*' "20 echoes"
  expect "$(get --resolve "vpn.example.com:80:$EDGE_IP" http://vpn.example.com/)" originipsec "the public name"
  answers_by_others
  expect_like "$(through -c 3 -s 1372 -M 'do' 10.0.0.50)" '* 0% packet loss*' "packets of the tunnel's MTU, uncut"
  expect_like "$(through -c 3 -s 4000 10.0.0.50)" '* 0% packet loss*' "packets of 4028 bytes, cut"
  seen=$(in_ns pc-edge ping -n -c 1 -W 2 -s 1373 -M 'do' -I "$SOURCE_IPSEC" 10.0.0.50 2>&1 || true)
  expect_like "$seen" '*mtu*1400*' "a byte more, uncut"
  ipsec_hops
  in_ns pc-edge timeout 30 iperf3 -c 10.0.0.50 -B "$SOURCE_IPSEC" -n 24M
  in_ns pc-edge timeout 30 iperf3 -c 10.0.0.50 -B "$SOURCE_IPSEC" -n 24M -R
  expect "$(mss mss_too_big)" 0 "SYNs with segments that do not fit"
  [ "$(mss mss_fits)" -ge 3 ]
  expect "$(ipsec_shown "$TUNNEL_IPSEC" '[.ipsec_status.children[] | select(.sends)] | length')" 2 "child SAs that strongSwan made"
  expect "$(ipsec_shown "$TUNNEL_IPSEC" '.ipsec_status.children[0] | "\(.transform) \(.is_in_udp)"')" 'aes128-gcm16 true' "the child SA"
  expect_like "$("$BIN" show tunnels --socket "$EDGE_SOCKET")" '*strongswan*' "show tunnels"
  ipsec_crash
}

answers_by_others() {
  expect "$(get http://app.example.com/)" origin1 "the same address in the default vnet"
  expect "$(get http://wiki.example.com/)" origin2 "the same address in the second vnet"
}

# Into each kind of customer's router, and out of each: the edge is one hop, and so is every router.
ipsec_hops() {
  expect "$(ipsec_trace pc-edge 10.0.0.50 -s "$SOURCE_IPSEC")" '100.64.0.1 10.0.0.1 10.0.0.50' "to the origin behind strongSwan"
  expect "$(ipsec_trace pc-ipsec-origin 10.3.0.50)" '10.0.0.1 100.64.0.1 10.3.0.50' "from behind strongSwan to our site"
  expect "$(ipsec_trace pc-ipsec-ours 10.0.0.50 -s 10.3.0.50)" '10.3.0.1 100.64.0.1 10.0.0.1 10.0.0.50' "from our site, a hop of its own, to behind strongSwan"
}
ipsec_trace() { in_ns "$1" traceroute -n -q 1 -w 3 -m 6 "${@:3}" "$2" | awk 'NR > 1 { print $2 }' | paste -sd' '; }

# strongSwan is killed, and returns: seen by the probes, shown by the API, and its name answers again.
ipsec_crash() {
  stop ipsec-charon KILL
  wait_for 10 "the tunnel to be down" ipsec_health "$TUNNEL_IPSEC" down
  expect_like "$(status --resolve "vpn.example.com:80:$EDGE_IP" http://vpn.example.com/)" '5??' "the name meanwhile"
  expect_like "$(through -c 3 10.3.0.50)" '* 0% packet loss*' "the vnet's other tunnel meanwhile"
  answers_by_others
  charon_start ipsec-charon pc-ipsec-site
  wait_for 20 "the name to answer again" answers_by_vpn
  wait_for 10 "probes to be answered again" ipsec_answers "$TUNNEL_IPSEC"
  say "history: $(ipsec_shown "$TUNNEL_IPSEC" '[.health.history[] | "\(.from) to \(.to)"] | join(", ")')"
}

# strongSwan over IPv6: both families inside, all sizes, bulk both ways; and nothing of it by IPv4.
check_ipsec_over_ipv6() {
  local rekeyed
  begin_ipsec
  wait_for 10 "probes to be answered" ipsec_answers "$TUNNEL_IPSEC_SIX"
  expect "$(ipsec_shown "$TUNNEL_IPSEC_SIX" '.ipsec_status.children[0] | "\(.transform) \(.is_in_udp)"')" 'aes128-gcm16 true' "the child SA"
  expect "$(ipsec_endpoint six)" '[2001:db8:51::16]:4500' "where the edge sends to"
  expect_like "$(through -c 20 10.6.0.50)" '* 0% packet loss*' "20 echoes"
  expect_like "$(through6 -c 20 fd00:6::50)" '* 0% packet loss*' "20 echoes, IPv6 inside"
  expect_like "$(through -c 3 -s 1372 -M 'do' 10.6.0.50)" '* 0% packet loss*' "packets of the tunnel's MTU, uncut"
  expect_like "$(through6 -c 3 -s 1352 -M 'do' fd00:6::50)" '* 0% packet loss*' "and IPv6 ones"
  expect_like "$(through -c 3 -s 4000 10.6.0.50)" '* 0% packet loss*' "packets of 4028 bytes, cut"
  # The sender cuts IPv6, and is told by the first one into what.
  through6 -c 1 -s 4000 fd00:6::50 || true
  expect_like "$(through6 -c 3 -s 4000 fd00:6::50)" '* 0% packet loss*' "packets of 4048 bytes, cut"
  in_ns pc-edge timeout 30 iperf3 -c 10.6.0.50 -B "$SOURCE_IPSEC" -n 24M
  in_ns pc-edge timeout 30 iperf3 -c 10.6.0.50 -B "$SOURCE_IPSEC" -n 24M -R
  in_ns pc-edge timeout 30 iperf3 -c fd00:6::50 -B "$SOURCE6_IPSEC" -n 24M
  in_ns pc-edge timeout 30 iperf3 -c fd00:6::50 -B "$SOURCE6_IPSEC" -n 24M -R
  charon_ask ipsec-six --rekey --child net >>"$LOGS/ipsec-six-swanctl.log" 2>&1 &
  rekeyed=$!
  expect_like "$(through -c 40 10.6.0.50)" '* 0% packet loss*' "40 echoes while the child SA is replaced"
  wait "$rekeyed"
}
through6() { patient in_ns pc-edge ping -n -q -i 0.05 -W 2 -I "$SOURCE6_IPSEC" "$@"; }
ipsec_endpoint() { "$BIN" show tunnels --json --socket "$EDGE_SOCKET" | jq -r --arg t "$1" '.[] | select(.name == $t) | .endpoint'; }

# Our own site as the customer's router: IP protocol 50, probes both ways, and its neighbour of the same vnet.
check_ipsec_site() {
  begin_ipsec
  wait_for 10 "probes to be answered" ipsec_answers "$TUNNEL_IPSEC_OURS"
  expect_like "$(through -c 20 10.3.0.50)" '* 0% packet loss*' "20 echoes"
  expect "$(ipsec_shown "$TUNNEL_IPSEC_OURS" '.ipsec_status.children[0].is_in_udp')" false "whether it goes in UDP"
  expect_like "$(through -c 3 -s 4000 10.3.0.50)" '* 0% packet loss*' "packets of 4028 bytes, cut"
  in_ns pc-edge timeout 30 iperf3 -c 10.3.0.50 -B "$SOURCE_IPSEC" -n 100M
  in_ns pc-edge timeout 30 iperf3 -c 10.3.0.50 -B "$SOURCE_IPSEC" -n 100M -R
  wait_for 10 "an answer from the neighbour behind strongSwan" \
    in_ns pc-ipsec-ours ping -n -c 1 -W 1 -I 10.3.0.50 10.0.0.50
  ipsec_one_way
}

# Answers to unidirectional probes come past the tunnel: they are there as long as the customer's router answers, and not without.
ipsec_one_way() {
  local kind path=/accounts/$ACCOUNT_ID/magic/ipsec_tunnels/$TUNNEL_IPSEC_OURS
  for kind in request reply; do
    api PUT "$path" "{\"health_check\":{\"direction\":\"unidirectional\",\"type\":\"$kind\"}}" >/dev/null
    wait_for 10 "answers past the tunnel, $kind" ipsec_answers "$TUNNEL_IPSEC_OURS"
    in_ns pc-edge nft add table inet oneway
    in_ns pc-edge nft add chain inet oneway in '{ type filter hook prerouting priority -400; }'
    in_ns pc-edge nft add rule inet oneway in ip saddr 198.51.100.14 icmp type echo-reply drop
    wait_for 10 "the tunnel to be down without them, $kind" ipsec_health "$TUNNEL_IPSEC_OURS" down
    in_ns pc-edge nft delete table inet oneway
    say "$kind: answers come past the tunnel"
  done
  api PUT "$path" '{"health_check":{"direction":"bidirectional","type":"request"}}' >/dev/null
}
