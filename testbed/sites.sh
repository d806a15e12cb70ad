# shellcheck shell=bash disable=SC2034
# The world `site-to-site`, beside the world of up.sh: sites of one vnet that reach each other through the edge, and the same
# addresses in another vnet. Sourced by up.sh, check.sh and down.sh.
#
#   default vnet   pc-site1, pc-origin1  10.0.0.50 fd00:10::50  WireGuard over IPv4: Debian's wireguard-go (of the world)
#                  one                   10.3.0.50 fd00:3::50   GRE, key 31: Linux 6.1 ip_gre (user-mode Linux)
#                  pc-site4              10.4.0.50 fd00:4::50   WireGuard over IPv6: Debian's wireguard-go
#   second vnet    pc-site2, pc-origin2  10.0.0.50 fd00:10::50  WireGuard over IPv4: portcullis site (of the world)
#                  two                   10.3.0.50 fd00:3::50   GRE, key 32: the same Linux, another namespace of it

SITES_BOX=pc-sites-box
SITES_GRE='type gre local 198.51.100.31 remote 198.51.100.1'

need_for_sites() {
  need traceroute traceroute
}

# at PLACE COMMAND...: runs it in a namespace of ours, or of the other kernel's.
at() {
  case $1 in
    one | two | stranger) at_kernel "ip netns exec $(printf '%q ' "$@")" ;;
    *) in_ns "$@" ;;
  esac
}

sites_are_up() { [ -e "$RUN/sites.ids" ]; }

# Safe to repeat.
sites_up() {
  sites_are_up && return 0
  say "adding sites: GRE to a Linux kernel in both vnets, WireGuard over IPv6"
  sites_linux_up
  sites_configure
  sites_site4_up
  sites_widen
  wait_for 15 "a way from origin 1 to the Linux kernel" in_ns pc-origin1 ping -n -c 1 -W 1 10.3.0.50 || die "see $LOGS/edge.log"
  wait_for 15 "a way from origin 1 to site 4" in_ns pc-origin1 ping -n -c 1 -W 1 10.4.0.50 || die "see $LOGS/edge.log"
  wait_for 15 "a way from origin 2 to the Linux kernel" in_ns pc-origin2 ping -n -c 1 -W 1 10.3.0.50 || die "see $LOGS/edge.log"
  mv "$RUN/sites.made" "$RUN/sites.ids"
}

# --- a real kernel, at the end of one GRE tunnel of each vnet ---

sites_linux_up() {
  gre_linux_init | uml_boot sites-linux "$SITES_BOX" vec0:transport=tap,ifname=linux,depth=128 ||
    die "the kernel of the GRE sites did not come up"
  gre_linux_join "$SITES_BOX" pc-net sites
  ip -n pc-net link set sites master underlay
  at_kernel "$(uml_modules ip_gre | tr '\n' ';')"
  at_kernel 'ip addr add 198.51.100.31/24 dev vec0'
  sites_linux_site one 31
  sites_linux_site two 32
}
# A line of shell for it, or several.
at_kernel() { uml_ask sites-linux "eval $(printf '%q' "$1")"; }

# sites_linux_site NAME KEY: a namespace at the end of a tunnel, with a host in it that answers HTTP with its name.
sites_linux_site() {
  local name=$1 key=$2
  at_kernel "ip netns add $name; ip link add gre-$name $SITES_GRE key $key ttl 64; ip link set gre-$name netns $name"
  at "$name" sh -ec "echo 0 >/proc/sys/net/ipv4/conf/all/rp_filter
    ip link set lo up
    ip link set gre-$name up
    ip addr add 10.255.3.1/31 dev gre-$name
    ip addr add 10.3.0.50/32 dev lo
    ip addr add fd00:3::50/128 dev lo
    ip route add default dev gre-$name src 10.3.0.50
    ip -6 route add default dev gre-$name src fd00:3::50"
  sites_nginx "$name" 10.3.0.50 fd00:3::50 /run >"$RUN/sites-linux/$name.conf"
  at "$name" nginx -e "/run/$name.log" -c "$RUN/sites-linux/$name.conf"
}

