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

# id_of NOUN NAME
id_of() { ctl "$1" show "$2" | sed -n 's/^ *"id": "\(.*\)".*/\1/p'; }

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
[[record]]
zone = "apply.example.com"
type = "TXT"
name = "@"
content = '"hello"'
[[gre]]
name = "apply-gre"
cloudflare_gre_endpoint = "198.51.100.1"
customer_gre_endpoint = "203.0.113.77"
interface_address = "10.254.0.0/31"
TOML

shown=$(ctl apply -f "$WORK/objects.toml" --dry-run)
has "dry run" "$shown" '^\+ record app.apply.example.com'
[ "$(ctl zone list --json | grep -c apply.example.com)" = 0 ] || fail "a dry run made a zone"
ctl apply -f "$WORK/objects.toml" </dev/null >/dev/null 2>&1 && fail "apply without --yes did not ask"
made=$(ctl apply -f "$WORK/objects.toml" --yes)
has "apply" "$made" '^7 applied'
has "the peer's configuration" "$made" '^PrivateKey = '
has "apply again" "$(ctl apply -f "$WORK/objects.toml" --yes)" '^nothing to do'
sed -i 's/"lan"/"office lan"/' "$WORK/objects.toml"
has "a difference" "$(ctl apply -f "$WORK/objects.toml" --yes)" '^~ route 10.40.0.0/16: comment: "lan" -> "office lan"'
has "and it is carried out" "$(ctl apply -f "$WORK/objects.toml" --yes)" '^nothing to do'
printf '[[tunel]]\nname = "x"\n' >"$WORK/wrong.toml"
ctl apply -f "$WORK/wrong.toml" --yes >"$WORK/out" 2>&1 && fail "a kind that is none was applied"
has "a typing error" "$(cat "$WORK/out")" "'tunel' is none of zone"
printf 'ok      ctl apply\n'

has "a record that is not proxied" "$(ctl explain app.apply.example.com)" 'None of its records is proxied'
ctl record update --zone apply.example.com app.apply.example.com proxied=true >/dev/null
has "a public origin" "$(ctl explain app.apply.example.com)" '192.0.2.1 over the Internet'
vnet=$(ctl vnet show apply-lab | sed -n 's/.*"id": "\(.*\)".*/\1/p')
ctl record update --zone apply.example.com app.apply.example.com content=10.40.0.5 "virtual_network_id=$vnet" >/dev/null
explained=$(ctl explain app.apply.example.com)
has "a private origin" "$explained" "10.40.0.5 is private: 10.40.0.0/16 covers it in virtual network 'apply-lab'"
has "its tunnel" "$explained" "Tunnel 'apply-office' .* is used"
has "nothing" "$(ctl explain nothing.example.org)" 'No zone of this account'
ctl explain '../../zones' >"$WORK/out" 2>&1 && fail "a path was taken for a host"
has "no host" "$(cat "$WORK/out")" 'is not a host name'
printf 'ok      ctl explain\n'

asked=$(ctl tunnel delete apply-office --dry-run --json)
has "what goes along" "$asked" '"type": "route"'
has "it is still there" "$(ctl tunnel list)" apply-office
ctl vnet delete apply-lab --dry-run >"$WORK/out" 2>&1 && fail "a vnet in use could go"
has "why not" "$(cat "$WORK/out")" 'in use'
ctl hostname-route create hostname=wiki.apply.internal "tunnel_id=$(id_of tunnel apply-office)" \
  'resolver_ips=["10.40.0.53"]' >/dev/null
ctl record create --zone apply.example.com type=CNAME name=wiki content=wiki.apply.internal proxied=true >/dev/null
explained=$(ctl explain wiki.apply.example.com)
has "a name that a network knows" "$explained" 'wiki.apply.internal has hostname route wiki.apply.internal'
has "the way to its resolver" "$explained" '10.40.0.53 is private: 10.40.0.0/16 covers it'
has "the list" "$(ctl hostname-route list)" 'wiki.apply.internal +apply-office'
printf 'ok      ctl hostname-route\n'

has "the source range" "$(ctl subnet list)" '100\.64\.0\.0/12'
has "another" "$(ctl subnet set v4 network=172.16.0.0/12 comment=moved)" '"network": "172.16.0.0/12"'
has "the list" "$(ctl subnet list)" '172\.16\.0\.0/12 +moved'
ctl subnet set v4 network=192.160.0.0/12 >"$WORK/out" 2>&1 && fail "a public range was set"
has "a refusal" "$(cat "$WORK/out")" '1002 .*private.*/network'
ctl subnet set v4 network=100.64.0.0/12 >"$WORK/out"
printf 'ok      ctl subnet\n'

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=apply \
  -addext 'subjectAltName=DNS:*.apply.example.com' -keyout "$WORK/key.pem" -out "$WORK/chain.pem" 2>/dev/null
