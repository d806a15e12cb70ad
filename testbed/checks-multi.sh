# shellcheck shell=bash
# Checks of a fleet: three edges, and traffic that comes back by another of them than it left by. Sourced by check.sh.

. "$TESTBED/multi.sh"

# A world that somebody brought up for himself stays.
begin_multi() {
  MULTI_WAS_UP=no
  ! multi_is_up || MULTI_WAS_UP=yes
  trap end_multi EXIT
  need_for_multi
  install_needed
  multi_up
}

end_multi() {
  [ "$MULTI_WAS_UP" = yes ] || multi_down
}

# multi_ping NUMBER [COUNT]: from edge NUMBER's own source address to the origin.
multi_ping() {
  local source=SOURCE_$1
  patient in_ns "pc-edge$1" ping -n -q -c "${2:-3}" -i 0.05 -W 2 -I "${!source}" 10.0.0.50
}
multi_get() { in_ns "pc-edge$1" curl -sS -m 10 --resolve "app.multi.example:80:203.0.113.$1" "http://app.multi.example$2"; }

# Each edge reaches the origin, whichever edge the answers come back by: a ping from its own source address, a request by name, and
# one large answer. The origin sees an address of the edge that asks.
check_multi_return() {
  begin_multi
  local edge by sum seen slice
  sum=$(sha256sum <"$MULTI/big")
  for by in 1 2 3; do
    multi_return_by "$by"
    for edge in 1 2 3; do
      expect_like "$(multi_ping "$edge" || true)" '* 0% packet loss*' "ping of edge $edge, back by $by"
      seen=$(multi_get "$edge" /)
      slice=$(multi_node "edge$edge" slice)
      expect "$(multi_slice_of "$seen")" "$slice" "HTTP of edge $edge, back by $by: the slice of who asked"
      expect "$(multi_get "$edge" /big | sha256sum)" "$sum" "8 MiB of edge $edge, back by $by"
    done
  done
}
# The /20 that an address of 100.64.0.0/12 lies in.
multi_slice_of() {
  local a b c
  IFS=. read -r a b c _ <<<"$1"
  printf '%s.%s.%s.0/20' "$a" "$b" "$((c / 16 * 16))"
}

# What comes back by another edge crosses the relay network once, as Geneve to the edge that it is for; what comes back by the right
# one does not. A packet for another virtual network is refused at the edge that it is for, and a stranger's Geneve likewise.
check_multi_once() {
  begin_multi
  multi_return_by 1
  multi_capture 2 20
  expect "$(multi_captured | wc -l)" 20 "packets of 20 echoes on the relay network"
  expect "$(multi_captured | sort -u | wc -l)" 20 "different ones"
  multi_capture 1 20
  expect "$(multi_captured | wc -l)" 0 "packets where the way back is the right one"
  multi_foreign
  multi_stranger
}

# multi_capture NUMBER COUNT: what crosses the relay network while edge NUMBER pings COUNT times.
multi_capture() {
  local pid
  # Not by in_ns: the process of a function is a shell, and what it runs would go on, and hold the lock.
  ip netns exec pc-multi-net tcpdump -n -l -U -i relays udp port 6081 >"$MULTI/capture" 2>"$MULTI/capture.said" 9>&- &
  pid=$!
  wait_for 10 "tcpdump" grep -q 'listening on' "$MULTI/capture.said"
  expect_like "$(multi_ping "$1" "$2" || true)" '* 0% packet loss*' "ping of edge $1"
  # The last echo is there with its answer, which came over this network before.
  wait_for 5 "the capture" multi_captured_all "$1" "$2" || true
  kill "$pid"
  wait "$pid" || true
}
multi_captured_all() { [ "$1" = 1 ] || [ "$(multi_captured | wc -l)" -ge "$2" ]; }
# One line for each captured packet: who sends it to whom, and which echo.
multi_captured() {
  sed -nE 's/^.* IP (192\.0\.2\.[0-9]+)\.[0-9]+ > (192\.0\.2\.[0-9]+)\.6081: Geneve.*(seq [0-9]+).*$/\1 \2 \3/p' "$MULTI/capture"
}

