#!/usr/bin/env bash
# One node's part in the Ray cluster of a job on shared nodes; srun runs it on each. Ends with the step, not by `ray stop`,
# which would stop the Ray of other jobs too.
#
#   ray-on-shared-node.sh HEAD:PORT
set -euo pipefail
options=(
  --block "--num-cpus=$SLURM_CPUS_PER_TASK" --disable-usage-stats
  # 0: any free port. Ray's defaults are the same for every Ray on the node.
  --min-worker-port=0 --max-worker-port=0 --dashboard-agent-listen-port=0
)
# Ray would take every GPU of the node; Slurm names those of the job.
gpus=${CUDA_VISIBLE_DEVICES:-}
commas=${gpus//[^,]/}
case $gpus in
  '' | NoDevFiles) options+=(--num-gpus=0) ;; # older versions of Slurm write this word
  *) options+=("--num-gpus=$((${#commas} + 1))") ;;
esac

if [ "$SLURM_NODEID" -eq 0 ]; then
  exec ray start --head "--node-ip-address=${1%:*}" "--port=$S4_PORT" "--ray-client-server-port=$((S4_PORT + 1))" \
    --dashboard-host=127.0.0.1 "--dashboard-port=$((S4_PORT + 2))" "${options[@]}"
fi
for _ in $(seq 60); do
  if ray health-check --address "$1" >/dev/null 2>&1; then exec ray start "--address=$1" "${options[@]}"; fi
  sleep 2
done
echo "$(basename "$0"): a Ray head must answer at $1, it did not in two minutes or more: see the log of the first node" >&2
exit 1