# sites_nginx NAME ADDRESS ADDRESS6 DIR: a server that says its name and who asks, and takes uploads.
sites_nginx() {
  local part
  cat <<CONF
user root;
daemon on;
master_process off;
pid $4/$1.pid;
events { worker_connections 64; }
http {
  access_log off;
  client_max_body_size 0;
$(for part in client_body proxy fastcgi uwsgi scgi; do printf '  %s_temp_path %s/%s-%s;\n' "$part" "$4" "$1" "$part"; done)
  server {
    listen $2:80;
    listen [$3]:80;
    location / { return 200 "$1 \$remote_addr\n"; }
  }
}
CONF
}

# --- WireGuard over IPv6 ---

sites_site4_up() {
  local ns=pc-site4
  ip netns add "$ns"
  ip -n "$ns" link set lo up
  in_ns "$ns" sh -c 'echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad; echo 0 >/proc/sys/net/ipv4/conf/all/rp_filter'
  link "$ns" underlay0 pc-net site4
  ip -n pc-net link set site4 master underlay
  # No IPv4 on the underlay: what is said to this site is said over IPv6.
  ip -n "$ns" addr add 2001:db8:51::14/64 dev underlay0 nodad
  ip -n "$ns" addr add 10.4.0.50/32 dev lo
  ip -n "$ns" addr add fd00:4::50/128 dev lo
  start wireguard4 "$ns" env WG_PROCESS_FOREGROUND=1 wireguard-go pcs4
  wait_for 10 "wireguard-go" in_ns "$ns" wg show pcs4
  in_ns "$ns" wg setconf pcs4 "$RUN/site4.conf"
  ip -n "$ns" link set pcs4 mtu 1400 up
  ip -n "$ns" route add default dev pcs4 src 10.4.0.50
  ip -n "$ns" -6 route add default dev pcs4 src fd00:4::50
  mkdir -p "$RUN/site4"
  sites_nginx four 10.4.0.50 fd00:4::50 "$RUN/site4" | sed 's/^daemon on/daemon off/' >"$RUN/site4/nginx.conf"
  start nginx4 "$ns" nginx -e "$LOGS/nginx4.log" -c "$RUN/site4/nginx.conf"
}

# --- what the edge and the two sites of the world are told ---

# made WORLD KIND: remembers the id of the API's answer on standard input, for the end; prints it.
made() {
  local id
  id=$(field id) || return 1
  printf '%s %s\n' "$2" "$id" >>"$RUN/$1.made"
  printf '%s' "$id"
}

