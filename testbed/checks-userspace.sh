# shellcheck shell=bash
# The edge without privileges: the same paths over userspace flows. Sourced by check.sh.

# What works over kernel connections and has to work over flows.
USERSPACE_PATHS=(http1_default http1_second tls_default tls_second http2_default http2_second ipv6_client
  ipv6_origin headers redis_default redis_second dns_default dns_second page_unknown_host page_refused
  page_silent page_slow page_no_route own_address)

# The edge of the world steps aside for one that nobody runs: no root, no capability, no TUN, its own copy of the
# store. Ports below 1024 are the one thing that the namespace has to allow.
start_userspace() {
  USERSPACE=$(mktemp -d /tmp/portcullis-userspace.XXXXXX)
  stop edge
  cp "$BIN" "$USERSPACE/portcullis"
  cp -r "$RUN/edge" "$USERSPACE/data"
  cp -r "$RUN/certs" "$USERSPACE/certs"
  sed -e '/^gre = /d; /^ipsec = /d' -e "s|^data_dir = .*|data_dir = \"$USERSPACE/data\"|" -e "s|^admin_socket = .*|admin_socket = \"$USERSPACE/edge.sock\"|" \
    -e "s|^certificates = .*|certificates = \"$USERSPACE/certs\"|" "$RUN/edge.toml" >"$USERSPACE/edge.toml"
  chown -R 65534:65534 "$USERSPACE"
  chmod 700 "$USERSPACE"
  in_ns pc-edge sh -c 'echo 0 >/proc/sys/net/ipv4/ip_unprivileged_port_start'
  start edge-userspace pc-edge setpriv --reuid 65534 --regid 65534 --clear-groups --bounding-set=-all \
    --inh-caps=-all --no-new-privs "$USERSPACE/portcullis" edge --userspace --config "$USERSPACE/edge.toml"
  wait_for 20 "the edge without privileges" "$BIN" show tunnels --socket "$USERSPACE/edge.sock" &&
    wait_for 20 "an answer of origin1" userspace_answers app.example.com origin1 &&
    wait_for 20 "an answer of origin2" userspace_answers wiki.example.com origin2
}
userspace_answers() { [ "$(get "http://$1/")" = "$2" ]; }

end_userspace() {
  stop edge-userspace
  in_ns pc-edge sh -c 'echo 1024 >/proc/sys/net/ipv4/ip_unprivileged_port_start'
  rm -rf "$USERSPACE"
  start_edge
  wait_edge
  both_answer
}

upstreams() { "$BIN" show counters --json --socket "$USERSPACE/edge.sock" | jq ".proxy.$1"; }

# Who runs it, and what it has made of the kernel: nothing.
has_no_privilege() {
  local pid
  pid=$(pid_of edge-userspace)
  expect "$(awk '/^Uid:/ { print $2 }' "/proc/$pid/status")" 65534 "user of the edge"
  expect "$(awk '/^CapEff:/ { print $2 }' "/proc/$pid/status")" 0000000000000000 "its capabilities"
  expect "$(in_ns pc-edge ip -o link show type tun | wc -l)" 0 "TUN devices"
  expect "$(in_ns pc-edge ip rule | grep -c 100.64 || true)" 0 "rules for the source range"
}

# Requests of one client share a connection to the origin: the pool works over flows.
reuses_flows() {
  local before url=http://app.example.com/
  before=$(upstreams upstream_new_total)
  get $url $url $url $url $url $url $url $url $url $url >/dev/null
  expect_like "$(($(upstreams upstream_new_total) - before))" '[01]' "upstream connections for ten requests"
}

shows_itself() {
  local what
  for what in fib return tunnels sources counters; do
    "$BIN" show "$what" --socket "$USERSPACE/edge.sock" >/dev/null || return 1
  done
  expect_like "$("$BIN" show counters --json --socket "$USERSPACE/edge.sock" | jq .router.flows.opened)" '[1-9]*' "flows opened"
}

# Each by itself, so that the first failure does not hide the others and the edge comes back whatever happens.
check_userspace() {
  local name rc=0
  start_userspace || rc=1
  if [ "$rc" = 0 ]; then
    for name in "${USERSPACE_PATHS[@]}"; do
      bash "$TESTBED/check.sh" "$name" || { note "failed over userspace flows: $name" && rc=1; }
    done
    download app.example.com $((64 << 20)) || rc=1
    download wiki.example.com $((64 << 20)) || rc=1
    has_no_privilege || rc=1
    reuses_flows || rc=1
    shows_itself || rc=1
  fi
  [ "$rc" = 0 ] || tail -n 20 "$LOGS/edge-userspace.log" >&2
  end_userspace || rc=1
  return "$rc"
}
