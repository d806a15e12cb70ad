# shellcheck shell=bash
# Checks of Ethernet links that are the router's, in a world of their own. Sourced by check.sh.

. "$TESTBED/direct.sh"

# Two networks reach each other through the router, which finds both neighbours and answers for itself alone.
check_direct() {
  trap direct_down EXIT
  need_for_direct
  install_needed
  direct_up
  local own seen
  in_ns pc-direct-b ping -n -c 3 -i 0.2 -W 2 10.6.0.50
  in_ns pc-direct-b ping -n -c 3 -i 0.2 -W 2 -s 4000 10.6.0.50
  in_ns pc-direct-b ping -n -c 3 -i 0.2 -W 2 fd00:6::50
  in_ns pc-direct-c ping -n -c 3 -i 0.2 -W 2 10.7.0.50
  in_ns pc-direct-b timeout 30 iperf3 -c 10.6.0.50 -n 200M
  in_ns pc-direct-b timeout 30 iperf3 -c 10.6.0.50 -n 200M -R
  # The first hop is the router, and says so.
  seen=$(in_ns pc-direct-b ping -n -c 1 -W 2 -t 1 10.6.0.50 || true)
  expect_like "$seen" '*From 10.9.0.1 *Time to live exceeded*' "a packet with one hop to go"
  own=$(in_ns pc-direct-a cat /sys/class/net/cni0/address)
  seen=$(ip -n pc-direct-b neigh show 10.8.0.0)
  expect_like "$seen" '*lladdr*' "the router's address on the link"
  case $seen in *"$own"*) note "the kernel answered, at $own" && return 1 ;; esac
  # The machine's own services are not for those behind a link.
  ! in_ns pc-direct-b ping -n -c 2 -i 0.2 -W 1 198.51.100.1 || return 1
  ip -n pc-direct-b addr add 10.8.0.9/24 dev eth0
  ! in_ns pc-direct-b ping -n -c 2 -i 0.2 -W 1 -I 10.8.0.9 10.8.0.7 || return 1
  expect "$(ip -n pc-direct-b neigh show 10.8.0.7 | grep -c lladdr)" 0 "answers for somebody else"
}
