# shellcheck shell=bash
# What exclusive.sbatch and shared.sbatch have in common. Sourced by them, in bash with `set -euo pipefail`.

# Edit these lines for your cluster; a variable of the same name in the environment of sbatch goes first.
: "${S4_VENV:=$S4_CHECKOUT/.venv}"   # where s4 is installed: a path that every node has
: "${S4_STORAGE:=$S4_CHECKOUT/runs}" # for results: a folder that every node sees
: "${S4_SCRATCH:=/tmp}"              # on each node's own disk, short: Ray's logs and sockets go to a folder below it
: "${S4_GRACE_SECONDS:=80}"          # for the driver to save and end; 40 less than --signal leads by, to end Ray in
: "${S4_MAX_RESTARTS:=100}"          # of one job: a search that gets nowhere does not come back for ever
# module load python cuda

refuse() {
  printf 's4 job: %s\n' "$1" >&2
  exit 2
}

# shellcheck disable=SC1091
source "$S4_VENV/bin/activate" || refuse "S4_VENV must be a virtual environment with s4, got $S4_VENV: edit job.sh"

first_node_address() {
  # What the first node calls itself is often a loopback address; Slurm knows the one that the others use.
  local node address
  node=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n 1p)
  address=$(scontrol --oneliner show node "$node" | sed -n 's/.* NodeAddr=\([^ ]*\).*/\1/p')
  if ! [[ $address =~ ^[0-9.]+$ ]]; then
    address=$(getent ahostsv4 "$address" | awk '$1 !~ /^127[.]/ { print $1; exit }')
  fi
  printf '%s' "${address:-$(hostname -I | cut -d ' ' -f 1)}"
}

# prepare HEAD:PORT TRAIN_OR_TUNE OPTIONS... : sets address and driver, and the environment of all nodes.
prepare() {
  address=$1
  shift
  [[ " $*" == *" --name"* ]] || refuse "--name must be given, for the next start to go on; got $*: add --name NAME"
  private="${HOME:?}/.s4/jobs/$SLURM_JOB_ID"
  rm -rf "$private"
  (umask 077 && mkdir -p "$private")
  trap 'rm -rf "$private"' EXIT
  # The cluster's token, made anew at every start: a file of this user alone, never an argument or a line in a log.
  (umask 077 && od -An -N32 -tx1 /dev/urandom | tr -d ' \n' >"$private/token")
  export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$private/token
  unset RAY_AUTH_TOKEN RAY_ADDRESS
  # A folder a job: /tmp/ray may be another user's, or another job's.
  export RAY_TMPDIR=$S4_SCRATCH/s4-$SLURM_JOB_ID
  # shellcheck disable=SC2034
  driver=("$S4_CHECKOUT/cluster/slurm/driver.sh" "$private"
    "$S4_CHECKOUT/cluster/start-or-resume.sh" "$@" --address "$address" --storage "$S4_STORAGE")
  echo "s4 job $SLURM_JOB_ID, start $((${SLURM_RESTART_COUNT:-0} + 1)) at $(date -u +%T): $* on $SLURM_JOB_NODELIST, Ray at $address"
}

# wait_for_nodes PID: until all nodes have joined; PID is that of the step that starts them.
wait_for_nodes() {
  python - "$address" "$1" "$SLURM_NNODES" <<'PYTHON'
import os, sys, time
import ray

address, step, expected = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
deadline = time.monotonic() + 600


def joined():
    try:
        if not ray.is_initialized():
            ray.init(address, log_to_driver=False, logging_level="CRITICAL")
    except ConnectionError:
        return 0
    return sum(node["Alive"] for node in ray.nodes())


while (nodes := joined()) < expected:
    try:
        os.kill(step, 0)
    except ProcessLookupError:
        sys.exit("s4 job: Ray ended before all nodes had joined, see above")
    if time.monotonic() > deadline:
        sys.exit(f"s4 job: {expected} nodes must join the Ray at {address}, {nodes} did in ten minutes")
    time.sleep(1)
PYTHON
}

interrupt_driver() {
  echo "s4 job: $1 at $(date -u +%T), the driver is told to save and end"
  # Before the driver runs there is nothing to save: ending the job's process is enough.
  local pid=$main
  if [ -s "$private/driver.pid" ]; then pid=$(cat "$private/driver.pid"); fi
  kill -TERM "$pid" 2>/dev/null || true
  # One that cannot end in time is killed; it then goes on from its last checkpoint all the same.
  (sleep "$S4_GRACE_SECONDS" && kill -KILL "$pid" 2>/dev/null) &
}

# follow MAIN STEP SECONDS: waits for the driver that the process MAIN runs, handing signals on to it; ends the step of
# Ray's nodes, whose process is STEP, if it has not ended by itself in so many seconds; and starts the job again where
# the time limit and nothing else ended the driver.
follow() {
  local step=$2 patience=$3 code
  main=$1
  at_limit=false
  trap 'at_limit=true; interrupt_driver "time limit near"' USR1
  trap 'interrupt_driver "ended by its user or by Slurm"' TERM INT
  while kill -0 "$main" 2>/dev/null && [ ! -s "$private/driver.code" ]; do sleep 1; done
  for ((; patience > 0; patience--)); do
    kill -0 "$step" 2>/dev/null || break
    sleep 1
  done
  kill "$step" 2>/dev/null || true
  wait "$step" || true
  # Nothing there: the driver has not run, since Ray could not start, or it was interrupted before.
  code=$(cat "$private/driver.code" 2>/dev/null || if $at_limit; then echo 130; else echo 1; fi)
  echo "s4 job: ended with exit code $code at $(date -u +%T)"
  # Logs of Ray are kept where it failed.
  if [ "$code" -ne 1 ]; then srun --ntasks="$SLURM_NNODES" --ntasks-per-node=1 rm -rf "$RAY_TMPDIR" || true; fi
  case $code in 0 | 1 | 2) exit "$code" ;; esac # done, failed, wrong use: again would be the same
  if $at_limit && [ "${SLURM_RESTART_COUNT:-0}" -lt "$S4_MAX_RESTARTS" ]; then
    echo "s4 job: requeued"
    trap - TERM
    rm -rf "$private"
    scontrol requeue "$SLURM_JOB_ID"
    sleep 60 # Slurm ends this script
  fi
  exit "$code"
}
