# shellcheck shell=bash disable=SC2034
# The world `multi`: three edges, two control planes over one etcd, and a site whose traffic goes back by any of the edges. Sourced
# by up.sh, down.sh and check.sh.
#
#                        203.0.113.1..3: HTTP            198.51.100.0/24: the underlay
#   pc-multi-ctl         pc-edge1 ══ WireGuard, wg1 ══╗
#   etcd, two control    pc-edge2 ══ WireGuard, wg2 ══╬══ pc-multi-site ── pc-multi-o 10.0.0.50
#   planes               pc-edge3 ══ WireGuard, wg3 ══╝   Debian's wireguard-go, three times
#                          └── 192.0.2.0/24: Geneve, what came back by another edge than it left by
#
# The site has one key and sees one key: that of the account, which all edges have. It sends everything for 100.64.0.0/12 back by
# one of the three: multi_return_by.

MULTI_NAMESPACES=(pc-edge1 pc-edge2 pc-edge3 pc-multi-ctl pc-multi-net pc-multi-site pc-multi-o)
MULTI=$RUN/multi

need_for_multi() {
  need_for_tests
  need ip iproute2
  need ping iputils-ping
  need wireguard-go wireguard-go
  need wg wireguard-tools
  need nginx nginx
  need jq jq
  need curl curl
  need tcpdump tcpdump
}

multi_is_up() { [ -e "$MULTI/env" ]; }

# Safe to repeat.
multi_up() {
  local n
  if multi_is_up; then
    multi_load
    return 0
  fi
  multi_down
  mkdir -p "$LOGS" "$STATE" "$MULTI"
  chmod 700 "$MULTI"
  multi_namespaces
  multi_etcd
  multi_control 1
  # What the two share beside the store: the key that it is sealed with.
  mkdir -p "$MULTI/control2"
  cp "$MULTI/control1/key" "$MULTI/control2/key"
  multi_control 2
  API_TOKEN=$(cat "$MULTI/control1/token")
  multi_configure
  for n in 1 2 3; do
    multi_enrol "edge$n"
    multi_edge "$n" "edge$n"
  done
  for n in 1 2 3; do
    ready "edge$n" multi_answers "$n"
  done
  multi_site
  multi_write_env
  multi_return_by 1
  for n in 1 2 3; do
    wait_for 15 "the tunnel of edge $n" multi_has_tunnel "$n" || die "see $LOGS/edge$n.log"
  done
}

multi_load() {
  multi_api
  # shellcheck disable=SC1091
  . "$MULTI/env"
  BIN=$PORTCULLIS_BIN
}

