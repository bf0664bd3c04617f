#!/usr/bin/env bash
# One machine's part in a Ray cluster: start the head, join it, leave, look.
#
#   ray-node.sh head           [--address IP] [--port 6379] [--cpus N] [--gpus N] [--no-dashboard]
#   ray-node.sh join HEAD:PORT [--address IP] [--cpus N] [--gpus N]
#   ray-node.sh stop
#   ray-node.sh status
#
# --address is the one that the other machines reach this one by; without it Ray takes that of the default route. Gloo
# and NCCL are later told the interface that carries it. Every node and every user needs the cluster's token in
# ~/.ray/auth_token: `head` makes one where there is none, copy it to the others (readable by its owner alone).
set -euo pipefail

token="${RAY_AUTH_TOKEN_PATH:-$HOME/.ray/auth_token}"
export RAY_AUTH_MODE=token

refuse() {
  printf '%s: %s\n' "$(basename "$0")" "$1" >&2
  exit 2
}

need_value() { [ $# -ge 2 ] || refuse "$1 must be followed by a value, got none"; }

command -v ray >/dev/null || refuse "the command ray must be on the PATH: activate the environment that s4 is installed in"

[ $# -ge 1 ] || refuse "the first word must be head, join, stop or status, got none"
verb=$1
shift

head_address=
if [ "$verb" = join ]; then
  [ $# -ge 1 ] && [[ $1 == *:* ]] || refuse "join must be followed by HOST:PORT of the head, got ${1:-nothing}"
  head_address=$1
  shift
fi

port=6379
dashboard=true
options=()
while [ $# -gt 0 ]; do
  case $1 in
    --address) need_value "$@"; options+=("--node-ip-address=$2"); shift 2 ;;
    --cpus) need_value "$@"; options+=("--num-cpus=$2"); shift 2 ;;
    --gpus) need_value "$@"; options+=("--num-gpus=$2"); shift 2 ;;
    --port) need_value "$@"; port=$2; shift 2 ;;
    --no-dashboard) dashboard=false; shift ;;
    *) refuse "an option must be --address, --cpus, --gpus, --port or --no-dashboard, got $1" ;;
  esac
done

case $verb in
  head)
    if [ ! -s "$token" ] && [ -z "${RAY_AUTH_TOKEN:-}" ]; then
      mkdir -p "$(dirname "$token")"
      (umask 077 && od -An -N32 -tx1 /dev/urandom | tr -d ' \n' >"$token")
      echo "made the cluster's token: copy $token to the other machines"
    fi
    # The dashboard shows code and logs, and can run programs: it stays on this machine, tunnel to it.
    ray start --head "--port=$port" --dashboard-host=127.0.0.1 "--include-dashboard=$dashboard" \
      --disable-usage-stats "${options[@]}"
    ;;
  join)
    [ -s "$token" ] || [ -n "${RAY_AUTH_TOKEN:-}" ] ||
      refuse "the cluster's token must be in $token, there is none: copy it from the head"
    ray start "--address=$head_address" --disable-usage-stats "${options[@]}"
    ;;
  stop) ray stop ;;
  status) ray status ;;
  *) refuse "the first word must be head, join, stop or status, got $verb" ;;
esac
