#!/bin/bash
# Makes the world and brings it up: namespaces, origins, edge, sites; configures it through the API; writes testbed/run/env.
# Safe to repeat: a world that is up stays, what died in it is started again, ruins of a crash are cleared first.
#   API_TRACE=1 up.sh   prints every API call as a curl command
#   up.sh ipsec         and the part of IPsec beside it: ipsec-world.sh draws it
#   up.sh gre           makes the world of GRE beside it: gre.sh draws it
#   up.sh site-to-site  adds sites that reach each other: sites.sh draws them
#   up.sh ecmp          adds a network behind tunnels of three kinds: ecmp.sh draws it
#   up.sh direct        makes the world of Ethernet ports beside it: direct.sh draws it
#   up.sh multi         makes the world of three edges beside it: multi.sh draws it
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
. "$TESTBED/world.sh"
. "$TESTBED/configure.sh"
. "$TESTBED/gre.sh"
. "$TESTBED/sites.sh"
. "$TESTBED/ecmp.sh"
. "$TESTBED/ipsec-world.sh"
. "$TESTBED/direct.sh"
. "$TESTBED/multi.sh"

write_edge_toml() {
  cat >"$RUN/edge.toml" <<TOML
data_dir = "$RUN/edge"
api_listen = "127.0.0.1:8787"
admin_socket = "$STATE/edge.sock"
slice = "100.64.0.0/20"
[router]
tun = "pc-tun"
tun_backend = "auto"
mtu = 1420
listen = ["198.51.100.1:51820", "[2001:db8:51::1]:51820"]
gre = ["198.51.100.1"]
ipsec = ["198.51.100.1", "2001:db8:51::1"]
endpoint = "198.51.100.1:51820"
[proxy]
http = ["203.0.113.1:80", "[2001:db8:1::1]:80"]
https = ["203.0.113.1:443", "[2001:db8:1::1]:443"]
edge_addresses = ["203.0.113.1", "2001:db8:1::1"]
certificates = "$RUN/certs"
connect_timeout_secs = 4
read_timeout_secs = 10
[dns]
listen = ["203.0.113.53:53"]
name_servers = ["ns1.example.net", "ns2.example.net"]
TOML
}

# What a person or a program needs to drive the world. Written last: a world without it is a ruin.
write_env() {
  cat >"$RUN/env.part" <<ENV
API_URL=$API_URL
API_TOKEN=$API_TOKEN
API_NAMESPACE=pc-edge
ACCOUNT_ID=$ACCOUNT_ID
ZONE_ID=$ZONE_ID
VNET_DEFAULT=$VNET_DEFAULT
VNET_SECOND=$VNET_SECOND
SOURCE_DEFAULT=$SOURCE_DEFAULT
SOURCE_SECOND=$SOURCE_SECOND
TUNNEL_DEFAULT=$TUNNEL_DEFAULT
TUNNEL_SECOND=$TUNNEL_SECOND
ROUTE_DEFAULT=$ROUTE_DEFAULT
ROUTE_SECOND=$ROUTE_SECOND
RECORD_DEFAULT=$RECORD_DEFAULT
RECORD_SECOND=$RECORD_SECOND
EDGE_IP=203.0.113.1
EDGE_IP6=2001:db8:1::1
DNS_IP=203.0.113.53
ORIGIN_IP=10.0.0.50
CA_FILE=$RUN/ca/ca.crt
BIG_SHA256=$BIG_SHA256
EDGE_SOCKET=$STATE/edge.sock
SITE2_SOCKET=$STATE/site2.sock
PORTCULLIS_BIN=$BIN
ENV
  chmod 600 "$RUN/env.part"
  mv "$RUN/env.part" "$RUN/env"
}

# A ruin of this checkout is cleared; a running world of another checkout is not ours to clear.
clear_ruins() {
  local owner
  owner=$(cat "$STATE/owner" 2>/dev/null || true)
  if [ -n "$owner" ] && [ "$owner" != "$RUN" ] && compgen -G "$owner/*.pid" >/dev/null; then
    die "the world is up from another checkout: run $(dirname "$owner")/down.sh first"
  fi
  "$TESTBED/down.sh"
  mkdir -p "$LOGS" "$STATE"
  chmod 700 "$RUN"
  printf '%s\n' "$RUN" >"$STATE/owner"
}

