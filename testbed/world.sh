# shellcheck shell=bash disable=SC2034
# The world's plumbing: namespaces and links, certificates, private origins, the two sites. Sourced by up.sh.

# --- namespaces and links ---

make_namespaces() {
  local ns
  for ns in "${NAMESPACES[@]}"; do
    ip netns add "$ns"
    in_ns "$ns" ip link set lo up
    # Addresses are ours alone: duplicate address detection would only delay them.
    in_ns "$ns" sh -c 'echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad
      echo 0 >/proc/sys/net/ipv4/conf/default/rp_filter; echo 0 >/proc/sys/net/ipv4/conf/all/rp_filter'
  done
}

# link NS1 DEV1 NS2 DEV2: a veth pair between two namespaces, up.
link() {
  ip -n "$1" link add "$2" type veth peer name "$4" netns "$3"
  ip -n "$1" link set "$2" up
  ip -n "$3" link set "$4" up
}

make_links() {
  link pc-client edge0 pc-edge client0
  ip -n pc-client addr add 203.0.113.2/24 dev edge0
  ip -n pc-client addr add 2001:db8:1::2/64 dev edge0 nodad
  ip -n pc-edge addr add 203.0.113.1/24 dev client0
  ip -n pc-edge addr add 2001:db8:1::1/64 dev client0 nodad
  # The edge's DNS server; port 53 of its other address is an app's.
  ip -n pc-edge addr add 203.0.113.53/24 dev client0

  ip -n pc-net link add underlay type bridge
  ip -n pc-net link set underlay up
  plug pc-edge 198.51.100.1 edge
  ip -n pc-edge addr add 2001:db8:51::1/64 dev underlay0 nodad
  plug pc-site1 198.51.100.11 site1
  plug pc-site2 198.51.100.12 site2

  local n
  for n in 1 2; do
    link "pc-site$n" lan0 "pc-origin$n" lan0
    ip -n "pc-site$n" addr add 10.0.0.1/24 dev lan0
    ip -n "pc-site$n" addr add fd00:10::1/64 dev lan0 nodad
    in_ns "pc-site$n" sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding'
    ip -n "pc-origin$n" addr add 10.0.0.50/24 dev lan0
    ip -n "pc-origin$n" addr add fd00:10::50/64 dev lan0 nodad
    ip -n "pc-origin$n" route add default via 10.0.0.1
    ip -n "pc-origin$n" route add default via fd00:10::1
  done
  # Two origins that are out of order: nobody listens on .52, and .51 swallows what it gets.
  ip -n pc-origin1 addr add 10.0.0.51/24 dev lan0
  ip -n pc-origin1 addr add 10.0.0.52/24 dev lan0
}

# plug NAMESPACE ADDRESS PORT: joins a namespace to the underlay's bridge.
plug() {
  link "$1" underlay0 pc-net "$3"
  ip -n pc-net link set "$3" master underlay
  ip -n "$1" addr add "$2/24" dev underlay0
}

# Names that the client resolves without a DNS server: `ip netns exec` mounts this over /etc/hosts.
make_hosts() {
  mkdir -p /etc/netns/pc-client
  printf '127.0.0.1 localhost\n%s %s\n' 203.0.113.1 \
    "app.example.com wiki.example.com app6.example.com refused.example.com silent.example.com \
noroute.example.com unknown.example.com redis.example.com dns.example.com both.example.com" \
    >/etc/netns/pc-client/hosts
}

# Counters at the origins, which do not depend on what is being tested.
make_counters() {
  local n
  for n in 1 2; do
    in_ns "pc-origin$n" nft -f - <<'NFT'
table inet portcullis {
  counter echo_requests { }
  counter from_source_range { }
  counter from_elsewhere { }
  chain input {
    type filter hook input priority 0; policy accept;
    icmp type echo-request counter name echo_requests
    icmpv6 type echo-request counter name echo_requests
    iifname "lan0" ip saddr 100.64.0.0/12 counter name from_source_range
    iifname "lan0" ip saddr != { 100.64.0.0/12, 10.0.0.0/24 } counter name from_elsewhere
    ip daddr 10.0.0.51 drop
  }
}
NFT
  done
}

# --- certificates: our own authority, and one certificate for the zone ---

make_certificates() {
  mkdir -p "$RUN/ca" "$RUN/certs"
  local key=(-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes)
  openssl req -x509 "${key[@]}" -days 30 -subj '/CN=Portcullis testbed' \
    -addext 'basicConstraints=critical,CA:TRUE' -addext 'keyUsage=critical,keyCertSign' \
    -keyout "$RUN/ca/ca.key" -out "$RUN/ca/ca.crt"
  openssl req "${key[@]}" -subj '/CN=example.com' -keyout "$RUN/certs/example.com.key" -out "$RUN/ca/example.com.csr"
  openssl x509 -req -in "$RUN/ca/example.com.csr" -days 30 -CA "$RUN/ca/ca.crt" -CAkey "$RUN/ca/ca.key" -CAcreateserial \
    -extfile <(printf 'subjectAltName=DNS:example.com,DNS:*.example.com\nextendedKeyUsage=serverAuth\n') \
    -out "$RUN/certs/example.com.crt"
  # The edge chooses by file name; one certificate serves the zone and all below it.
  cp "$RUN/certs/example.com.crt" "$RUN/certs/*.example.com.crt"
  cp "$RUN/certs/example.com.key" "$RUN/certs/*.example.com.key"
} >"$LOGS/openssl.log" 2>&1

