#!/bin/bash
# Takes the world down: stops what up.sh started, removes the namespaces and what is in testbed/run; the benchmarks' peers and
# results stay there. Safe to repeat, and after a crash.
#   down.sh [--keep-logs]   leaves testbed/run/logs
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
. "$TESTBED/gre.sh"
. "$TESTBED/sites.sh"
. "$TESTBED/ecmp.sh"
. "$TESTBED/direct.sh"
. "$TESTBED/multi.sh"
require_root
take_lock

# A crash may leave a pid file that up.sh of this version does not know: every one counts.
shopt -s nullglob
for path in "$RUN"/wan-*.pid; do
  path=$(basename "$path" .pid)
  "$TESTBED/wan.sh" down "${path#wan-}"
done
gre_down
stop edge
sites_down
ecmp_down
direct_down
multi_down
for file in "$RUN"/*.pid; do
  stop "$(basename "$file" .pid)"
done
for ns in "${NAMESPACES[@]}"; do
  if has_ns "$ns"; then
    ip netns del "$ns" 2>/dev/null || { umount "/run/netns/$ns" 2>/dev/null && rm -f "/run/netns/$ns"; } ||
      note "namespace $ns could not be removed"
  fi
done
# Paths and loads of a crash: their processes are gone with their pid files, or are found by nobody.
for ns in /run/netns/pc-wan-* /run/netns/pc-load-* /run/netns/pc-ipsec-*; do
  ip netns del "$(basename "$ns")" 2>/dev/null || true
done
rm -f /run/wireguard/pcs1.sock /var/run/wireguard/pcs1.sock
rm -rf "$STATE" /etc/netns/pc-client
rmdir /etc/netns 2>/dev/null || true
keep=(! -name peers ! -name bench ! -name bench-quick ! -name bench-world)
[ "${1:-}" != --keep-logs ] || keep+=(! -name logs)
find "$RUN" -mindepth 1 -maxdepth 1 "${keep[@]}" -exec rm -rf {} + 2>/dev/null || true
rmdir "$RUN" 2>/dev/null || true