# unmake WORLD: has the API delete what was made for it, the newest first, if the edge is up.
unmake() {
  local kind id
  pid_of edge >/dev/null && [ -r "$RUN/env" ] || return 0
  while read -r kind id; do
    [[ $kind == zones/* ]] || kind=accounts/$ACCOUNT_ID/$kind
    api DELETE "/$kind/$id" >/dev/null || note "$kind/$id is left"
  done < <(cat "$RUN/$1.made" "$RUN/$1.ids" 2>/dev/null | tac)
}

sites_configure() {
  local name key private
  for name in one two; do
    key=31 vnet=$VNET_DEFAULT
    [ "$name" = one ] || key=32 vnet=$VNET_SECOND
    api POST "/accounts/$ACCOUNT_ID/magic/gre_tunnels" "$(jq -nc --arg n "$name" --arg v "$vnet" --argjson k "$key" \
      '{name:"linux-\($n)", virtual_network_id:$v, cloudflare_gre_endpoint:"198.51.100.1", customer_gre_endpoint:"198.51.100.31",
        interface_address:"10.255.3.0/31", mtu:1472, key_tx:$k, key_rx:$k, health_check:{enabled:false}}')" | made sites magic/gre_tunnels >/dev/null
    # The same next hop in both vnets, and it is two tunnels.
    static_route 10.3.0.0/24 10.255.3.1 "$vnet" 100 1 | made sites magic/routes >/dev/null
    static_route fd00:3::/64 10.255.3.1 "$vnet" 100 1 | made sites magic/routes >/dev/null
  done
  private=$(wg genkey)
  SITES_FOUR=$(api POST "/accounts/$ACCOUNT_ID/wireguard_tunnels" "$(jq -nc --arg v "$VNET_DEFAULT" --arg k "$(wg pubkey <<<"$private")" \
    '{name:"site4", virtual_network_id:$v, peer_public_key:$k, endpoint:"[2001:db8:51::14]:51820", mtu:1400, persistent_keepalive:25}')" |
    made sites wireguard_tunnels)
  route "$SITES_FOUR" "$VNET_DEFAULT" 10.4.0.0/24 >/dev/null
  route "$SITES_FOUR" "$VNET_DEFAULT" fd00:4::/64 >/dev/null
  {
    printf '[Interface]\nListenPort = 51820\nPrivateKey = %s\n' "$private"
    peer_config "$SITES_FOUR" | sed -n '/^\[Peer\]/,$p' |
      sed -E -e 's|^Endpoint.*|Endpoint = [2001:db8:51::1]:51820|' -e 's|^AllowedIPs.*|AllowedIPs = 0.0.0.0/0, ::/0|'
  } >"$RUN/site4.conf"
}

# static_route PREFIX NEXTHOP VNET PRIORITY WEIGHT: prints the API's answer.
static_route() {
  api POST "/accounts/$ACCOUNT_ID/magic/routes" \
    "$(jq -nc --arg p "$1" --arg n "$2" --arg v "$3" --argjson r "$4" --argjson w "$5" \
      '{prefix:$p, nexthop:$n, virtual_network_id:$v, priority:$r, weight:$w}')"
}

SITES_NETWORKS=(10.3.0.0/24 10.4.0.0/24)
SITES_NETWORKS6=(fd00:3::/64 fd00:4::/64)

# Sites 1 and 2 send what is for the other sites into their tunnels: site 2 also what only the other vnet has.
sites_widen() {
  local network
  in_ns pc-site1 wg set pcs1 peer "$(in_ns pc-site1 wg show pcs1 peers)" allowed-ips \
    "100.64.0.0/12,2606:4700:cf1:5000::/64,$(IFS=, && echo "${SITES_NETWORKS[*]},${SITES_NETWORKS6[*]}")"
  for network in "${SITES_NETWORKS[@]}"; do
    ip -n pc-site1 route replace "$network" dev pcs1 src 10.0.0.1
  done
  for network in "${SITES_NETWORKS6[@]}"; do
    ip -n pc-site1 route replace "$network" dev pcs1 src fd00:10::1
  done
  cp "$RUN/site2.toml" "$RUN/site2.narrow"
  sed -i 's|^\[wireguard\]|&\nroutes = ["100.64.0.0/12", "2606:4700:cf1:5000::/64", "10.3.0.0/24", "10.4.0.0/24", "fd00:3::/64", "fd00:4::/64", "10.255.0.0/16"]|' \
    "$RUN/site2.toml"
  stop site2
  start_site2
}

# --- the end ---

# The world is as it was before, if it is still there.
sites_down() {
  local network
  stop nginx4
  stop wireguard4
  uml_down sites-linux "$SITES_BOX"
  ! has_ns pc-site4 || ip netns del pc-site4
  rm -f /run/wireguard/pcs4.sock /var/run/wireguard/pcs4.sock
  if pid_of edge >/dev/null && [ -r "$RUN/env" ]; then
    unmake sites
    for network in "${SITES_NETWORKS[@]}" "${SITES_NETWORKS6[@]}"; do
      ip -n pc-site1 route del "$network" dev pcs1 2>/dev/null || true
    done
    if [ -e "$RUN/site2.narrow" ]; then
      mv "$RUN/site2.narrow" "$RUN/site2.toml"
      stop site2
      start_site2
    fi
  fi
  rm -rf "$RUN"/sites.* "$RUN"/site4*
}