# --- private origins: real servers from Debian's packages ---

# 1 GiB that does not compress and is the same everywhere: AES-128-CTR over zeros, key and counter zero.
BIG_BYTES=1073741824
BIG_SHA256=a110c53382d90198328a45c24dfc98a504911e2abf65c16d6c879ae958528cbd

make_big() {
  [ "$(stat -c %s "$RUN/big" 2>/dev/null)" = "$BIG_BYTES" ] && return 0
  local zero=00000000000000000000000000000000
  { openssl enc -aes-128-ctr -K "$zero" -iv "$zero" -in /dev/zero 2>/dev/null || true; } |
    head -c "$BIG_BYTES" >"$RUN/big.part"
  mv "$RUN/big.part" "$RUN/big"
}

start_origin() {
  local n=$1 ns=pc-origin$1 dir=$RUN/origin$1
  mkdir -p "$dir/upload" "$dir/tmp"
  write_nginx_conf "$n" >"$dir/nginx.conf"
  start "nginx$n" "$ns" nginx -e "$LOGS/nginx$n.log" -c "$dir/nginx.conf"
  start "redis$n" "$ns" redis-server --bind 10.0.0.50 --port 6379 --save '' --appendonly no \
    --protected-mode no --dir "$dir"
  start "dns$n" "$ns" dnsmasq --keep-in-foreground --user=root --conf-file=/dev/null --pid-file= \
    --no-resolv --no-hosts --bind-interfaces --listen-address=10.0.0.50 \
    --txt-record="whoami.corp.internal,origin$n" --address=/wiki.corp.internal/10.0.0.50 \
    --address=/www.intranet.internal/10.0.0.50 --address=/outside.internal/192.0.2.80
  wait_for 10 "nginx of origin$n" in_ns "$ns" curl -s -o /dev/null http://10.0.0.50/
  wait_for 10 "redis of origin$n" in_ns "$ns" redis-cli -h 10.0.0.50 set whoami "origin$n"
  wait_for 10 "DNS of origin$n" in_ns "$ns" dig +time=1 +tries=1 @10.0.0.50 whoami.corp.internal TXT
}

# /        which origin this is          /headers  what it sees of a request
# /big     1 GiB                         /upload/  takes PUT
# /slow    connects at once, and answers nothing for a minute
write_nginx_conf() {
  local n=$1 dir=$RUN/origin$1
  cat <<CONF
user root;
daemon off;
master_process off;
pid $dir/nginx.pid;
events { worker_connections 4096; }
http {
  access_log $LOGS/nginx$n-access.log;
  default_type text/plain;
  sendfile on;
  keepalive_requests 100000;
  client_max_body_size 0;
  client_body_temp_path $dir/tmp/body;
  proxy_temp_path $dir/tmp/proxy;
  fastcgi_temp_path $dir/tmp/fastcgi;
  uwsgi_temp_path $dir/tmp/uwsgi;
  scgi_temp_path $dir/tmp/scgi;
  server {
    listen 10.0.0.50:80 backlog=4096;
    listen [fd00:10::50]:80;
    location / { return 200 "origin$n\n"; }
    location = /headers {
      return 200 "origin=origin$n
remote_addr=\$remote_addr
host=\$http_host
cf-connecting-ip=\$http_cf_connecting_ip
x-forwarded-for=\$http_x_forwarded_for
x-forwarded-proto=\$http_x_forwarded_proto
cf-ray=\$http_cf_ray
cdn-loop=\$http_cdn_loop
";
    }
    location = /big { alias $RUN/big; }
    location /upload/ { alias $dir/upload/; dav_methods PUT DELETE; create_full_put_path on; }
    location = /slow { proxy_pass http://10.0.0.51:80; proxy_connect_timeout 60s; }
  }
}
CONF
}

# --- the two sites ---

# Site 1: Debian's wireguard-go, configured with Debian's wg from the API's ready-made configuration.
start_site1() {
  pid_of wireguard1 >/dev/null && return 0
  start wireguard1 pc-site1 env WG_PROCESS_FOREGROUND=1 wireguard-go pcs1
  wait_for 10 "wireguard-go" in_ns pc-site1 wg show pcs1
  in_ns pc-site1 wg setconf pcs1 "$RUN/site1.conf"
  ip -n pc-site1 link set pcs1 mtu 1420 up
  ip -n pc-site1 route replace 100.64.0.0/12 dev pcs1
  ip -n pc-site1 route replace 2606:4700:cf1:5000::/64 dev pcs1
}

# Site 2: ours. It makes its own routes.
start_site2() {
  start site2 pc-site2 "$BIN" site --config "$RUN/site2.toml"
  ready site2 "$BIN" show tunnels --socket "$STATE/site2.sock"
}