make_world() {
  say "clearing, making namespaces"
  clear_ruins
  make_big &
  local big=$!
  make_namespaces
  make_links
  make_hosts
  make_counters
  make_certificates || die "openssl failed: see $LOGS/openssl.log"
  say "starting the edge"
  write_edge_toml
  start_edge
  wait_edge
  API_URL=http://127.0.0.1:8787/client/v4
  API_TOKEN=$(cat "$RUN/edge/token")
  say "configuring it through the API"
  configure_tunnels
  configure_names
  say "starting origins and sites"
  start_origin 1
  start_origin 2
  start_site1
  start_site2
  SOURCE_DEFAULT=$(source_of default site1) || die "portcullis show sources does not know the default vnet"
  SOURCE_SECOND=$(source_of second site2) || die "portcullis show sources does not know the second vnet"
  wait "$big" || die "could not write $RUN/big"
  write_env
}

repair_world() {
  say "starting what is down"
  load_env
  BIN=$PORTCULLIS_BIN
  start_edge
  wait_edge
  start_origin 1
  start_origin 2
  start_site1
  start_site2
}

wait_for_tunnels() {
  wait_for 15 "the tunnel to site 1" in_ns pc-edge ping -n -c 1 -W 1 -I "$SOURCE_DEFAULT" "$ORIGIN_IP" ||
    die "no answer from site 1: see $LOGS/edge.log, and 'ip netns exec pc-site1 wg show'"
  wait_for 15 "the tunnel to site 2" in_ns pc-edge ping -n -c 1 -W 1 -I "$SOURCE_SECOND" "$ORIGIN_IP" ||
    die "no answer from site 2: see $LOGS/edge.log and $LOGS/site2.log"
}

require_root
take_lock
case $* in
  '' | gre | site-to-site | ecmp | ipsec | direct | multi) ;;
  *) die "usage: up.sh [gre|site-to-site|ecmp|ipsec|direct|multi]" ;;
esac
if [ "${1:-}" = direct ]; then
  need_for_direct
  [ -n "${PORTCULLIS_BIN:-}" ] || need_to_build
  install_needed
  build
  direct_up
  say "up: ip netns exec pc-direct-edge ping -I $SOURCE_DEFAULT 10.1.0.50 (port), 10.0.0.50 (VLAN 7); -I $SOURCE_SECOND (VLAN 8)"
  exit
fi
if [ "${1:-}" = multi ]; then
  need_for_multi
  [ -n "${PORTCULLIS_BIN:-}" ] || need_to_build
  install_needed
  build
  multi_up
  say "up: ip netns exec pc-edge1 ping -I $SOURCE_1 10.0.0.50; pc-edge2 -I $SOURCE_2; pc-edge3 -I $SOURCE_3"
  say "the site's way back: ip -n pc-multi-site route replace 100.64.0.0/12 dev pcm1, pcm2 or pcm3"
  exit
fi
if [ "${1:-}" = gre ]; then
  need_for_gre
  [ -n "${PORTCULLIS_BIN:-}" ] || need_to_build
  install_needed
  build
  gre_up
  say "up: ip netns exec pc-gre-a ping -I 10.9.0.1 10.0.0.50 (Linux), pc-gre-b likewise (Open vSwitch); down.sh ends it"
  exit
fi
need_for_world
[ "${1:-}" != site-to-site ] || need_for_sites
[ "${1:-}" != ecmp ] || need_for_ecmp
[ "${1:-}" != ipsec ] || need_for_ipsec_world
[ -n "${PORTCULLIS_BIN:-}" ] || need_to_build
install_needed
if ! world_runs; then
  build
  if world_exists; then repair_world; else make_world; fi
  load_env
fi
load_env
BIN=$PORTCULLIS_BIN
wait_for_tunnels
case ${1:-} in
  site-to-site) sites_up ;;
  ecmp) ecmp_up ;;
esac
if [ "${1:-}" = ipsec ]; then
  BIN=$PORTCULLIS_BIN
  ipsec_world_up
  say "ipsec: ip netns exec pc-edge ping -I $SOURCE_IPSEC 10.0.0.50 (strongSwan), 10.3.0.50 (portcullis site), 10.6.0.50 (strongSwan over IPv6)"
fi
say "the world is up: see $RUN/env"
