# shellcheck shell=bash
# Checks of Ethernet ports that are the router's, in a world of their own. Sourced by check.sh.

. "$TESTBED/direct.sh"

begin_direct() {
  trap direct_down EXIT
  need_for_direct
  install_needed
  direct_up
}

# A link that is older than its neighbour has been down, and is degraded for a while.
direct_answers() { direct_health "$1" healthy || direct_health "$1" degraded; }
direct_ping() { patient in_ns pc-direct-edge ping -n -c "${3:-3}" -i 0.2 -W 2 -I "$1" "$2" "${@:4}"; }
direct_counter() { "$BIN" show counters --json --socket "$DIRECT_SOCKET" | jq -er "$1"; }
direct_health() {
  [ "$("$BIN" show tunnels --json --socket "$DIRECT_SOCKET" | jq -r --arg n "$1" '.[] | select(.name == $n) | .health.state')" = "$2" ]
}

# A port without tags: both families, long packets, bulk, HTTP by name, traceroute, probes; and the kernel has no part in it.
check_direct_port() {
  begin_direct
  local seen own
  direct_ping "$SOURCE_DEFAULT" 10.1.0.50
  direct_ping "$SOURCE_DEFAULT" 10.1.0.50 3 -s 4000
  direct_ping "2606:4700:cf1:5000::$(printf '%02x%02x:%02x%02x' ${SOURCE_DEFAULT//./ })" fd00:1::50
  in_ns pc-direct-a ping -n -c 3 -i 0.2 -W 2 -I 10.1.0.50 "$SOURCE_DEFAULT"
  expect "$(direct_get a)" "origin a" "HTTP through the port"
  in_ns pc-direct-edge timeout 30 iperf3 -c 10.1.0.50 -B "$SOURCE_DEFAULT" -n 200M
  in_ns pc-direct-edge timeout 30 iperf3 -c 10.1.0.50 -B "$SOURCE_DEFAULT" -n 200M -R
  # From one link to another of the same vnet, cut and tagged on the way.
  in_ns pc-direct-a ping -n -c 3 -i 0.2 -W 2 -s 4000 -I 10.1.0.50 10.0.0.50
  # Three hops, each by its own address: the edge, the far side of the link, the origin behind it.
  seen=$(in_ns pc-direct-edge traceroute -n -q 1 -w 2 -s "$SOURCE_DEFAULT" 10.1.0.60 | awk 'NR > 1 {printf "%s ", $2}')
  expect_like "$seen" '100.64.0.1 10.255.8.1 10.1.0.60 ' "the hops to an origin behind the link"
  # The other way, into another link: its router, the edge, the host.
  seen=$(in_ns pc-direct-o traceroute -n -q 1 -w 2 10.0.0.50 | awk 'NR > 1 {printf "%s ", $2}')
  expect_like "$seen" '10.1.0.50 100.64.0.1 10.0.0.50 ' "the hops from behind the link into a VLAN"
  wait_for 10 "the probes to be answered" direct_answers a
  own=$(in_ns pc-direct-edge cat /sys/class/net/cni0/address)
  seen=$(ip -n pc-direct-a neigh show 10.255.8.0)
  expect_like "$seen" '*lladdr*' "the router's address on the link"
  case $seen in *"$own"*) note "the kernel answered, at $own" && return 1 ;; esac
  # The machine's own services are not for those behind a port, whatever address they send to.
  ip -n pc-direct-a neigh replace 10.255.8.0 lladdr "$own" dev eth0
  ! in_ns pc-direct-a ping -n -c 2 -i 0.2 -W 1 203.0.113.1 || return 1
  ! in_ns pc-direct-a curl -sS -m 2 http://203.0.113.1/ || return 1
  ip -n pc-direct-a neigh del 10.255.8.0 dev eth0
  ! in_ns pc-direct-a curl -sS -m 2 http://203.0.113.1/ || return 1
}

# A neighbour that goes is reported to who sends, and its probes fail; one that comes back, elsewhere, is found.
check_direct_neighbour() {
  begin_direct
  local seen
  wait_for 10 "the probes to be answered" direct_answers a
  ip -n pc-direct-a link set eth0 down
  ip -n pc-direct-a link set eth0 address 02:00:00:00:00:77
  seen=$(direct_ping "$SOURCE_DEFAULT" 10.1.0.50 75 || true)
  expect_like "$seen" '*Destination *nreachable*' "an echo request while the neighbour is away"
  wait_for 20 "the probes to fail" direct_health a down
  expect "$(direct_get b)" "origin b" "another port meanwhile"
  ip -n pc-direct-a link set eth0 up
  ip -n pc-direct-a addr replace fd00:8::1/127 dev eth0 nodad
  direct_ways_a
  wait_for 10 "the neighbour at its new address" direct_ping "$SOURCE_DEFAULT" 10.1.0.50 1
  expect "$(direct_get a)" "origin a" "HTTP again"
  wait_for 20 "the probes to be answered" direct_answers a
  direct_liar
}

