# shellcheck shell=bash
# Checks of the account's source range: another /12 than 100.64.0.0/12, as stock WireGuard and the origins behind it see it.
# Sourced by check.sh.

# range_is NETWORK: makes it the account's.
range_is() {
  api PATCH "/accounts/$ACCOUNT_ID/zerotrust/subnets/cloudflare_source/v4" "$(jq -nc --arg n "$1" '{network:$n}')" | field network
}

# What the edge's SOURCE_DEFAULT is in 10.240.0.0/12.
range_seen() {
  local b c d
  IFS=. read -r _ b c d <<<"$SOURCE_DEFAULT"
  printf '10.%s.%s.%s' "$((b - 64 + 240))" "$c" "$d"
}

# site1_allows NETWORK: besides, what the peer lets in and routes back.
site1_allows() {
  in_ns pc-site1 wg set pcs1 peer "$(in_ns pc-site1 wg show pcs1 peers)" \
    allowed-ips "100.64.0.0/12,2606:4700:cf1:5000::/64${1:+,$1}"
  [ -z "${1:-}" ] || ip -n pc-site1 route replace "$1" dev pcs1
}

end_source_range() {
  range_is 100.64.0.0/12 >/dev/null || true
  ip -n pc-site1 route del 10.240.0.0/12 dev pcs1 2>/dev/null || true
  site1_allows
}

range_dropped() { "$BIN" show counters --json --socket "$EDGE_SOCKET" | jq -er '.router.drops.return_unknown // .drops.return_unknown // 0'; }

asked_from() { get -H 'Connection: close' "$1://app.example.com/headers" | sed -n 's/^remote_addr=//p'; }

# The private network sees the edge in the range that the account chose, from the next packet on and for all that goes through:
# HTTP also over connections that were open before, bulk in super-packets, UDP, ping, and errors. Its configuration says so.
check_source_range() {
  local seen dropped told
  trap end_source_range EXIT
  seen=$(range_seen)
  expect "$(asked_from http)" "$SOURCE_DEFAULT" "who asks the origin, before"
  site1_allows 10.240.0.0/12
  expect "$(range_is 10.240.0.0/12)" 10.240.0.0/12 "the range of the account"
  expect "$(asked_from http)" "$seen" "who asks it at once afterwards"
  expect "$(asked_from https)" "$seen" "by HTTPS"
  expect_like "$(in_ns pc-edge ping -n -q -c 3 -i 0.1 -W 2 -I "$SOURCE_DEFAULT" 10.0.0.50 || true)" '* 0% packet loss*' "ping"
  expect "$(whoami 53)" '"origin1"' "DNS, udp/53"
  expect "$(client redis-cli -h "$EDGE_IP" -p 6379 get whoami)" origin1 "redis, tcp/6379"
  expect "$(get http://app.example.com/big -r 0-67108863 | sha256sum)" "$(head -c 67108864 "$RUN/big" | sha256sum)" "64 MiB down"
  expect "$(status http://refused.example.com/)" 521 "an origin that refuses"
  told=$(in_ns pc-edge curl -sS -m 10 -H "Authorization: Bearer $API_TOKEN" \
    "$API_URL/accounts/$ACCOUNT_ID/wireguard_tunnels/$TUNNEL_DEFAULT/config" | grep AllowedIPs)
  expect "$told" 'AllowedIPs = 10.240.0.0/12, 2606:4700:cf1:5000::/64' "what a peer is told"
  # What others call the address is nobody's in this account.
  dropped=$(range_dropped)
  in_ns pc-origin1 ping -n -q -c 3 -i 0.1 -W 1 "$SOURCE_DEFAULT" >/dev/null || true
  expect "$(($(range_dropped) - dropped))" 3 "packets for the plain address that came to nothing"
  expect_like "$(in_ns pc-origin1 ping -n -q -c 3 -i 0.1 -W 2 "$seen" || true)" '* 0% packet loss*' "ping of the edge by the origin"
  expect "$(range_is 100.64.0.0/12)" 100.64.0.0/12 "the range as it was"
  expect "$(asked_from http)" "$SOURCE_DEFAULT" "who asks, at once"
}
