#!/bin/bash
# IPsec against strongSwan: `portcullis site` and a charon with user-space ESP in two namespaces, one case each.  ipsec.sh [CASE...]
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
. "$TESTBED/charon.sh"

# case | what is proved
CASES='
initiator   | we begin, strongSwan answers; packets cross, nothing is lost while both rekey
responder   | strongSwan begins, we answer; packets cross, nothing is lost while both rekey
initiator6  | the same as initiator over IPv6, IPv4 inside
responder6  | the same as responder over IPv6
children    | we begin two child SAs, one for each network behind strongSwan; both carry packets and are rekeyed
fragments   | both roles with messages cut in pieces by both (RFC 7383): ours for a hundred networks, those of strongSwan at 200 bytes
wrong_psk   | two keys: nothing comes up, and our side says why
no_proposal | nothing in common: nothing comes up, and our side says what each offered
'
US=pc-ipsec-us THEM=pc-ipsec-them
OUR_HOST=10.1.0.1 THEIR_HOST=10.2.0.1 THEIR_OTHER=10.3.0.1
DIR=$RUN/ipsec
CHARON=ipsec-them

need_for_ipsec() {
  need ip iproute2
  need ping iputils-ping
  need jq jq
  need_for_charon
}

make_namespaces() {
  ip netns add "$US"
  ip netns add "$THEM"
  ip link add ipsec0 netns "$US" type veth peer name ipsec0 netns "$THEM"
  ip -n "$US" addr add 198.51.100.1/24 dev ipsec0
  ip -n "$THEM" addr add 198.51.100.2/24 dev ipsec0
  ip -n "$US" addr add 2001:db8:51::1/64 dev ipsec0 nodad
  ip -n "$THEM" addr add 2001:db8:51::2/64 dev ipsec0 nodad
  ip -n "$US" addr add "$OUR_HOST/32" dev lo
  ip -n "$THEM" addr add "$THEIR_HOST/32" dev lo
  ip -n "$THEM" addr add "$THEIR_OTHER/32" dev lo
  local ns
  for ns in "$US" "$THEM"; do
    ip -n "$ns" link set lo up
    ip -n "$ns" link set ipsec0 up
  done
}

over_ipv4() { OUR_END=198.51.100.1 THEIR_END=198.51.100.2; }
over_ipv6() { OUR_END=2001:db8:51::1 THEIR_END=2001:db8:51::2; }

# write_site INITIATES PSK ESP [MORE]
write_site() {
  cat >"$DIR/site.toml" <<TOML
admin_socket = "$DIR/site.sock"
[router]
address = "$OUR_HOST"
lan = ["$OUR_HOST/32"]
[ipsec]
local = "$OUR_END"
remote = "$THEIR_END"
psk = "$2"
local_identity = "us.example"
remote_identity = "them.example"
initiates = $1
esp = ["$3"]
rekey_secs = 4
rekey_ike_secs = 9
routes = ["$THEIR_HOST/32", "$THEIR_OTHER/32"]
${4:-}
TOML
}

# write_charon ESP
write_charon() {
  mkdir -p "$RUN/$CHARON"
  cat >"$RUN/$CHARON/swanctl.conf" <<CONF
connections {
  us {
    version = 2
    local_addrs = $THEIR_END
    remote_addrs = $OUR_END
    proposals = aes256gcm16-prfsha256-x25519
    encap = yes
    rekey_time = 7s
    over_time = 60s
    local { auth = psk
      id = them.example }
    remote { auth = psk
      id = us.example }
    children {
      net {
        local_ts = $THEIR_HOST/32
        remote_ts = $OUR_HOST/32
        esp_proposals = $1
        rekey_time = 5s
        life_time = 60s
        updown = /usr/lib/ipsec/_updown iptables
      }
      other {
        local_ts = $THEIR_OTHER/32
        remote_ts = $OUR_HOST/32
        esp_proposals = $1
        rekey_time = 5s
        life_time = 60s
        updown = /usr/lib/ipsec/_updown iptables
      }
    }
  }
}
secrets {
  ike-us {
    id-us = us.example
    id-them = them.example
    secret = "a key of both"
  }
}
CONF
}

start_charon() { charon_start "$CHARON" "$THEM" "$@"; }
swan() { charon_ask "$CHARON" "$@"; }

start_site() {
  start ipsec-site "$US" "$BIN" site --config "$DIR/site.toml"
  ready ipsec-site test -S "$DIR/site.sock"
}

tunnel() { "$BIN" show tunnels --json --socket "$DIR/site.sock" | jq -r "$1"; }
is_up() { [ "$(tunnel '.[0].is_up')" = true ]; }
has_failed() { [ "$(tunnel '.[0].ipsec.failure // empty')" != '' ]; }

# Echo requests from NAMESPACE, for 24 s: four rekeys of children and two of the IKE SA by each side's own clock.
crosses() {
  local ns=$1 from=$2 to=$3 said
  said=$(patient in_ns "$ns" ping -q -i 0.02 -c 1200 -W 2 -I "$from" "$to" || true)
  case $said in *' 0% packet loss'*) ;; *) note "echoes are missing: $said" && return 1 ;; esac
  say "1200 of 1200 echoes, $(tunnel '.[0].ipsec.rekeys') rekeys"
  [ "$(tunnel '.[0].ipsec.rekeys')" -ge 4 ] || { note "too few rekeys" && return 1; }
}

case_initiator() {
  write_site true "a key of both" aes128-gcm16
  write_charon aes128gcm16
  start_charon
  start_site
  wait_for 10 "the tunnel" is_up && crosses "$US" "$OUR_HOST" "$THEIR_HOST"
}

