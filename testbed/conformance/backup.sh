#!/bin/bash
# Backup and restore through the command line: a backup under write load, restored into a fresh directory, gives the same answers.
# API_URL, API_TOKEN, ACCOUNT_ID, CONFIG (the configuration that serves API_URL), PORTCULLIS_BIN.
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

WORK=$(mktemp -d)
WRITERS=4
WRITES_MAX=400

main() {
  trap end EXIT
  make_zone
  for n in $(seq "$WRITERS"); do write_on "$n" & done
  wait_for 20 "the first writes" grown 20 || fail "nobody writes"
  "$PORTCULLIS_BIN" control backup "$WORK/first.backup" --config "$CONFIG" --json >"$WORK/first.json"
  local at=$(written)
  wait_for 20 "more writes" grown $((at + 20)) || fail "writing ended with the backup"
  touch "$WORK/stop"
  wait
  looks_whole
  restores
  refuses
  say "ok      control backup and restore"
}

fail() {
  note "FAILED  control backup: $*"
  exit 1
}

end() {
  touch "$WORK/stop"
  [ -z "${RESTORED:-}" ] || kill "$RESTORED" 2>/dev/null || true
  wait
  rm -rf "$WORK"
}

api() {
  local url=$1
  shift
  curl -sS -m 10 -H "Authorization: Bearer $API_TOKEN" "$@" "$url"
}

make_zone() {
  ZONE=$(api "$API_URL/client/v4/zones" -d '{"name": "backup.example.com"}' |
    python3 -c 'import json, sys; print(json.load(sys.stdin)["result"]["id"])')
  RECORDS=/client/v4/zones/$ZONE/dns_records
  api "$API_URL/client/v4/accounts/$ACCOUNT_ID/wireguard_tunnels" -d '{"name": "backup", "generate_peer_key": true}' >/dev/null
}

# Each write is one batch of two records: a backup has both or none.
write_on() {
  local i pair
  for i in $(seq "$WRITES_MAX"); do
    [ ! -e "$WORK/stop" ] || return 0
    pair=$(printf '{"posts": [{"type": "TXT", "name": "a%d-%d", "content": "x"}, {"type": "TXT", "name": "b%d-%d", "content": "x"}]}' "$1" "$i" "$1" "$i")
    api "$API_URL$RECORDS/batch" -d "$pair" >>"$WORK/log.$1"
    printf '%d-%d\n' "$1" "$i" >>"$WORK/acknowledged.$1"
  done
}

written() { cat "$WORK"/acknowledged.* 2>/dev/null | wc -l; }
grown() { [ "$(written)" -ge "$1" ]; }

# Revision, count and checksum are told; pairs are whole; no private key is in it.
looks_whole() {
  python3 - "$WORK" <<'PYTHON' || fail "the file is not what was said"
import json, re, sys
work = sys.argv[1]
said = json.load(open(f"{work}/first.json"))
lines = open(f"{work}/first.backup").read().splitlines()
assert said["with"] == "the running control plane", said
assert json.loads(lines[-1])["end"]["objects"] == said["objects"] == len(lines) - 2, said
names = {json.loads(line)["value"]["name"] for line in lines[1:-1] if json.loads(line)["key"].startswith("record/")}
pairs = {name[1:].split(".")[0] for name in names if re.match(r"[ab]\d+-\d+\.", name)}
assert len(pairs) >= 20, len(pairs)
for pair in pairs:
    for side in "ab":
        assert f"{side}{pair}.backup.example.com" in names, f"half of {pair}"
keys = [json.loads(line)["value"]["private_key"] for line in lines[1:-1] if json.loads(line)["key"].startswith("identity/")]
assert keys and all(key.startswith("sealed:1:") for key in keys), keys
PYTHON
}

