#!/bin/bash
# The clients that people own, pointed at our API: drives every resource with the official Python and TypeScript libraries,
# then backup and restore, our own ctl over TLS, and an edge whose API speaks it.
# Needs no root, no namespaces and no device: a control plane alone on loopback, ended when the clients are done.
# Schemathesis sends what /openapi.json allows and what it does not, and holds the answers to it: the same requests in every
# run, so that only a change of the API can stop it. FUZZ_TIME=75 searches with others, for as many seconds.
#   conformance.sh [FILTER]   only the checks whose name contains FILTER; "openapi" is schemathesis
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

CHECKS=$TESTBED/conformance
PLACE=$RUN/conformance
FILTER=${1:-}
# How long schemathesis searches, in seconds; empty: what is always sent, some 12,000 requests in half a minute. FUZZ_MAX is
# for a server that does not answer.
FUZZ_TIME=${FUZZ_TIME:-}
FUZZ_MAX=180

main() {
  need node nodejs
  need npm npm
  need python3 python3
  need openssl openssl
  need jq jq
  python3 -c 'import ensurepip, venv' 2>/dev/null || NEEDED+=(python3-venv)
  install_needed
  build
  mkdir -p "$PLACE" "$LOGS"
  install_clients
  trap end_control EXIT
  rm -f "$PLACE/secrets"
  start_control http
  export CONFIG=$PLACE/edge.toml
  export API_URL ACCOUNT_ID API_TOKEN FILTER EDGE_ADDRESS UNDERLAY_ADDRESS PORTCULLIS_BIN=$BIN SECRETS=$PLACE/secrets
  # A check ends in milliseconds; the bound is for a server that does not answer.
  timeout 300 "$PLACE/python/bin/python" "$CHECKS/run.py"
  timeout 300 node "$CHECKS/run.mjs" "$PLACE/node"
  # No filter, or that one.
  case "backup" in *"$FILTER"*) timeout 300 "$CHECKS/backup.sh" ;; esac
  look_for_secrets
  end_control
  case "openapi" in *"$FILTER"*) fuzz ;; esac
  make_certificate
  start_control https
  case "ctl" in *"$FILTER"*) timeout 120 "$CHECKS/ctl.sh" ;; esac
  look_for_secrets
  end_control
  case "edge" in *"$FILTER"*) timeout 60 "$CHECKS/edge.sh" ;; esac
}

# On a control plane of its own, that has one of everything.
fuzz() {
  local world sent=(--generation-deterministic --phases examples,coverage) bound=$FUZZ_MAX
  start_control http
  world=$("$PLACE/fuzz/bin/python" "$CHECKS/fuzz_world.py") || die "cannot make what schemathesis works on"
  eval "$world"
  if [ -n "$FUZZ_TIME" ]; then
    sent=(--max-time "$FUZZ_TIME")
    bound=$((FUZZ_TIME + 60))
  fi
  (cd "$PLACE" && timeout "$bound" "$PLACE/fuzz/bin/schemathesis" --config-file "$CHECKS/schemathesis.toml" \
    run "$API_URL/openapi.json" "${sent[@]}" ${FUZZ_ARGS:-} >"$LOGS/schemathesis.log" 2>&1) || {
    tail -n 200 "$LOGS/schemathesis.log" | cut -c 1-1000
    die "schemathesis found faults: see $LOGS/schemathesis.log"
  }
  tail -n 12 "$LOGS/schemathesis.log"
  end_control
}

# python NAME REQUIREMENTS: in an environment of its own, installed once and again when what is wanted changes.
python() {
  cmp -s "$CHECKS/$2" "$PLACE/$1/requirements.txt" && return
  say "installing $(cat "$CHECKS/$2") for Python"
  rm -rf "${PLACE:?}/$1"
  python3 -m venv "$PLACE/$1" &&
    "$PLACE/$1/bin/pip" install -q --disable-pip-version-check -r "$CHECKS/$2" >"$LOGS/pip.log" 2>&1 ||
    die "pip failed: see $LOGS/pip.log"
  cp "$CHECKS/$2" "$PLACE/$1/requirements.txt"
}

install_clients() {
  python python requirements.txt
  python fuzz requirements-fuzz.txt
  if ! cmp -s "$CHECKS/package-lock.json" "$PLACE/node/package-lock.json" || [ ! -d "$PLACE/node/node_modules" ]; then
    say "installing the TypeScript client"
    rm -rf "$PLACE/node"
    mkdir -p "$PLACE/node"
    cp "$CHECKS"/package*.json "$PLACE/node/"
    (cd "$PLACE/node" && npm ci --silent --no-audit --no-fund --ignore-scripts) >"$LOGS/npm.log" 2>&1 ||
      die "npm failed: see $LOGS/npm.log"
  fi
}

# start_control http|https: a new data directory each time; the first start, with its token, is part of what is tried.
start_control() {
  local port scheme=$1 tls='' curl=(curl -sS -m 10)
  port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
  API_URL=$scheme://127.0.0.1:$port
  if [ "$scheme" = https ]; then
    tls="api_tls_certificate = '$CA_FILE'
api_tls_key = '$PLACE/api.key'"
    curl+=(--cacert "$CA_FILE")
  fi
  EDGE_ADDRESS=203.0.113.1
  UNDERLAY_ADDRESS=198.51.100.1
  rm -rf "$PLACE/data"
  cat >"$PLACE/edge.toml" <<TOML
data_dir = "$PLACE/data"
api_listen = "127.0.0.1:$port"
$tls
[router]
gre = ["$UNDERLAY_ADDRESS"]
ipsec = ["$UNDERLAY_ADDRESS"]
direct = ["cni0"]
[proxy]
edge_addresses = ["$EDGE_ADDRESS"]
TOML
  "$BIN" control --config "$PLACE/edge.toml" >"$LOGS/conformance.log" 2>&1 </dev/null &
  CONTROL=$!
  wait_for 20 "the control plane to answer" "${curl[@]}" -o /dev/null "$API_URL/client/v4/accounts" ||
    die "the control plane does not serve: see $LOGS/conformance.log"
  API_TOKEN=$(cat "$PLACE/data/token")
  ACCOUNT_ID=$("${curl[@]}" -H "Authorization: Bearer $API_TOKEN" "$API_URL/client/v4/accounts" |
    python3 -c 'import json, sys; print(json.load(sys.stdin)["result"][0]["id"])')
}

end_control() {
  [ -n "${CONTROL:-}" ] || return 0
  kill "$CONTROL" 2>/dev/null || true
  wait "$CONTROL" 2>/dev/null || true
  CONTROL=
}

make_certificate() {
  CA_FILE=$PLACE/api.crt
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=127.0.0.1 \
    -addext 'subjectAltName=IP:127.0.0.1' -keyout "$PLACE/api.key" -out "$CA_FILE" 2>"$LOGS/openssl.log" ||
    die "openssl failed: see $LOGS/openssl.log"
  export CA_FILE KEY_FILE=$PLACE/api.key
}

# No secret that the checks gave or got (they list them in the file) is in the log or in the store's file.
look_for_secrets() {
  local place wanted=$PLACE/wanted
  { cat "$PLACE/data/token" && echo && cat "$PLACE/secrets"; } 2>/dev/null | grep -v '^$' >"$wanted" || true
  [ -s "$wanted" ] || die "there is no token to look for"
  for place in "$LOGS/conformance.log" "$PLACE/data/portcullis.redb"; do
    if grep -aqFf "$wanted" "$place"; then die "a secret is in $place"; fi
  done
}

main
