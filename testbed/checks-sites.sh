# shellcheck shell=bash
# Checks of traffic between sites, and of several tunnels to one site. Sourced by check.sh.

# --- site to site ---

# Both ways, both families, TCP without translation; a hop is paid at the edge; nothing crosses into another vnet.
check_site_to_site() {
  "$TESTBED/up.sh" site-to-site >/dev/null
  local before seen
  for pair in "1 10.3.0.50" "3 10.0.0.50" "1 fd00:3::50" "3 fd00:10::50"; do
    expect_like "$(in_ns "pc-origin${pair% *}" ping -n -q -c 5 -i 0.05 -W 2 "${pair#* }" || true)" '* 0% packet loss*' "origin${pair% *} to ${pair#* }"
  done
  expect "$(in_ns pc-origin1 curl -sS -m 10 http://10.3.0.50/)" origin3 "origin1 asks origin3"
  expect "$(in_ns pc-origin3 curl -sS -m 10 http://10.0.0.50/)" origin1 "origin3 asks origin1"
  expect "$(in_ns pc-origin3 curl -sS -m 10 http://10.0.0.50/headers | sed -n 's/^remote_addr=//p')" 10.3.0.50 "source that origin1 sees"
  # One hop to site 1's kernel, and the edge is the second: it tells origin 1 so.
  seen=$(in_ns pc-origin1 ping -n -c 1 -W 2 -t 2 10.3.0.50 || true)
  expect_like "$seen" '*From 100.64.0.1 *Time to live exceeded*' "a packet whose hops end at the edge"
  # Too long for the tunnel and not to be cut: site 1's kernel says so, or the edge.
  seen=$(in_ns pc-origin1 ping -n -c 1 -W 2 -M do -s 1472 10.3.0.50 2>&1 || true)
  expect_like "$seen" '*mtu*14*' "a packet that is too long"
  # Origin 2 has origin 1's address, in another vnet, and its site sends for 10.3.0.0/24 too.
  before=$(echoes 3)
  seen=$(in_ns pc-origin2 ping -n -c 5 -i 0.05 -W 1 10.3.0.50 || true)
  expect_like "$seen" '*From 100.64.0.1 *Net*nreachable*100% packet loss*' "the other vnet's origin2 to 10.3.0.50"
  expect $(($(echoes 3) - before)) 0 "echo requests of origin2 at origin3"
  expect "$(in_ns pc-origin2 curl -sS -m 2 http://10.3.0.50/ 2>/dev/null || echo none)" none "origin2 asks origin3"
}

# --- ECMP and fail-over ---

# One of two tunnels to a site is cut in the middle of sixteen downloads and of HTTP load: those on the other do not notice,
# those on it go on over the other, and it comes back when it has been clean for as long as configured.
check_ecmp() {
  trap end_ecmp EXIT
  "$TESTBED/up.sh" ecmp >/dev/null
  local cut down back
  begin_transfers
  wait_for 10 "transfers on both tunnels" on_both
  : >"$RUN/http-load"
  http_load &
  LOAD=$!
  in_ns pc-site1 nft -f - <<'NFT'
table ip cut {
  chain in { type filter hook input priority 0; udp dport 51821 drop; }
  chain out { type filter hook output priority 0; udp sport 51821 drop; }
}
NFT
  cut=$(now_ms)
  wait_for 10 "the cut tunnel to be down" tunnels_are healthy down
  down=$(now_ms)
  say "down $((down - cut)) ms after the cut"
  [ $((down - cut)) -le 4500 ] || { note "more than a second's interval and two seconds of failures" && return 1; }
  # Nobody was cut off: every transfer moves within the time that TCP takes to try again.
  local bytes
  bytes=$(moved)
  wait_for 10 "every transfer to go on" all_moved "$bytes"
  say "all sixteen transfers go on $(($(now_ms) - down)) ms later"
  in_ns pc-site1 nft delete table ip cut
  back=$(now_ms)
  wait_for 15 "the tunnel to be degraded" tunnels_are healthy degraded
  wait_for 20 "the tunnel to be healthy" tunnels_are healthy healthy
  say "healthy $(($(now_ms) - back)) ms after the cut ended"
  [ $(($(now_ms) - back)) -ge 5000 ] || { note "sooner than the five seconds that are configured" && return 1; }
  wait_for 15 "transfers on both tunnels again" on_both
  wait "$LOAD" || true
  LOAD=
  # HTTP by the proxy, a request every 50 ms: what the cut tunnel had under way waited, and nothing else.
  local failed
  failed=$(grep -vc '^200 ' "$RUN/http-load" || true)
  say "$(grep -c . "$RUN/http-load") requests, $failed failed, the slowest $(sort -k2 -n "$RUN/http-load" | tail -n 1 | cut -d' ' -f2) s"
  [ "$failed" -le 3 ] || { note "more failed than were under way" && return 1; }
  "$BIN" show tunnels --socket "$EDGE_SOCKET"
}

# Transfers from the edge's kernel, bound to the default vnet's source, at 2 Mbit/s each so that they last.
begin_transfers() {
  local n
  TRANSFERS=()
  for n in $(seq 16); do
    in_ns pc-edge curl -s -m 90 --limit-rate 250K --interface "$SOURCE_DEFAULT" -o "$RUN/transfer-$n" http://10.8.0.50/big &
    TRANSFERS+=("$!")
  done
}
moved() { stat -c %s "$RUN"/transfer-* 2>/dev/null | paste -sd' '; }
all_moved() {
  local before now n
  read -ra before <<<"$1"
  read -ra now <<<"$(moved)"
  [ "${#now[@]}" = 16 ] || return 1
  for n in $(seq 0 15); do
    [ "${now[n]}" -gt "${before[n]}" ] || return 1
  done
}
# Within half a second both of site 1's tunnels carry something to it that is more than probes.
on_both() {
  local one two
  one=$(arrived) && sleep 0.5 && two=$(arrived) || return 1
  [ $((${two% *} - ${one% *})) -gt 20 ] && [ $((${two#* } - ${one#* })) -gt 20 ]
}
arrived() {
  in_ns pc-site1 cat /sys/class/net/pcs1/statistics/rx_packets /sys/class/net/pcs1b/statistics/rx_packets | paste -sd' '
}

http_load() {
  local n
  for n in $(seq 300); do
    client curl -s -m 15 -o /dev/null -w '%{http_code} %{time_total}\n' http://both.example.com/ >>"$RUN/http-load" || true
    sleep 0.05
  done
}

end_ecmp() {
  local pid
  for pid in "${TRANSFERS[@]}" ${LOAD:-}; do
    kill "$pid" 2>/dev/null || true
  done
  in_ns pc-site1 nft delete table ip cut 2>/dev/null || true
  rm -f "$RUN"/transfer-* "$RUN/http-load"
}
