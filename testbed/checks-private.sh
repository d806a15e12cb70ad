# shellcheck shell=bash disable=SC2034
# Checks of names that only a resolver in a private network knows: Debian's dnsmasq at the origins. Sourced by check.sh.

# hostname_route NAME TUNNEL RESOLVER: prints the id.
hostname_route() {
  api POST "/accounts/$ACCOUNT_ID/zerotrust/routes/hostname" \
    "$(jq -nc --arg h "$1" --arg t "$2" --arg r "$3" '{hostname:$h, tunnel_id:$t, resolver_ips:[$r]}')" | field id
}

# cname NAME TARGET: a proxied one. Prints the id.
cname() {
  api POST "/zones/$ZONE_ID/dns_records" \
    "$(jq -nc --arg n "$1" --arg c "$2" '{type:"CNAME", name:$n, content:$c, proxied:true}')" | field id
}

PRIVATE_ROUTES=()
PRIVATE_RECORDS=()
PRIVATE_APPS=()
end_private() {
  local id
  for id in "${PRIVATE_APPS[@]}"; do api DELETE "/zones/$ZONE_ID/spectrum/apps/$id" >/dev/null || true; done
  for id in "${PRIVATE_RECORDS[@]}"; do api DELETE "/zones/$ZONE_ID/dns_records/$id" >/dev/null || true; done
  for id in "${PRIVATE_ROUTES[@]}"; do api DELETE "/accounts/$ACCOUNT_ID/zerotrust/routes/hostname/$id" >/dev/null || true; done
}

# by_name NAME [CURL ARGUMENTS]: asks the edge for a name of the zone.
by_name() {
  local name=$1.example.com
  shift
  client curl -sS -m 15 --resolve "$name:80:$EDGE_IP" "$@" "http://$name/"
}

# Both networks have 10.0.0.50, and a dnsmasq there that says so.
check_private_names() {
  local told
  trap end_private EXIT
  PRIVATE_ROUTES+=("$(hostname_route wiki.corp.internal "$TUNNEL_DEFAULT" 10.0.0.50)")
  PRIVATE_ROUTES+=("$(hostname_route '*.intranet.internal' "$TUNNEL_SECOND" 10.0.0.50)")
  PRIVATE_ROUTES+=("$(hostname_route outside.internal "$TUNNEL_DEFAULT" 10.0.0.50)")
  PRIVATE_RECORDS+=("$(cname named1 wiki.corp.internal)" "$(cname named2 www.intranet.internal)")
  PRIVATE_RECORDS+=("$(cname nosuch nosuch.intranet.internal)" "$(cname outside outside.internal)")
  expect "$(by_name named1)" origin1 "wiki.corp.internal, asked in the first network"
  expect "$(by_name named2)" origin2 "www.intranet.internal, asked in the second"
  expect "$(by_name nosuch -o /dev/null -w '%{http_code}')" 530 "a name that the network does not know"
  expect "$(by_name outside -o /dev/null -w '%{http_code}')" 523 "a name that leads out of the tunnel"
  expect_like "$(by_name outside)" '*not behind the tunnel*' "its page"
  PRIVATE_APPS+=("$(api POST "/zones/$ZONE_ID/spectrum/apps" '{"protocol":"tcp/6381",
    "dns":{"type":"CNAME","name":"redis-named.example.com"},
    "origin_dns":{"name":"wiki.corp.internal"},"origin_port":6379}' | field id)")
  wait_for 10 "the app to listen" client redis-cli -h "$EDGE_IP" -p 6381 ping >/dev/null
  expect "$(client redis-cli -h "$EDGE_IP" -p 6381 get whoami)" origin1 "a TCP app whose origin is a name"
  told=$(api GET "/accounts/$ACCOUNT_ID/explain/named1.example.com" | jq -c '[.hostname_route.asked_for, .is_served]')
  expect "$told" '["wiki.corp.internal",true]' "what explain says"
}

# Somebody reads the query where it arrives and answers it at once: believed from the resolver's own network, and from no
# other. The resolver itself is one that does not answer.
check_private_names_forged() {
  trap end_private EXIT
  PRIVATE_ROUTES+=("$(hostname_route lost.internal "$TUNNEL_DEFAULT" 10.0.0.51)")
  PRIVATE_RECORDS+=("$(cname lost lost.internal)")
  local before after
  before=$(tunnel_dropped site2)
  forged_from pc-site2
  expect "$(cat "$RUN/forged.status")" 530 "a name answered from another network"
  after=$(tunnel_dropped site2)
  [ "$(grep -c forged "$RUN/forged")" -gt 0 ] || { note "nothing was forged" && return 1; }
  [ $((after - before)) -ge $((3 * $(grep -c forged "$RUN/forged"))) ] || { note "drops: $before, then $after" && return 1; }
  say "forged answers that the edge dropped at the tunnel: $((after - before))"
  forged_from pc-site1
  expect "$(cat "$RUN/forged.status")" 200 "the same, answered from its own network"
}

# forged_from NAMESPACE: asks for the name while the namespace answers in place of the resolver.
forged_from() {
  in_ns pc-origin1 python3 "$TESTBED/forge_dns.py" see 10.0.0.51 |
    in_ns "$1" python3 "$TESTBED/forge_dns.py" answer 10.0.0.51 10.0.0.50 >"$RUN/forged" &
  local forging=$!
  # Until the forger is there the name is not resolved, which is remembered for a second.
  wait_for 10 "somebody to forge" forged_once
  wait "$forging" || true
}

forged_once() {
  by_name lost -o /dev/null -w '%{http_code}' >"$RUN/forged.status"
  [ -s "$RUN/forged" ]
}
