# shellcheck shell=bash
# The world `ipsec`: a third vnet of the edge, made through the API, whose customers come by IPsec. Sourced by up.sh and check.sh.
#
#   pc-edge ══ ESP in UDP, IKEv2 ══ pc-ipsec-site   strongSwan 5.9 ── pc-ipsec-origin 10.0.0.50   vpn.example.com
#           ══ ESP, IP protocol 50 ══ pc-ipsec-ours   portcullis site   10.3.0.50
#           ══ ESP in UDP, IKEv2, over IPv6 ══ pc-ipsec-six   strongSwan   10.6.0.50 fd00:6::50
# All of it is in the vnet `ipsec`; 10.0.0.50 is in the two others, too.

. "$TESTBED/world.sh"
. "$TESTBED/charon.sh"

IPSEC_NAMESPACES=(pc-ipsec-site pc-ipsec-origin pc-ipsec-ours pc-ipsec-six)
IPSEC_PROCESSES=(ipsec-charon ipsec-six ipsec-ours ipsec-nginx ipsec-iperf ipsec-iperf-ours ipsec-iperf-six ipsec-iperf-six6)

need_for_ipsec_world() {
  need_for_charon
  need iperf3 iperf3
  need tshark tshark
  need traceroute traceroute
}

ipsec_is_up() { [ -e "$RUN/ipsec.env" ] && has_ns pc-ipsec-site; }

ipsec_world_up() {
  ipsec_is_up && return 0
  ipsec_world_down
  ipsec_namespaces
  ipsec_origin
  ipsec_configure
  cat >"$RUN/ipsec.made" <<ENV
VNET_IPSEC=$VNET_IPSEC
TUNNEL_IPSEC=$TUNNEL_IPSEC
TUNNEL_IPSEC_OURS=$TUNNEL_IPSEC_OURS
TUNNEL_IPSEC_SIX=$TUNNEL_IPSEC_SIX
RECORD_IPSEC=$RECORD_IPSEC
ENV
  ipsec_charon
  ipsec_six
  ipsec_ours
  SOURCE_IPSEC=$("$BIN" show sources --json --socket "$EDGE_SOCKET" | jq -er 'map(select(.vnet_name == "ipsec")) | .[0].ipv4')
  SOURCE6_IPSEC=$("$BIN" show sources --json --socket "$EDGE_SOCKET" | jq -er 'map(select(.vnet_name == "ipsec")) | .[0].ipv6')
  {
    cat "$RUN/ipsec.made"
    printf 'SOURCE_IPSEC=%s\nSOURCE6_IPSEC=%s\n' "$SOURCE_IPSEC" "$SOURCE6_IPSEC"
  } >"$RUN/ipsec.env"
  wait_for 20 "strongSwan's tunnel" in_ns pc-edge ping -n -c 1 -W 1 -I "$SOURCE_IPSEC" 10.0.0.50
  wait_for 20 "our site's tunnel" in_ns pc-edge ping -n -c 1 -W 1 -I "$SOURCE_IPSEC" 10.3.0.50
  wait_for 20 "strongSwan's tunnel over IPv6" in_ns pc-edge ping -n -c 1 -W 1 -I "$SOURCE_IPSEC" 10.6.0.50
}

ipsec_namespaces() {
  local ns
  for ns in "${IPSEC_NAMESPACES[@]}"; do
    ip netns add "$ns"
    ip -n "$ns" link set lo up
    in_ns "$ns" sh -c 'echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad; echo 1 >/proc/sys/net/ipv4/ip_forward
      echo 0 >/proc/sys/net/ipv4/conf/default/rp_filter; echo 0 >/proc/sys/net/ipv4/conf/all/rp_filter'
  done
  plug pc-ipsec-site 198.51.100.13 ipsec-site
  plug pc-ipsec-ours 198.51.100.14 ipsec-ours
  link pc-ipsec-site lan0 pc-ipsec-origin lan0
  ip -n pc-ipsec-site addr add 10.0.0.1/24 dev lan0
  ip -n pc-ipsec-site addr add 10.255.1.1/32 dev lo
  ip -n pc-ipsec-origin addr add 10.0.0.50/24 dev lan0
  ip -n pc-ipsec-origin addr add fd00:10::50/64 dev lan0 nodad
  ip -n pc-ipsec-origin route add default via 10.0.0.1
  ip -n pc-ipsec-ours addr add 10.3.0.1/32 dev lo
  ip -n pc-ipsec-ours addr add 10.3.0.50/32 dev lo
  # No IPv4 on the underlay: what is said to this customer is said over IPv6.
  link pc-ipsec-six underlay0 pc-net ipsec-six
  ip -n pc-net link set ipsec-six master underlay
  ip -n pc-ipsec-six addr add 2001:db8:51::16/64 dev underlay0 nodad
  ip -n pc-ipsec-six addr add 10.255.1.5/32 dev lo
  ip -n pc-ipsec-six addr add 10.6.0.50/32 dev lo
  ip -n pc-ipsec-six addr add fd00:6::50/128 dev lo
  # The segment sizes that clients are told.
  in_ns pc-ipsec-origin nft -f - <<'NFT'
table inet portcullis {
  counter mss_fits { }
  counter mss_too_big { }
  chain input {
    type filter hook input priority 0; policy accept;
    iifname "lan0" tcp flags & (syn | ack) == syn tcp option maxseg size <= 1360 counter name mss_fits
    iifname "lan0" tcp flags & (syn | ack) == syn tcp option maxseg size > 1360 counter name mss_too_big
  }
}
NFT
}

