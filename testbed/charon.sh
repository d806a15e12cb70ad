# shellcheck shell=bash
# strongSwan with ESP in user space, each with its own configuration and its own run directory in RUN/NAME. Sourced.

need_for_charon() {
  need unshare util-linux
  need swanctl strongswan-swanctl
  [ -x /usr/lib/ipsec/charon ] || NEEDED+=(strongswan-charon)
  [ -e /usr/lib/ipsec/plugins/libstrongswan-gcm.so ] || NEEDED+=(libstrongswan-standard-plugins)
  [ -e /usr/lib/ipsec/plugins/libstrongswan-kernel-libipsec.so ] || NEEDED+=(libcharon-extra-plugins)
}

# charon_start NAME NAMESPACE [SETTING]: configured by RUN/NAME/swanctl.conf, and SETTING of the daemon itself. A run directory of its
# own: another charon of the machine is left alone.
charon_start() {
  local name=$1 ns=$2 dir=$RUN/$1
  mkdir -p "$dir"
  rm -f "$dir/charon.vici"
  cat >"$dir/strongswan.conf" <<CONF
charon {
  ${3:-}
  load = random nonce openssl aes sha1 sha2 hmac gcm curve25519 kdf vici socket-default kernel-libipsec kernel-netlink updown
  plugins {
    vici { socket = unix://$dir/charon.vici }
    kernel-libipsec { allow_peer_ts = yes }
    kernel-netlink { fwmark = !0x42 }
    socket-default { fwmark = 0x42 }
  }
  filelog {
    log {
      path = $LOGS/$name.log
      default = 1
      flush_line = yes
    }
  }
  pidfile = $dir/charon.lock
}
CONF
  start "$name" "$ns" env "STRONGSWAN_CONF=$dir/strongswan.conf" \
    unshare -m bash -c 'mount -t tmpfs tmp /run && exec /usr/lib/ipsec/charon'
  ready "$name" test -S "$dir/charon.vici"
  charon_ask "$name" --load-all --file "$dir/swanctl.conf" >>"$LOGS/$name-swanctl.log" 2>&1 ||
    die "strongSwan refuses its configuration: see $LOGS/$name-swanctl.log"
}

# charon_ask NAME COMMAND [OPTION...]: swanctl.
charon_ask() {
  local dir=$RUN/$1 command=$2
  shift 2
  STRONGSWAN_CONF=$dir/strongswan.conf timeout 20 swanctl "$command" --uri "unix://$dir/charon.vici" "$@"
}
