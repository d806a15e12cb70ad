# shellcheck shell=bash disable=SC2034
# Configures a running edge through its API, the way a customer would: vnets, tunnels, routes, zone, records, apps.
# Sourced by up.sh. Leaves the ids in variables, and the sites' configurations in testbed/run.

configure_tunnels() {
  local accounts answer private
  accounts=$(api GET /accounts)
  ACCOUNT_ID=$(jq -er '.[0].id' <<<"$accounts")
  VNET_DEFAULT=$(api GET "/accounts/$ACCOUNT_ID/teamnet/virtual_networks" | jq -er '.[] | select(.is_default_network) | .id')
  VNET_SECOND=$(api POST "/accounts/$ACCOUNT_ID/teamnet/virtual_networks" '{"name":"second"}' | field id)

  # Site 1 makes its own key and tells us the public half.
  private=$(wg genkey)
  TUNNEL_DEFAULT=$(tunnel1 "$(wg pubkey <<<"$private")" | field id)
  write_site1 "$private"

  # Site 2 is content with a key that the API makes for it.
  answer=$(api POST "/accounts/$ACCOUNT_ID/wireguard_tunnels" "$(jq -nc --arg vnet "$VNET_SECOND" \
    '{name:"site2", virtual_network_id:$vnet, generate_peer_key:true, endpoint:"198.51.100.12:51820",
      allowed_prefixes:["10.0.0.0/24","fd00:10::/64"], mtu:1420, persistent_keepalive:25}')")
  TUNNEL_SECOND=$(field id <<<"$answer")
  write_site2 "$(field peer_private_key <<<"$answer")"

  ROUTE_DEFAULT=$(route "$TUNNEL_DEFAULT" "$VNET_DEFAULT" 10.0.0.0/24)
  ROUTE_SECOND=$(route "$TUNNEL_SECOND" "$VNET_SECOND" 10.0.0.0/24)
  route "$TUNNEL_DEFAULT" "$VNET_DEFAULT" fd00:10::/64 >/dev/null
  route "$TUNNEL_SECOND" "$VNET_SECOND" fd00:10::/64 >/dev/null
}

# tunnel1 KEY: the tunnel to site 1, whose public key is KEY. Prints the API's answer.
tunnel1() {
  api POST "/accounts/$ACCOUNT_ID/wireguard_tunnels" "$(jq -nc --arg vnet "$VNET_DEFAULT" --arg key "$1" \
    '{name:"site1", virtual_network_id:$vnet, peer_public_key:$key, endpoint:"198.51.100.11:51820",
      allowed_prefixes:["10.0.0.0/24","fd00:10::/64"], mtu:1420, persistent_keepalive:25}')"
}

# route TUNNEL VNET NETWORK: prints the route's id.
route() {
  api POST "/accounts/$ACCOUNT_ID/teamnet/routes" \
    "$(jq -nc --arg t "$1" --arg v "$2" --arg n "$3" '{network:$n, tunnel_id:$t, virtual_network_id:$v}')" | field id
}

# The peer's configuration as text, whether the API answers with text or with a field in the envelope.
peer_config() {
  local path="/accounts/$ACCOUNT_ID/wireguard_tunnels/$1/config" text
  [ -z "${API_TRACE:-}" ] || trace_call GET "$path" ''
  text=$(in_ns pc-edge curl -sS -m 10 -H "Authorization: Bearer $API_TOKEN" "$API_URL$path")
  jq -er '.result | if type == "object" then .config else . end' <<<"$text" 2>/dev/null || printf '%s\n' "$text"
}

# wg(8) reads what wg-quick(8) reads, less the interface's Address, MTU, DNS and Table.
write_site1() {
  peer_config "$TUNNEL_DEFAULT" |
    sed -E -e '/^[[:space:]]*(Address|MTU|DNS|Table|PrivateKey|ListenPort)[[:space:]]*=/d' \
      -e "s|^\[Interface\]|[Interface]\nListenPort = 51820\nPrivateKey = $1|" -e '/^[[:space:]]*#/d' >"$RUN/site1.conf"
}

# write_site2 PRIVATE_KEY: the API shows a key that it made once, in the answer that made it.
write_site2() {
  local conf
  conf=$(peer_config "$TUNNEL_SECOND")
  value() { sed -nE "s/^[[:space:]]*$1[[:space:]]*=[[:space:]]*//p" <<<"$conf" | head -n 1; }
  cat >"$RUN/site2.toml" <<TOML
admin_socket = "$STATE/site2.sock"
[router]
tun = "pc-tun"
mtu = 1420
listen = ["0.0.0.0:51820"]
address = "10.0.0.1"
lan = ["10.0.0.0/24", "fd00:10::/64"]
[wireguard]
private_key = "$1"
peer_public_key = "$(value PublicKey)"
endpoint = "$(value Endpoint)"
keepalive = 25
TOML
  [ -z "$(value PresharedKey)" ] || printf 'preshared_key = "%s"\n' "$(value PresharedKey)" >>"$RUN/site2.toml"
}

configure_names() {
  ZONE_ID=$(api POST /zones "$(jq -nc --arg a "$ACCOUNT_ID" '{name:"example.com", account:{id:$a}}')" | field id)
  RECORD_DEFAULT=$(record A app.example.com 10.0.0.50 "$VNET_DEFAULT")
  RECORD_SECOND=$(record A wiki.example.com 10.0.0.50 "$VNET_SECOND")
  record AAAA app6.example.com fd00:10::50 "$VNET_DEFAULT" >/dev/null
  record A silent.example.com 10.0.0.51 "$VNET_DEFAULT" >/dev/null
  record A refused.example.com 10.0.0.52 "$VNET_DEFAULT" >/dev/null
  app tcp/6379 redis.example.com tcp://10.0.0.50:6379 "$VNET_DEFAULT" >/dev/null
  app tcp/6380 redis-second.example.com tcp://10.0.0.50:6379 "$VNET_SECOND" >/dev/null
  app udp/53 dns.example.com udp://10.0.0.50:53 "$VNET_DEFAULT" >/dev/null
  app udp/5353 dns-second.example.com udp://10.0.0.50:53 "$VNET_SECOND" >/dev/null
}

# record TYPE NAME ADDRESS VNET: a proxied record; the private address makes its routing private. Prints the id.
record() {
  api POST "/zones/$ZONE_ID/dns_records" "$(jq -nc --arg t "$1" --arg n "$2" --arg c "$3" --arg v "$4" \
    '{type:$t, name:$n, content:$c, ttl:1, proxied:true, virtual_network_id:$v}')" | field id
}

# app PROTOCOL NAME ORIGIN VNET: a layer 4 application. Prints the id.
app() {
  api POST "/zones/$ZONE_ID/spectrum/apps" "$(jq -nc --arg p "$1" --arg n "$2" --arg o "$3" --arg v "$4" \
    '{protocol:$p, dns:{type:"CNAME", name:$n}, origin_direct:[$o], virtual_network_id:$v}')" | field id
}

# source_of VNET TUNNEL: the address, of those that name a vnet on this edge, of the worker that has the tunnel.
source_of() {
  local number
  number=$("$BIN" show tunnels --json --socket "${EDGE_SOCKET:-$STATE/edge.sock}" | jq -er --arg name "$2" '.[] | select(.name == $name) | .id')
  "$BIN" show sources --json --socket "${EDGE_SOCKET:-$STATE/edge.sock}" | jq -er --arg name "$1" --argjson number "$number" \
    'map(select(.vnet_name == $name)) | sort_by(.worker) | .[($number - 1) % length].ipv4'
}
