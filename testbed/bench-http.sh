# shellcheck shell=bash
# The http benchmark: client, L7 proxy, user-space WireGuard, private origin, all on this machine. Sourced by bench.sh.

# Name | proxy | tunnel at the proxy's end | at the origin's end | as it is called in tables
HTTP_TABLE='
ours      | ours  | ours                   | ours                   | portcullis
mixed     | ours  | ours                   | wireguard-go-backports | portcullis to wireguard-go 2023
gotatun   | nginx | gotatun                | gotatun                | nginx + gotatun 0.10.2
backports | nginx | wireguard-go-backports | wireguard-go-backports | nginx + wireguard-go 2023 (backports)
sid       | nginx | wireguard-go-sid       | wireguard-go-sid       | nginx + wireguard-go 2026 (sid)
boringtun | nginx | boringtun              | boringtun              | nginx + boringtun-cli 0.7.1
onetun    | nginx | onetun                 | wireguard-go-backports | nginx + onetun 0.3.10
plain     | nginx | -                      | -                      | nginx without tunnel
'

http_subjects() { sed -nE 's/^([a-z]+) *\|.*/\1/p' <<<"$HTTP_TABLE"; }
http_field() { trim "$(grep "^$1 " <<<"$HTTP_TABLE" | cut -d '|' -f "$2")"; }

HTTP_ADDRESS=203.0.113.1

bench_http() {
  local name round subjects=() seconds=5 bulk=8
  [ "$QUICK" = no ] || seconds=1 bulk=3
  need nginx nginx
  need wrk wrk
  need wg wireguard-tools
  need curl curl
  need jq jq
  install_needed
  bench_begin
  http_files
  for name in $(http_subjects); do
    chosen "$name" || continue
    http_there "$name" || continue
    http_up "$name" && subjects+=("$name")
  done
  for ((round = 1; round <= ROUNDS; round++)); do
    step "http: round $round of $ROUNDS, ${#subjects[@]} subjects"
    for name in "${subjects[@]}"; do
      http_small "$name" "$seconds"
      http_bulk "$name" "$bulk"
    done
  done
}

http_there() {
  local end
  for end in "$(http_field "$1" 3)" "$(http_field "$1" 4)"; do
    case $end in - | ours) continue ;; esac
    peer_path "$end" >/dev/null && continue
    say "$(http_field "$1" 5): testbed/peers.sh $end" >>"$ABSENT"
    note "    $1: $end is absent"
    return 1
  done
}

# What origins serve: 1 KiB, and 100 MiB that do not compress.
http_files() {
  local zero=00000000000000000000000000000000
  mkdir -p "$RUN/www"
  head -c 1024 /dev/zero | tr '\0' x >"$RUN/www/1k"
  { openssl enc -aes-128-ctr -K "$zero" -iv "$zero" -in /dev/zero 2>/dev/null || true; } |
    head -c 104857600 >"$RUN/www/100m"
  chmod 755 "$RUN" "$RUN/www"
}

http_up() {
  local name=$1 a=pc-bench-$1-a b=pc-bench-$1-b c=pc-bench-$1-c
  bench_ns "$a"
  bench_ns "$b"
  bench_ns "$c"
  wire "$a" "$b" wire 198.18.0.1 198.18.0.2
  wire "$c" "$a" client 203.0.113.2 "$HTTP_ADDRESS"
  http_tunnel "$name"
  http_origin "$name" "$b"
  if [ "$(http_field "$name" 2)" = ours ]; then
    our_name
  else
    http_nginx "$name" "$a"
  fi
  wait_for 20 "the first answer by way of $name" http_answers "$c"
}
http_answers() { [ "$(in_ns "$1" curl -s -m 2 -H 'Host: app.example.com' "http://$HTTP_ADDRESS/1k" | wc -c)" = 1024 ]; }

# Sets UPSTREAM and CARRIERS: by whom the proxy reaches the origin.
http_tunnel() {
  local name=$1 near far
  near=$(http_field "$name" 3) far=$(http_field "$name" 4)
  case $near in
    -) UPSTREAM=198.18.0.2:80 CARRIERS["$name"]='' ;;
    onetun) onetun_pair "$name" "$far" && UPSTREAM=127.0.0.1:8080 ;;
    *) tunnel_pair "$name" "$near" "$far" "$HTTP_ADDRESS" && UPSTREAM=10.0.0.50:80 ;;
  esac
}

# onetun has no device: a port of the proxy's namespace leads to the origin's.
onetun_pair() {
  local name=$1 a=pc-bench-$1-a b=pc-bench-$1-b far=pcb-$1-b key1 key2
  key1=$(wg genkey) key2=$(wg genkey)
  tunnel_device "$2" "$far" "$b"
  set_peer "$b" "$far" "$key2" 51820 "$(wg pubkey <<<"$key1")" '' 10.9.0.0/24
  ip -n "$b" addr add 10.0.0.50/32 dev lo
  ip -n "$b" route add 10.9.0.0/24 dev "$far"
  (umask 077 && printf '%s\n' "$key1" >"$RUN/onetun.key")
  start "pcb-$name-a" "$a" "$(peer_path onetun)" 127.0.0.1:8080:10.0.0.50:80 --endpoint-addr 198.18.0.2:51820 \
    --endpoint-public-key "$(wg pubkey <<<"$key2")" --private-key-file "$RUN/onetun.key" --source-peer-ip 10.9.0.1 \
    --keep-alive 25 --log error
  CARRIERS["$name"]="pcb-$name-a $far"
}

