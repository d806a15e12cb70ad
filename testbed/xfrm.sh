#!/bin/bash
# ESP with static keys against a real Linux kernel's xfrm: `portcullis site`, and Linux 6.1 as user-mode Linux.  xfrm.sh [CASE...]
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
. "$TESTBED/uml.sh"

# case | what is proved
CASES='
raw_gcm    | AES-128-GCM as IP protocol 50, both ways, all sizes
raw_gcm256 | AES-256-GCM as IP protocol 50, 64-bit sequence numbers
udp_gcm    | AES-128-GCM in UDP 4500
udp_chacha | ChaCha20-Poly1305 in UDP 4500, 64-bit sequence numbers
inside_v6  | both families inside, in UDP 4500 over IPv4, and as next header 50 of IPv6
raw_v6     | AES-128-GCM as next header 50 of IPv6, 64-bit sequence numbers, IPv4 inside
udp_v6     | AES-256-GCM in UDP 4500 over IPv6, IPv4 inside
esn_wraps  | the low half of a 64-bit sequence number runs over under echoes
wrong_spi  | an SPI of nobody: dropped, and counted as that
short_icv  | a check value of 8 bytes for one of 16: dropped, and counted
replayed   | numbers that came before: dropped, and counted
'
BOX=pc-xfrm-box
OUR_HOST=10.9.0.1 THEIR_HOST=10.0.0.50
OUR_HOST6=fd00:9::1 THEIR_HOST6=fd00:10::50
# The SPIs that each receives on.
OURS=0x1001 THEIRS=0x1002
DIR=$RUN/xfrm

need_for_xfrm() {
  need_for_path
  need ip iproute2
  need ping iputils-ping
  need jq jq
  need iperf3 iperf3
  need python3 python3-minimal
}

linux() { uml_ask xfrm-linux "$1"; }

boot() {
  uml_boot xfrm-linux "$BOX" vec0:transport=tap,ifname=linux,depth=128 <<'INIT' || die "the kernel of the peer did not come up"
sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0
ethtool -K vec0 gro off gso off tso off
ip link set lo up
# Only then there is a TAP.
ip link set vec0 up
INIT
  ip -n "$BOX" link set lo up
  ip -n "$BOX" addr add 198.51.100.1/24 dev linux
  ip -n "$BOX" addr add 2001:db8:51::1/64 dev linux nodad
  ip -n "$BOX" link set linux up
  ip -n "$BOX" addr add "$OUR_HOST/32" dev lo
  ip -n "$BOX" addr add "$OUR_HOST6/128" dev lo
  linux "$(uml_modules esp4 esp6 xfrm_user ansi_cprng seqiv ctr gcm | tr '\n' ';')"
  linux "$(uml_modules ghash-generic chacha20poly1305 chacha_generic poly1305_generic | tr '\n' ';')"
  linux "ip addr add 198.51.100.11/24 dev vec0; ip addr add 2001:db8:51::11/64 dev vec0 nodad; ip addr add $THEIR_HOST/32 dev lo; ip addr add $THEIR_HOST6/128 dev lo"
  linux "ip route add 10.9.0.0/24 via 198.51.100.1 src $THEIR_HOST"
  linux "ip -6 route add fd00:9::/64 via 2001:db8:51::1 src $THEIR_HOST6"
  # The kernel takes ESP out of UDP for a socket that says so (UDP_ENCAP, UDP_ENCAP_ESPINUDP).
  cat >"$DIR/encap.py" <<'PY'
import socket, time
sockets = []
for family, at in [(socket.AF_INET, "198.51.100.11"), (socket.AF_INET6, "2001:db8:51::11")]:
    s = socket.socket(family, socket.SOCK_DGRAM)
    s.bind((at, 4500))
    s.setsockopt(17, 100, 2)
    sockets.append(s)
time.sleep(100000)
PY
  linux "python3 $DIR/encap.py </dev/null >/dev/null 2>&1 & iperf3 -s -D"
}

over_ipv4() { OUR_END=198.51.100.1 THEIR_END=198.51.100.11; }
over_ipv6() { OUR_END=2001:db8:51::1 THEIR_END=2001:db8:51::11; }

# key BYTES SEED: as many bytes, in hexadecimal.
key() { openssl dgst -shake256 -xoflen "$1" -r <<<"$2" | cut -d ' ' -f 1; }