case_responder() {
  write_site false "a key of both" aes256-cbc-sha256
  write_charon aes256-sha256
  start_site
  start_charon
  swan --initiate --child net >>"$LOGS/ipsec-swanctl.log" 2>&1 || note "strongSwan: $(tail -n 1 "$LOGS/ipsec-swanctl.log")"
  wait_for 10 "the tunnel" is_up && crosses "$THEM" "$THEIR_HOST" "$OUR_HOST"
}

# Nothing of the tunnel may go over IPv4.
case_initiator6() {
  over_ipv6
  ip -n "$THEM" addr del 198.51.100.2/24 dev ipsec0
  case_initiator && is_over_ipv6
}
case_responder6() {
  over_ipv6
  ip -n "$THEM" addr del 198.51.100.2/24 dev ipsec0
  case_responder && is_over_ipv6
}
is_over_ipv6() { case $(tunnel '.[0].endpoint') in "[$THEIR_END]:4500") ;; *) note "the peer is at $(tunnel '.[0].endpoint')" && return 1 ;; esac }

case_children() {
  local host
  write_site true "a key of both" aes128-gcm16 "$(for host in "$THEIR_HOST" "$THEIR_OTHER"; do
    printf '[[ipsec.child]]\nlocal = ["%s/32"]\nremote = ["%s/32"]\n' "$OUR_HOST" "$host"
  done)"
  write_charon aes128gcm16
  start_charon
  start_site
  wait_for 10 "both child SAs" has_children 2 || return 1
  crosses "$US" "$OUR_HOST" "$THEIR_HOST" && crosses "$US" "$OUR_HOST" "$THEIR_OTHER" || return 1
  wait_for 5 "both child SAs again" has_children 2
}
has_children() { [ "$(tunnel '[.[0].ipsec.children[] | select(.sends)] | length')" = "$1" ]; }

# Their requests and answers come in pieces of 200 bytes, and the networks that we ask for do not fit one datagram of ours.
case_fragments() {
  local initiates child
  child=$(printf '[[ipsec.child]]\nlocal = ["%s/32"]\nremote = ["%s/32"' "$OUR_HOST" "$THEIR_HOST")
  child+="$(printf ', "10.4.%d.0/24"' {1..100})]"
  for initiates in true false; do
    write_site "$initiates" "a key of both" aes128-gcm16 "$child"
    write_charon aes128gcm16
    start_charon 'fragment_size = 200'
    start_site
    [ "$initiates" = true ] ||
      swan --initiate --child net >>"$LOGS/ipsec-swanctl.log" 2>&1 || note "strongSwan: $(tail -n 1 "$LOGS/ipsec-swanctl.log")"
    wait_for 10 "the tunnel" is_up || return 1
    patient in_ns "$US" ping -q -i 0.02 -c 250 -W 2 -I "$OUR_HOST" "$THEIR_HOST" | grep -q ' 0% packet loss' || { note "echoes are missing" && return 1; }
    say "strongSwan sent $(grep -c 'splitting IKE message' "$LOGS/$CHARON.log") messages in pieces, and put $(grep -c 'reassembled fragmented' "$LOGS/$CHARON.log") of ours together"
    grep -q 'splitting IKE message' "$LOGS/$CHARON.log" || { note "strongSwan cut nothing" && return 1; }
    stop ipsec-site
    stop "$CHARON"
  done
  grep -q 'reassembled fragmented IKE message' "$LOGS/$CHARON.log" || { note "we cut nothing" && return 1; }
}

case_wrong_psk() {
  write_site true "another key" aes128-gcm16
  write_charon aes128gcm16
  start_charon
  start_site
  wait_for 10 "a failure" has_failed
  says '*pre-shared key or the identities differ*'
  stop ipsec-site
  write_site false "another key" aes128-gcm16
  start_site
  swan --initiate --child net >>"$LOGS/ipsec-swanctl.log" 2>&1 || true
  wait_for 10 "a failure" has_failed
  says 'them.example has another pre-shared key than is configured here'
}

case_no_proposal() {
  write_site false "a key of both" chacha20-poly1305
  write_charon aes128gcm16
  start_site
  start_charon
  swan --initiate --child net >>"$LOGS/ipsec-swanctl.log" 2>&1 || true
  wait_for 10 "a failure" has_failed
  says '*no common ESP proposal: we accept CHACHA20_POLY1305*the peer offered AES_GCM_16*'
}

# says PATTERN: our side's word on the failure.
says() {
  local failure
  failure=$(tunnel '.[0].ipsec.failure')
  # shellcheck disable=SC2254
  case $failure in
    $1) say "$failure" ;;
    *) note "expected '$1', saw '$failure'" && return 1 ;;
  esac
  ! is_up
}

clean() {
  stop ipsec-site
  stop "$CHARON"
  local ns
  for ns in "$US" "$THEM"; do
    ! has_ns "$ns" || ip netns del "$ns" || true
  done
  rm -rf "$DIR" "${RUN:?}/$CHARON"
}

require_root
take_lock
need_for_ipsec
mkdir -p "$LOGS"
install_needed
build
trap clean EXIT
failed=0
wanted=" $* "
while IFS='|' read -r name what <&7; do
  name=$(tr -d ' ' <<<"$name")
  [ -n "$name" ] || continue
  [ "$wanted" = '  ' ] || [[ $wanted == *" $name "* ]] || continue
  clean
  mkdir -p "$DIR"
  make_namespaces
  over_ipv4
  say "== $name:$what"
  if "case_$name"; then say "   passed"; else
    failed=1
    note "   FAILED: $LOGS/ipsec-*.log"
  fi
done 7<<<"$CASES"
exit "$failed"
