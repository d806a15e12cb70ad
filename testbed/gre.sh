# shellcheck shell=bash
# The world `gre`: portcullis, a real Linux kernel and Open vSwitch as each other's GRE peers. Sourced by up.sh and check.sh.
#
#   pc-gre-a  portcullis site ══ key, checksum, sequence number, keepalive ══ Linux 6.1 ip_gre (user-mode Linux)   10.0.0.50
#   pc-gre-b  portcullis site ══════════════════ key ═══════════════════════ Open vSwitch, user space (pc-gre-ovs) 10.0.0.50

. "$TESTBED/uml.sh"

GRE_NAMESPACES=(pc-gre-a pc-gre-b pc-gre-ovs)
GRE_OVS=$RUN/ovs

need_for_gre() {
  need_for_path
  need ip iproute2
  need ping iputils-ping
  need jq jq
  need iperf3 iperf3
  need tshark tshark
  need ovs-vswitchd openvswitch-switch
}

gre_up() {
  local ns
  gre_down
  mkdir -p "$LOGS" "$STATE"
  for ns in "${GRE_NAMESPACES[@]}"; do
    ip netns add "$ns"
    ip -n "$ns" link set lo up
  done
  gre_linux_up
  gre_ovs_up
}

# gre_site NAME NS: portcullis at the near end; standard input is what [gre] says.
gre_site() {
  local name=$1 ns=$2
  {
    cat <<TOML
admin_socket = "$STATE/$name.sock"
[router]
tun = "$name"
address = "10.9.0.1"
lan = ["10.9.0.0/24", "fd00:9::/64"]
[gre]
routes = ["10.0.0.0/24", "fd00:10::/64"]
TOML
    cat
  } >"$RUN/$name.toml"
  ip -n "$ns" addr add 10.9.0.1/32 dev lo
  ip -n "$ns" addr add fd00:9::1/128 dev lo
  start "$name" "$ns" "$BIN" site --config "$RUN/$name.toml"
  ready "$name" "$BIN" show tunnels --socket "$STATE/$name.sock"
}

# --- a real kernel ---

gre_linux_init() {
  cat <<'INIT'
sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0
# A keepalive is from us and for the peer, and comes in by the tunnel.
sysctl -qw net.ipv4.conf.all.accept_local=1
ethtool -K vec0 gro off gso off tso off
ip link set lo up
# Only then there is a TAP.
ip link set vec0 up
INIT
}

GRE_LINUX='type gre local 198.51.100.11 remote 198.51.100.1 ikey 7 okey 8 icsum ocsum iseq oseq ttl 64'
gre_linux_links() {
  gre_linux "$(uml_modules ip_gre | tr '\n' ';')"
  gre_linux 'ip addr add 198.51.100.11/24 dev vec0'
  gre_linux "ip link add gre1 $GRE_LINUX"
  gre_linux 'ip addr add 10.0.0.50/24 dev gre1; ip addr add fd00:10::50/64 dev gre1 nodad; ip link set gre1 up'
  gre_linux 'ip route add 10.9.0.0/24 dev gre1; ip -6 route add fd00:9::/64 dev gre1; iperf3 -s -D'
}

# gre_linux_join BOX NAMESPACE DEVICE: the kernel's TAP, in its box, gets a device in a namespace as the other end.
gre_linux_join() {
  # Linux leaves the GRE checksum to the card, and no card is here: the bridge's other port completes it, as one would.
  ip -n "$1" link add bridge type bridge
  ip link add far netns "$1" type veth peer name "$3" netns "$2"
  in_ns "$1" ethtool -K far tx off >/dev/null
  local port
  for port in linux far; do
    ip -n "$1" link set "$port" master bridge
    ip -n "$1" link set "$port" up
  done
  ip -n "$1" link set bridge up
  ip -n "$2" link set "$3" up
}

