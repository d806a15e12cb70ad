# shellcheck shell=bash
# A real Linux kernel beside the host's: user-mode Linux on the machine's own files, told what to do on its console. Sourced.
#
# Each has a name, which its directory run/NAME and its process have, and a namespace (its box) that it is started in. One line
# of shell goes in, its output and "DONE status" come out.

# User-mode Linux 6.1 keeps 2696 bytes of vector registers a process; processors with AMX have 11008, and the host's
# kernel takes all of them or none (ptrace(2), PTRACE_SETREGSET with NT_X86_XSTATE). This completes them: what is
# beyond the 2696 is AMX alone, which nothing here uses, and zeros are its initial state.
uml_shim() {
  cat >"$1/shim.c" <<'C'
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
  cc -O1 -shared -fPIC -o "$1/shim.so" "$1/shim.c" || die "cc could not build $1/shim.c"
}

# uml_modules NAME...: the lines that load these kernel modules and what they depend on.
uml_modules() {
  local base name line
  base=$(find /usr/lib/uml/modules -maxdepth 1 -mindepth 1 | sort | tail -n 1)
  for name in "$@"; do
    line=$(grep "/$name\.ko:" "$base/modules.dep") || die "user-mode Linux has no module $name"
    # The dependencies stand behind the module, the one that is needed first last.
    # One that is there already says so, and is.
    tac -s ' ' <<<"${line/:/}" | tr '\n' ' ' | xargs -n 1 | sed "s|.*|insmod $base/& 2>/dev/null|"
  done
}

# uml_boot NAME BOX DEVICE...: boots one; standard input is what it does before it answers. An error when it did not come up.
uml_boot() {
  local name=$1 box=$2 dir=$RUN/$1
  shift 2
  mkdir -p "$dir"
  {
    cat <<'INIT'
#!/bin/bash
export PATH=/usr/sbin:/usr/bin:/sbin:/bin TMPDIR=/run
mount -t proc proc /proc
mount -t tmpfs tmp /run
INIT
    cat
    cat <<'INIT'
stty -echo
echo READY
while IFS= read -r line; do
  eval "$line"
  echo "DONE $?"
done
INIT
  } >"$dir/init"
  chmod 755 "$dir/init"
  uml_shim "$dir"
  mkfifo "$dir/in"
  ip netns add "$box"
  # Opened for both, or the kernel would see the end of its input with every command.
  setsid ip netns exec "$box" env "LD_PRELOAD=$dir/shim.so" \
    linux.uml "umid=$name" "uml_dir=$dir/" mem=96M rootfstype=hostfs rootflags=/ ro "init=$dir/init" \
    con=null con0=fd:0,fd:1 quiet "$@" <>"$dir/in" >"$dir/out" 2>&1 9>&- &
  record_pid "$name" $!
  wait_for 20 "the kernel of $name" uml_came_or_ended "$name" && grep -q READY "$dir/out" && return 0
  tail -n 20 "$dir/out" >&2
  return 1
}
uml_came_or_ended() { grep -q READY "$RUN/$1/out" || gone "$1"; }

# uml_ask NAME LINE: has it run a line; prints what it says, ends with its status.
uml_ask() {
  local name=$1 dir=$RUN/$1 seen status
  pid_of "$name" >/dev/null || die "no kernel is named '$name'"
  exec 8>"$dir/lock"
  flock -w 30 8 || die "another script talks to $name"
  seen=$(wc -l <"$dir/out")
  printf '%s\n' "$2" >"$dir/in"
  wait_for 20 "the kernel of $name to answer" uml_answer "$dir/out" "$seen" || die "no answer to: $2"
  uml_answer "$dir/out" "$seen" | sed '$d'
  status=$(uml_answer "$dir/out" "$seen" | sed -n 's/^DONE //p')
  # A subshell of this one may be the next to ask.
  exec 8>&-
  return "$status"
}
# What was said after the line of that number, if it is whole.
uml_answer() { tail -n "+$(($2 + 1))" "$1" | tr -d '\r' | grep -B 10000 '^DONE '; }

# uml_down NAME BOX
uml_down() {
  local pid
  # Its processes are one session; ended by SIGTERM the kernel would take its time to sync.
  if pid=$(pid_of "$1"); then
    kill -KILL -- "-$pid" 2>/dev/null || true
    wait_for 5 "the kernel of $1 to end" gone "$1" || true
  fi
  ! has_ns "$2" || ip netns del "$2"
  rm -rf "${RUN:?}/$1" "$RUN/$1.pid"
}
