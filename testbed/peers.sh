#!/bin/bash
# Installs the programs that Portcullis is measured against, below testbed/run/peers and nowhere else.
#   peers.sh            all of them         peers.sh NAME...   some
#   peers.sh --list     what is there, with versions
# Every peer is optional: one that cannot be had is named, and the benchmarks name it as absent.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
. "$TESTBED/bench-lib.sh"

# The comment above.
usage() { sed -n '2,5s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; }

# The Debian archive that this machine uses, whatever its mirror.
mirror() {
  # shellcheck disable=SC1091
  . /etc/os-release
  # shellcheck disable=SC2016
  apt-get indextargets --format '$(REPO_URI)' 'Label: Debian' "Codename: $VERSION_CODENAME" 'Component: main' 2>/dev/null |
    head -n 1
}

# apt_of DIR VERB ARG...: apt with lists of its own, so that the machine's are left alone.
apt_of() {
  local dir=$1
  shift
  apt-get -q -o "Dir::Etc::sourcelist=$dir/sources.list" -o Dir::Etc::sourceparts=- -o "Dir::State::lists=$dir/lists" \
    -o "Dir::Cache=$dir/cache" -o "Dir::State::status=$dir/status" -o APT::Sandbox::User=root \
    -o Acquire::Languages=none "$@"
}

# from_suite SUITE PACKAGE DIR: unpacks a package of another Debian suite into DIR.
from_suite() {
  local suite=$1 package=$2 dir=$3 own=$3/.apt uri key=/usr/share/keyrings/debian-archive-keyring.gpg debs
  uri=$(mirror)
  [ -n "$uri" ] || { echo "no Debian archive among the apt sources" && return 1; }
  rm -rf "$dir"
  mkdir -p "$own/lists/partial" "$own/cache/archives/partial"
  : >"$own/status"
  [ -r "$key" ] && key="[signed-by=$key]" || key=''
  printf 'deb %s %s %s main\n' "$key" "$uri" "$suite" >"$own/sources.list"
  apt_of "$own" update || return 1
  (cd "$own" && apt_of "$own" download "$package") || return 1
  debs=("$own/$package"_*.deb)
  dpkg-deb -x "${debs[0]}" "$dir" && dpkg-deb -f "${debs[0]}" Version >"$dir/version"
  rm -rf "$own"
}

from_cargo() {
  local target=$PEERS/.build rc=0
  CARGO_TARGET_DIR=$target cargo install --root "$PEERS" --locked --version "$2" "$1" || rc=$?
  rm -rf "$target"
  return "$rc"
}

get() {
  local name=$1 how
  peer_path "$name" >/dev/null && { say "$name: there" && return 0; }
  read -ra how <<<"$(peer_how "$name")"
  case ${how[0]:-} in
    apt)
      need "${how[2]}" "${how[1]}"
      (install_needed) || true
      ;;
    deb) watched 180 "$name from ${how[1]}" "$LOGS/$name.log" bash "${BASH_SOURCE[0]}" --from-suite "${how[1]}" "${how[2]}" "$PEERS/$name" || true ;;
    cargo)
      command -v cargo >/dev/null || { say "$name: absent, cargo is missing" && return 0; }
      watched 1500 "$name, compiled (some minutes)" "$LOGS/$name.log" bash "${BASH_SOURCE[0]}" --from-cargo "${how[1]}" "${how[2]}" || true
      ;;
    *) die "no such peer: $name; peers.sh --list names them" ;;
  esac
  if peer_path "$name" >/dev/null; then say "$name: installed"; else say "$name: absent, see $LOGS/$name.log"; fi
}

list() {
  local name path
  for name in $(peer_names); do
    if path=$(peer_path "$name"); then
      printf '%-24s %-24s %s\n' "$name" "$(peer_version "$name")" "$path"
    else
      printf '%-24s %-24s %s\n' "$name" absent "testbed/peers.sh $name"
    fi
  done
}

case ${1:-} in
  --help | -h) usage; exit ;;
  --list) list; exit ;;
  --from-suite) from_suite "${@:2}"; exit ;;
  --from-cargo) from_cargo "${@:2}"; exit ;;
  -*) die "unknown option $1; peers.sh --help" ;;
esac
require_root
mkdir -p "$PEERS" "$LOGS"
[ $# -gt 0 ] || mapfile -t all < <(peer_names)
for name in "${@:-${all[@]}}"; do
  get "$name"
done