# nginx_conf NAME WORKERS: the parts that proxies and origins share; the server's inside comes from standard input.
nginx_conf() {
  local dir=$RUN/nginx-$1
  mkdir -p "$dir"
  cat <<CONF
user root;
daemon off;
pid $dir/pid;
worker_processes $2;
error_log $LOGS/nginx-$1.log error;
events { worker_connections 4096; }
http {
  access_log off;
  default_type application/octet-stream;
  sendfile on;
  tcp_nopush on;
  keepalive_requests 100000000;
  client_body_temp_path $dir/body;
  proxy_temp_path $dir/proxy;
  fastcgi_temp_path $dir/fastcgi;
  uwsgi_temp_path $dir/uwsgi;
  scgi_temp_path $dir/scgi;
$(cat)
  }
}
CONF
}

http_origin() {
  nginx_conf "$1-origin" 1 <<<"  server { listen 80 backlog=4096 reuseport; root $RUN/www;" >"$RUN/$1-origin.conf"
  start "pcb-$1-origin" "$2" nginx -e "$LOGS/nginx-$1-origin.log" -c "$RUN/$1-origin.conf"
}

# As an administrator who reads the manual would: a worker a core, kept connections, buffers that take bulk without a file.
http_nginx() {
  nginx_conf "$1-proxy" auto >"$RUN/$1-proxy.conf" <<CONF
  upstream origin { server $UPSTREAM; keepalive 256; keepalive_requests 100000000; }
  server {
    listen 80 backlog=4096 reuseport;
    location / {
      proxy_pass http://origin;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host \$host;
      proxy_set_header X-Forwarded-For \$proxy_add_x_forwarded_for;
      proxy_buffer_size 16k;
      proxy_buffers 16 64k;
      proxy_busy_buffers_size 512k;
      proxy_max_temp_file_size 0;
      proxy_request_buffering off;
      client_max_body_size 0;
    }
CONF
  start "pcb-$1-proxy" "$2" nginx -e "$LOGS/nginx-$1-proxy.log" -c "$RUN/$1-proxy.conf"
  CARRIERS[$1]+=" pcb-$1-proxy"
}

# The name that the client asks our edge for.
our_name() {
  local zone
  zone=$(api POST /zones "$(jq -nc --arg a "$ACCOUNT_ID" '{name:"example.com", account:{id:$a}}')" | field id)
  api POST "/zones/$zone/dns_records" "$(jq -nc --arg v "$VNET" \
    '{type:"A", name:"app.example.com", content:"10.0.0.50", ttl:1, proxied:true, virtual_network_id:$v}')" >/dev/null
}

# http_small NAME SECONDS: 16 connections that ask for 1 KiB again and again.
http_small() {
  local name=$1 subject case='1 KiB, 16 connections' before after line
  subject=$(http_field "$name" 5)
  # shellcheck disable=SC2086
  before=$(ticks ${CARRIERS[$name]})
  line=$(in_ns "pc-bench-$name-c" timeout $(($2 + 10)) wrk -t 2 -c 16 -d "$2" -s "$TESTBED/wrk.lua" \
    -H 'Host: app.example.com' "http://$HTTP_ADDRESS/1k" | sed -n 's/^RESULT //p')
  # shellcheck disable=SC2086
  after=$(ticks ${CARRIERS[$name]})
  read -ra line <<<"$line"
  [ "${line[3]:-0}" -gt 0 ] || { note "    $name: no answers" && return 0; }
  sample "$case" "$subject" requests/s "${line[0]}"
  sample "$case" "$subject" 'ms, p50' "${line[1]}"
  sample "$case" "$subject" 'ms, p99' "${line[2]}"
  sample "$case" "$subject" 'µs CPU/request' "$(divide $(((after - before) * 1000000 / TICKS_PER_SECOND)) "${line[3]}")"
  [ "${line[4]}" = 0 ] || note "    $name: ${line[4]} of ${line[3]} requests failed"
}

# http_bulk NAME SECONDS: one download of 100 MiB, or what comes of it in that time.
http_bulk() {
  local name=$1 rate=0
  rate=$(in_ns "pc-bench-$name-c" curl -s -o /dev/null -m "$2" -H 'Host: app.example.com' -w '%{speed_download}' \
    "http://$HTTP_ADDRESS/100m" || true)
  [ "${rate:-0}" != 0 ] || { note "    $name: no download" && return 0; }
  sample 'one download of 100 MiB' "$(http_field "$name" 5)" Gb/s "$(divide "$rate" 125000000)"
}