# setup CARRIER CIPHER ESN: both ends anew.
setup() {
  CARRIER=$1 CIPHER=$2 ESN=$3
  stop xfrm-site
  IN=$(key "$(key_len)" "to us") OUT=$(key "$(key_len)" "to them")
  kernel_states || return 1
  (umask 077 && printf '%s\n' "$IN" >"$DIR/in.key" && printf '%s\n' "$OUT" >"$DIR/out.key")
  cat >"$DIR/site.toml" <<TOML
admin_socket = "$DIR/site.sock"
[router]
address = "$OUR_HOST"
lan = ["10.9.0.0/24", "fd00:9::/64"]
[ipsec]
local = "$OUR_END"
remote = "$THEIR_END"
encapsulation = "$CARRIER"
routes = ["10.0.0.0/24", "fd00:10::/64"]
[ipsec.static]
esp = "$CIPHER"
esn = $ESN
spi_in = $((OURS))
spi_out = $((THEIRS))
key_in_file = "$DIR/in.key"
key_out_file = "$DIR/out.key"
TOML
  start xfrm-site "$BOX" "$BIN" site --config "$DIR/site.toml"
  ready xfrm-site test -S "$DIR/site.sock"
}

key_len() {
  case $CIPHER in
    aes128-gcm16) say 20 ;;
    *) say 36 ;;
  esac
}

# kernel_states [SPI ICV_BITS MORE...]: the kernel's two SAs and policies; what it sends has that SPI, ICV and sequence number.
kernel_states() {
  # IPv4 may be inside either family.
  local spi=${1:-$OURS} icv=${2:-128} more=${*:3} cipher='rfc4106(gcm(aes))' flags='flag af-unspec' any=0.0.0.0
  [ "$CIPHER" != chacha20-poly1305 ] || cipher='rfc7539esp(chacha20,poly1305)'
  [ "$ESN" = false ] || flags="$flags esn"
  case $OUR_END in *:*) any=:: ;; esac
  [ "$CARRIER" != udp ] || flags="$flags encap espinudp 4500 4500 $any"
  linux 'ip xfrm state flush; ip xfrm policy flush' &&
    linux "ip xfrm state add src $THEIR_END dst $OUR_END proto esp spi $spi reqid 1 mode tunnel replay-window 64 $more aead '$cipher' 0x$IN $icv $flags" &&
    linux "ip xfrm state add src $OUR_END dst $THEIR_END proto esp spi $THEIRS reqid 1 mode tunnel replay-window 64 aead '$cipher' 0x$OUT 128 $flags" &&
    linux "ip xfrm policy add src 10.0.0.0/24 dst 10.9.0.0/24 dir out tmpl src $THEIR_END dst $OUR_END proto esp reqid 1 mode tunnel" &&
    linux "ip xfrm policy add src 10.9.0.0/24 dst 10.0.0.0/24 dir in tmpl src $OUR_END dst $THEIR_END proto esp reqid 1 mode tunnel" &&
    linux "ip xfrm policy add src fd00:10::/64 dst fd00:9::/64 dir out tmpl src $THEIR_END dst $OUR_END proto esp reqid 1 mode tunnel" &&
    linux "ip xfrm policy add src fd00:9::/64 dst fd00:10::/64 dir in tmpl src $OUR_END dst $THEIR_END proto esp reqid 1 mode tunnel"
}

ours() { patient in_ns "$BOX" ping -n -q -c 5 -i 0.1 -W 2 -I "$OUR_HOST" "$@" "$THEIR_HOST"; }
# All at once: between them, ping would wait for the last answer no longer than that.
theirs() { linux "ping -n -q -c ${COUNT:-5} -l ${COUNT:-5} -i 2 -W 2 -I $THEIR_HOST $* $OUR_HOST"; }
child() { "$BIN" show tunnels --json --socket "$DIR/site.sock" | jq -r ".[0].ipsec.children[0].$1"; }
dropped() { "$BIN" show counters --json --socket "$DIR/site.sock" | jq -er ".router.drops.$1"; }
all() { case $1 in *' 0% packet loss'*) ;; *) note "$1" && return 1 ;; esac }

iperf_is_free() { linux '[ -z "$(ss -Htn sport = :5201 | grep -v TIME-WAIT)" ]'; }

# Both ways, short, long and cut, and in bulk; then neither end has dropped anything.
crosses() {
  local reason total
  wait_for 5 "the first echo" in_ns "$BOX" ping -n -c 1 -W 1 -I "$OUR_HOST" "$THEIR_HOST" || return 1
  all "$(ours)" && all "$(ours -s 4000)" && all "$(theirs)" && all "$(theirs -s 4000)" || return 1
  in_ns "$BOX" timeout 30 iperf3 -c "$THEIR_HOST" -B "$OUR_HOST" -n 12M >"$LOGS/xfrm-iperf.log" || return 1
  in_ns "$BOX" timeout 30 iperf3 -c "$THEIR_HOST" -B "$OUR_HOST" -n 12M -R >>"$LOGS/xfrm-iperf.log" || return 1
  # It takes one client at a time, and the next case's would be refused.
  wait_for 5 "iperf3 to have done" iperf_is_free || return 1
  say "$(child transform), $(child tx_packets) packets out and $(child rx_packets) in, in UDP: $(child is_in_udp)"
  for reason in index_unknown replayed inauthentic esp_padding not_ip outside_selectors datagram_malformed; do
    total=$(dropped "$reason")
    [ "$total" = 0 ] || { note "$total dropped as $reason" && return 1; }
  done
  total=$(linux "grep -E 'XfrmIn(StateProto|StateSeq|State.*Mismatch|NoStates|TmplMismatch)' /proc/net/xfrm_stat | awk '\$2 > 0'" | tr '\n' ' ')
  [ -z "$total" ] || { note "the kernel dropped: $total" && return 1; }
}