# The site asks for the second virtual network's address of edge 2, by edge 1: edge 1 knows that the packet is of the default one,
# says so, and edge 2 refuses it.
multi_foreign() {
  local source before
  source=$(multi_source 2 second nobody)
  before=$(multi_count 2 .router.drops.return_vnet_mismatch)
  expect_like "$(in_ns pc-multi-o ping -n -q -c 5 -i 0.05 -W 1 "$source" || true)" '* 100% packet loss*' "ping of another vnet's address by edge 1"
  expect "$(($(multi_count 2 .router.drops.return_vnet_mismatch) - before))" 5 "packets that edge 2 refused"
}

# Somebody on the relay network who is no edge says that he has an echo request from the origin for edge 2.
multi_stranger() {
  local before
  before=$(multi_count 2 .router.drops.relay_stranger)
  in_ns pc-multi-net perl -MIO::Socket::INET -e '
    # RFC 8926 section 3.4: version 0, no options, IPv4 inside, network 1. RFC 791 section 3.1: 28 bytes of ICMP.
    my $inner = pack("C2 n3 C2 n a4 a4 C2 n3", 0x45, 0, 28, 0, 0, 64, 1, 0, (map { inet_aton($_) } "10.0.0.50", $ARGV[0]), 8, 0, 0, 1, 1);
    my $socket = IO::Socket::INET->new(Proto => "udp", LocalAddr => "192.0.2.99", PeerAddr => "192.0.2.2", PeerPort => 6081);
    $socket->send(pack("C2 n N", 0, 0, 0x0800, 1 << 8) . $inner) or die for 1 .. 5;' "$SOURCE_2"
  wait_for 5 "edge 2 to count" multi_counted "$((before + 5))" || return 1
  say "packets of a stranger that edge 2 refused: 5"
}
multi_counted() { [ "$(multi_count 2 .router.drops.relay_stranger)" = "$1" ]; }

# An edge is killed: the others go on, also those whose answers came back by it, once the site goes by another. Nobody gets its
# slice, and it has the same one when it is back.
check_multi_killed() {
  begin_multi
  local slice
  slice=$(multi_node edge3 slice)
  multi_return_by 3
  expect_like "$(multi_ping 1 || true)" '* 0% packet loss*' "ping of edge 1, back by 3"
  stop edge3 KILL
  multi_return_by 2
  expect_like "$(multi_ping 1 || true)" '* 0% packet loss*' "ping of edge 1, back by 2"
  expect_like "$(multi_ping 2 || true)" '* 0% packet loss*' "ping of edge 2"
  expect_like "$(multi_get 1 /)" '100.*' "HTTP of edge 1"
  expect_like "$(multi_get 2 /)" '100.*' "HTTP of edge 2"
  wait_for 20 "the control plane to miss edge 3" multi_is_away edge3
  expect "$(multi_node edge3 slice)" "$slice" "the slice of the dead edge"
  # Another in its place, at its addresses.
  multi_enrol edge4
  multi_edge 3 edge4
  ready edge4 multi_answers 3
  expect "$(multi_slices)" 4 "slices of four nodes, all different"
  expect "$(multi_node edge3 slice)" "$slice" "the slice of the dead edge, beside a new one"
  stop edge4
  multi_edge_start 3 edge3
  ready edge3 multi_answers 3
  expect "$(multi_node edge3 slice)" "$slice" "its slice when it is back"
  wait_for 15 "the tunnel of edge 3" multi_has_tunnel 3
  expect_like "$(multi_ping 3 || true)" '* 0% packet loss*' "ping of edge 3, back by 2"
  api DELETE "/accounts/$ACCOUNT_ID/nodes/edge4" >/dev/null
}
multi_is_away() { [ "$(multi_node "$1" connected)" = false ]; }
multi_slices() { api GET "/accounts/$ACCOUNT_ID/nodes" | jq '[.[].slice] | unique | length'; }
