# shellcheck shell=bash
# Checks of what happens when something is wrong, changed, killed or forged. Sourced by check.sh.

# page URL STATUS WHAT: the status, and a page that says more than nothing.
page() {
  local answer
  answer=$(get -w '\n%{http_code}' "$1")
  expect_like "$(tail -n 1 <<<"$answer")" "$2" "$3"
  [ "$(wc -c <<<"$answer")" -gt 20 ] || { note "$3: the page is empty" && return 1; }
}
check_page_unknown_host() { page http://unknown.example.com/ '4??' "a host that nobody configured"; }
check_page_refused() { page http://refused.example.com/ 521 "an origin that refuses"; }
check_page_silent() { page http://silent.example.com/ 522 "an origin that does not answer"; }
check_page_slow() { page http://app.example.com/slow 524 "an origin that accepts and says nothing"; }

# A record whose route has gone since; the API would not take one that never had a route.
check_page_no_route() {
  local way name
  way=$(route "$TUNNEL_DEFAULT" "$VNET_DEFAULT" 10.9.9.0/24)
  name=$(record A noroute.example.com 10.9.9.9 "$VNET_DEFAULT")
  api DELETE "/accounts/$ACCOUNT_ID/teamnet/routes/$way" >/dev/null
  page http://noroute.example.com/ '5[23][30]' "an address that no route leads to"
  api DELETE "/zones/$ZONE_ID/dns_records/$name" >/dev/null
}

# refused CODE COMMAND...: the API call fails, and its answer has the code.
refused() {
  local code=$1 answer
  shift
  answer=$("$@" 2>&1) && { note "the API took it: $*" && return 1; }
  expect_like "$answer" "*\"code\":$code*" "the answer"
}
check_bad_configuration() {
  refused 11044 record A nowhere.example.com 10.9.9.9 "$VNET_DEFAULT"
  refused 11044 app tcp/9999 nowhere.example.com tcp://10.9.9.9:80 "$VNET_DEFAULT"
  refused '*' route "$TUNNEL_DEFAULT" "$VNET_DEFAULT" 10.0.0.0/24
  refused '*' route "$TUNNEL_DEFAULT" "$VNET_DEFAULT" 10.0.0.0/33
  refused '*' route "$TUNNEL_DEFAULT" "$VNET_DEFAULT" 100.64.1.0/24
  API_TOKEN=wrong refused '*' api GET /accounts
}

# Everything that is configured, without what changes by itself.
configuration() {
  local path
  for path in "accounts/$ACCOUNT_ID/teamnet/virtual_networks" "accounts/$ACCOUNT_ID/teamnet/routes" \
    "accounts/$ACCOUNT_ID/wireguard_tunnels" "zones/$ZONE_ID/dns_records" "zones/$ZONE_ID/spectrum/apps"; do
    api GET "/$path" | jq -S 'sort_by(.id) | map({id, name, network, content, protocol, public_key, peer_public_key, virtual_network_id})'
  done
}

both_answer() {
  [ "$(get -m 1 http://app.example.com/)" = origin1 ] && [ "$(get -m 1 http://wiki.example.com/)" = origin2 ]
}

# kill -9 while clients ask; after a restart everything is as before and traffic flows within 10 s. The sites are not touched.
check_kill_and_recover() {
  local before after killed
  before=$(configuration)
  # Not by `client`: the PID must be the loop's, not a subshell's.
  # shellcheck disable=SC2016
  ip netns exec pc-client bash -c 'for i in $(seq 60); do curl -s -m 1 -o /dev/null http://app.example.com/big; done' >/dev/null 2>&1 &
  local traffic=$!
  "$TESTBED/edge.sh" kill
  killed=$(now_ms)
  "$TESTBED/edge.sh" start
  wait_for 10 "traffic in both vnets" both_answer || { kill "$traffic"; return 1; }
  say "traffic in both vnets $(($(now_ms) - killed)) ms after kill -9"
  kill "$traffic" 2>/dev/null || true
  [ $(($(now_ms) - killed)) -le 10000 ] || { note "more than 10 s" && return 1; }
  after=$(configuration)
  expect "$(sha256sum <<<"$after")" "$(sha256sum <<<"$before")" "configuration after the crash"
}

# A clean stop and start: exit status 0, nothing left in the kernel's tables.
check_stop_and_start() {
  "$TESTBED/edge.sh" stop
  expect "$(in_ns pc-edge ip rule | grep -c 100.64 || true)" 0 "rules left behind"
  expect "$(in_ns pc-edge ip -o link show type tun | wc -l)" 0 "TUN devices left behind"
  "$TESTBED/edge.sh" start
  wait_for 10 "traffic in both vnets" both_answer
}

# Deleting a route of the default vnet takes effect in 100 ms; the second vnet loses no packet, then or when it returns.
check_route_delete() {
  begin_counting
  api DELETE "/accounts/$ACCOUNT_ID/teamnet/routes/$ROUTE_DEFAULT" >/dev/null
  deleted 'app.example.com' '5[23][30]' vanishes "$RUN/pings1"
  ROUTE_DEFAULT=$(route "$TUNNEL_DEFAULT" "$VNET_DEFAULT" 10.0.0.0/24)
  remember ROUTE_DEFAULT
  end_counting
}

# The same for a tunnel, with its routes; then the site gets a new one.
check_tunnel_delete() {
  local private
  private=$(sed -n 's/^PrivateKey = //p' "$RUN/site1.conf")
  begin_counting
  api DELETE "/accounts/$ACCOUNT_ID/wireguard_tunnels/$TUNNEL_DEFAULT" >/dev/null
  deleted 'app.example.com' '5[23][30]' vanishes "$RUN/pings1"
  TUNNEL_DEFAULT=$(tunnel1 "$(wg pubkey <<<"$private")" | field id)
  remember TUNNEL_DEFAULT
  write_site1 "$private"
  in_ns pc-site1 wg setconf pcs1 "$RUN/site1.conf"
  ROUTE_DEFAULT=$(route "$TUNNEL_DEFAULT" "$VNET_DEFAULT" 10.0.0.0/24)
  remember ROUTE_DEFAULT
  route "$TUNNEL_DEFAULT" "$VNET_DEFAULT" fd00:10::/64 >/dev/null
  # Another number, and with it perhaps another worker.
  SOURCE_DEFAULT=$(source_of default site1)
  remember SOURCE_DEFAULT
  end_counting
}

# The same for a record; packets of its vnet go on, only the name is gone.
check_record_delete() {
  begin_counting
  api DELETE "/zones/$ZONE_ID/dns_records/$RECORD_DEFAULT" >/dev/null
  deleted app.example.com '4??' true
  RECORD_DEFAULT=$(record A app.example.com 10.0.0.50 "$VNET_DEFAULT")
  remember RECORD_DEFAULT
  end_counting
}

# Two counted floods, 100 packets a second: pings1 from the default vnet's source, pings2 from the second's.
begin_counting() {
  flood "$RUN/pings2" "$SOURCE_SECOND" 400
  COUNTED=$!
  flood "$RUN/pings1" "$SOURCE_DEFAULT" 150
}

flood() {
  in_ns pc-edge ping -n -D -i 0.01 -c "$3" -W 1 -I "$2" "$ORIGIN_IP" >"$1" 2>&1 &
  wait_for 5 "pings from $2" grep -q 'icmp_seq=20 ' "$1"
}

# deleted NAME STATUS COMMAND...: what holds 100 ms after the API has answered; COMMAND gets the time of its answer.
deleted() {
  local at name=$1 status=$2
  at=$(now_ms)
  shift 2
  wait_for 5 "100 ms" past $((at + 100))
  expect_like "$(status "http://$name/")" "$status" "$name 100 ms later"
  expect "$(get http://wiki.example.com/)" origin2 "wiki.example.com meanwhile"
  "$@" "$at"
}

past() { [ "$(now_ms)" -ge "$1" ]; }

# vanishes FILE SINCE_MS: the flood's last answer came at most 100 ms after that.
vanishes() {
  local last
  last=$(sed -n 's/^\[\([0-9]*\)\.\([0-9]\{3\}\).* bytes from .*/\1\2/p' "$1" | tail -n 1)
  say "last answer $((last - $2)) ms after the API had answered"
  [ $((last - $2)) -le 100 ] || { note "later than 100 ms" && return 1; }
}

# The second vnet's flood lost nothing, and both vnets work.
end_counting() {
  wait_for 10 "traffic in both vnets" both_answer
  wait "$COUNTED" || true
  tail -n 3 "$RUN/pings2"
  # For the last one ping(8) waits no longer than the interval, 10 ms.
  expect "$(grep -o 'icmp_seq=[0-9]* ' "$RUN/pings2" | grep -vc '=400 ')" 399 "answers in the other vnet to 399 echoes"
  rm -f "$RUN/pings1" "$RUN/pings2"
}

# remember NAME: writes a variable's new value to run/env.
remember() { sed -i "s|^$1=.*|$1=${!1}|" "$RUN/env"; }

# --- forged packets ---

# Packets that site 2 sends into its tunnel with addresses it has no right to are dropped and counted, and arrive nowhere.
check_spoof() {
  trap end_spoof EXIT
  begin_spoof
  local before after
  before=$(tunnel_dropped site2)
  forge 192.0.2.66 "$SOURCE_SECOND"
  forge "$SOURCE_DEFAULT" "$SOURCE_SECOND"
  forge "$SOURCE_DEFAULT" 100.64.0.1
  forge 10.0.0.1 "$SOURCE_DEFAULT"
  expect "$(seen pc-site2 sent)" 20 "forged packets that left site 2"
  after=$(tunnel_dropped site2)
  expect $((after - before)) 20 "drops of the tunnel, counted at the edge"
  expect "$(seen pc-edge arrived)" 0 "forged packets that came out at the edge"
  expect "$(seen pc-origin1 arrived)" 0 "forged packets that came out at origin1"
  expect "$(seen pc-origin2 arrived)" 0 "forged packets that came out at origin2"
}

# forge SOURCE DESTINATION: five packets, through the tunnel whatever the routing table thinks of the addresses.
forge() {
  in_ns pc-site2 ip addr add "$1/32" dev lo 2>/dev/null || true
  in_ns pc-site2 ping -n -q -c 5 -i 0.01 -W 1 -I "$1" "$2" && { note "$1 -> $2 was answered" && return 1; }
  [ "$1" = 10.0.0.1 ] || in_ns pc-site2 ip addr del "$1/32" dev lo
}

begin_spoof() {
  local ns
  in_ns pc-site2 nft -f - <<NFT
table inet spoof {
  counter sent { }
  chain output {
    type filter hook output priority 0
    oifname "pc-tun" icmp type echo-request counter name sent
  }
}
NFT
  for ns in pc-edge pc-origin1 pc-origin2; do
    in_ns "$ns" nft -f - <<NFT
table inet spoof {
  counter arrived { }
  chain arriving {
    type filter hook prerouting priority -300
    iifname { "pc-tun", "lan0" } ip saddr { 192.0.2.66, $SOURCE_DEFAULT, 10.0.0.1 } icmp type echo-request counter name arrived
  }
}
NFT
  done
}

seen() {
  in_ns "$1" nft -j list counter inet spoof "$2" | jq '[.nftables[].counter // empty | .packets] | add'
}

end_spoof() {
  local ns
  for ns in pc-site2 pc-edge pc-origin1 pc-origin2; do
    in_ns "$ns" nft delete table inet spoof 2>/dev/null || true
  done
  in_ns pc-site2 ip addr del 192.0.2.66/32 dev lo 2>/dev/null || true
  in_ns pc-site2 ip addr del "$SOURCE_DEFAULT/32" dev lo 2>/dev/null || true
}

# --- a second edge that cannot start says why in a sentence ---

# refuses NAMESPACE WORDS COMMAND...: ends by itself within 10 s, unsuccessfully, with a last line that has the words.
refuses() {
  local ns=$1 words=$2 answer rc=0
  shift 2
  answer=$(timeout -k 1 10 ip netns exec "$ns" "$@" 2>&1) || rc=$?
  if [ "$rc" = 0 ] || [ "$rc" -ge 124 ]; then
    note "it did not refuse (status $rc): $answer"
    return 1
  fi
  expect_like "$(tail -n 1 <<<"$answer")" "$words" "the last line"
}

# second_edge SED_EXPRESSION...: the edge's configuration with its own store, socket, TUN, API and ports, then changed.
second_edge() {
  sed -e "s|^data_dir = .*|data_dir = \"$RUN/edge-other\"|" -e 's/127.0.0.1:8787/127.0.0.1:8788/' \
    -e 's/edge\.sock/other.sock/' -e 's/"pc-tun"/"pc-tun2"/' -e 's/198.51.100.1:51820/198.51.100.1:51821/' \
    -e 's/, "\[2001:db8:51::1\]:51820"//' -e '/^gre = /d; /^ipsec = /d' -e 's/100\.64\.0\.0/100.65.0.0/' -e 's/:80"/:81"/g; s/:443"/:444"/g' "$@" "$RUN/edge.toml" >"$RUN/other.toml"
}

check_port_in_use() {
  second_edge -e 's/51821/51820/'
  refuses pc-edge '*51820*' "$BIN" edge --config "$RUN/other.toml"
  second_edge
  refuses pc-edge '*another portcullis*' "$BIN" edge --config "$RUN/other.toml"
  rm -rf "$RUN/edge-other" "$RUN/other.toml"
  both_answer
}

# In a namespace without a router of its own, so that nothing else is in the way.
check_no_privilege() {
  second_edge -e 's/198.51.100.1:51821/0.0.0.0:51821/'
  refuses pc-client '*CAP_NET_ADMIN*' setpriv --bounding-set=-net_admin --inh-caps=-net_admin "$BIN" edge --config "$RUN/other.toml"
  rm -rf "$RUN/edge-other" "$RUN/other.toml"
}

check_no_tun() {
  second_edge -e 's/198.51.100.1:51821/0.0.0.0:51821/'
  refuses pc-client '*/dev/net/tun*' unshare -m sh -c 'mount -t tmpfs none /dev/net && exec "$@"' sh "$BIN" edge --config "$RUN/other.toml"
  rm -rf "$RUN/edge-other" "$RUN/other.toml"
}