multi_api() { API_NAMESPACE=pc-multi-ctl API_URL=http://127.0.0.1:8781/client/v4; }

# --- namespaces: two bridges, an underlay and what edges say to each other ---

multi_namespaces() {
  local ns n
  for ns in "${MULTI_NAMESPACES[@]}"; do
    ip netns add "$ns"
    ip -n "$ns" link set lo up
    in_ns "$ns" sh -c 'echo 0 >/proc/sys/net/ipv4/conf/all/rp_filter; echo 0 >/proc/sys/net/ipv4/conf/default/rp_filter'
  done
  for n in underlay relays; do
    ip -n pc-multi-net link add "$n" type bridge
    ip -n pc-multi-net link set "$n" up
  done
  for n in 1 2 3; do
    multi_plug "pc-edge$n" underlay "198.51.100.$n" "edge$n"
    multi_plug "pc-edge$n" relays "192.0.2.$n" "relay$n"
    ip -n "pc-edge$n" addr add "203.0.113.$n/32" dev lo
  done
  multi_plug pc-multi-ctl underlay 198.51.100.10 ctl
  multi_plug pc-multi-site underlay 198.51.100.11 site
  # A stranger beside the edges.
  ip -n pc-multi-net addr add 192.0.2.99/24 dev relays
  ip link add lan0 netns pc-multi-site type veth peer name lan0 netns pc-multi-o
  ip -n pc-multi-site addr add 10.0.0.1/24 dev lan0
  ip -n pc-multi-site link set lan0 up
  ip -n pc-multi-o addr add 10.0.0.50/24 dev lan0
  ip -n pc-multi-o link set lan0 up
  ip -n pc-multi-o route add default via 10.0.0.1
  in_ns pc-multi-site sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward'
}

# multi_plug NAMESPACE BRIDGE ADDRESS PORT
multi_plug() {
  ip link add "$2" netns "$1" type veth peer name "$4" netns pc-multi-net
  ip -n pc-multi-net link set "$4" master "$2"
  ip -n pc-multi-net link set "$4" up
  ip -n "$1" addr add "$3/24" dev "$2"
  ip -n "$1" link set "$2" up
}

# --- the store, and who writes it ---

multi_etcd() {
  local client=http://127.0.0.1:2379 peer=http://127.0.0.1:2380
  start etcd pc-multi-ctl etcd --data-dir "$MULTI/etcd" --listen-client-urls $client --advertise-client-urls $client \
    --listen-peer-urls $peer --initial-advertise-peer-urls $peer --initial-cluster default=$peer --log-level error
  ready etcd in_ns pc-multi-ctl curl -sf -m 1 -o /dev/null $client/health
}

# multi_control NUMBER: its API is on port 8781 or 8782, and edges come to 8791 or 8792.
multi_control() {
  cat >"$MULTI/control$1.toml" <<TOML
data_dir = "$MULTI/control$1"
api_listen = "127.0.0.1:878$1"
admin_socket = "$STATE/control$1.sock"
[nodes]
listen = ["198.51.100.10:879$1"]
[proxy]
edge_addresses = ["203.0.113.1", "203.0.113.2", "203.0.113.3"]
[dns]
name_servers = ["ns1.example.net"]
TOML
  start "control$1" pc-multi-ctl "$BIN" control --config "$MULTI/control$1.toml" --store etcd://127.0.0.1:2379
  ready "control$1" in_ns pc-multi-ctl curl -s -o /dev/null -m 1 "http://127.0.0.1:878$1/client/v4/accounts"
}

# multi_enrol NAME: its identity, in a file.
multi_enrol() {
  in_ns pc-multi-ctl "$BIN" control enrol "$1" "$MULTI/$1.pem" --config "$MULTI/control1.toml" --store etcd://127.0.0.1:2379
}

# What all edges have: two virtual networks, a tunnel in each, a route, a name. Nobody is at the end of the second's tunnel.
multi_configure() {
  local default second ours other
  multi_api
  MULTI_KEY=$(wg genkey)
  ACCOUNT_ID=$(api GET /accounts | jq -er '.[0].id')
  default=$(api GET "/accounts/$ACCOUNT_ID/teamnet/virtual_networks" | jq -er '.[] | select(.is_default_network) | .id')
  second=$(api POST "/accounts/$ACCOUNT_ID/teamnet/virtual_networks" '{"name":"second"}' | field id)
  # Without an endpoint: each edge hears where the site is from the site.
  ours=$(api POST "/accounts/$ACCOUNT_ID/wireguard_tunnels" "$(jq -nc --arg v "$default" --arg k "$(wg pubkey <<<"$MULTI_KEY")" \
    '{name:"site", virtual_network_id:$v, peer_public_key:$k, allowed_prefixes:["10.0.0.0/24"], mtu:1420}')")
  MULTI_EDGES_KEY=$(field public_key <<<"$ours")
  other=$(api POST "/accounts/$ACCOUNT_ID/wireguard_tunnels" "$(jq -nc --arg v "$second" \
    '{name:"nobody", virtual_network_id:$v, generate_peer_key:true, mtu:1420}')" | field id)
  route "$(field id <<<"$ours")" "$default" 10.0.0.0/24 >/dev/null
  route "$other" "$second" 10.0.0.0/24 >/dev/null
  ZONE_ID=$(api POST /zones "$(jq -nc --arg a "$ACCOUNT_ID" '{name:"multi.example", account:{id:$a}}')" | field id)
  record A app.multi.example 10.0.0.50 "$default" >/dev/null
}

# --- the edges ---

# multi_edge NUMBER NAME: an edge of this name where edge NUMBER's addresses are.
multi_edge() {
  cat >"$MULTI/$2.toml" <<TOML
data_dir = "$MULTI/$2"
api_listen = "127.0.0.1:8787"
admin_socket = "$STATE/$2.sock"
control = ["198.51.100.10:8791", "198.51.100.10:8792"]
identity = "$MULTI/$2.pem"
[router]
tun = "pc-tun"
workers = 2
listen = ["198.51.100.$1:51820"]
relay = "192.0.2.$1"
[proxy]
http = ["203.0.113.$1:80"]
edge_addresses = ["203.0.113.$1"]
connect_timeout_secs = 4
[dns]
name_servers = ["ns1.example.net"]
TOML
  multi_edge_start "$1" "$2"
}
multi_edge_start() { start "$2" "pc-edge$1" "$BIN" edge --config "$MULTI/$2.toml"; }

multi_answers() { in_ns "pc-edge$1" curl -s -o /dev/null -m 1 http://127.0.0.1:8787/client/v4/accounts; }

# multi_has_tunnel NUMBER: the site has spoken to this edge.
multi_has_tunnel() { [ "$(multi_show "$1" tunnels | jq -r '.[] | select(.name == "site") | .is_up')" = true ]; }

# multi_show NUMBER WHAT
multi_show() { "$BIN" show "$2" --json --socket "$STATE/edge$1.sock"; }
# multi_count NUMBER JQ: one of the router's counters.
multi_count() { multi_show "$1" counters | jq -er "$2"; }

# multi_source NUMBER VNET TUNNEL: as source_of, on this edge.
multi_source() { EDGE_SOCKET=$STATE/edge$1.sock source_of "$2" "$3"; }

# multi_node NAME FIELD: what the control plane says of a node.
multi_node() { api GET "/accounts/$ACCOUNT_ID/nodes/$1" | jq -r ".$2"; }

# --- the site ---

multi_site() {
  local n
  for n in 1 2 3; do
    start "wireguard-multi$n" pc-multi-site env WG_PROCESS_FOREGROUND=1 wireguard-go "pcm$n"
  done
  for n in 1 2 3; do
    wait_for 10 "wireguard-go" in_ns pc-multi-site wg show "pcm$n"
    in_ns pc-multi-site wg setconf "pcm$n" <(
      printf '[Interface]\nPrivateKey = %s\nListenPort = 5182%s\n' "$MULTI_KEY" "$n"
      printf '[Peer]\nPublicKey = %s\nEndpoint = 198.51.100.%s:51820\n' "$MULTI_EDGES_KEY" "$n"
      printf 'AllowedIPs = 100.64.0.0/12\nPersistentKeepalive = 1\n'
    )
    ip -n pc-multi-site link set "pcm$n" mtu 1420 up
  done
  multi_origin
}

multi_origin() {
  head -c 8388608 /dev/urandom >"$MULTI/big"
  cat >"$MULTI/nginx.conf" <<CONF
user root;
daemon off;
master_process off;
pid $MULTI/nginx.pid;
events { worker_connections 256; }
http {
  access_log off;
  default_type text/plain;
$(for part in client_body proxy fastcgi uwsgi scgi; do printf '  %s_temp_path %s/nginx-%s;\n' "$part" "$MULTI" "$part"; done)
  server {
    listen 10.0.0.50:80;
    location / { return 200 "\$remote_addr\n"; }
    location = /big { alias $MULTI/big; }
  }
}
CONF
  start nginx-multi pc-multi-o nginx -e "$LOGS/nginx-multi.log" -c "$MULTI/nginx.conf"
  wait_for 10 "nginx" in_ns pc-multi-o curl -s -o /dev/null -m 1 http://10.0.0.50/
}

# multi_return_by NUMBER: the site's traffic for the edges goes to this one, from here on.
multi_return_by() { ip -n pc-multi-site route replace 100.64.0.0/12 dev "pcm$1"; }

multi_write_env() {
  cat >"$MULTI/env.part" <<ENV
API_TOKEN=$API_TOKEN
ACCOUNT_ID=$ACCOUNT_ID
PORTCULLIS_BIN=$BIN
SOURCE_1=$(multi_source 1 default site)
SOURCE_2=$(multi_source 2 default site)
SOURCE_3=$(multi_source 3 default site)
ENV
  chmod 600 "$MULTI/env.part"
  mv "$MULTI/env.part" "$MULTI/env"
  # shellcheck disable=SC1091
  . "$MULTI/env"
}

# --- the end ---

multi_down() {
  local name ns n
  for name in edge1 edge2 edge3 edge4 nginx-multi wireguard-multi1 wireguard-multi2 wireguard-multi3 control1 control2 etcd; do
    stop "$name"
  done
  for ns in "${MULTI_NAMESPACES[@]}"; do
    ! has_ns "$ns" || ip netns del "$ns"
  done
  for n in 1 2 3; do
    rm -f "/run/wireguard/pcm$n.sock" "/var/run/wireguard/pcm$n.sock" "$STATE/edge$n.sock"
  done
  rm -rf "${MULTI:?}"
}
