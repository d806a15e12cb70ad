#!/bin/bash
# An edge whose API speaks TLS: its proxy learns all the same where hosts lead, and nothing of the API is in clear. What customers bring by
# the API is in force without a restart: certificates and settings. No root, no device.
# CA_FILE and KEY_FILE (the certificate for 127.0.0.1), PORTCULLIS_BIN.
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

WORK=$(mktemp -d)

main() {
  trap end EXIT
  read -r API HTTP HTTPS UDP < <(python3 -c '
import socket
held = [socket.socket() for _ in range(4)]
for one in held: one.bind(("127.0.0.1", 0))
print(*(one.getsockname()[1] for one in held))')
  cat >"$WORK/edge.toml" <<TOML
data_dir = "$WORK/data"
api_listen = "127.0.0.1:$API"
api_tls_certificate = "$CA_FILE"
api_tls_key = "$KEY_FILE"
slice = "100.64.0.0/20"
[router]
userspace = true
workers = 1
userspace_flows = 16
listen = ["127.0.0.1:$UDP"]
[proxy]
http = ["127.0.0.1:$HTTP"]
https = ["127.0.0.1:$HTTPS"]
lanes = 1
connect_timeout_secs = 1
TOML
  "$PORTCULLIS_BIN" edge --config "$WORK/edge.toml" >"$WORK/log" 2>&1 </dev/null &
  EDGE=$!
  wait_for 20 "the edge" curl -s -o /dev/null -m 2 --cacert "$CA_FILE" "https://127.0.0.1:$API/client/v4/ips" || fail "$(cat "$WORK/log")"
  export PORTCULLIS_API=https://127.0.0.1:$API PORTCULLIS_CA=$CA_FILE PORTCULLIS_TOKEN_FILE=$WORK/data/token
  "$PORTCULLIS_BIN" ctl zone create name=edge.example.com >/dev/null
  "$PORTCULLIS_BIN" ctl record create --zone edge.example.com type=A name=app content=192.0.2.1 proxied=true >/dev/null
  is_status 404 nowhere.edge.example.com
  # The origin is TEST-NET-1, where nobody is.
  is_status '52[1-3]' app.edge.example.com
  if curl -s -m 2 "http://127.0.0.1:$API/client/v4/ips" >/dev/null; then fail "the API answers in clear"; fi
  say "ok      edge with TLS on the API"
  local zone
  zone=$(api_of GET "/zones?name=edge.example.com" | jq -r '.result[0].id')
  certificate "$zone"
  setting "$zone"
}

# Served by SNI from when it is there until it is deleted.
certificate() {
  local body id
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /O=Brought \
    -addext 'subjectAltName=DNS:*.edge.example.com' -keyout "$WORK/key" -out "$WORK/crt" 2>/dev/null
  if serves; then fail "HTTPS is served with a certificate that is not there"; fi
  body=$(jq -n --rawfile c "$WORK/crt" --rawfile k "$WORK/key" '{certificate: $c, private_key: $k, bundle_method: "force"}')
  id=$(api_of POST "/zones/$1/custom_certificates" "$body" | jq -r .result.id)
  wait_for 5 "the certificate" serves || fail "the certificate is not served: $(tail -5 "$WORK/log")"
  api_of DELETE "/zones/$1/custom_certificates/$id" >/dev/null
  wait_for 5 "the end of the certificate" serves_none || fail "a deleted certificate is served"
  say "ok      a certificate brought to a running edge"
}

setting() {
  api_of PATCH "/zones/$1/settings/always_use_https" '{"value": "on"}' >/dev/null
  is_status 301 app.edge.example.com
  say "ok      a setting of a zone"
}

api_of() {
  curl -s -m 10 --cacert "$CA_FILE" -X "$1" -H "Authorization: Bearer $(cat "$WORK/data/token")" ${3:+--json "$3"} \
    "https://127.0.0.1:$API/client/v4$2"
}

serves() {
  curl -s -o /dev/null -m 4 --cacert "$WORK/crt" --resolve "app.edge.example.com:$HTTPS:127.0.0.1" \
    "https://app.edge.example.com:$HTTPS/"
}
serves_none() { ! serves; }

is_status() {
  local found
  found=$(curl -s -m 10 -o /dev/null -w '%{http_code}' -H "Host: $2" "http://127.0.0.1:$HTTP/")
  [[ $found =~ ^$1$ ]] || fail "$2 is answered with $found, not $1: $(tail -5 "$WORK/log")"
}

fail() {
  note "FAILED  edge: $*"
  exit 1
}

end() {
  [ -z "${EDGE:-}" ] || kill "$EDGE" 2>/dev/null || true
  wait
  rm -rf "$WORK"
}

main