gre_linux_up() {
  gre_linux_init | uml_boot gre-linux pc-gre-box vec0:transport=tap,ifname=linux,depth=128 ||
    die "the kernel of the GRE peer did not come up"
  gre_linux_join pc-gre-box pc-gre-a linux
  ip -n pc-gre-a addr add 198.51.100.1/24 dev linux
  # Not before: the peer's kernel tries for ever to send the first packet that a TAP did not take, and IPv6 has one at once.
  gre_linux_links
  gre_site gre-a pc-gre-a <<'TOML'
local = "198.51.100.1"
remote = "198.51.100.11"
key_tx = 7
key_rx = 8
checksum = true
sequence = true
keepalive_secs = 1
TOML
}

gre_linux() { uml_ask gre-linux "$1"; }

# --- Open vSwitch ---

gre_ovs_up() {
  local mac
  mkdir -p "$GRE_OVS"
  ip link add near netns pc-gre-b type veth peer name far netns pc-gre-ovs
  in_ns pc-gre-b ethtool -K near tx off >/dev/null 2>&1 || true
  in_ns pc-gre-ovs ethtool -K far tx off >/dev/null 2>&1 || true
  ip -n pc-gre-b addr add 198.51.100.1/24 dev near
  ip -n pc-gre-b link set near up
  export OVS_RUNDIR=$GRE_OVS OVS_DBDIR=$GRE_OVS OVS_LOGDIR=$GRE_OVS OVS_SYSCONFDIR=$GRE_OVS
  ovsdb-tool create "$GRE_OVS/conf.db" /usr/share/openvswitch/vswitch.ovsschema
  start gre-ovsdb pc-gre-ovs ovsdb-server "$GRE_OVS/conf.db" "--remote=punix:$GRE_OVS/db.sock"
  ready gre-ovsdb test -S "$GRE_OVS/db.sock"
  ovs_db --no-wait init
  start gre-ovs pc-gre-ovs ovs-vswitchd "unix:$GRE_OVS/db.sock" --disable-system
  ovs_db add-br br-phy -- set bridge br-phy datapath_type=netdev -- add-port br-phy far
  ovs_db add-br br-int -- set bridge br-int datapath_type=netdev -- add-port br-int gre0 -- \
    set interface gre0 type=gre options:remote_ip=198.51.100.1 options:packet_type=legacy_l3 options:key=9 ofport_request=10
  ip -n pc-gre-ovs link set far up
  ip -n pc-gre-ovs addr add 198.51.100.12/24 dev br-phy
  ip -n pc-gre-ovs link set br-phy up
  ip -n pc-gre-ovs addr add 10.0.0.50/24 dev br-int
  ip -n pc-gre-ovs link set br-int up mtu 1400
  ip -n pc-gre-ovs route add 10.9.0.0/24 dev br-int
  # Behind the tunnel there is no Ethernet: its end of the bridge gets an address of nobody, and its own.
  mac=$(in_ns pc-gre-ovs cat /sys/class/net/br-int/address)
  ip -n pc-gre-ovs neigh replace 10.9.0.1 lladdr 02:00:00:00:00:99 dev br-int
  ovs-ofctl del-flows "$GRE_OVS/br-int.mgmt"
  ovs-ofctl add-flow "$GRE_OVS/br-int.mgmt" in_port=LOCAL,actions=output:10
  ovs-ofctl add-flow "$GRE_OVS/br-int.mgmt" "in_port=10,actions=mod_dl_dst:$mac,output:LOCAL"
  ovs-ofctl add-flow "$GRE_OVS/br-phy.mgmt" actions=NORMAL
  gre_site gre-b pc-gre-b <<'TOML'
local = "198.51.100.1"
remote = "198.51.100.12"
key = 9
TOML
  # It learns where the peer is from this.
  wait_for 5 "Open vSwitch to reach the peer" in_ns pc-gre-ovs ping -n -c 1 -W 1 198.51.100.1
}

ovs_db() { ovs-vsctl --timeout=10 "--db=unix:$GRE_OVS/db.sock" "$@"; }

gre_down() {
  local name ns
  for name in gre-a gre-b gre-ovs gre-ovsdb; do
    stop "$name"
  done
  uml_down gre-linux pc-gre-box
  for ns in "${GRE_NAMESPACES[@]}"; do
    ! has_ns "$ns" || ip netns del "$ns"
  done
  rm -rf "$GRE_OVS"
}
