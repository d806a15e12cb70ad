# shellcheck shell=bash
# The world `direct`: two Ethernet links that were handed to a router, and a network behind each. Sourced by up.sh and check.sh.
#
#   10.7.0.50 pc-direct-b ── cni0 (veth) ── pc-direct-a: portcullis site ── cni1.7 (VLAN 7 on veth) ── pc-direct-c 10.6.0.50

DIRECT_NAMESPACES=(pc-direct-a pc-direct-b pc-direct-c)

need_for_direct() {
  need ip iproute2
  need ping iputils-ping
  need jq jq
  need iperf3 iperf3
}

direct_up() {
  local ns
  direct_down
  mkdir -p "$LOGS" "$STATE"
  for ns in "${DIRECT_NAMESPACES[@]}"; do
    ip netns add "$ns"
    ip -n "$ns" link set lo up
  done
  ip link add cni0 netns pc-direct-a type veth peer name eth0 netns pc-direct-b
  ip link add cni1 netns pc-direct-a type veth peer name trunk netns pc-direct-c
  ip -n pc-direct-a link set cni1 up
  ip -n pc-direct-a link add link cni1 name cni1.7 type vlan id 7
  ip -n pc-direct-c link set trunk up
  ip -n pc-direct-c link add link trunk name eth0 type vlan id 7
  direct_neighbour pc-direct-b 10.8.0 10.7.0.50 fd00:8:: fd00:7::50
  direct_neighbour pc-direct-c 10.8.1 10.6.0.50 fd00:8:1:: fd00:6::50
  # The tunnel to an edge has no part in this; it only has to have an address.
  ip -n pc-direct-a addr add 198.51.100.1/32 dev lo
  cat >"$RUN/direct.toml" <<TOML
admin_socket = "$STATE/direct.sock"
[router]
tun = "direct"
address = "10.9.0.1"
lan = []
[gre]
local = "198.51.100.1"
remote = "198.51.100.11"
[[direct]]
device = "cni0"
addresses = ["10.8.0.0/31", "fd00:8::/127"]
prefixes = ["10.7.0.0/24", "fd00:7::/64", "10.8.0.0/31"]
[[direct]]
device = "cni1.7"
addresses = ["10.8.1.0/31", "fd00:8:1::/127"]
prefixes = ["10.6.0.0/24", "fd00:6::/64", "10.8.1.0/31"]
TOML
  start direct pc-direct-a "$BIN" site --config "$RUN/direct.toml"
  ready direct "$BIN" show tunnels --socket "$STATE/direct.sock"
  start direct-iperf pc-direct-c iperf3 -s
}

# direct_neighbour NS NET ADDRESS NET6 ADDRESS6: any router: an address on the link, a network behind it, a way back.
direct_neighbour() {
  ip -n "$1" addr add "$2.1/31" dev eth0
  ip -n "$1" addr add "${4}1/127" dev eth0 nodad
  ip -n "$1" link set eth0 up
  ip -n "$1" addr add "$3/32" dev lo
  ip -n "$1" addr add "$5/128" dev lo
  ip -n "$1" route add default via "$2.0" src "$3"
  ip -n "$1" -6 route add default via "$4" src "$5"
}

direct_down() {
  local ns
  stop direct
  stop direct-iperf
  for ns in "${DIRECT_NAMESPACES[@]}"; do
    ! has_ns "$ns" || ip netns del "$ns"
  done
}
