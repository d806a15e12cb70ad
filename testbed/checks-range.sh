# shellcheck shell=bash
# Checks of addresses that mean two things: the account's source range as another /12 than 100.64.0.0/12, origins with addresses
# that the edge's machine has, and the machine's own services. Sourced by check.sh.

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
  [ -z "${1:-}" ] || { ip -n pc-site1 route del blackhole "$1" 2>/dev/null || true; ip -n pc-site1 route replace "$1" dev pcs1; }
}

# The origin has connections to addresses of that range, which it gives up only in a minute or two: without this route site 1 would
# send it an error for each try, and then have none left for a traceroute.
end_source_range() {
  range_is 100.64.0.0/12 >/dev/null || true
  ip -n pc-site1 route replace blackhole 10.240.0.0/12
  ip -n pc-site1 route del 10.240.0.0/12 dev pcs1 2>/dev/null || true
  site1_allows
}

edge_dropped() { "$BIN" show counters --json --socket "$EDGE_SOCKET" | jq -er --arg reason "$1" '(.router.drops // .drops)[$reason]'; }

asked_from() { get -H 'Connection: close' "$1://app.example.com/headers" | sed -n 's/^remote_addr=//p'; }

# The private network sees the edge in the range that the account chose, from the next packet on and for all that goes through:
# HTTP also over connections that were open before, bulk in super-packets, UDP, ping, and errors. Its configuration says so.
check_source_range() {
  local seen before told
  trap end_source_range EXIT
  seen=$(range_seen)
  expect "$(asked_from http)" "$SOURCE_DEFAULT" "who asks the origin, before"
  site1_allows 10.240.0.0/12
  expect "$(range_is 10.240.0.0/12)" 10.240.0.0/12 "the range of the account"
  expect "$(asked_from http)" "$seen" "who asks it at once afterwards"
  expect "$(asked_from https)" "$seen" "by HTTPS"
  expect_like "$(patient in_ns pc-edge ping -n -q -c 3 -i 0.1 -W 2 -I "$SOURCE_DEFAULT" 10.0.0.50 || true)" '* 0% packet loss*' "ping"
  expect "$(whoami 53)" '"origin1"' "DNS, udp/53"
  expect "$(client redis-cli -h "$EDGE_IP" -p 6379 get whoami)" origin1 "redis, tcp/6379"
  expect "$(get http://app.example.com/big -r 0-67108863 | sha256sum)" "$(head -c 67108864 "$RUN/big" | sha256sum)" "64 MiB down"
  expect "$(status http://refused.example.com/)" 521 "an origin that refuses"
  told=$(in_ns pc-edge curl -sS -m 10 -H "Authorization: Bearer $API_TOKEN" \
    "$API_URL/accounts/$ACCOUNT_ID/wireguard_tunnels/$TUNNEL_DEFAULT/config" | grep AllowedIPs)
  expect "$told" 'AllowedIPs = 10.240.0.0/12, 2606:4700:cf1:5000::/64' "what a peer is told"
  # What others call the address is nobody's in this account.
  before=$(edge_dropped no_route)
  expect_like "$(patient in_ns pc-origin1 ping -n -q -c 3 -i 0.1 -W 1 "$SOURCE_DEFAULT" || true)" '* 100% packet loss*' "ping of the plain address"
  # And what the origin still sends on connections from before.
  [ $(($(edge_dropped no_route) - before)) -ge 3 ] || die "packets for the plain address are not counted"
  expect_like "$(patient in_ns pc-origin1 ping -n -q -c 3 -i 0.1 -W 2 "$seen" || true)" '* 0% packet loss*' "ping of the edge by the origin"
  expect "$(range_is 100.64.0.0/12)" 100.64.0.0/12 "the range as it was"
  expect "$(asked_from http)" "$SOURCE_DEFAULT" "who asks, at once"
}

