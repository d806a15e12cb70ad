# shellcheck shell=bash disable=SC2034
# The world `ecmp`, beside the world of up.sh: one network behind tunnels of three kinds, all made through the API, and a fourth
# for when those are down. Sourced by up.sh, check.sh and down.sh.
#
#            ══ WireGuard, weight 2 ═══ pc-ecmp-wg: Debian's wireguard-go ── lan-wg ──┐
#   pc-edge  ══ GRE, weight 1 ═════════ Linux 6.1 ip_gre (user-mode Linux) ─ lan-gre ─┤ pc-ecmp 10.8.0.50
#            ══ IPsec, weight 1 ═══════ pc-ecmp-esp: portcullis site ─────── lan-esp ─┘
#            ══ GRE, priority 200 ═════ the same Linux, another key
#
# The far side is three routers and no more clever than that: what came in by a router goes back by it, flow by flow.

ECMP_BOX=pc-ecmp-box
ECMP_NAMESPACES=(pc-ecmp-wg pc-ecmp-esp pc-ecmp)
# A probe every second, and healthy again after five seconds without a failure.
ECMP_HEALTH='{"rate":"high","direction":"bidirectional","recovery":{"up_after":3,"clean_secs":5,"clean_secs_max":30}}'

need_for_ecmp() {
  need iperf3 iperf3
  need wrk wrk
}

ecmp_is_up() { [ -e "$RUN/ecmp.ids" ]; }
ecmp_linux() { uml_ask ecmp-linux "eval $(printf '%q' "$1")"; }

# Safe to repeat.
ecmp_up() {
  ecmp_is_up && return 0
  say "adding a network behind WireGuard, GRE and IPsec"
  ecmp_namespaces
  ecmp_linux_up
  ecmp_wireguard
  ecmp_gre ecmp-gre 41 10.255.8.2/31 reply
  ecmp_gre ecmp-spare 42 10.255.8.6/31 request
  ecmp_ipsec
  # Two of equal weight and one of twice that share the flows; the last is for when they are all down.
  static_route 10.8.0.0/24 10.255.8.1 "$VNET_DEFAULT" 100 128 | made ecmp magic/routes >/dev/null
  static_route 10.8.0.0/24 10.255.8.3 "$VNET_DEFAULT" 100 64 | made ecmp magic/routes >/dev/null
  static_route 10.8.0.0/24 10.255.8.5 "$VNET_DEFAULT" 100 64 | made ecmp magic/routes >/dev/null
  static_route 10.8.0.0/24 10.255.8.7 "$VNET_DEFAULT" 200 0 | made ecmp magic/routes >/dev/null
  record A both.example.com 10.8.0.50 "$VNET_DEFAULT" | jq -R '{id: .}' | made ecmp "zones/$ZONE_ID/dns_records" >/dev/null
  ecmp_origin
  wait_for 30 "all four tunnels to be healthy" ecmp_states healthy healthy healthy healthy ||
    { "$BIN" show tunnels --socket "$STATE/edge.sock" >&2 && die "see $LOGS/edge.log"; }
  mv "$RUN/ecmp.made" "$RUN/ecmp.ids"
}

# ecmp_states GRE IPSEC SPARE WIREGUARD: what probes say of the tunnels, as `show tunnels` has it.
ecmp_states() { [ "$(ecmp_states_now)" = "$*" ]; }
ecmp_states_now() {
  "$BIN" show tunnels --json --socket "$STATE/edge.sock" |
    jq -r '[.[] | select(.name | startswith("ecmp-"))] | sort_by(.name) | map(.health.state) | join(" ")'
}

# --- the far side ---

ecmp_namespaces() {
  local ns name n=1
  for ns in "${ECMP_NAMESPACES[@]}"; do
    ip netns add "$ns"
    ip -n "$ns" link set lo up
    in_ns "$ns" sh -c 'echo 0 >/proc/sys/net/ipv4/conf/all/rp_filter; echo 0 >/proc/sys/net/ipv4/conf/default/rp_filter
      echo 1 >/proc/sys/net/ipv4/ip_forward'
  done
  ip -n pc-ecmp addr add 10.8.0.50/32 dev lo
  for name in wg gre esp; do
    if [ "$name" != gre ]; then
      link "pc-ecmp-$name" lan0 pc-ecmp "lan-$name"
      ip -n "pc-ecmp-$name" addr add "10.8.$n.1/30" dev lan0
      ip -n "pc-ecmp-$name" route add 10.8.0.50 via "10.8.$n.2"
      plug "pc-ecmp-$name" "198.51.100.2$n" "ecmp-$name"
    fi
    n=$((n + 1))
  done
}

