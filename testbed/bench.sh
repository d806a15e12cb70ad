#!/bin/bash
# Measures Portcullis beside its peers, prints tables, and writes testbed/run/bench/<bench>.json and .svg.
#   bench.sh [BENCH...] [--rounds N] [--quick] [--only NAME,NAME] [--refresh]
#   BENCH     routing, lpm, flows, crypto, http, load, wan, tun or store; all of them without any
#   --rounds  rounds of each measurement, interleaved among subjects (5)
#   --quick   one short round, results in testbed/run/bench-quick: to see that it works, not to quote
#   --only    of routing, http and tun: these subjects (--list names them)
#   --refresh puts the tables into README.md and docs/performance.md as well
#   --soak    of load: 10^8 packets, counting those out of order, in place of the rest (minutes)
#   --list    what can be measured here, and which peers are there
# Peers are optional: testbed/peers.sh installs them. It builds the release first: five to ten minutes once.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

BENCHES=(routing lpm flows crypto http load wan tun store)
ROUNDS=5 QUICK=no ONLY='' REFRESH=no SOAK=no CHOSEN=()

usage() { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; }

wrong() {
  note "bench.sh: $*; bench.sh --help explains"
  exit 2
}

arguments() {
  while [ $# -gt 0 ]; do
    case $1 in
      --help | -h) usage && exit 0 ;;
      --list) LIST=yes ;;
      --quick) QUICK=yes ;;
      --refresh) REFRESH=yes ;;
      --soak) SOAK=yes ;;
      --rounds) ROUNDS=${2:-} && shift ;;
      --only) ONLY=${2:-} && shift ;;
      all) CHOSEN+=("${BENCHES[@]}") ;;
      -*) wrong "unknown option $1" ;;
      *) [[ " ${BENCHES[*]} " = *" $1 "* ]] || wrong "no such benchmark: $1" && CHOSEN+=("$1") ;;
    esac
    shift || wrong "a value is missing"
  done
  [[ $ROUNDS =~ ^[1-9][0-9]?$ ]] || wrong "--rounds takes a number from 1 to 99"
  [ "${#CHOSEN[@]}" -gt 0 ] || CHOSEN=("${BENCHES[@]}")
}

list() {
  say "benchmarks: ${BENCHES[*]}"
  say "subjects of routing: $(routing_subjects | tr '\n' ' ')"
  say "subjects of http: $(http_subjects | tr '\n' ' ')"
  say "subjects of tun: $(tun_subjects | tr '\n' ' ')"
  say peers:
  bash "$TESTBED/peers.sh" --list | sed 's/^/  /'
}

# chosen NAME: whether --only, if given, has it.
chosen() { [ -z "$ONLY" ] || [[ ",$ONLY," = *",$1,"* ]]; }

# A benchmark of `cargo bench`, and criterion's files taken in. Not there yet: said, and no error.
cargo_bench() {
  local bench=$1 short=()
  if [ ! -e "$ROOT/dataplane/benches/$bench.rs" ] && [ ! -d "$ROOT/dataplane/benches/$bench" ]; then
    note "    $bench: not written yet, skipped"
    return 0
  fi
  [ "$QUICK" = no ] || short=(--warm-up-time 0.2 --measurement-time 0.5)
  watched 1500 "cargo bench $bench" "$LOGS/$bench.log" cargo bench --locked --manifest-path "$ROOT/Cargo.toml" \
    -p portcullis-dataplane --bench "$bench" -- "${short[@]}" || return 1
  "$BENCH" criterion "$bench" --from "${CARGO_TARGET_DIR:-$ROOT/target}/criterion"
}

bench_lpm() { cargo_bench lpm; }
bench_flows() { cargo_bench flows; }
bench_crypto() { cargo_bench crypto; }

# fold BENCH: the samples become rows.
fold() { "$BENCH" fold "$1" <"$SAMPLES"; }

# One benchmark, from its first step to its table. In a process of its own, so that its end cleans up after it.
one() {
  local bench=$1 absent=() name
  SAMPLES=$RUN/$bench.samples ABSENT=$RUN/$bench.absent
  mkdir -p "$RUN" "$RESULTS"
  rm -f "$SAMPLES" "$ABSENT"
  "bench_$bench" || return 1
  [ ! -s "$SAMPLES" ] || fold "$bench"
  [ -e "$RESULTS/$bench.json" ] || return 0
  [ ! -s "$ABSENT" ] || while read -r name; do absent+=(--absent "$name"); done <"$ABSENT"
  "$BENCH" note "$bench" --command "testbed/bench.sh $bench" --machine "$(machine)" "${absent[@]}"
  "$BENCH" plot "$bench"
  "$BENCH" show "$bench"
  say "rows: $RESULTS/$bench.json   picture: $RESULTS/$bench.svg"
}

LIST=no
arguments "$@"
[ "$QUICK" = no ] || export PORTCULLIS_BENCH_DIR=$RUN/bench-quick
[ "$QUICK" = no ] || ROUNDS=1
. "$TESTBED/bench-lib.sh"
for script in "$TESTBED"/bench-*.sh; do
  # shellcheck source=/dev/null
  [ "$script" = "$TESTBED/bench-lib.sh" ] || . "$script"
done
[ "$LIST" = no ] || { list && exit 0; }

failed=()
build_release
export PORTCULLIS_BIN=$BIN PORTCULLIS_BENCH=$BENCH
for bench in "${CHOSEN[@]}"; do
  if ! declare -F "bench_$bench" >/dev/null; then
    note "==> $bench: not there yet, skipped"
    continue
  fi
  step "$bench"
  (one "$bench") || failed+=("$bench")
done
if [ "$REFRESH" = yes ]; then
  for document in "$ROOT/README.md" "$ROOT/docs/performance.md"; do
    [ ! -e "$document" ] || "$BENCH" refresh "$document"
  done
fi
[ "${#failed[@]}" = 0 ] || die "failed: ${failed[*]}; logs are in $LOGS"