# tunnel_allows PREFIX...: what the edge lets out of site 1's tunnel besides its network.
tunnel_allows() {
  api PATCH "/accounts/$ACCOUNT_ID/wireguard_tunnels/$TUNNEL_DEFAULT" \
    "$(jq -nc '{allowed_prefixes:(["10.0.0.0/24", "fd00:10::/64"] + $ARGS.positional)}' --args "$@")" >/dev/null
}

# an_origin_at ADDRESS NAME ALLOWED: the origin behind site 1 has it too, and a route and a record lead there.
an_origin_at() {
  in_ns pc-origin1 nft -f - <<NFT
table ip pc_second { chain in { type nat hook prerouting priority -100; ip daddr $1 dnat to 10.0.0.50; }; }
NFT
  ip -n pc-site1 route replace "$1/32" via 10.0.0.50
  tunnel_allows "$1/32"
  OWN_ROUTE=$(api POST "/accounts/$ACCOUNT_ID/teamnet/routes" \
    "$(jq -nc --arg n "$1/32" --arg t "$TUNNEL_DEFAULT" '{network:$n, tunnel_id:$t}')" | field id)
  OWN_RECORD=$(api POST "/zones/$ZONE_ID/dns_records" \
    "$(jq -nc --arg n "$2.example.com" --arg c "$1" '{type:"A", name:$n, content:$c, proxied:true, private_routing:true}')" | field id)
  site1_allows "$3"
}
end_origin_at() {
  [ -z "${OWN_RECORD:-}" ] || api DELETE "/zones/$ZONE_ID/dns_records/$OWN_RECORD" >/dev/null || true
  [ -z "${OWN_ROUTE:-}" ] || api DELETE "/accounts/$ACCOUNT_ID/teamnet/routes/$OWN_ROUTE" >/dev/null || true
  OWN_RECORD='' OWN_ROUTE=''
  tunnel_allows
  in_ns pc-origin1 nft delete table ip pc_second 2>/dev/null || true
  ip -n pc-site1 route del "$1/32" via 10.0.0.50 2>/dev/null || true
}
end_own_address() {
  end_origin_at 203.0.113.1
  end_origin_at "$SOURCE_DEFAULT"
  end_source_range
}

# A private origin may have an address that the edge's machine has, too: its public one, and, where the account moved its source
# range, the very one that the request starts from. It is never the machine.
check_own_address() {
  trap end_own_address EXIT
  an_origin_at 203.0.113.1 own ''
  expect "$(by_name own)" origin1 "an origin at the edge's public address"
  end_origin_at 203.0.113.1
  site1_allows 10.240.0.0/12
  range_is 10.240.0.0/12 >/dev/null
  an_origin_at "$SOURCE_DEFAULT" lent 10.240.0.0/12
  expect "$(by_name lent)" origin1 "an origin at the address that the edge asks from"
  expect "$(by_name lent --http1.1 -o /dev/null -w '%{http_code}')" 200 "and again"
}

# What listens on all addresses of the edge's machine is not for private networks: nothing begins there. Pings are answered.
check_closed_services() {
  local before
  trap 'stop closed-tcp; stop closed-udp' EXIT
  start closed-tcp pc-edge python3 -m http.server 7777 --bind 0.0.0.0
  start closed-udp pc-edge dnsmasq --keep-in-foreground --user=root --conf-file=/dev/null --pid-file= --no-resolv --no-hosts \
    --port=7753 --txt-record=whoami.corp.internal,edge
  wait_for 10 "the edge's own server" in_ns pc-edge curl -sS -m 1 -o /dev/null http://203.0.113.1:7777/
  wait_for 10 "its own DNS" in_ns pc-edge dig +short +time=1 +tries=1 -p 7753 @203.0.113.1 whoami.corp.internal TXT
  before=$(edge_dropped not_asked_for)
  expect "$(in_ns pc-origin1 curl -sS -m 2 -o /dev/null -w '%{http_code}' "http://$SOURCE_DEFAULT:7777/" 2>/dev/null || true)" 000 "TCP to the edge's machine"
  expect "$(in_ns pc-origin1 dig +short +time=1 +tries=1 -p 7753 "@$SOURCE_DEFAULT" whoami.corp.internal TXT 2>/dev/null | grep -c edge || true)" 0 "answers by UDP"
  [ "$(edge_dropped not_asked_for)" -gt "$before" ] || die "not counted as not asked for"
  expect_like "$(patient in_ns pc-origin1 ping -n -q -c 2 -i 0.1 -W 2 "$SOURCE_DEFAULT" || true)" '* 0% packet loss*' "ping"
}

