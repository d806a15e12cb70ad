# shellcheck shell=bash
# The world `direct`: an edge with two Ethernet ports that are its router's. Sourced by up.sh, down.sh and check.sh.
#
#   10.1.0.60 pc-direct-o ── pc-direct-a: a Linux router, 10.1.0.50
#                            pc-direct-a ══════════════ veth, no tag ══ cni0 ┐
#                                                                           ├ pc-direct-edge: portcullis edge
#   one port of a Linux 6.1 kernel (user-mode Linux)═══ trunk ════════ cni1 ┘
#     b: VLAN 7, 10.0.0.50, default vnet     c: VLAN 8, the same addresses, second vnet     d: wherever a check wants it
#
# The host's kernel needs no VLANs; the router tags and reads tags itself.

. "$TESTBED/uml.sh"

DIRECT_NAMESPACES=(pc-direct-edge pc-direct-a pc-direct-o pc-direct-x)
DIRECT_SOCKET=$STATE/direct.sock

need_for_direct() {
  need_for_path
  need ip iproute2
  need ping iputils-ping
  need traceroute traceroute
  need jq jq
  need curl curl
  need iperf3 iperf3
  need nginx nginx
}

direct_up() {
  local ns
  direct_down
  mkdir -p "$LOGS" "$STATE" "$RUN/direct"
  for ns in "${DIRECT_NAMESPACES[@]}"; do
    ip netns add "$ns"
    ip -n "$ns" link set lo up
  done
  ip link add cni0 netns pc-direct-edge type veth peer name eth0 netns pc-direct-a
  direct_trunk_init | uml_boot direct-trunk pc-direct-box vec0:transport=tap,ifname=cni1,depth=128 ||
    die "the kernel behind the trunk did not come up"
  ip -n pc-direct-box link set cni1 netns pc-direct-edge
  ip -n pc-direct-edge link set cni1 up
  direct_router_a
  direct_edge
  direct_trunk_links
  direct_wait a "$SOURCE_DEFAULT" 10.1.0.50
  direct_wait b "$SOURCE_DEFAULT" 10.0.0.50
  direct_wait c "$SOURCE_SECOND" 10.0.0.50
  local name
  for name in a b c; do
    wait_for 10 "nginx of $name" direct_serves "$name"
  done
}

direct_get() { in_ns pc-direct-edge curl -sS -m 10 --resolve "$1.direct.example:80:203.0.113.1" "http://$1.direct.example/"; }
direct_serves() { [ "$(direct_get "$1")" = "origin $1" ]; }

direct_wait() {
  wait_for 15 "router $1 to answer" in_ns pc-direct-edge ping -n -c 1 -W 1 -I "$2" "$3" ||
    die "no answer from $1: see $LOGS/direct-edge.log"
}

# What is a router to everybody: an address on the link, a network behind it, a way back.
direct_router_a() {
  ip -n pc-direct-a addr add 10.255.8.1/31 dev eth0
  ip -n pc-direct-a addr add fd00:8::1/127 dev eth0 nodad
  ip -n pc-direct-a link set eth0 up
  ip -n pc-direct-a addr add 10.1.0.50/32 dev lo
  ip -n pc-direct-a addr add fd00:1::50/128 dev lo
  direct_ways_a
  ip link add lan netns pc-direct-a type veth peer name eth0 netns pc-direct-o
  ip -n pc-direct-o addr add 10.1.0.60/32 dev eth0
  ip -n pc-direct-o link set eth0 up
  ip -n pc-direct-a link set lan up
  ip -n pc-direct-a route add 10.1.0.60/32 dev lan
  ip -n pc-direct-o route add 10.1.0.50/32 dev eth0
  ip -n pc-direct-o route add default via 10.1.0.50 dev eth0
  # A router answers from the interface that a packet came by, as others do.
  in_ns pc-direct-a sysctl -qw net.ipv4.ip_forward=1 net.ipv4.icmp_errors_use_inbound_ifaddr=1
  direct_nginx a 10.1.0.50 >"$RUN/direct/nginx-a.conf"
  start direct-nginx pc-direct-a nginx -e "$LOGS/direct-nginx.log" -c "$RUN/direct/nginx-a.conf"
  start direct-iperf pc-direct-a iperf3 -s -B 10.1.0.50
}
# They go with the link.
direct_ways_a() {
  ip -n pc-direct-a route replace default via 10.255.8.0 src 10.1.0.50
  ip -n pc-direct-a -6 route replace default via fd00:8:: src fd00:1::50
}

# direct_nginx NAME ADDRESS
direct_nginx() {
  cat <<CONF
user root;
daemon off;
master_process off;
pid /run/pc-direct-$1.pid;
events { worker_connections 64; }
http {
  access_log off;
  default_type text/plain;
  server { listen $2:80; location / { return 200 "origin $1\n"; } }
}
CONF
}

# --- the kernel behind the trunk ---

direct_trunk_init() {
  cat <<'INIT'
mount -t tmpfs tmp /var/lib/nginx 2>/dev/null
mkdir -p /run/netns
# A kernel tries for ever to send the first packet that a TAP did not take: there is none before that is up.
sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1
ip link set lo up
ethtool -K vec0 gro off gso off tso off
# Only then there is a TAP.
ip link set vec0 up
INIT
}

