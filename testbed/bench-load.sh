# shellcheck shell=bash
# The load benchmark: stamped packets between our edge and 1, 16 and 256 WireGuard peers; floods. Sourced by bench.sh.

bench_load() {
  local round searches=3 millis=500 peers=1,16,256 sizes=64,128,256,512,1024,1280,1420
  [ "$QUICK" = no ] || searches=1 millis=200 peers=1,16 sizes=64,1420
  need jq jq
  install_needed
  load_build
  if [ "$SOAK" = yes ]; then
    step "load: 100 million packets through 16 tunnels, in order"
    LOAD_PEERS=17 loading 3600 soak
    load_samples soak '"order, 10^8 packets, \(.direction)" as $c | [$c, "reordered", .reordered], [$c, "lost", .lost]'
    return
  fi
  bash "$TESTBED/load.sh" down
  PORTCULLIS_BIN=$BIN bash "$TESTBED/load.sh" up 257 || return 1
  trap 'bash "$TESTBED/load.sh" down' EXIT
  for ((round = 1; round <= ROUNDS; round++)); do
    step "load: as fast as comes through, round $round of $ROUNDS"
    loading 300 bulk --peers "$peers" --sizes 64,1420 --bursts 1,32 --millis "$millis"
    load_samples bulk '"\(.size) bytes, \(.peers) peer\(if .peers == 1 then "" else "s" end), \(if .burst == 1 then "single packets" else "trains" end), \(.direction)" as $c |
      [$c, "packets/s", ."packets/s"], [$c, "ns CPU/packet", ."edge_ns/packet"], [$c, "µs, p99", .p99_us],
      (select(.direction == "to peers") | [$c, "packets/call", ."packets/send"])'
  done
  for ((round = 1; round <= ROUNDS && round <= searches; round++)); do
    step "load: the most without a loss, round $round"
    loading 900 search --peers "$peers" --sizes "$sizes" --millis "$millis"
    load_samples search '"without loss, \(.size) bytes, \(.peers) peer\(if .peers == 1 then "" else "s" end), \(.direction)" as $c |
      [$c, "packets/s", ."packets/s_without_loss"], [$c, "µs, p99", .p99_us]'
  done
  step "load: attacks, $ROUNDS rounds"
  loading 900 attack --rounds "$ROUNDS" --millis $((millis * 2))
  load_samples attack '"under attack: \(.attack)" as $c | .["shares_%"][] | [$c, "share, %", .]'
}

# The program is built beside the edge, unless it is there.
load_build() {
  export PORTCULLIS_LOAD_BIN=${PORTCULLIS_LOAD_BIN:-$(dirname "$BENCH")/portcullis-load}
  [ -x "$PORTCULLIS_LOAD_BIN" ] || watched 3600 "cargo build portcullis-load" "$LOGS/build-load.log" \
    cargo build --release --locked --manifest-path "$ROOT/Cargo.toml" -p portcullis-testbed --bin portcullis-load
}

# loading SECONDS COMMAND OPTION...: one run of load.sh, its rows in logs/load-COMMAND.log.
loading() {
  local seconds=$1 command=$2
  shift
  # A failure is the run's verdict: what it measured counts all the same.
  PORTCULLIS_BIN=$BIN watched "$seconds" "load $command" "$LOGS/load-$command.log" bash "$TESTBED/load.sh" "$@" --json || true
}

# load_samples COMMAND FILTER: rows of the last run as samples; FILTER makes [case, unit, number] of one.
load_samples() {
  grep '^{' "$LOGS/load-$1.log" | jq -r "$2 | [.[0], \"portcullis\", .[1], .[2]] | @tsv" >>"$SAMPLES"
}