# Somebody else on the link says that the neighbour's address is its own, and the like of the router's: nothing is lost.
direct_liar() {
  local pings claim
  ip -n pc-direct-a link add liar link eth0 type macvlan mode bridge
  ip -n pc-direct-a link set liar netns pc-direct-x
  # It announces, and does not answer.
  in_ns pc-direct-x sysctl -qw net.ipv4.conf.liar.arp_notify=1 net.ipv4.conf.liar.arp_ignore=8
  direct_ping "$SOURCE_DEFAULT" 10.1.0.50 20 >"$LOGS/direct-pings.log" 2>&1 &
  pings=$!
  # The last is the router's own, which it defends, once in ten seconds (RFC 5227).
  for claim in 10.255.8.1 10.255.8.1 10.255.8.1 10.255.8.0; do
    ip -n pc-direct-x addr add "$claim/31" dev liar
    ip -n pc-direct-x link set liar up
    sleep 0.7
    ip -n pc-direct-x link set liar down
    ip -n pc-direct-x addr flush dev liar
  done
  wait "$pings"
  expect_like "$(cat "$LOGS/direct-pings.log")" '* 0% packet loss*' "echoes under false announcements"
}

# Two customers with the same addresses on two VLANs of one port: each has its own, and no other tag gets anywhere.
check_direct_vlans() {
  begin_direct
  local before
  expect "$(direct_get b)" "origin b" "HTTP to VLAN 7"
  expect "$(direct_get c)" "origin c" "HTTP to VLAN 8"
  direct_ping "$SOURCE_DEFAULT" 10.0.0.50 3 -s 4000
  direct_ping "$SOURCE_SECOND" 10.0.0.50 3 -s 4000
  wait_for 10 "probes to VLAN 7" direct_answers b
  wait_for 10 "probes to VLAN 8" direct_answers c
  # Each reaches its own vnet's address and not the other's.
  direct_trunk "ip netns exec b ping -n -c 2 -i 0.2 -W 2 -I 10.0.0.50 $SOURCE_DEFAULT"
  direct_trunk "ip netns exec c ping -n -c 2 -i 0.2 -W 2 -I 10.0.0.50 $SOURCE_SECOND"
  before=$(direct_counter .router.drops.return_vnet_mismatch)
  ! direct_trunk "ip netns exec c ping -n -c 2 -i 0.2 -W 1 -I 10.0.0.50 $SOURCE_DEFAULT" || return 1
  ! direct_trunk "ip netns exec b ping -n -c 2 -i 0.2 -W 1 -I 10.0.0.50 $SOURCE_SECOND" || return 1
  expect "$(($(direct_counter .router.drops.return_vnet_mismatch) - before))" 4 "echo requests for the other vnet"
  direct_strangers
  expect "$(direct_get b)" "origin b" "HTTP to VLAN 7 afterwards"
  expect "$(direct_get c)" "origin c" "HTTP to VLAN 8 afterwards"
}

# The same addresses in another VLAN, without a tag, and in a VLAN inside a VLAN: not one packet is read.
direct_strangers() {
  local mac source device
  mac=$(direct_trunk "ip -n b neigh show 10.255.9.0" | sed -nE 's/.*lladdr ([0-9a-f:]+).*/\1/p')
  [ -n "$mac" ]
  for device in 'vec0 vlan id 9' 'vec0 macvlan mode bridge' 'vec0 vlan protocol 802.1ad id 7' 'port vlan id 7'; do
    case $device in
      # Inside the second customer's own VLAN.
      port\ *) direct_member d port "${device#* }" c ;;
      *) direct_member d vec0 "${device#* }" ;;
    esac
    for source in "$SOURCE_DEFAULT" "$SOURCE_SECOND"; do
      ! direct_trunk "ip netns exec d ping -n -c 2 -i 0.2 -W 1 -I 10.0.0.50 $source" || return 1
      direct_trunk "ip -n d neigh replace 10.255.9.0 lladdr $mac dev port"
      ! direct_trunk "ip netns exec d ping -n -c 2 -i 0.2 -W 1 -I 10.0.0.50 $source" || return 1
      direct_trunk "ip -n d neigh del 10.255.9.0 dev port"
    done
    say "$device: nothing came through"
    direct_member_gone d
  done
}
