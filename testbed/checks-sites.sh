# shellcheck shell=bash
# Checks of traffic from site to site, and of what must never pass. Sourced by check.sh.

. "$TESTBED/world.sh"
. "$TESTBED/uml.sh"
. "$TESTBED/sites.sh"

# A world that somebody brought up for himself stays.
begin_sites() {
  SITES_WERE_UP=no
  ! sites_are_up || SITES_WERE_UP=yes
  trap end_sites EXIT
  need_for_sites
  install_needed
  sites_up
}

# The sites of the default vnet, with the addresses of a host in each.
SITES=('pc-origin1 10.0.0.50 fd00:10::50' 'one 10.3.0.50 fd00:3::50' 'pc-site4 10.4.0.50 fd00:4::50')
# What the host in a site says of itself.
sites_name() { case $1 in pc-site4) echo four ;; *) echo "${1#pc-}" ;; esac }

# Every site reaches every other, both families, and is seen there with its own address; long transfers are whole; a
# traceroute shows each hop; the other vnet has its own pair at the same addresses.
check_site_to_site() {
  begin_sites
  local from to name v4 v6 other other4 other6 seen
  for from in "${SITES[@]}"; do
    read -r name v4 v6 <<<"$from"
    for to in "${SITES[@]}"; do
      read -r other other4 other6 <<<"$to"
      [ "$name" != "$other" ] || continue
      sites_ping "$name" "$v4" "$other4"
      sites_ping "$name" "$v6" "$other6"
      sites_ask "$name" "$v4" "$other" "$other4"
      sites_ask "$name" "$v6" "$other" "[$other6]"
    done
  done
  seen=$("$BIN" show tunnels --json --socket "$EDGE_SOCKET" | jq -r '.[] | select(.name == "site4") | .endpoint')
  expect "$seen" '[2001:db8:51::14]:51820' "where the edge sends to site 4"
  sites_whole one 16
  sites_whole pc-site4 64
  sites_hops
  sites_ask pc-origin2 10.0.0.50 two 10.3.0.50
  sites_ask two 10.3.0.50 pc-origin2 10.0.0.50
  sites_ask pc-origin2 fd00:10::50 two '[fd00:3::50]'
}

sites_ping() {
  expect_like "$(patient at "$1" ping -n -q -c 3 -i 0.1 -W 2 "$3" || true)" '* 0% packet loss*' "$1 $2 to $3"
}

# sites_ask FROM ITS_ADDRESS TO URL_HOST: who answers, and whom the answering server says it sees.
sites_ask() {
  local answer
  case $3 in
    pc-origin*) answer=$(at "$1" curl -sS -m 10 "http://$4/headers" | sed -nE 's/^(origin|remote_addr)=//p' | paste -sd' ') ;;
    *) answer=$(at "$1" curl -sS -m 10 "http://$4/") ;;
  esac
  expect "$answer" "$(sites_name "$3") $2" "$1 asks $4"
}

# sites_whole PLACE MIB: that much of origin 1's file, there.
sites_whole() {
  local sum bytes=$(($2 << 20))
  sum=$(at "$1" sh -c "curl -sS -m 18 -r 0-$((bytes - 1)) http://10.0.0.50/big | sha256sum")
  expect "$sum" "$(head -c "$bytes" "$RUN/big" | sha256sum)" "$2 MiB from origin1 to $1"
}

# Out of each kind of tunnel, and into each: the edge is one hop.
sites_hops() {
  local edge6=2606:4700:cf1:5000::6440:1
  expect "$(hops pc-origin1 10.3.0.50)" '10.0.0.1 100.64.0.1 10.3.0.50' "from WireGuard into GRE"
  expect "$(hops pc-origin1 10.4.0.50)" '10.0.0.1 100.64.0.1 10.4.0.50' "from WireGuard into WireGuard over IPv6"
  expect "$(hops one 10.0.0.50)" '100.64.0.1 10.0.0.1 10.0.0.50' "from GRE into WireGuard"
  expect "$(hops one 10.4.0.50)" '100.64.0.1 10.4.0.50' "from GRE into WireGuard over IPv6"
  expect "$(hops pc-site4 10.3.0.50)" '100.64.0.1 10.3.0.50' "from WireGuard over IPv6 into GRE"
  expect "$(hops pc-origin2 10.3.0.50)" '10.0.0.1 10.0.0.1 100.64.0.1 10.3.0.50' "from our site, a hop of its own, into GRE"
  expect "$(hops one fd00:4::50)" "$edge6 fd00:4::50" "from GRE into WireGuard over IPv6, IPv6 inside"
  expect "$(hops pc-site4 fd00:3::50)" "$edge6 fd00:3::50" "from WireGuard over IPv6 into GRE, IPv6 inside"
  expect "$(hops pc-origin1 fd00:4::50)" "fd00:10::1 $edge6 fd00:4::50" "from WireGuard into WireGuard over IPv6, IPv6 inside"
}
hops() { at "$1" traceroute -n -q 1 -w 3 -m 6 "$2" | awk 'NR > 1 { print $2 }' | paste -sd' '; }

