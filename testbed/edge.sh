#!/bin/bash
# The edge of a world that is up:  edge.sh start | stop | kill | restart   (kill is kill -9).
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
require_root
load_env
BIN=$PORTCULLIS_BIN

case ${1:-} in
  start) start_edge && wait_edge ;;
  stop) stop edge ;;
  kill) stop edge KILL ;;
  restart) stop edge && start_edge && wait_edge ;;
  *) die "usage: edge.sh start | stop | kill | restart" ;;
esac
