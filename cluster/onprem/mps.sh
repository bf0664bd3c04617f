#!/usr/bin/env bash
# NVIDIA's Multi-Process Service for all GPUs of this machine, as the user that runs Ray.
#
#   source cluster/onprem/mps.sh start    starts it, and tells the shell where it is; start Ray from this shell
#   cluster/onprem/mps.sh stop            ends it, once Ray has ended
set -u
export CUDA_MPS_PIPE_DIRECTORY="${CUDA_MPS_PIPE_DIRECTORY:-${XDG_RUNTIME_DIR:-/tmp}/mps-$(id -u)}"
export CUDA_MPS_LOG_DIRECTORY="${CUDA_MPS_LOG_DIRECTORY:-$CUDA_MPS_PIPE_DIRECTORY/log}"

if ! command -v nvidia-cuda-mps-control >/dev/null; then
  echo "nvidia-cuda-mps-control must be there, it is part of NVIDIA's driver: install the driver" >&2
  (exit 2)
elif [ "${1:-}" = start ]; then
  mkdir -p -m 700 "$CUDA_MPS_PIPE_DIRECTORY" "$CUDA_MPS_LOG_DIRECTORY"
  nvidia-cuda-mps-control -d
elif [ "${1:-}" = stop ]; then
  echo quit | nvidia-cuda-mps-control
else
  echo "the command must be start or stop, got '${1:-}'" >&2
  (exit 2)
fi
