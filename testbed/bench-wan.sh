# shellcheck shell=bash
# The wan benchmark: bulk through the proxy where 20 ms and 1 % loss lie before it or behind it. Sourced by bench.sh.

# As in bench-http.sh. BBR sends what the subject itself sends; the origin's kernel keeps its default in each.
WAN_TABLE='
ours  | ours  | ours                   | ours                   | portcullis
cubic | nginx | wireguard-go-backports | wireguard-go-backports | nginx + wireguard-go 2023, cubic
bbr   | nginx | wireguard-go-backports | wireguard-go-backports | nginx + wireguard-go 2023, BBR
'
# Where the path lies, what goes over it, and who sends the bulk into the loss.
WAN_CASES='
client down | download, loss between client and edge
client up   | upload, loss between client and edge (sent by the client)
site up     | upload, loss between edge and site
site down   | download, loss between edge and site (sent by the origin)
'

bench_wan() {
  local name round subjects=() seconds=8 place way
  HTTP_TABLE=$WAN_TABLE
  [ "$QUICK" = no ] || seconds=3
  need_for_path
  need nginx nginx
  need wg wireguard-tools
  need curl curl
  need jq jq
  install_needed
  bench_begin
  trap wan_end EXIT
  http_files
  wan_files
  for name in $(http_subjects); do
    chosen "$name" || continue
    http_there "$name" || continue
    wan_up "$name" && subjects+=("$name")
  done
  for ((round = 1; round <= ROUNDS; round++)); do
    step "wan: round $round of $ROUNDS, ${#subjects[@]} subjects"
    while read -r place way _; do
      [ -n "$place" ] || continue
      for name in "${subjects[@]}"; do
        wan_case "$name" "$place" "$way" "$seconds"
      done
    done <<<"$WAN_CASES"
  done
}

wan_end() {
  local name
  for name in $(http_subjects); do
    bash "$TESTBED/wan.sh" down "c$name" || true
    bash "$TESTBED/wan.sh" down "s$name" || true
  done
  rm -rf "/dev/shm/portcullis-wan"
  bench_end
}

# 1 GiB to download and to upload: nobody gets through it in a round.
wan_files() {
  truncate -s 1G "$RUN/www/1g"
  mkdir -p /dev/shm/portcullis-wan
}

# Beside each wire lies a path; a route decides which is used.
wan_up() {
  local name=$1 a=pc-bench-$1-a b=pc-bench-$1-b c=pc-bench-$1-c
  bench_ns "$a"
  bench_ns "$b"
  bench_ns "$c"
  wire "$a" "$b" wire 198.18.0.1 198.18.0.2
  wire "$c" "$a" client 203.0.113.2 "$HTTP_ADDRESS"
  [ "$name" = ours ] || in_ns "$a" sh -c "echo $name >/proc/sys/net/ipv4/tcp_congestion_control"
  bash "$TESTBED/wan.sh" up "c$name" "$c" path0 "$a" path0 || return 1
  bash "$TESTBED/wan.sh" up "s$name" "$a" path1 "$b" path1 || return 1
  ip -n "$c" addr add 192.0.2.1/30 dev path0
  ip -n "$a" addr add 192.0.2.2/30 dev path0
  ip -n "$a" addr add 192.0.2.5/30 dev path1
  ip -n "$b" addr add 192.0.2.6/30 dev path1
  http_tunnel "$name"
  wan_origin "$name" "$b"
  if [ "$(http_field "$name" 2)" = ours ]; then
    our_name
  else
    http_nginx "$name" "$a"
  fi
  wait_for 20 "the first answer by way of $name" http_answers "$c"
}

# An origin that takes uploads, to memory.
wan_origin() {
  nginx_conf "$1-origin" 1 >"$RUN/$1-origin.conf" <<CONF
  server {
    listen 80 backlog=4096 reuseport;
    client_max_body_size 0;
    root $RUN/www;
    location /up { alias /dev/shm/portcullis-wan/; dav_methods PUT; client_body_temp_path /dev/shm/portcullis-wan/$1; }
CONF
  start "pcb-$1-origin" "$2" nginx -e "$LOGS/nginx-$1-origin.log" -c "$RUN/$1-origin.conf"
}

# wan_route NAME PLACE: bulk goes over the path there, and over the wire elsewhere.
wan_route() {
  local a=pc-bench-$1-a b=pc-bench-$1-b c=pc-bench-$1-c
  ip -n "$c" route del "$HTTP_ADDRESS/32" 2>/dev/null || true
  ip -n "$a" route del 198.18.0.2/32 2>/dev/null || true
  ip -n "$b" route del 198.18.0.1/32 2>/dev/null || true
  case $2 in
    client) ip -n "$c" route add "$HTTP_ADDRESS/32" via 192.0.2.2 ;;
    site)
      ip -n "$a" route add 198.18.0.2/32 via 192.0.2.6 src 198.18.0.1
      ip -n "$b" route add 198.18.0.1/32 via 192.0.2.5 src 198.18.0.2
      ;;
  esac
}

# wan_case NAME PLACE WAY SECONDS: the same bulk without and with loss.
wan_case() {
  local name=$1 place=$2 way=$3 case subject loss rate free=0 path
  case=$(trim "$(grep "^$place $way " <<<"$WAN_CASES" | cut -d '|' -f 2)")
  subject=$(http_field "$name" 5) path=${place:0:1}$name
  wan_route "$name" "$place"
  for loss in 'loss 0%' 'loss 1%'; do
    bash "$TESTBED/wan.sh" set "$path" "delay 10ms $loss" "delay 10ms $loss"
    rate=$(wan_bulk "$name" "$way" "$4")
    if [ "$loss" = 'loss 0%' ]; then
      free=$rate
      sample "$case, none lost" "$subject" Gb/s "$(divide "$rate" 125000000)"
    else
      sample "$case" "$subject" Gb/s "$(divide "$rate" 125000000)"
      sample "$case" "$subject" 'share, %' "$(divide $((rate * 100)) "$free" 1)"
    fi
  done
  bash "$TESTBED/wan.sh" set "$path" none none
  wan_route "$name" nowhere
}

# wan_bulk NAME WAY SECONDS: bytes a second.
wan_bulk() {
  local of=download what=(-o /dev/null "http://$HTTP_ADDRESS/1g")
  [ "$2" = down ] || of=upload what=(-o /dev/null -T "$RUN/www/1g" -H 'Expect:' "http://$HTTP_ADDRESS/up$RANDOM")
  in_ns "pc-bench-$1-c" curl -s -m "$3" -H 'Host: app.example.com' -w "%{speed_$of}" "${what[@]}" | cut -d . -f 1 || true
}