# In a shell of its own, so that the lock on the line goes with it.
direct_trunk() { (uml_ask direct-trunk "$1"); }

direct_trunk_links() {
  local name
  direct_trunk "$(uml_modules 8021q macvlan | tr '\n' ';') true"
  for name in b c; do
    direct_nginx "$name" 10.0.0.50 >"$RUN/direct/nginx-$name.conf"
  done
  direct_member b vec0 'vlan id 7'
  direct_member c vec0 'vlan id 8'
  for name in b c; do
    direct_trunk "ip netns exec $name nginx -e /run/nginx.log -c $RUN/direct/nginx-$name.conf >/dev/null 2>&1 </dev/null &"
  done
}

# direct_member NAME LINK KIND [NS]: a network namespace inside, with the addresses of 10.255.9.0/31's other end, on a device of
# this kind on a link, which is in that namespace.
direct_member() {
  local ip="ip ${4:+-n $4}"
  direct_trunk "ip netns add $1; $ip link add link $2 name nic type $3 && $ip link set nic netns $1 && ip -n $1 link set nic name port"
  direct_trunk "ip -n $1 link set lo up; ip -n $1 addr add 10.255.9.1/31 dev port; ip -n $1 link set port up"
  direct_trunk "ip -n $1 addr add 10.0.0.50/32 dev lo; ip -n $1 route add default via 10.255.9.0 src 10.0.0.50"
}
direct_member_gone() { direct_trunk "ip netns exec $1 ip link del port; ip netns del $1"; }

# --- the edge ---

direct_edge() {
  cat >"$RUN/direct/edge.toml" <<TOML
data_dir = "$RUN/direct/edge"
api_listen = "127.0.0.1:8787"
admin_socket = "$DIRECT_SOCKET"
slice = "100.64.0.0/20"
[router]
tun = "pc-tun"
listen = ["127.0.0.1:51820"]
ethernet = ["cni0", "cni1"]
[proxy]
http = ["203.0.113.1:80"]
edge_addresses = ["203.0.113.1"]
TOML
  ip -n pc-direct-edge addr add 203.0.113.1/32 dev lo
  start direct-edge pc-direct-edge "$BIN" edge --config "$RUN/direct/edge.toml"
  direct_api
  ready direct-edge edge_answers
  API_TOKEN=$(cat "$RUN/direct/edge/token")
  direct_configure
  cat >"$RUN/direct/env" <<ENV
API_TOKEN=$API_TOKEN
ACCOUNT_ID=$ACCOUNT_ID
SOURCE_DEFAULT=$SOURCE_DEFAULT
SOURCE_SECOND=$SOURCE_SECOND
ENV
}

direct_api() {
  API_NAMESPACE=pc-direct-edge API_URL=http://127.0.0.1:8787/client/v4 EDGE_SOCKET=$DIRECT_SOCKET
}

# direct_link NAME VNET DEVICE VLAN ADDRESS [ADDRESS6]: prints its id.
direct_link() {
  api POST "/accounts/$ACCOUNT_ID/magic/cf_interconnects" "$(jq -nc --arg n "$1" --arg v "$2" --arg d "$3" --argjson vlan "$4" \
    --arg a "$5" --arg a6 "${6:-}" '{name:$n, virtual_network_id:$v, device:$d, vlan:$vlan, interface_address:$a, mtu:1500,
      health_check:{rate:"high", type:"request", recovery:{up_after:2, clean_secs:1, clean_secs_max:1}}}
      + if $a6 == "" then {} else {interface_address6:$a6} end')" | field id
}

direct_configure() {
  local default second a b c
  ACCOUNT_ID=$(api GET /accounts | jq -er '.[0].id')
  default=$(api GET "/accounts/$ACCOUNT_ID/teamnet/virtual_networks" | jq -er '.[] | select(.is_default_network) | .id')
  second=$(api POST "/accounts/$ACCOUNT_ID/teamnet/virtual_networks" '{"name":"second"}' | field id)
  a=$(direct_link a "$default" cni0 null 10.255.8.0/31 fd00:8::/127)
  b=$(direct_link b "$default" cni1 7 10.255.9.0/31)
  c=$(direct_link c "$second" cni1 8 10.255.9.0/31)
  route "$a" "$default" 10.1.0.0/24 >/dev/null
  route "$a" "$default" fd00:1::/64 >/dev/null
  route "$b" "$default" 10.0.0.0/24 >/dev/null
  route "$c" "$second" 10.0.0.0/24 >/dev/null
  ZONE_ID=$(api POST /zones "$(jq -nc --arg a "$ACCOUNT_ID" '{name:"direct.example", account:{id:$a}}')" | field id)
  record A a.direct.example 10.1.0.50 "$default" >/dev/null
  record A b.direct.example 10.0.0.50 "$default" >/dev/null
  record A c.direct.example 10.0.0.50 "$second" >/dev/null
  SOURCE_DEFAULT=$(source_of default a) SOURCE_SECOND=$(source_of second c)
}

direct_down() {
  local name ns
  for name in direct-edge direct-nginx direct-iperf; do
    stop "$name"
  done
  uml_down direct-trunk pc-direct-box
  for ns in "${DIRECT_NAMESPACES[@]}"; do
    ! has_ns "$ns" || ip netns del "$ns"
  done
  rm -rf "${RUN:?}/direct"
}