# The second vnet has hosts at the same addresses, a stranger on the underlay knows the keys: nothing of theirs arrives at the
# default vnet, and all of it is counted.
check_site_to_site_apart() {
  begin_sites
  local kept
  kept=$(sites_arrived)
  # What only the other vnet has, out of each kind of tunnel; then our links, and the other vnet's link of the same address.
  sites_try pc-origin2 10.0.0.50 10.4.0.50 no_route
  sites_try two 10.3.0.50 10.4.0.50 no_route
  sites_try pc-origin2 fd00:10::50 fd00:4::50 no_route
  sites_try two fd00:3::50 fd00:4::50 no_route
  sites_try pc-origin2 10.0.0.50 10.255.3.1 no_route
  sites_try pc-origin2 10.0.0.50 10.255.3.0 no_route
  # Addresses of the other vnet as the source, towards hosts that the own vnet has.
  sites_forge pc-site2 10.4.0.50 10.3.0.50 source_not_allowed
  sites_forge two 10.4.0.50 10.0.0.50 source_not_allowed
  # The other vnet's source address on the edge, out of GRE too.
  sites_try two 10.3.0.50 "$SOURCE_DEFAULT" return_vnet_mismatch
  # A real kernel sends with the right key from another address, and with a wrong key from the right one.
  sites_stranger 198.51.100.32 31
  sites_stranger 198.51.100.31 33
  expect "$(sites_arrived)" "$kept" "packets that came out of tunnels of the default vnet"
  # They still work, all of them.
  sites_ask pc-origin1 10.0.0.50 one 10.3.0.50
  sites_ask pc-origin2 10.0.0.50 two 10.3.0.50
}

# What the far ends have received, by their own count: echo requests at origin 1, whose connections with the edge's proxy may have
# something to say at any time, and all packets at the two others.
sites_arrived() {
  printf '%s %s %s' "$(echoes 1)" "$(in_ns pc-site4 cat /sys/class/net/pcs4/statistics/rx_packets)" \
    "$(at one ip -s -j link show gre-one | jq '.[0].stats64.rx.packets')"
}

# sites_try PLACE SOURCE DESTINATION REASON: five packets that nobody answers, and that are dropped for that reason: all of the five,
# and nothing else of that tunnel. Others may be dropped for it at the same time: where a check before this one has deleted a
# route, the edge's kernel still tries to close its connections, five times a second for 90 s.
sites_try() {
  local seen before after noise
  noise=$(reason not_unicast)
  before=("$(reason "$4")" "$(sites_dropped "$1" "$4")")
  seen=$(at "$1" ping -n -q -c 5 -i 0.02 -W 1 -I "$2" "$3" || true)
  after=("$(reason "$4")" "$(sites_dropped "$1" "$4")" "$(reason not_unicast)")
  expect_like "$seen" '*, 0 received,*' "$1 $2 to $3"
  # What a host says to its neighbours, into every tunnel, is dropped as that.
  noise=$((after[2] - noise))
  [ $((after[0] - before[0])) -ge 5 ] || die "$((after[0] - before[0])) of 5 dropped as $4"
  [ $((after[1] - before[1])) -ge 5 ] || die "$((after[1] - before[1])) of 5 dropped at the tunnel"
  [ $((after[1] - before[1])) -le $((5 + noise)) ] || die "$((after[1] - before[1])) in place of 5 dropped at the tunnel"
  say "dropped as $4: 5"
}
reason() {
  "$BIN" show counters --json --socket "$EDGE_SOCKET" | jq --arg r "$1" '[.. | objects | .drops? // empty | .[$r]? // 0] | add'
}

# sites_dropped PLACE REASON: packets of the tunnel that leads there that the edge has dropped; of no tunnel, for that reason.
sites_dropped() {
  case $1 in
    pc-origin2 | pc-site2) tunnel_dropped site2 ;;
    two) tunnel_dropped linux-two ;;
    stranger) reason "$2" ;;
    *) die "no tunnel leads to $1" ;;
  esac
}

sites_forge() {
  at "$1" ip addr add "$2/32" dev lo
  sites_try "$@"
  at "$1" ip addr del "$2/32" dev lo
}

# sites_stranger OUTER KEY: a tunnel that the edge does not know, by which somebody sends as a host of the default vnet.
sites_stranger() {
  at_kernel "ip addr add $1/24 dev vec0 2>/dev/null; ip netns add stranger
    ip link add gre-x ${SITES_GRE/198.51.100.31/$1} key $2 && ip link set gre-x netns stranger"
  # Without IPv6 it says nothing by itself.
  at stranger sh -ec "echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6
    ip link set lo up
    ip link set gre-x up
    ip addr add 10.3.0.50/32 dev lo
    ip route add default dev gre-x"
  sites_try stranger 10.3.0.50 10.4.0.50 gre_name_unknown
  at_kernel 'ip netns del stranger'
}

end_sites() {
  in_ns pc-site2 ip addr del 10.4.0.50/32 dev lo 2>/dev/null || true
  if [ "$SITES_WERE_UP" = yes ]; then
    at_kernel 'ip -n two addr del 10.4.0.50/32 dev lo 2>/dev/null; ip netns del stranger 2>/dev/null' || true
  else
    sites_down
  fi
}
