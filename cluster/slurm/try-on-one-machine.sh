#!/usr/bin/env bash
# The batch scripts on a real Slurm, on this machine alone: jobs on two nodes that reach their time limit, are
# requeued and go on; that share their nodes; that their user ends and submits again. Ten minutes on 2 cores.
#
#   apt-get install slurm-wlm munge iproute2 && cluster/slurm/try-on-one-machine.sh [FOLDER]
#
# A node is a slurmd in network, process, mount and host name spaces of its own, so that Ray finds two machines: one
# address each, one /tmp each, no process of the other. Two slurmd side by side would be two nodes for Slurm, and one
# for `ray symmetric-run`, which refuses to start where Ray runs already. Needs root. Ends only what it started.
set -euo pipefail

checkout=$(cd "$(dirname "$0")/../.." && pwd)
folder=${1:-$(mktemp -d /var/tmp/s4-slurm.XXXXXX)} # not below /tmp, which each node has for itself
network=10.78.0
controller=$network.254
venv=${S4_VENV:-$checkout/.venv}
bridge=s4slurm

say() { printf '%s | %s\n' "$(date -u +%H:%M:%S)" "$*"; }
refuse() {
  printf '%s: %s\n' "$(basename "$0")" "$1" >&2
  exit 2
}

[ "$(id -u)" -eq 0 ] || refuse "must run as root, to make network namespaces; runs as $(id -un)"
for tool in slurmctld slurmd munged sbatch ip unshare nsenter; do
  command -v "$tool" >/dev/null || refuse "the command $tool must be there: apt-get install slurm-wlm munge iproute2"
done
[ -x "$venv/bin/s4" ] || refuse "S4_VENV must be an environment with s4, got $venv: make install"

started=() # processes
made=()    # what `ip` takes away again
stop() {
  trap - EXIT
  say "stopping"
  # KILL: unshare hands no other signal on, and takes everything inside with it. (bash would print a line for each.)
  {
    for pid in "${started[@]}"; do kill -KILL "$pid" || true; done
    wait || true
  } 2>/dev/null
  # shellcheck disable=SC2086
  for words in "${made[@]}"; do ip $words 2>/dev/null || true; done
  rm -f "$folder/munge.key"
  say "what is left: $folder"
}
trap stop EXIT
trap 'exit 130' INT TERM

mkdir -p "$folder"/{state,home,runs}
export SLURM_CONF=$folder/slurm.conf
cat >"$SLURM_CONF" <<CONF
ClusterName=s4try
SlurmctldHost=$(hostname -s)($controller)
SlurmUser=root
SlurmdUser=root
# A requeued job waits for old credentials to expire: two minutes by default.
AuthInfo=socket=$folder/munge.socket,cred_expire=10
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool-%n
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd-%n.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd-%n.log
# A cluster has cgroups for these two.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
MpiDefault=none
ReturnToService=2
NodeName=n1 NodeAddr=$network.1 CPUs=2 RealMemory=4000
NodeName=n2 NodeAddr=$network.2 CPUs=2 RealMemory=4000
PartitionName=all Nodes=n1,n2 Default=YES State=UP
CONF

say "munged, slurmctld"
(umask 077 && head -c 1024 /dev/urandom >"$folder/munge.key")
munged --foreground --force --key-file="$folder/munge.key" --socket="$folder/munge.socket" \
  --pid-file="$folder/munge.pid" --seed-file="$folder/munge.seed" --log-file="$folder/munge.log" \
  >"$folder/munged.out" 2>&1 &
started+=($!)
ip link add "$bridge" type bridge
made+=("link del $bridge")
ip addr add "$controller/24" dev "$bridge"
ip link set "$bridge" up
until [ -S "$folder/munge.socket" ]; do sleep 0.2; done
slurmctld -D -f "$SLURM_CONF" >"$folder/slurmctld.out" 2>&1 &
started+=($!)

