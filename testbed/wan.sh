#!/bin/bash
# A wide-area path between two namespaces: delay, loss, reordering and rate by a real Linux kernel's netem. wan.sh --help
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
. "$TESTBED/uml.sh"

usage() {
  cat <<'HELP'
usage: wan.sh up NAME NS_A IF_A NS_B IF_B    makes interface IF_A in NS_A and IF_B in NS_B, joined by the path
       wan.sh set NAME A_TO_B [B_TO_A]       netem's words for each direction, 'none' for nothing: see tc-netem(8)
       wan.sh show NAME                      what each direction has done: packets, drops
       wan.sh down NAME                      takes the path and both interfaces away

   wan.sh up home pc-client wan0 pc-edge wan0
   ip -n pc-client addr add 192.0.2.1/30 dev wan0; ip -n pc-edge addr add 192.0.2.2/30 dev wan0
   wan.sh set home 'delay 10ms loss 1%' 'delay 10ms'

The host's kernel need not have netem: a user-mode Linux (Debian's user-mode-linux, installed when missing) joins
two TAP devices, and its netem works on single packets: no segmentation offload hides thirty of them behind one loss.
A path carries about 1 Gb/s and costs a core at that. The interfaces go when the path's kernel ends, however it ends.
HELP
}

NAME=${2:-} DIR=$RUN/wan-${2:-} BOX=pc-wan-${2:-}

# What the path's kernel does before it says that it is there.
path_init() {
  uml_modules sch_netem sch_ingress cls_matchall act_mirred
  cat <<'INIT'
for end in vec0 vec1; do
  ethtool -K $end gro off gso off tso off
  ip link set $end mtu 1500 txqueuelen 4000 up
  tc qdisc add dev $end ingress
done
INIT
}

up() {
  local ns_a=$1 if_a=$2 ns_b=$3 if_b=$4
  has_ns "$ns_a" && has_ns "$ns_b" || die "$ns_a and $ns_b must exist"
  [ ! -e "$DIR" ] || down
  need_for_path
  mkdir -p "$LOGS"
  install_needed
  path_init | uml_boot "wan-$NAME" "$BOX" vec0:transport=tap,ifname=end-a,depth=256 vec1:transport=tap,ifname=end-b,depth=256 ||
    { down && die "the path's kernel did not come up"; }
  # A TAP stays with the program that opened it, in whatever namespace it is put then.
  ip -n "$BOX" link set dev end-a netns "$ns_a" name "$if_a"
  ip -n "$BOX" link set dev end-b netns "$ns_b" name "$if_b"
  finish_end "$ns_a" "$if_a"
  finish_end "$ns_b" "$if_b"
  # Not before both are up: the path's kernel tries for ever to send the first packet that a TAP did not take.
  join vec0 vec1
  join vec1 vec0
}
join() { ask "tc filter add dev $1 ingress matchall action mirred egress redirect dev $2" || die "the ends do not join"; }

finish_end() {
  in_ns "$1" ethtool -K "$2" tso off gso off tx off gro off >/dev/null 2>&1 || true
  ip -n "$1" link set "$2" mtu 1500 txqueuelen 4000 up
}

ask() { uml_ask "wan-$NAME" "$1"; }

# What leaves at B's end came from A.
set_path() {
  shape vec1 "$1"
  shape vec0 "${2:-none}"
}
shape() {
  if [ "$2" = none ]; then
    ask "tc qdisc del dev $1 root 2>/dev/null; true"
  else
    ask "tc qdisc replace dev $1 root netem limit 20000 $2" || die "tc refused '$2'"
  fi
}

down() { uml_down "wan-$NAME" "$BOX"; }

case ${1:-} in
  up) [ $# = 6 ] || die "up wants NAME NS_A IF_A NS_B IF_B" ;;
  set) [ $# = 3 ] || [ $# = 4 ] || die "set wants NAME A_TO_B [B_TO_A]" ;;
  show | down) [ $# = 2 ] || die "$1 wants NAME" ;;
  -h | --help) usage && exit 0 ;;
  *) usage >&2 && exit 2 ;;
esac
[[ $NAME =~ ^[a-z0-9]{1,8}$ ]] || die "a path's name is 1 to 8 small letters and digits"
require_root
command=$1
shift 2
case $command in
  up) up "$@" ;;
  set) set_path "$@" ;;
  show) ask 'tc -s qdisc show' ;;
  down) down ;;
esac
