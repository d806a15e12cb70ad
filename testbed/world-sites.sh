# shellcheck shell=bash disable=SC2034
# Two additions to the world: a third site in the default vnet (site to site), and a second tunnel to site 1 (ECMP).
# Sourced by up.sh. Safe to repeat; down.sh takes them along.
#
#   pc-net ── pc-site3 ── pc-origin3 10.3.0.50   default vnet, portcullis site: the other end of site to site
#   pc-site1: pcs1 and pcs1b, two wireguard-go    default vnet: 10.8.0.0/24 behind both

# --- site to site: origin 1 and origin 3 are of one vnet, origin 2 with origin 1's address of another ---

up_site_to_site() {
  if ! has_ns pc-origin3; then
    say "adding site 3 and origin 3"
    make_site3
  fi
  configure_site3
  start nginx3 pc-origin3 nginx -e "$LOGS/nginx3.log" -c "$RUN/origin3/nginx.conf"
  wait_for 10 "nginx of origin3" in_ns pc-origin3 curl -s -o /dev/null http://10.3.0.50/
  start site3 pc-site3 "$BIN" site --config "$RUN/site3.toml"
  ready site3 "$BIN" show tunnels --socket "$STATE/site3.sock"
  # Site 1's WireGuard takes packets of the other site, and its kernel sends packets for it there.
  in_ns pc-site1 wg set pcs1 peer "$(in_ns pc-site1 wg show pcs1 peers)" \
    allowed-ips 100.64.0.0/12,2606:4700:cf1:5000::/64,10.3.0.0/24,fd00:3::/64,10.255.0.0/32
  ip -n pc-site1 route replace 10.3.0.0/24 dev pcs1
  ip -n pc-site1 route replace fd00:3::/64 dev pcs1
  # Site 2 sends packets for site 3's network too: the edge must know that it is of another vnet.
  if ! grep -q '^routes' "$RUN/site2.toml"; then
    sed -i 's|^\[wireguard\]|&\nroutes = ["100.64.0.0/12", "2606:4700:cf1:5000::/64", "10.3.0.0/24", "fd00:3::/64"]|' "$RUN/site2.toml"
    stop site2
    start_site2
  fi
  wait_for 15 "a way from origin 1 to origin 3" in_ns pc-origin1 ping -n -c 1 -W 1 10.3.0.50
}

make_site3() {
  local ns
  for ns in pc-site3 pc-origin3; do
    ip netns add "$ns"
    in_ns "$ns" ip link set lo up
    in_ns "$ns" sh -c 'echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad
      echo 0 >/proc/sys/net/ipv4/conf/default/rp_filter; echo 0 >/proc/sys/net/ipv4/conf/all/rp_filter'
  done
  plug pc-site3 198.51.100.13 site3
  link pc-site3 lan0 pc-origin3 lan0
  ip -n pc-site3 addr add 10.3.0.1/24 dev lan0
  ip -n pc-site3 addr add fd00:3::1/64 dev lan0 nodad
  in_ns pc-site3 sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding'
  ip -n pc-origin3 addr add 10.3.0.50/24 dev lan0
  ip -n pc-origin3 addr add fd00:3::50/64 dev lan0 nodad
  ip -n pc-origin3 route add default via 10.3.0.1
  ip -n pc-origin3 route add default via fd00:3::1
  make_counter 3
  mkdir -p "$RUN/origin3/upload" "$RUN/origin3/tmp"
  write_nginx_conf 3 | sed -e 's/10\.0\.0\.50/10.3.0.50/; s/fd00:10::50/fd00:3::50/' >"$RUN/origin3/nginx.conf"
}

# The tunnel to site 3 and its routes, once.
configure_site3() {
  local answer conf
  [ ! -e "$RUN/site3.toml" ] || return 0
  answer=$(api POST "/accounts/$ACCOUNT_ID/wireguard_tunnels" "$(jq -nc --arg vnet "$VNET_DEFAULT" \
    '{name:"site3", virtual_network_id:$vnet, generate_peer_key:true, endpoint:"198.51.100.13:51820",
      allowed_prefixes:["10.3.0.0/24","fd00:3::/64"], mtu:1420, persistent_keepalive:25}')")
  route "$(field id <<<"$answer")" "$VNET_DEFAULT" 10.3.0.0/24 >/dev/null
  route "$(field id <<<"$answer")" "$VNET_DEFAULT" fd00:3::/64 >/dev/null
  conf=$(peer_config "$(field id <<<"$answer")")
  cat >"$RUN/site3.part" <<TOML
admin_socket = "$STATE/site3.sock"
[router]
tun = "pc-tun"
mtu = 1420
listen = ["0.0.0.0:51820"]
address = "10.3.0.1"
lan = ["10.3.0.0/24", "fd00:3::/64"]
[wireguard]
routes = ["100.64.0.0/12", "2606:4700:cf1:5000::/64", "10.0.0.0/24", "fd00:10::/64"]
private_key = "$(field peer_private_key <<<"$answer")"
peer_public_key = "$(sed -nE 's/^[[:space:]]*PublicKey[[:space:]]*=[[:space:]]*//p' <<<"$conf" | head -n 1)"
endpoint = "198.51.100.1:51820"
keepalive = 25
TOML
  mv "$RUN/site3.part" "$RUN/site3.toml"
}

