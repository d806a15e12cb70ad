#!/bin/bash
# Shows it all: builds, makes the world, configures it through the API, proves every path, prints a table, cleans up.
#   demo.sh [--keep]   leaves the world up
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

KEEP=no
case ${1:-} in
  '') ;;
  --keep) KEEP=yes ;;
  *) die "usage: demo.sh [--keep]" ;;
esac
require_root
take_lock

# check | path | client | origin
CHECKS='
ping_default      | ping, default vnet                 | pc-edge      | origin1
ping_second       | ping, second vnet                  | pc-edge      | origin2
http1_default     | HTTP/1.1 app.example.com           | curl         | origin1 nginx
http1_second      | HTTP/1.1 wiki.example.com          | curl         | origin2 nginx
tls_default       | HTTPS app.example.com              | curl         | origin1 nginx
tls_second        | HTTPS wiki.example.com             | curl         | origin2 nginx
http2_default     | HTTP/2 app.example.com             | curl         | origin1 nginx
http2_second      | HTTP/2 wiki.example.com            | curl         | origin2 nginx
ipv6_client       | IPv6 client, both names            | curl         | origin1, origin2
ipv6_origin       | IPv6 origin app6.example.com       | curl         | origin1 nginx
headers           | headers that the origin sees       | curl         | origin1 nginx
redis_default     | TCP app tcp/6379                   | redis-cli    | origin1 redis
redis_second      | TCP app tcp/6380                   | redis-cli    | origin2 redis
dns_default       | UDP app udp/53                     | dig          | origin1 dnsmasq
dns_second        | UDP app udp/5353                   | dig          | origin2 dnsmasq
names_proxied     | names and apps lead to the edge    | dig          | none: the edge
names_types       | records of all 21 types            | dig          | none: the edge
private_names     | names of the private networks      | curl, redis  | both, by their dnsmasq
source_range      | another source range, at once      | curl, ping   | origin1, wireguard-go
own_address       | an origin at an address of the edge | curl         | origin1 nginx
closed_services   | services of the machine itself     | curl, dig    | nobody
download_default  | 256 MiB with checksum, wireguard-go | curl        | origin1 nginx
download_second   | 256 MiB with checksum, our site    | curl         | origin2 nginx
both_directions   | up and down at once                | curl         | origin1 nginx
page_unknown_host | a host that nobody configured      | curl         | none: 4xx page
page_refused      | an origin that refuses             | curl         | none: 521 page
page_silent       | an origin that does not answer     | curl         | none: 522 page
page_no_route     | an address without a route         | curl         | none: 523/530 page
gre_linux         | GRE with every option               | ping, iperf3 | Linux 6.1 ip_gre
gre_ovs           | GRE with a key                     | ping         | Open vSwitch
site_to_site      | site to site, every pair, both IPs  | ping, curl   | WireGuard, GRE
site_to_site_apart | the same addresses, another vnet  | ping, GRE    | nobody
ecmp_shares       | 2000 flows by weight, each on one   | UDP          | three kinds
ecmp_failover     | a tunnel cut under iperf3 and HTTP | iperf3, wrk  | three kinds
ecmp_priority     | all of a priority down: the next   | UDP          | GRE of the API
narrow_path       | a narrow path, of one network only | curl         | nginx, the same IP
ipsec_strongswan  | IPsec tunnel of the API            | ping, curl   | strongSwan
ipsec_over_ipv6   | IPsec tunnel over IPv6             | ping, iperf3 | strongSwan
ipsec_site        | IPsec, IP protocol 50              | ping, iperf3 | our site
direct_port       | Ethernet port without tunnel       | ping, iperf3 | Linux router
direct_vlans      | two customers, two VLANs, one port | ping, curl   | Linux 6.1 8021q
multi_return      | three edges, answers by any of them | ping, curl | one site
multi_once        | the wrong edge hands over, once    | ping         | one site, captured
multi_killed      | kill -9 of one of three edges      | ping, curl   | one site
spoof             | forged packets out of site 2       | ping         | nobody
route_delete      | a route deleted: 100 ms, no loss   | API, ping    | origin2 stays
kill_and_recover  | kill -9 of the edge, restart       | curl         | both, within 10 s
'

finish() {
  local rc=$?
  trap - EXIT
  if [ "$KEEP" = yes ] && [ -e "$RUN/env" ]; then
    say "the world stays up: . testbed/run/env; testbed/down.sh takes it down"
  elif [ "$rc" = 0 ]; then
    "$TESTBED/down.sh"
  else
    "$TESTBED/down.sh" --keep-logs
  fi
  exit "$rc"
}
trap finish EXIT

trim() { sed -E 's/^ +| +$//g' <<<"$1"; }

# The world, fresh, with every API call shown.
"$TESTBED/down.sh"
API_TRACE=1 "$TESTBED/up.sh" || {
  say "demo: failed at bringing the world up; logs are in $LOGS"
  exit 1
}
load_env

row='%-36s %-11s %-18s %-6s %8s\n'
say
# shellcheck disable=SC2059
printf "$row" path client origin result time
passed=0
while IFS='|' read -r name path client origin; do
  name=$(trim "$name")
  [ -n "$name" ] || continue
  begin=$(now_ms) result=ok
  "$TESTBED/check.sh" "$name" >"$LOGS/check-$name.log" 2>&1 </dev/null || result=FAILED
  # shellcheck disable=SC2059
  printf "$row" "$(trim "$path")" "$(trim "$client")" "$(trim "$origin")" "$result" "$(($(now_ms) - begin)) ms"
  if [ "$result" != ok ]; then
    sed 's/^/    /' "$LOGS/check-$name.log" | tail -n 12
    say "demo: failed at $name: see $LOGS/check-$name.log and the other logs beside it"
    exit 1
  fi
  passed=$((passed + 1))
done <<<"$CHECKS"

finished="demo: ok ($passed checks)"
[ "$KEEP" = yes ] || { "$TESTBED/down.sh" && trap - EXIT; }
[ "$KEEP" = no ] || { trap - EXIT && say "the world stays up: '. testbed/run/env' to use it, testbed/down.sh to end it"; }
say "$finished"