# A second backup, of a control plane at rest, into a fresh directory: every answer is the same, byte for byte.
restores() {
  local port path from to
  "$PORTCULLIS_BIN" control backup "$WORK/second.backup" --config "$CONFIG" >/dev/null
  port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
  mkdir "$WORK/data"
  sed -e "s|^data_dir.*|data_dir = \"$WORK/data\"|; s|^api_listen.*|api_listen = \"127.0.0.1:$port\"|" "$CONFIG" >"$WORK/restored.toml"
  "$PORTCULLIS_BIN" control restore "$WORK/second.backup" --config "$WORK/restored.toml" >"$WORK/out"
  grep -q 'restored [0-9]* objects' "$WORK/out" || fail "restore says: $(cat "$WORK/out")"
  # Without the key it does not start, and says what to do.
  timeout 10 "$PORTCULLIS_BIN" control --config "$WORK/restored.toml" >"$WORK/out" 2>&1 && fail "it opened without its key"
  grep -q 'sealed with another key' "$WORK/out" || fail "without its key it says: $(cat "$WORK/out")"
  cp "$(sed -n 's/^data_dir = "\(.*\)"/\1/p' "$CONFIG")/key" "$WORK/data/key"
  "$PORTCULLIS_BIN" control --config "$WORK/restored.toml" >"$WORK/restored.log" 2>&1 </dev/null &
  RESTORED=$!
  wait_for 20 "the restored control plane" api "http://127.0.0.1:$port/client/v4/accounts" -o /dev/null || fail "$(cat "$WORK/restored.log")"
  for path in "$RECORDS?per_page=5000" "$RECORDS/export" /client/v4/zones /client/v4/user/tokens \
    "/client/v4/accounts/$ACCOUNT_ID/wireguard_tunnels" "/client/v4/accounts/$ACCOUNT_ID/audit_logs?per_page=1000"; do
    from=$(api "$API_URL$path" | without_uses | digest)
    to=$(api "http://127.0.0.1:$port$path" | without_uses | digest)
    [ "$from" = "$to" ] || fail "$path differs after the restore"
  done
  local found
  found=$(api "http://127.0.0.1:$port$RECORDS/export" | grep -cE '^[ab][0-9]+-[0-9]+' || true)
  [ "$found" = $((2 * $(written))) ] || fail "$(written) pairs were acknowledged, and $found records are there"
  kill "$RESTORED"
  wait "$RESTORED" || true
  RESTORED=
}

# The export says when it was made.
# The last use of a token is written down later than the change that it made.
without_uses() { sed -E 's/"last_used_on":("[^"]*"|null)/"last_used_on":0/g'; }
digest() { grep -v '^;;' | sha256sum; }

# What is there is not overwritten, and half a backup is none.
refuses() {
  "$PORTCULLIS_BIN" control restore "$WORK/second.backup" --config "$WORK/restored.toml" >"$WORK/out" 2>&1 && fail "it replaced what was there"
  grep -q -- '--replace' "$WORK/out" || fail "of a full store it says: $(cat "$WORK/out")"
  head -c 2000 "$WORK/second.backup" >"$WORK/half.backup"
  "$PORTCULLIS_BIN" control restore "$WORK/half.backup" --replace --config "$WORK/restored.toml" >"$WORK/out" 2>&1 && fail "half a backup was restored"
  grep -q 'no whole backup' "$WORK/out" || fail "of half a backup it says: $(cat "$WORK/out")"
  "$PORTCULLIS_BIN" control backup "$WORK/second.backup" --config "$CONFIG" >"$WORK/out" 2>&1 && fail "it wrote over a file"
  "$PORTCULLIS_BIN" control backup "$WORK/stopped.backup" --config "$WORK/restored.toml" >"$WORK/out"
  grep -q 'the stopped control plane' "$WORK/out" || fail "of a stopped control plane it says: $(cat "$WORK/out")"
  "$PORTCULLIS_BIN" control restore "$WORK/first.backup" --replace --config "$WORK/restored.toml" >/dev/null
}

main