# Linux, with a card on the underlay and one towards the origin.
ecmp_linux_up() {
  {
    gre_linux_init
    echo 'ethtool -K vec1 gro off gso off tso off; ip link set vec1 up'
  } | uml_boot ecmp-linux "$ECMP_BOX" vec0:transport=tap,ifname=linux,depth=128 vec1:transport=tap,ifname=lan,depth=128 ||
    die "the kernel of the GRE site did not come up"
  local port each='type gre local 198.51.100.22 remote 198.51.100.1 ttl 64'
  gre_linux_join "$ECMP_BOX" pc-net ecmp-gre
  ip -n pc-net link set ecmp-gre master underlay
  ip -n "$ECMP_BOX" link add lans type bridge
  ip link add lan-far netns "$ECMP_BOX" type veth peer name lan-gre netns pc-ecmp
  for port in lan lan-far; do
    ip -n "$ECMP_BOX" link set "$port" master lans
    ip -n "$ECMP_BOX" link set "$port" up
  done
  ip -n "$ECMP_BOX" link set lans up
  ip -n pc-ecmp link set lan-gre up
  ecmp_linux "$(uml_modules ip_gre | tr '\n' ';')"
  ecmp_linux 'ip addr add 198.51.100.22/24 dev vec0; ip addr add 10.8.2.1/30 dev vec1; ip route add 10.8.0.50 via 10.8.2.2'
  ecmp_linux "ip link add gre1 $each key 41 && ip addr add 10.255.8.3/31 dev gre1 && ip link set gre1 mtu 1420 up"
  ecmp_linux "ip link add gre2 $each key 42 && ip addr add 10.255.8.7/31 dev gre2 && ip link set gre2 mtu 1420 up"
  # Answers go back by the tunnel that asked last: here by which is up, as both are this router's.
  ecmp_linux 'ip route add 100.64.0.0/12 dev gre1 metric 1; ip route add 100.64.0.0/12 dev gre2 metric 2'
}

# What came in by a router goes back by it; which, is written down for each flow.
ecmp_origin() {
  local n
  ip -n pc-ecmp addr add 10.8.1.2/30 dev lan-wg
  ip -n pc-ecmp addr add 10.8.2.2/30 dev lan-gre
  ip -n pc-ecmp addr add 10.8.3.2/30 dev lan-esp
  ip -n pc-ecmp route add default via 10.8.1.1
  for n in 1 2 3; do
    ip -n pc-ecmp route add default via "10.8.$n.1" table "$n"
    ip -n pc-ecmp rule add fwmark "$n" table "$n"
  done
  in_ns pc-ecmp nft -f - <<'NFT'
table inet paths {
  set udp_flows { type ifname . inet_service; size 65535; flags dynamic; }
  set streams { type ifname . inet_service; size 65535; flags dynamic; }
  set http { type ifname . inet_service; size 65535; flags dynamic; }
  counter resets { }
  chain arriving {
    type filter hook prerouting priority -150
    ct mark set iifname map { "lan-wg" : 1, "lan-gre" : 2, "lan-esp" : 3 }
    udp dport 9 update @udp_flows { iifname . udp sport }
    tcp dport 5201 update @streams { iifname . tcp sport }
    tcp dport 80 update @http { iifname . tcp sport }
    tcp flags & rst == rst counter name resets
  }
  chain mine {
    type filter hook input priority 0
    udp dport 9 drop
  }
  chain answering {
    type route hook output priority -150
    meta mark set ct mark
  }
}
NFT
  mkdir -p "$RUN/ecmp"
  sites_nginx ecmp 10.8.0.50 ::1 "$RUN/ecmp" | sed 's/^daemon on/daemon off/; s/connections 64/connections 1024/' >"$RUN/ecmp/nginx.conf"
  start nginx-ecmp pc-ecmp nginx -e "$LOGS/nginx-ecmp.log" -c "$RUN/ecmp/nginx.conf"
  start iperf-ecmp pc-ecmp iperf3 -s -B 10.8.0.50
}

# --- the tunnels, by the API, and their far ends ---

