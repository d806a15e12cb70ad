#!/bin/bash
# A wide-area path between two namespaces: delay, loss, reordering and rate by a real Linux kernel's netem. wan.sh --help
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

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

# The path's kernel answers on its console: one line of shell in, its output and "DONE status" out.
NAME=${2:-} DIR=$RUN/wan-${2:-} BOX=pc-wan-${2:-}

# User-mode Linux 6.1 keeps 2696 bytes of vector registers a process; processors with AMX have 11008, and the host's
# kernel takes all of them or none (ptrace(2), PTRACE_SETREGSET with NT_X86_XSTATE). This completes them: what is
# beyond the 2696 is AMX alone, which nothing here uses, and zeros are its initial state.
build_shim() {
  cat >"$DIR/shim.c" <<'C'
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>
enum { XSTATE = 0x202 };
static char whole[1 << 16];
static size_t whole_len;
static long state(long request, long process, struct iovec *asked) {
  size_t len = asked->iov_len;
  struct iovec all = {whole, request == PTRACE_GETREGSET ? sizeof whole : whole_len};
  if (request == PTRACE_SETREGSET && len < whole_len) {
    memcpy(whole, asked->iov_base, len);
    memset(whole + len, 0, whole_len - len);
  } else if (request == PTRACE_SETREGSET) {
    all = *asked;
  }
  long done = syscall(SYS_ptrace, request, process, XSTATE, &all);
  if (request == PTRACE_GETREGSET && done == 0) {
    whole_len = all.iov_len;
    asked->iov_len = len < whole_len ? len : whole_len;
    memcpy(asked->iov_base, whole, asked->iov_len);
  }
  return done;
}
long ptrace(enum __ptrace_request request, ...) {
  va_list rest;
  va_start(rest, request);
  long process = va_arg(rest, long), address = va_arg(rest, long), data = va_arg(rest, long), word = 0;
  va_end(rest);
  if ((request == PTRACE_GETREGSET || request == PTRACE_SETREGSET) && address == XSTATE)
    return state(request, process, (struct iovec *)data);
  if (request < PTRACE_PEEKTEXT || request > PTRACE_PEEKUSER)
    return syscall(SYS_ptrace, request, process, address, data);
  return syscall(SYS_ptrace, request, process, address, &word) < 0 ? -1 : word;
}
C
  cc -O1 -shared -fPIC -o "$DIR/shim.so" "$DIR/shim.c" || die "cc could not build $DIR/shim.c"
}

# What the path's kernel runs as its first process, on the machine's own files, read-only.
write_init() {
  local modules
  modules=$(find /usr/lib/uml/modules -maxdepth 1 -mindepth 1 | sort | tail -n 1)/kernel
  cat >"$DIR/init" <<INIT
#!/bin/bash
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc proc /proc
mount -t tmpfs tmp /run
for module in sch_netem sch_ingress cls_matchall act_mirred; do
  insmod $modules/net/sched/\$module.ko
done
for end in vec0 vec1; do
  ethtool -K \$end gro off gso off tso off
  ip link set \$end mtu 1500 txqueuelen 4000 up
  tc qdisc add dev \$end ingress
done
stty -echo
echo READY
while IFS= read -r line; do
  eval "\$line"
  echo "DONE \$?"
done
INIT
  chmod 755 "$DIR/init"
}

up() {
  local ns_a=$1 if_a=$2 ns_b=$3 if_b=$4
  has_ns "$ns_a" && has_ns "$ns_b" || die "$ns_a and $ns_b must exist"
  [ ! -e "$DIR" ] || down
  need_for_path
  mkdir -p "$LOGS"
  install_needed
  mkdir -p "$DIR"
  write_init
  build_shim
  mkfifo "$DIR/in"
  ip netns add "$BOX"
  # Opened for both, or the kernel would see the end of its input with every command.
  setsid ip netns exec "$BOX" env "LD_PRELOAD=$DIR/shim.so" \
    linux.uml "umid=$NAME" "uml_dir=$DIR/" mem=64M rootfstype=hostfs rootflags=/ ro "init=$DIR/init" \
    con=null con0=fd:0,fd:1 quiet vec0:transport=tap,ifname=end-a,depth=256 vec1:transport=tap,ifname=end-b,depth=256 \
    <>"$DIR/in" >"$DIR/out" 2>&1 9>&- &
  record_pid "wan-$NAME" $!
  if ! wait_for 20 "the path's kernel" came_or_ended || ! grep -q READY "$DIR/out"; then
    tail -n 20 "$DIR/out" >&2
    down
    die "the path's kernel did not come up"
  fi
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

came_or_ended() { grep -q READY "$DIR/out" || gone "wan-$NAME"; }

finish_end() {
  in_ns "$1" ethtool -K "$2" tso off gso off tx off gro off >/dev/null 2>&1 || true
  ip -n "$1" link set "$2" mtu 1500 txqueuelen 4000 up
}

# ask LINE: has the path's kernel run a line; prints what it says, ends with its status.
ask() {
  local seen
  pid_of "wan-$NAME" >/dev/null || die "there is no path named '$NAME'"
  exec 8>"$DIR/lock"
  flock -w 30 8 || die "another script talks to $NAME"
  seen=$(wc -l <"$DIR/out")
  printf '%s\n' "$1" >"$DIR/in"
  wait_for 20 "the path's kernel to answer" answer_since "$seen" || die "no answer to: $1"
  answer_since "$seen" | sed '$d'
  return "$(answer_since "$seen" | sed -n 's/^DONE //p')"
}
# What was said after the line of that number, if it is whole.
answer_since() { tail -n "+$(($1 + 1))" "$DIR/out" | tr -d '\r' | grep -B 10000 '^DONE '; }

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

down() {
  local pid
  # Its processes are one session; ended by SIGTERM the kernel would take its time to sync.
  if pid=$(pid_of "wan-$NAME"); then
    kill -KILL -- "-$pid" 2>/dev/null || true
    wait_for 5 "the path's kernel to end" gone "wan-$NAME" || true
  fi
  ! has_ns "$BOX" || ip netns del "$BOX"
  rm -rf "$DIR" "$RUN/wan-$NAME.pid"
}

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
