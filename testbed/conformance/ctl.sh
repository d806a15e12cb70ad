#!/bin/bash
# portcullis ctl against an API with TLS: apply twice, explain, a delete that is only asked about. API_URL, API_TOKEN, CA_FILE, PORTCULLIS_BIN.
set -euo pipefail

WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
export PORTCULLIS_API=$API_URL PORTCULLIS_TOKEN=$API_TOKEN PORTCULLIS_CA=$CA_FILE

fail() {
  printf 'FAILED  ctl %s\n' "$*" >&2
  exit 1
}
ctl() { timeout 20 "$PORTCULLIS_BIN" ctl "$@"; }
# has WHAT TEXT PATTERN
has() { grep -qE -- "$3" <<<"$2" || fail "$1: no '$3' in: $2"; }

cat >"$WORK/objects.toml" <<'TOML'
[[zone]]
name = "apply.example.com"
[[vnet]]
name = "apply-lab"
[[tunnel]]
name = "apply-office"
vnet = "apply-lab"
generate_peer_key = true
[[route]]
network = "10.40.0.0/16"
vnet = "apply-lab"
tunnel = "apply-office"
comment = "lan"
[[record]]
zone = "apply.example.com"
type = "A"
name = "app.apply.example.com"
content = "192.0.2.1"
TOML

shown=$(ctl apply -f "$WORK/objects.toml" --dry-run)
has "dry run" "$shown" '^\+ record app.apply.example.com'
[ "$(ctl zone list --json | grep -c apply.example.com)" = 0 ] || fail "a dry run made a zone"
ctl apply -f "$WORK/objects.toml" </dev/null >/dev/null 2>&1 && fail "apply without --yes did not ask"
made=$(ctl apply -f "$WORK/objects.toml" --yes)
has "apply" "$made" '^5 changed'
has "the peer's configuration" "$made" '^PrivateKey = '
has "apply again" "$(ctl apply -f "$WORK/objects.toml" --yes)" '^nothing to do'
sed -i 's/"lan"/"office lan"/' "$WORK/objects.toml"
has "a difference" "$(ctl apply -f "$WORK/objects.toml" --yes)" '^~ route 10.40.0.0/16: comment: "lan" -> "office lan"'
printf 'ok      ctl apply\n'

has "a record that is not proxied" "$(ctl explain app.apply.example.com)" 'not? .*proxied|None of its records is proxied'
ctl record update --zone apply.example.com app.apply.example.com proxied=true >/dev/null
has "a public origin" "$(ctl explain app.apply.example.com)" '192.0.2.1 over the Internet'
vnet=$(ctl vnet show apply-lab | sed -n 's/.*"id": "\(.*\)".*/\1/p')
ctl record update --zone apply.example.com app.apply.example.com content=10.40.0.5 "virtual_network_id=$vnet" >/dev/null
has "a private origin" "$(ctl explain app.apply.example.com)" "10.40.0.5: route 10.40.0.0/16 leads into tunnel 'apply-office'"
has "nothing" "$(ctl explain nothing.example.org)" 'No zone of this account'
printf 'ok      ctl explain\n'

asked=$(ctl tunnel delete apply-office --dry-run --json)
has "what goes along" "$asked" '"type": "route"'
has "it is still there" "$(ctl tunnel list)" apply-office
ctl vnet delete apply-lab --dry-run >"$WORK/out" 2>&1 && fail "a vnet in use could go"
has "why not" "$(cat "$WORK/out")" 'is in use by'
ctl zone delete apply.example.com >/dev/null
ctl tunnel delete apply-office >/dev/null
ctl vnet delete apply-lab >/dev/null
printf 'ok      ctl delete\n'

(unset PORTCULLIS_CA && ctl zone list) >"$WORK/out" 2>&1 && fail "an API was believed without a certificate"
has "what to do" "$(cat "$WORK/out")" '--ca FILE'
"$PORTCULLIS_BIN" completion bash | bash -n || fail "the completion script is not bash"
"$PORTCULLIS_BIN" completion bash | grep -q explain || fail "the completion knows no explain"
printf 'ok      ctl tls and completion\n'