ecmp_wireguard() {
  local private tunnel
  private=$(wg genkey)
  tunnel=$(api POST "/accounts/$ACCOUNT_ID/wireguard_tunnels" "$(jq -nc --arg v "$VNET_DEFAULT" --arg k "$(wg pubkey <<<"$private")" \
    --argjson h "$ECMP_HEALTH" '{name:"ecmp-wg", virtual_network_id:$v, peer_public_key:$k, endpoint:"198.51.100.21:51820", mtu:1420,
      interface_address:"10.255.8.0/31", health_check:($h + {type:"request"})}')" | made ecmp wireguard_tunnels)
  {
    printf '[Interface]\nListenPort = 51820\nPrivateKey = %s\n' "$private"
    peer_config "$tunnel" | sed -n '/^\[Peer\]/,$p' | sed -E 's|^AllowedIPs.*|AllowedIPs = 0.0.0.0/0|'
  } >"$RUN/ecmp-wg.conf"
  start wireguard-ecmp pc-ecmp-wg env WG_PROCESS_FOREGROUND=1 wireguard-go pcse
  wait_for 10 "wireguard-go" in_ns pc-ecmp-wg wg show pcse
  in_ns pc-ecmp-wg wg setconf pcse "$RUN/ecmp-wg.conf"
  ip -n pc-ecmp-wg link set pcse mtu 1420 up
  ip -n pc-ecmp-wg addr add 10.255.8.1/31 dev pcse
  ip -n pc-ecmp-wg route add 100.64.0.0/12 dev pcse
}

# ecmp_gre NAME KEY LINK PROBE
ecmp_gre() {
  api POST "/accounts/$ACCOUNT_ID/magic/gre_tunnels" "$(jq -nc --arg n "$1" --argjson k "$2" --arg l "$3" --arg t "$4" \
    --arg v "$VNET_DEFAULT" --argjson h "$ECMP_HEALTH" '{name:$n, virtual_network_id:$v, cloudflare_gre_endpoint:"198.51.100.1",
      customer_gre_endpoint:"198.51.100.22", key_tx:$k, key_rx:$k, mtu:1420, interface_address:$l,
      health_check:($h + {type:$t})}')" | made ecmp magic/gre_tunnels >/dev/null
}

ecmp_ipsec() {
  local tunnel psk='one key for both sides'
  tunnel=$(api POST "/accounts/$ACCOUNT_ID/magic/ipsec_tunnels" "$(jq -nc --arg p "$psk" --arg v "$VNET_DEFAULT" --argjson h "$ECMP_HEALTH" \
    '{name:"ecmp-ipsec", virtual_network_id:$v, cloudflare_endpoint:"198.51.100.1", customer_endpoint:"198.51.100.23", psk:$p,
      mtu:1420, interface_address:"10.255.8.4/31", health_check:($h + {type:"request"})}')")
  made ecmp magic/ipsec_tunnels <<<"$tunnel" >/dev/null
  cat >"$RUN/ecmp-esp.toml" <<TOML
admin_socket = "$STATE/ecmp-esp.sock"
[router]
tun = "pc-tun"
mtu = 1420
address = "10.8.3.1"
lan = ["10.8.0.0/24"]
interface = ["10.255.8.5/31"]
[ipsec]
local = "198.51.100.23"
remote = "198.51.100.1"
psk = "$psk"
local_identity = "$(jq -r '.ike_identities.fqdn' <<<"$tunnel")"
remote_identity = "198.51.100.1"
routes = ["100.64.0.0/12"]
TOML
  start ecmp-esp pc-ecmp-esp "$BIN" site --config "$RUN/ecmp-esp.toml"
  ready ecmp-esp "$BIN" show tunnels --socket "$STATE/ecmp-esp.sock"
}

# --- the end ---

ecmp_down() {
  local name ns
  for name in nginx-ecmp iperf-ecmp wireguard-ecmp ecmp-esp; do
    stop "$name"
  done
  uml_down ecmp-linux "$ECMP_BOX"
  for ns in "${ECMP_NAMESPACES[@]}"; do
    ! has_ns "$ns" || ip netns del "$ns"
  done
  rm -f /run/wireguard/pcse.sock /var/run/wireguard/pcse.sock
  unmake ecmp
  rm -rf "$RUN"/ecmp "$RUN"/ecmp[-.]*
}