# --- paths of the same address in two networks ---

# Only 1000 bytes, or 1300 of IPv6, fit the way to origin 1, and its router says so. That is the path of its vnet: what goes there is
# cut and arrives whole; the kernel, which would keep it for every 10.0.0.50, hears of nothing, whatever somebody there makes up;
# and the origin at the same address in the other vnet gets packets as long as before.
check_narrow_path() {
  need ethtool ethtool
  need python3 python3
  install_needed
  trap end_narrow_path EXIT
  narrow_begin
  narrow_upload app 1
  narrow_upload app6 1
  [ "$(edge_count path_reports_inside)" -gt 0 ] || die "the edge has not heard of the path"
  in_ns pc-site1 nft reset counter inet pc_paths long >/dev/null
  narrow_upload app 1
  narrow_upload app6 1
  expect "$(narrow_long pc-site1)" 0 "longer packets out of the tunnel, once it is known"
  narrow_lies pc-origin1 10.0.0.50 "$SOURCE_DEFAULT"
  narrow_lies pc-site2 198.51.100.12 198.51.100.1
  narrow_unknown 10.0.0.50 "$SOURCE_DEFAULT"
  narrow_unknown fd00:10::50 "2606:4700:cf1:5000::$(printf '%02x%02x:%02x%02x' ${SOURCE_DEFAULT//./ })"
  narrow_upload wiki 2
  # 16 MiB are 12,000 packets of 1380 bytes.
  [ "$(narrow_long pc-origin2)" -gt 10000 ] || die "$(narrow_long pc-origin2) long packets at origin 2: its path is not narrow"
  say "packets at origin 2 as long as before: $(narrow_long pc-origin2)"
}

narrow_begin() {
  # As on a wire: the origin sees each packet by itself.
  in_ns pc-site2 ethtool -K lan0 tso off gso off
  narrow_count pc-site1 pcs1
  narrow_count pc-origin2 lan0
  # Its router says so from an address of its network.
  ip -n pc-site1 route replace 100.64.0.0/12 dev pcs1 src 10.0.0.1
  ip -n pc-site1 route replace 10.0.0.50/32 dev lan0 mtu lock 1000
  ip -n pc-site1 route replace fd00:10::50/128 dev lan0 mtu lock 1300
}

# narrow_count NAMESPACE DEVICE: counts what comes by it and would not fit.
narrow_count() {
  in_ns "$1" nft -f - <<NFT
table inet pc_paths {
  counter long { }
  chain in {
    type filter hook prerouting priority 0
    iifname "$2" ip length > 1000 counter name long
    iifname "$2" ip6 length > 1260 counter name long
  }
}
NFT
}
narrow_long() { in_ns "$1" nft -j list counter inet pc_paths long | jq '[.nftables[].counter // empty | .packets] | add'; }

# narrow_upload NAME ORIGIN: 16 MiB by HTTP.
narrow_upload() {
  local bytes=$((16 << 20)) at=$RUN/origin$2/upload/narrow
  expect_like "$(head -c "$bytes" "$RUN/big" | client curl -sS -m 30 -T - -o /dev/null -w '%{http_code}' "http://$1.example.com/upload/narrow")" \
    '20[14]' "PUT of 16 MiB to $1"
  expect "$(sha256sum <"$at")" "$(head -c "$bytes" "$RUN/big" | sha256sum)" "what origin $2 received"
  rm -f "$at"
}