ipsec_origin() {
  local dir=$RUN/originipsec
  mkdir -p "$dir/upload" "$dir/tmp"
  write_nginx_conf ipsec >"$dir/nginx.conf"
  start ipsec-nginx pc-ipsec-origin nginx -e "$LOGS/ipsec-nginx.log" -c "$dir/nginx.conf"
  start ipsec-iperf pc-ipsec-origin iperf3 -s -B 10.0.0.50
  start ipsec-iperf-ours pc-ipsec-ours iperf3 -s -B 10.3.0.50
  start ipsec-iperf-six pc-ipsec-six iperf3 -s -B 10.6.0.50
  start ipsec-iperf-six6 pc-ipsec-six iperf3 -s -B fd00:6::50
  wait_for 10 "the origin behind IPsec" in_ns pc-ipsec-origin curl -s -o /dev/null http://10.0.0.50/
}

# As a customer does it: a network, three tunnels, keys that we made and one that the API made, routes to the far sides, a name.
ipsec_configure() {
  local account=/accounts/$ACCOUNT_ID
  VNET_IPSEC=$(api POST "$account/teamnet/virtual_networks" '{"name":"ipsec"}' | field id)
  TUNNEL_IPSEC=$(ipsec_tunnel strongswan 198.51.100.1 198.51.100.13 10.255.1.0 '{"psk":"a key that the customer chose"}')
  TUNNEL_IPSEC_OURS=$(ipsec_tunnel ours 198.51.100.1 198.51.100.14 10.255.1.2 '{"replay_protection":true}')
  TUNNEL_IPSEC_SIX=$(ipsec_tunnel six 2001:db8:51::1 2001:db8:51::16 10.255.1.4 '{"psk":"a key for the way over IPv6"}')
  PSK_OURS=$(api POST "$account/magic/ipsec_tunnels/$TUNNEL_IPSEC_OURS/psk_generate" '{}' | field psk)
  ipsec_route 10.0.0.0/24 10.255.1.1
  ipsec_route 10.3.0.0/24 10.255.1.3
  ipsec_route 10.6.0.0/24 10.255.1.5
  ipsec_route fd00:6::/64 10.255.1.5
  RECORD_IPSEC=$(record A vpn.example.com 10.0.0.50 "$VNET_IPSEC")
}

# ipsec_tunnel NAME EDGE CUSTOMER INTERFACE MORE: prints its id.
ipsec_tunnel() {
  api POST "/accounts/$ACCOUNT_ID/magic/ipsec_tunnels" "$(jq -nc --arg n "$1" --arg e "$2" --arg c "$3" --arg i "$4/31" \
    --arg v "$VNET_IPSEC" --argjson more "$5" '{name:$n, cloudflare_endpoint:$e, customer_endpoint:$c, interface_address:$i,
      virtual_network_id:$v, health_check:{type:"request", rate:"high"}} + $more')" | field id
}

ipsec_route() {
  api POST "/accounts/$ACCOUNT_ID/magic/routes" "$(jq -nc --arg p "$1" --arg n "$2" --arg v "$VNET_IPSEC" \
    '{prefix:$p, nexthop:$n, priority:100, virtual_network_id:$v}')" >/dev/null
}

# ipsec_shown TUNNEL JQ: something that the API shows of the tunnel.
ipsec_shown() {
  api GET "/accounts/$ACCOUNT_ID/magic/ipsec_tunnels/$1" | jq -r ".ipsec_tunnel | $2"
}

