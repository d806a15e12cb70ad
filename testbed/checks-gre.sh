# shellcheck shell=bash
# Checks of GRE against peers that are not ours, in a world of their own. Sourced by check.sh.

. "$TESTBED/gre.sh"

begin_gre() {
  need_for_gre
  install_needed
  gre_up
}

near() { in_ns "pc-gre-$1" ping -n -c 3 -i 0.2 -W 2 "${@:3}" -I "$2"; }

gre_counter() { "$BIN" show counters --json --socket "$STATE/gre-$1.sock" | jq -er ".router.drops.$2 // .drops.$2"; }
gre_is_up() { [ "$("$BIN" show tunnels --json --socket "$STATE/gre-a.sock" | jq -r '.[0].is_up')" = "$1" ]; }

# A real kernel's ip_gre with key, checksum and sequence number takes what we send, and we what it sends; it sends our keepalives
# back; and tshark reads every header as what was meant.
check_gre_linux() {
  trap gre_down EXIT
  begin_gre
  wait_for 10 "the first echo" in_ns pc-gre-a ping -n -c 1 -W 1 -I 10.9.0.1 10.0.0.50
  in_ns pc-gre-a tshark -q -i linux -f 'ip proto 47' -a duration:20 -c 24 -w "$RUN/gre.pcap" 2>"$LOGS/tshark.log" &
  local capture=$!
  wait_for 10 "tshark to listen" grep -q 'Capturing on' "$LOGS/tshark.log"
  near a 10.9.0.1 10.0.0.50
  near a 10.9.0.1 -s 4000 10.0.0.50
  near a fd00:9::1 fd00:10::50
  gre_linux 'ping -n -c 3 -i 0.2 -W 2 -I 10.0.0.50 10.9.0.1'
  gre_linux 'ping -n -c 3 -i 0.2 -W 2 -s 4000 -I 10.0.0.50 10.9.0.1'
  gre_linux 'ping -n -c 3 -i 0.2 -W 2 -I fd00:10::50 fd00:9::1'
  wait "$capture"
  gre_decoded
  # The first hop is us, and says so.
  local seen reason
  seen=$(near a 10.9.0.1 -t 1 10.0.0.50 || true)
  expect_like "$seen" '*From 10.9.0.1 *Time to live exceeded*' "a packet with one hop to go"
  in_ns pc-gre-a timeout 30 iperf3 -c 10.0.0.50 -B 10.9.0.1 -n 24M
  in_ns pc-gre-a timeout 30 iperf3 -c 10.0.0.50 -B 10.9.0.1 -n 24M -R
  wait_for 5 "the keepalives to come back" gre_is_up true
  for reason in gre_name_unknown gre_checksum datagram_malformed; do
    expect "$(gre_counter a "$reason")" 0 "dropped as $reason"
  done
  gre_wrong_key
  gre_linux 'ip link set gre1 down'
  wait_for 10 "the tunnel to be down without keepalives" gre_is_up false
}

# Both directions, with their keys, numbered, and with checksums that tshark computes too.
gre_decoded() {
  local ours theirs
  ours=$(gre_fields 198.51.100.1) theirs=$(gre_fields 198.51.100.11)
  say "tshark, from us: $(head -n 2 <<<"$ours" | tr '\n' ';')"
  expect "$(cut -f 1,2 <<<"$ours" | sort -u)" $'0x00000007\t1' "key and checksum of what we send"
  expect "$(cut -f 1,2 <<<"$theirs" | sort -u)" $'0x00000008\t1' "key and checksum of what the kernel sends"
  # What it sent back of ours has no number of its own.
  expect "$(cut -f 3 <<<"$ours" | sort -n | uniq -d)" '' "numbers that we sent twice"
  [ "$(cut -f 3 <<<"$ours" | grep -c .)" -ge 3 ]
}
gre_fields() {
  tshark -r "$RUN/gre.pcap" -Y "ip.src == $1 && !(gre.proto == 0)" -T fields -E occurrence=f \
    -e gre.key -e gre.checksum.status -e gre.sequence_number 2>>"$LOGS/tshark.log"
}

# A key that is not the tunnel's: nothing passes, and it is counted.
gre_wrong_key() {
  gre_linux "ip link change gre1 ${GRE_LINUX/okey 8/okey 9}"
  ! gre_linux 'ping -n -c 2 -i 0.2 -W 1 -I 10.0.0.50 10.9.0.1' || return 1
  [ "$(gre_counter a gre_name_unknown)" -ge 2 ]
  gre_linux "ip link change gre1 $GRE_LINUX"
}

# Open vSwitch's own datapath, no kernel's.
check_gre_ovs() {
  trap gre_down EXIT
  begin_gre
  wait_for 10 "the first echo" in_ns pc-gre-b ping -n -c 1 -W 1 -I 10.9.0.1 10.0.0.50
  near b 10.9.0.1 10.0.0.50
  near b 10.9.0.1 -s 1300 10.0.0.50
  in_ns pc-gre-ovs ping -n -c 3 -i 0.2 -W 2 -I 10.0.0.50 10.9.0.1
  ovs_db set interface gre0 options:key=10
  ! near b 10.9.0.1 10.0.0.50 || return 1
  ! in_ns pc-gre-ovs ping -n -c 2 -i 0.2 -W 1 -I 10.0.0.50 10.9.0.1 || return 1
  [ "$(gre_counter b gre_name_unknown)" -ge 2 ]
}