# narrow_unknown ADDRESS SOURCE: for streams the edge's kernel knows nothing of the path there.
narrow_unknown() {
  local said
  said=$(in_ns pc-edge ip route get "$1" from "$2" oif pc-tun ipproto tcp dport 80)
  case $said in
    *mtu*) die "the kernel has heard of the path to $1: $said" ;;
    *) say "the kernel has heard nothing of the path to $1" ;;
  esac
}

# narrow_lies NAMESPACE SOURCE DESTINATION: somebody there, in the private network or before the edge, quotes packets that were never
# sent, by which a kernel remembers a path: answers to pings, pings, and datagrams to a socket that listens on all addresses.
narrow_lies() {
  local before
  before=$(edge_count path_reports_ignored)
  in_ns "$1" python3 - "$SOURCE_DEFAULT" "$2" "$3" <<'PY'
import socket, struct, sys
def sum16(data):
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
lent, origin = sys.argv[1], "10.0.0.50"
lent6 = "2606:4700:cf1:5000::%02x%02x:%02x%02x" % tuple(map(int, lent.split(".")))
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
raw.bind((sys.argv[2], 0))
raw6 = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
ports = struct.pack("!4H", 51820, 9, 1400, 0)
for protocol, first in (1, b"\0" * 8), (1, b"\x08" + b"\0" * 7), (17, ports):
    # RFC 791 section 3.1, RFC 792.
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 1400, 1, 0x4000, 64, protocol, 0, socket.inet_aton(lent), socket.inet_aton(origin))
    head = head[:10] + struct.pack("!H", sum16(head)) + head[12:]
    quoted = head + first
    said = struct.pack("!BBHHH", 3, 4, sum16(struct.pack("!BBHHH", 3, 4, 0, 0, 700) + quoted), 0, 700) + quoted
    raw.sendto(said, (sys.argv[3], 0))
# The edge has an IPv6 address of the underlay, too, but nobody here who could write to it.
for protocol, code in ((58, 0), (17, 0), (6, 1)) if sys.argv[3] == lent else ():
    # RFC 8200 section 3, RFC 4443 section 3.2; the kernel adds the checksum.
    head = struct.pack("!IHBB", 6 << 28, 1360, protocol, 64) + socket.inet_pton(socket.AF_INET6, lent6) + socket.inet_pton(socket.AF_INET6, "fd00:10::50")
    raw6.sendto(struct.pack("!BBHI", 2, code, 0, 1280) + head + b"\x81" + b"\0" * 7, (lent6, 0))
PY
  # What comes from before the edge is the kernel's; the tunnels, which look at it, have sent nothing of the kind.
  [ "$1" = pc-origin1 ] || return 0
  wait_for 5 "the edge to count the lies" narrow_ignored $((before + 6)) || die "$(($(edge_count path_reports_ignored) - before)) of 6 counted"
}
narrow_ignored() { [ "$(edge_count path_reports_ignored)" -ge "$1" ]; }
edge_count() { "$BIN" show counters --json --socket "$EDGE_SOCKET" | jq -er --arg of "$1" '.router.packets[$of]'; }

end_narrow_path() {
  local ns
  # What was said of pings holds for pings.
  ip -n pc-edge route flush cache || true
  ip -n pc-edge -6 route flush cache || true
  in_ns pc-site2 ethtool -K lan0 tso on gso on || true
  for ns in pc-site1 pc-origin2; do
    in_ns "$ns" nft delete table inet pc_paths 2>/dev/null || true
  done
  ip -n pc-site1 route replace 100.64.0.0/12 dev pcs1 || true
  ip -n pc-site1 route del 10.0.0.50/32 dev lan0 2>/dev/null || true
  ip -n pc-site1 route del fd00:10::50/128 dev lan0 2>/dev/null || true
}
