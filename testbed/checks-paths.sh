# shellcheck shell=bash
# Checks of every path from a client to a private origin. Sourced by check.sh.

# reaches SOURCE N: a ping from a vnet's source address is answered, and by origin N.
reaches() {
  local other=$((3 - $2)) mine theirs answer
  mine=$(echoes "$2") theirs=$(echoes "$other")
  answer=$(patient in_ns pc-edge ping -n -q -c 5 -i 0.05 -W 2 -I "$1" "$ORIGIN_IP" || true)
  expect_like "$answer" '* 0% packet loss*' "ping from $1"
  expect $(($(echoes "$2") - mine)) 5 "echo requests at origin$2"
  expect $(($(echoes "$other") - theirs)) 0 "echo requests at origin$other"
}
check_ping_default() { reaches "$SOURCE_DEFAULT" 1; }
check_ping_second() { reaches "$SOURCE_SECOND" 2; }

# fetch ORIGIN VERSION URL [OPTION...]: the body names the origin, and the protocol is the one asked for.
fetch() {
  local origin=$1 version=$2
  shift 2
  expect "$(get -w '%{http_version}' "$@" | tr '\n' ' ')" "$origin $version" "$1"
}
check_http1_default() { fetch origin1 1.1 http://app.example.com/ --http1.1; }
check_http1_second() { fetch origin2 1.1 http://wiki.example.com/ --http1.1; }
check_tls_default() { fetch origin1 1.1 https://app.example.com/ --http1.1; }
check_tls_second() { fetch origin2 1.1 https://wiki.example.com/ --http1.1; }
check_http2_default() { fetch origin1 2 https://app.example.com/ --http2; }
check_http2_second() { fetch origin2 2 https://wiki.example.com/ --http2; }
check_ipv6_client() {
  fetch origin1 1.1 http://app.example.com/ --http1.1 --resolve "app.example.com:80:[$EDGE_IP6]"
  fetch origin2 2 https://wiki.example.com/ --http2 --resolve "wiki.example.com:443:[$EDGE_IP6]"
}
check_ipv6_origin() { fetch origin1 1.1 http://app6.example.com/ --http1.1; }

check_headers() {
  local seen scheme
  for scheme in http https; do
    seen=$(get -H 'X-Forwarded-For: 192.0.2.1' "$scheme://app.example.com/headers")
    header() { sed -n "s/^$1=//p" <<<"$seen"; }
    expect "$(header remote_addr)" "$SOURCE_DEFAULT" "source address at the origin"
    expect "$(header host)" app.example.com Host
    expect "$(header cf-connecting-ip)" 203.0.113.2 CF-Connecting-IP
    expect_like "$(header x-forwarded-for)" '192.0.2.1,*203.0.113.2' X-Forwarded-For
    expect "$(header x-forwarded-proto)" "$scheme" X-Forwarded-Proto
    expect_like "$(header cf-ray)" '????????????????*' CF-Ray
    expect_like "$(header cdn-loop)" '?*' CDN-Loop
  done
}

check_redis_default() { expect "$(client redis-cli -h "$EDGE_IP" -p 6379 get whoami)" origin1 "redis, tcp/6379"; }
check_redis_second() { expect "$(client redis-cli -h "$EDGE_IP" -p 6380 get whoami)" origin2 "redis, tcp/6380"; }
whoami() { client dig +short +time=2 +tries=2 -p "$1" "@$EDGE_IP" whoami.corp.internal TXT; }
check_dns_default() { expect "$(whoami 53)" '"origin1"' "DNS, udp/53"; }
check_dns_second() { expect "$(whoami 5353)" '"origin2"' "DNS, udp/5353"; }

# The first BYTES of /big have the right checksum.
download() {
  local name=$1 bytes=$2 expected
  expected=$(head -c "$bytes" "$RUN/big" | sha256sum)
  expect "$(client curl -sS -m 120 -r "0-$((bytes - 1))" "http://$name/big" | sha256sum)" "$expected" "$bytes bytes from $name"
}
check_download_default() { download app.example.com $((256 << 20)); }
check_download_second() { download wiki.example.com $((256 << 20)); }

# The whole file, as long as it takes.
check_download_whole() {
  expect "$(client curl -sS -m 200 http://app.example.com/big | sha256sum)" "$BIG_SHA256  -" "1 GiB from app.example.com"
}

check_both_directions() {
  local bytes=$((64 << 20)) part=$RUN/part
  head -c "$bytes" "$RUN/big" >"$part"
  client curl -sS -m 60 -T "$part" -o /dev/null -w '%{http_code}' http://app.example.com/upload/part >"$RUN/upload" &
  local upload=$!
  download app.example.com "$bytes"
  wait "$upload"
  expect_like "$(cat "$RUN/upload")" '20[14]' "PUT while downloading"
  expect "$(sha256sum <"$RUN/origin1/upload/part")" "$(sha256sum <"$part")" "what the origin received"
  rm -f "$part" "$RUN/upload" "$RUN/origin1/upload/part"
}

# 200 clients ask both vnets in a loop for LOAD_SECONDS (10); every answer must come from the right origin.
check_load() {
  local seconds=${LOAD_SECONDS:-10} errors=$RUN/load-errors count=$RUN/load-count
  : >"$errors"
  : >"$count"
  # shellcheck disable=SC2016
  client bash -c '
    loop() {
      local asked=0 answer
      SECONDS=0
      while [ "$SECONDS" -lt "$1" ]; do
        answer=$(curl -sS -m 30 "http://$2.example.com/" 2>&1) && [ "$answer" = "$3" ] || echo "$2: $answer" >>"$4"
        asked=$((asked + 1))
      done
      echo "$asked" >>"$5"
    }
    for i in $(seq 100); do
      loop "$1" app origin1 "$2" "$3" &
      loop "$1" wiki origin2 "$2" "$3" &
    done
    wait' load "$seconds" "$errors" "$count"
  say "$(awk '{ n += $1 } END { print n }' "$count") requests from $(wc -l <"$count") clients in $seconds s"
  head -n 5 "$errors" >&2
  expect "$(wc -l <"$count")" 200 "clients that finished"
  expect "$(wc -l <"$errors")" 0 "wrong or missing answers"
  rm -f "$errors" "$count"
}