# --- ECMP: a second WireGuard from the same site, and a network behind both ---

up_ecmp() {
  if [ ! -e "$RUN/ecmp" ]; then
    say "adding a second tunnel to site 1"
    make_second_tunnel
    : >"$RUN/ecmp"
  fi
  start_second_tunnel
  start nginx1b pc-origin1 nginx -e "$LOGS/nginx1b.log" -c "$RUN/origin1/nginx-b.conf"
  wait_for 30 "both tunnels to be healthy" tunnels_are healthy healthy
  wait_for 15 "a way to the network behind both" in_ns pc-edge ping -n -c 1 -W 1 -I "$SOURCE_DEFAULT" 10.8.0.50
}

# tunnels_are STATE STATE: the health of site1 and site1b.
tunnels_are() {
  local seen
  seen=$("$BIN" show tunnels --json --socket "$STATE/edge.sock" |
    jq -r '[.[] | select(.name == "site1" or .name == "site1b")] | sort_by(.name) | map(.health.state) | join(" ")')
  [ "$seen" = "$1 $2" ]
}

# Probes every second; healthy again after five seconds without a failure.
HEALTH='{"type":"request","rate":"high","direction":"bidirectional","recovery":{"up_after":3,"clean_secs":5,"clean_secs_max":30}}'

make_second_tunnel() {
  local private tunnel
  ip -n pc-site1 addr add 10.8.0.1/24 dev lan0
  ip -n pc-origin1 addr add 10.8.0.50/24 dev lan0
  private=$(wg genkey)
  tunnel=$(api POST "/accounts/$ACCOUNT_ID/wireguard_tunnels" "$(jq -nc --arg vnet "$VNET_DEFAULT" --arg key "$(wg pubkey <<<"$private")" \
    --argjson health "$HEALTH" \
    '{name:"site1b", virtual_network_id:$vnet, peer_public_key:$key, endpoint:"198.51.100.11:51821",
      interface_address:"10.255.1.0/31", health_check:$health, allowed_prefixes:["10.8.0.0/24"], mtu:1420}')" | field id)
  printf '[Interface]\nListenPort = 51821\nPrivateKey = %s\n' "$private" >"$RUN/site1b.conf"
  peer_config "$tunnel" | sed -n '/^\[Peer\]/,$p' |
    sed -E 's|^(AllowedIPs *= *).*|\1100.64.0.0/12, 2606:4700:cf1:5000::/64, 10.255.1.0/32|' >>"$RUN/site1b.conf"
  api PUT "/accounts/$ACCOUNT_ID/wireguard_tunnels/$TUNNEL_DEFAULT" "$(jq -nc --argjson health "$HEALTH" \
    '{interface_address:"10.255.0.0/31", health_check:$health, allowed_prefixes:["10.0.0.0/24","fd00:10::/64","10.8.0.0/24"]}')" >/dev/null
  static_route 10.255.0.1
  static_route 10.255.1.1
  record A both.example.com 10.8.0.50 "$VNET_DEFAULT" >/dev/null
  write_nginx_conf 1 | sed -e 's/10\.0\.0\.50:80/10.8.0.50:80/; /listen \[/d; s/nginx\.pid/nginx-b.pid/; s/nginx1-access/nginx1b-access/' \
    >"$RUN/origin1/nginx-b.conf"
}

# static_route NEXTHOP: a candidate for the network behind both tunnels.
static_route() {
  api POST "/accounts/$ACCOUNT_ID/magic/routes" "$(jq -nc --arg n "$1" --arg v "$VNET_DEFAULT" \
    '{prefix:"10.8.0.0/24", nexthop:$n, priority:100, weight:1, virtual_network_id:$v}')" >/dev/null
}

start_second_tunnel() {
  if ! pid_of wireguard1b >/dev/null; then
    start wireguard1b pc-site1 env WG_PROCESS_FOREGROUND=1 wireguard-go pcs1b
    wait_for 10 "wireguard-go" in_ns pc-site1 wg show pcs1b
    in_ns pc-site1 wg setconf pcs1b "$RUN/site1b.conf"
    ip -n pc-site1 link set pcs1b mtu 1420 up
    ip -n pc-site1 addr add 10.255.1.1/31 dev pcs1b
  fi
  in_ns pc-site1 wg set pcs1 peer "$(in_ns pc-site1 wg show pcs1 peers)" \
    allowed-ips 100.64.0.0/12,2606:4700:cf1:5000::/64,10.3.0.0/24,fd00:3::/64,10.255.0.0/32
  ip -n pc-site1 addr replace 10.255.0.1/31 dev pcs1
  # Answers leave by the tunnel that the flow came in by last, as a site's router with two uplinks does it.
  in_ns pc-site1 nft -f - <<'NFT'
table ip ecmp
delete table ip ecmp
table ip ecmp {
  chain arriving {
    type filter hook prerouting priority -150
    iifname "pcs1b" ct mark set 2
    iifname "pcs1" ct mark set 1
    iifname "lan0" ct mark 2 meta mark set 2
  }
}
NFT
  ip -n pc-site1 route replace 100.64.0.0/12 dev pcs1b table 2
  ip -n pc-site1 rule add fwmark 2 table 2 2>/dev/null || true
}