# The customer's router: strongSwan begins, by the name that the API gave it.
ipsec_charon() {
  ipsec_charon_conf ipsec-charon 198.51.100.1 198.51.100.13 "$TUNNEL_IPSEC" 'a key that the customer chose' \
    10.0.0.0/24 100.64.0.0/12,10.3.0.0/24 10.255.1.1/32 10.255.1.0/32
  charon_start ipsec-charon pc-ipsec-site
}

ipsec_six() {
  ipsec_charon_conf ipsec-six 2001:db8:51::1 2001:db8:51::16 "$TUNNEL_IPSEC_SIX" 'a key for the way over IPv6' \
    10.6.0.0/24,fd00:6::/64 100.64.0.0/12,2606:4700:cf1:5000::/64 10.255.1.5/32 10.255.1.4/32
  charon_start ipsec-six pc-ipsec-six
}

# ipsec_charon_conf NAME EDGE CUSTOMER TUNNEL PSK NETWORKS THEIRS ADDRESS THEIR_ADDRESS
ipsec_charon_conf() {
  mkdir -p "$RUN/$1"
  cat >"$RUN/$1/swanctl.conf" <<CONF
connections {
  edge {
    version = 2
    local_addrs = $3
    remote_addrs = $2
    proposals = aes256gcm16-prfsha256-x25519
    encap = yes
    dpd_delay = 5s
    keyingtries = 0
    local { auth = psk
      id = $(ipsec_shown "$4" .ike_identities.fqdn) }
    remote { auth = psk
      id = $2 }
    children {
      net {
        local_ts = $6
        remote_ts = $7
        esp_proposals = aes128gcm16
        start_action = start
        close_action = start
        updown = /usr/lib/ipsec/_updown iptables
      }
      # A child SA of its own for the probes.
      link {
        local_ts = $8
        remote_ts = $9
        esp_proposals = aes128gcm16
        start_action = start
        close_action = start
        updown = /usr/lib/ipsec/_updown iptables
      }
    }
  }
}
secrets {
  ike-edge {
    secret = "$5"
  }
}
CONF
}

ipsec_ours() {
  cat >"$RUN/ipsec-ours.toml" <<TOML
admin_socket = "$STATE/ipsec-ours.sock"
[router]
tun = "pc-tun"
address = "10.3.0.1"
lan = ["10.3.0.0/24"]
interface = ["10.255.1.3/31"]
[ipsec]
local = "198.51.100.14"
remote = "198.51.100.1"
psk = "$PSK_OURS"
local_identity = "$(ipsec_shown "$TUNNEL_IPSEC_OURS" .ike_identities.fqdn)"
remote_identity = "198.51.100.1"
encapsulation = "auto"
routes = ["100.64.0.0/12", "10.0.0.0/24"]
TOML
  start ipsec-ours pc-ipsec-ours "$BIN" site --config "$RUN/ipsec-ours.toml"
  ready ipsec-ours "$BIN" show tunnels --socket "$STATE/ipsec-ours.sock"
}

# What it made at the edge goes with it, if the edge is still there.
ipsec_world_down() {
  local name ns
  if [ -e "$RUN/ipsec.made" ] && pid_of edge >/dev/null; then
    ipsec_unconfigure || note "something of the IPsec world is left at the edge"
  fi
  for name in "${IPSEC_PROCESSES[@]}"; do
    stop "$name"
  done
  for ns in "${IPSEC_NAMESPACES[@]}"; do
    ! has_ns "$ns" || ip netns del "$ns" || true
  done
  rm -rf "${RUN:?}"/ipsec.env "$RUN"/ipsec.made "$RUN"/ipsec-charon "$RUN"/ipsec-six "$RUN"/ipsec-ours.toml "$RUN"/originipsec
}

ipsec_unconfigure() {
  local account=/accounts/$ACCOUNT_ID route tunnel
  . "$RUN/ipsec.made"
  api DELETE "/zones/$ZONE_ID/dns_records/$RECORD_IPSEC" >/dev/null
  for route in $(api GET "$account/magic/routes" | jq -r --arg v "$VNET_IPSEC" '.routes[] | select(.virtual_network_id == $v) | .id'); do
    api DELETE "$account/magic/routes/$route" >/dev/null
  done
  for tunnel in "$TUNNEL_IPSEC" "$TUNNEL_IPSEC_OURS" "$TUNNEL_IPSEC_SIX"; do
    api DELETE "$account/magic/ipsec_tunnels/$tunnel" >/dev/null
  done
  api DELETE "$account/teamnet/virtual_networks/$VNET_IPSEC" >/dev/null
}
