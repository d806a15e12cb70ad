# shellcheck shell=bash disable=SC2034
# The control plane's store with 10,000 zones, 100,000 records and 1,000,000 routes: start, memory, changes, reads. Sourced by bench.sh.

STORE_API=127.0.0.1:18787

# The API is served by one core and asked from another, where there are two. Takes the place of the shell that calls it: its pid is the program's.
on_core() {
  local core=$1
  shift
  if [ "$(nproc)" -gt 1 ]; then exec taskset -c "$core" "$@"; else exec "$@"; fi
}

store_answers() { curl -sf -m 2 -o /dev/null -H "authorization: Bearer $(cat "$RUN/store/token")" "http://$STORE_API/client/v4/accounts"; }

# store_memory LARGE SMALL NAME: kibibytes that LARGE says of NAME above what SMALL says.
store_memory() {
  local large small
  large=$(sed -n "s/^#$3\t//p" "$1")
  small=$(sed -n "s/^#$3\t//p" "$2")
  printf '%s' $((large - small))
}

bench_store() {
  local store=${PORTCULLIS_STORE:-${BIN%/*}/portcullis-store} size=() secs=5 routes round
  [ -x "$store" ] || die "$store is not there"
  [ "$QUICK" = no ] || { size=(--zones 1000 --records 10000 --routes 100000) && secs=1; }
  need curl curl
  need etcd etcd-server
  need etcdctl etcd-client
  install_needed
  bench_begin
  step "filling"
  "$store" fill "$RUN/store" "${size[@]}"
  "$store" fill "$RUN/store-small" "${size[@]}" --routes 0
  "$store" fill "$RUN/store-nodes" --zones 100 --records 1000 --routes 1000
  routes=$("$store" open "$RUN/store" | sed -n 's/^#routes\t//p')
  for ((round = 1; round <= ROUNDS; round++)); do
    step "round $round of $ROUNDS"
    "$store" open "$RUN/store" >"$RUN/large" || die "the large store did not open"
    "$store" open "$RUN/store-small" >"$RUN/small" || die "the small store did not open"
    grep -v '^#' "$RUN/large" >>"$SAMPLES"
    sample "memory, objects" portcullis "MiB/100k routes" \
      "$(divide "$(store_memory "$RUN/large" "$RUN/small" objects_kib)" "$((routes * 1024 / 100000))" 1)"
    sample "memory, node's tables too" portcullis "MiB/100k routes" \
      "$(divide "$(store_memory "$RUN/large" "$RUN/small" tables_kib)" "$((routes * 1024 / 100000))" 1)"
    on_core 0 "$store" serve "$RUN/store" "$STORE_API" >"$LOGS/store.log" 2>&1 &
    record_pid store $!
    wait_for 60 "the API" store_answers || die "see $LOGS/store.log"
    (on_core 1 "$store" ask "$STORE_API" --secs "$secs" --token "$(cat "$RUN/store/token")") >>"$SAMPLES" ||
      die "the API did not answer"
    stop store
    # A store's nodes keep their copies, and begin with them the next time.
    "$store" nodes "$RUN/store-nodes" >>"$SAMPLES" || die "the nodes did not follow"
    # A minute of etcd's own check at its rate "l"; once, because it takes so long.
    [ "$round" != 1 ] || [ "$QUICK" = yes ] || store_etcd
  done
}

store_etcd() {
  local url=http://127.0.0.1:23790 peer=http://127.0.0.1:23800
  etcd --data-dir "$RUN/etcd" --listen-client-urls $url --advertise-client-urls $url --listen-peer-urls $peer \
    --initial-advertise-peer-urls $peer --initial-cluster default=$peer --log-level error >"$LOGS/etcd.log" 2>&1 &
  record_pid etcd $!
  wait_for 10 etcd curl -sf -m 1 -o /dev/null $url/health || die "see $LOGS/etcd.log"
  step "etcdctl check perf --load=l"
  ETCDCTL_API=3 watched 90 "etcdctl check perf" "$LOGS/etcdctl.log" etcdctl --endpoints $url check perf --load=l || true
  tr '\r' '\n' <"$LOGS/etcdctl.log" | sed -nE 's/.*Throughput.* ([0-9]+) writes\/s.*/etcd writes\tetcd, etcdctl check perf --load=l\twrites\/s\t\1/p' |
    tail -n 1 >>"$SAMPLES"
  stop etcd
}
