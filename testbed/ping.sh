#!/bin/bash
# Pings 10.0.0.50 from each vnet's source address, and says which origin answered. The world must be up.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
require_root
load_env

failed=0
for vnet in default second; do
  if [ "$vnet" = default ]; then from=$SOURCE_DEFAULT expected=origin1; else from=$SOURCE_SECOND expected=origin2; fi
  before1=$(echoes 1) before2=$(echoes 2)
  answer=$(patient in_ns pc-edge ping -n -c 3 -i 0.2 -W 2 -I "$from" "$ORIGIN_IP" | grep -E 'packet loss|^rtt' || true)
  seen=nobody
  [ $(($(echoes 1) - before1)) -lt 3 ] || seen=origin1
  [ $(($(echoes 2) - before2)) -lt 3 ] || seen="${seen/nobody/}origin2"
  say "vnet $vnet: $from -> $ORIGIN_IP reached $seen"
  say "  ${answer//$'\n'/$'\n'  }"
  [ "$seen" = "$expected" ] && grep -q ' 0% packet loss' <<<"$answer" || failed=1
done
exit "$failed"