case_raw_gcm() { setup raw aes128-gcm16 false && crosses && [ "$(child is_in_udp)" = false ]; }
case_raw_gcm256() { setup raw aes256-gcm16 true && crosses && [ "$(child is_in_udp)" = false ]; }
case_udp_gcm() { setup udp aes128-gcm16 false && crosses && [ "$(child is_in_udp)" = true ]; }
case_udp_chacha() { setup udp chacha20-poly1305 true && crosses && [ "$(child is_in_udp)" = true ]; }

case_raw_v6() { over_ipv6 && setup raw aes128-gcm16 true && crosses && [ "$(child is_in_udp)" = false ]; }
case_udp_v6() { over_ipv6 && setup udp aes256-gcm16 false && crosses && [ "$(child is_in_udp)" = true ]; }

case_inside_v6() {
  setup udp aes128-gcm16 false && crosses && crosses_v6 || return 1
  over_ipv6
  setup raw aes256-gcm16 true && crosses_v6
}
crosses_v6() {
  wait_for 5 "the first echo" in_ns "$BOX" ping -n -c 1 -W 1 -I "$OUR_HOST6" "$THEIR_HOST6" || return 1
  all "$(patient in_ns "$BOX" ping -n -q -c 5 -i 0.1 -W 2 -s 1300 -I "$OUR_HOST6" "$THEIR_HOST6")" || return 1
  all "$(linux "ping -n -q -c 5 -l 5 -i 2 -W 2 -s 1300 -I $THEIR_HOST6 $OUR_HOST6")" || return 1
  in_ns "$BOX" timeout 30 iperf3 -c "$THEIR_HOST6" -B "$OUR_HOST6" -n 12M >"$LOGS/xfrm-iperf6.log" || return 1
  wait_for 5 "iperf3 to have done" iperf_is_free
}

# The window follows in two leaps to just before the end of 32 bits.
case_esn_wraps() {
  setup raw aes128-gcm16 true || return 1
  all "$(theirs)" || return 1
  kernel_states "$OURS" 128 replay-oseq 0xc0000000 || return 1
  all "$(theirs)" || return 1
  kernel_states "$OURS" 128 replay-oseq 0xfffffffc || return 1
  all "$(COUNT=20 theirs)" || return 1
  say "the kernel is at $(linux "ip -s xfrm state get src $THEIR_END dst $OUR_END proto esp spi $OURS" | tr '\n' ' ' | grep -oE 'oseq-hi 0x[0-9a-f]+, oseq 0x[0-9a-f]+|anti-replay[^:]*: *.{60}' | tail -n 1)"
  [ "$(dropped replayed)" = 0 ] && [ "$(dropped inauthentic)" = 0 ]
}

# refused REASON: five echoes of the kernel are dropped for it, and for nothing else.
refused() {
  local before lost
  before=$(dropped "$1") lost=$(theirs || true)
  case $lost in *' 100% packet loss'*) ;; *) note "some came through: $lost" && return 1 ;; esac
  say "$(($(dropped "$1") - before)) of 5 dropped as $1"
  [ $(($(dropped "$1") - before)) = 5 ]
}

case_wrong_spi() {
  setup raw aes128-gcm16 false || return 1
  all "$(theirs)" || return 1
  kernel_states 0x1003 || return 1
  refused index_unknown
}

case_short_icv() {
  setup raw aes128-gcm16 false || return 1
  kernel_states "$OURS" 64 || return 1
  refused inauthentic
}

# The kernel's SA is made anew, and begins with the numbers that came.
case_replayed() {
  setup udp aes128-gcm16 false || return 1
  COUNT=10 all "$(theirs)" || return 1
  kernel_states || return 1
  refused replayed
}

clean() {
  stop xfrm-site
  uml_down xfrm-linux "$BOX"
  rm -rf "$DIR"
}

require_root
take_lock
need_for_xfrm
mkdir -p "$LOGS"
install_needed
build
trap clean EXIT
clean
mkdir -p "$DIR"
boot
failed=0
wanted=" $* "
while IFS='|' read -r name what <&7; do
  name=$(tr -d ' ' <<<"$name")
  [ -n "$name" ] || continue
  [ "$wanted" = '  ' ] || [[ $wanted == *" $name "* ]] || continue
  over_ipv4
  say "== $name:$what"
  if "case_$name"; then say "   passed"; else
    failed=1
    note "   FAILED: $LOGS/xfrm-*.log"
  fi
done 7<<<"$CASES"
exit "$failed"