sed -n 2p "$WORK/key.pem" >>"$SECRETS"
made=$(ctl certificate create --zone apply.example.com "certificate=@$WORK/chain.pem" "private_key=@$WORK/key.pem")
has "a certificate" "$made" '"status": "active"'
grep -q PRIVATE <<<"$made" && fail "a private key was shown back"
has "its names" "$(ctl certificate list --zone apply.example.com)" '\*.apply.example.com'
id=$(sed -n 's/^ *"id": "\(.*\)".*/\1/p' <<<"$made")
ctl certificate delete --zone apply.example.com "$id" >/dev/null
[ -z "$(ctl certificate list --zone apply.example.com --json | grep '"id"')" ] || fail "a certificate is still there"
ctl certificate create --zone apply.example.com "certificate=@$WORK/nothing.pem" >"$WORK/out" 2>&1 && fail "no file was read"
has "which" "$(cat "$WORK/out")" 'cannot read the file .*nothing.pem'
printf 'ok      ctl certificate\n'

has "a setting" "$(ctl setting set always_use_https on --zone apply.example.com)" '"value": "on"'
has "it is kept" "$(ctl setting get always_use_https --zone apply.example.com)" '"value": "on"'
has "a number" "$(ctl setting set proxy_read_timeout 30 --zone apply.example.com)" '"value": 30'
has "all of them" "$(ctl setting list --zone apply.example.com)" 'always_use_https +on'
ctl setting set always_use_https maybe --zone apply.example.com >"$WORK/out" 2>&1 && fail "a value that is none was set"
has "why not" "$(cat "$WORK/out")" '/value'
printf 'ok      ctl setting\n'

ctl zone delete apply.example.com >/dev/null
ctl tunnel delete apply-office >/dev/null
ctl vnet delete apply-lab >/dev/null
ctl gre delete apply-gre >/dev/null
printf 'ok      ctl delete\n'

made=$(ctl token create name=ctl-reader "permissions=Zone Read, Cloudflare One Networks Read")
secret=$(sed -n 's/.*"value": "\(.*\)".*/\1/p' <<<"$made")
has "a token that reads" "$(PORTCULLIS_TOKEN=$secret ctl vnet list)" default
PORTCULLIS_TOKEN=$secret ctl vnet create name=no >"$WORK/out" 2>&1 && fail "a token that reads has written"
has "what is missing" "$(cat "$WORK/out")" "9109 .*Cloudflare One Networks Write"
ctl token create name=no "permissions=Zone Edit" >"$WORK/out" 2>&1 && fail "a permission that is none was given"
has "what there is" "$(cat "$WORK/out")" "'Zone Edit': there are .*Zone Write"
ctl token delete ctl-reader >/dev/null
PORTCULLIS_TOKEN=$secret ctl vnet list >"$WORK/out" 2>&1 && fail "a token that is gone was good"
printf 'ok      ctl token\n'

audit=$(ctl audit zone.name=apply.example.com)
has "the audit log" "$audit" 'first +127.0.0.1 +delete +zone +[0-9a-f]{32} +apply.example.com'
has "what changed" "$audit" 'proxied: false -> true'
[ "$(ctl audit zone.name=apply.example.com action.type=delete --json | grep -c '"when"')" -lt "$(wc -l <<<"$audit")" ] || fail "the filter does nothing"
has "tokens" "$(ctl audit --user)" 'create +token +[0-9a-f]{32} +ctl-reader'
ctl audit since=yesterday >"$WORK/out" 2>&1 && fail "a time that is none was taken"
printf 'ok      ctl audit\n'

(unset PORTCULLIS_CA && ctl zone list) >"$WORK/out" 2>&1 && fail "an API was believed without a certificate"
has "what to do" "$(cat "$WORK/out")" '--ca FILE'
PORTCULLIS_TOKEN=nonsense ctl zone list >"$WORK/out" 2>&1 && fail "a token that is none was good"
has "why not" "$(cat "$WORK/out")" '10000 Authentication error'
for shell in bash zsh fish; do
  "$PORTCULLIS_BIN" completion "$shell" >"$WORK/$shell"
  grep -q explain "$WORK/$shell" || fail "the completion for $shell knows no explain"
done
bash -n "$WORK/bash" || fail "the completion script is not bash"
has "completion" "$(bash -c '. "$1"; COMP_WORDS=(portcullis ctl expl); COMP_CWORD=2; _portcullis portcullis expl ctl; echo "${COMPREPLY[@]}"' - "$WORK/bash")" explain
printf 'ok      ctl tls and completion\n'