for number in 1 2; do
  node=n$number
  say "slurmd on $node, $network.$number"
  ip netns add "s4$node"
  made+=("netns del s4$node")
  ip link add "e$node" type veth peer name "p$node"
  made+=("link del p$node")
  ip link set "e$node" netns "s4$node"
  ip link set "p$node" master "$bridge" up
  ip -n "s4$node" addr add "$network.$number/24" dev "e$node"
  ip -n "s4$node" link set "e$node" up
  ip -n "s4$node" link set lo up
  # As Debian writes it: a host's own name is a loopback address.
  printf '127.0.0.1 localhost\n127.0.1.1 %s\n' "$node" >"$folder/hosts-$node"
  nsenter "--net=/run/netns/s4$node" unshare --mount --uts --ipc --pid --fork --kill-child --mount-proc bash -c "
    hostname $node && mount --bind $folder/hosts-$node /etc/hosts &&
    mount -t tmpfs tmpfs /tmp && mount -t tmpfs -o size=1g tmpfs /dev/shm || exit 1
    slurmd -D -N $node -f $SLURM_CONF & wait" >"$folder/slurmd-$node.out" 2>&1 &
  started+=($!)
done
until [ "$(sinfo -h -t idle -o %D 2>/dev/null || true)" = 2 ]; do sleep 1; done
sinfo

# Submitted from $folder, where the jobs' logs and mlflow.db go.
cd "$folder"
export HOME=$folder/home S4_CHECKOUT=$checkout S4_VENV=$venv S4_STORAGE=$folder/runs OMP_NUM_THREADS=1
export S4_GRACE_SECONDS=20
small=(--set schedule.evaluate_every=25 --set data.labelled=16 --set data.unlabelled=32 --set data.dev=16 --set model.width=8)
# A search or a training that takes longer than two minutes comes back: USR1 is sent a minute before the limit of four, and
# up to another minute earlier.
short=(--time=4 --signal=B:USR1@60)
half=(--cpus-per-task=1 --mem-per-cpu=1500)
submit() {
  job=$(sbatch --parsable "$@" "${small[@]}")
  say "job $job: sbatch ${*/#$checkout\//} ..."
}
until_it_says() { until grep -qs "$2" "s4-$1.log"; do sleep 1; done; }
# What the job says of itself and what s4 says of trials; Ray says much more.
wait_for() {
  while [[ $(squeue -h -j "$1" -o %T 2>/dev/null || true) =~ [A-Z] ]]; do sleep 2; done
  say "job $1: $(scontrol show job "$1" | grep -oE '(JobState|Restarts|ExitCode)=[^ ]*' | tr '\n' ' ')"
  sed 's/ --set .* on / ... on /' "s4-$1.log" | grep -aE '^(s4 job|\[[0-9]+/|interrupted|[0-9]+ trials? |best:|.* gangs? x|.* steps, a report every)' | sed 's/^/    /' || true
}

say "1. whole nodes, ray symmetric-run: a search that reaches its time limit"
submit "${short[@]}" "$checkout/cluster/slurm/exclusive.sbatch" \
  tune digits_css --name whole --gangs 2 --trials 10 --scheduler none --set schedule.steps=900
wait_for "$job"

say "2. shared nodes: a training over both that reaches its limit, and beside it a search that its user ends"
submit "${half[@]}" "${short[@]}" "$checkout/cluster/slurm/shared.sbatch" \
  train digits_css --name training --workers 2 --set schedule.steps=2500
train=$job
beside=("${half[@]}" --time=15 "$checkout/cluster/slurm/shared.sbatch"
  tune digits_css --name beside --trials 4 --scheduler none --set schedule.steps=600)
submit "${beside[@]}"
until_it_says "$job" "gangs\? x"
say "a driver that has another token:"
address=$(sed -n 's/.*Ray at \([0-9.:]*\).*/\1/p' "s4-$job.log")
RAY_AUTH_MODE=token RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n') \
  timeout 120 "$venv/bin/s4" tune --address "$address" --storage "$folder/uninvited" 2>&1 | sed -n 's/^s4:/    &/p' || true
until_it_says "$job" "^\[1/4\]"
say "scancel --batch --signal=TERM $job"
scancel --batch --signal=TERM "$job"
wait_for "$job"
submit "${beside[@]}"
wait_for "$job"
wait_for "$train"

say "3. what they left"
for name in whole beside; do "$venv/bin/s4" doctor "$name" --storage runs; done
for name in whole beside training; do
  "$venv/bin/s4" report "$name" --storage runs --json 2>/dev/null |
    python3 -c 'import json, sys; found = json.load(sys.stdin); print(found["name"], found["counts"])'
done
say "tokens left on disk: $(find "$HOME/.s4" -type f | wc -l)"
