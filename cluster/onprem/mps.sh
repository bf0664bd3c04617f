#!/usr/bin/env bash
# NVIDIA's Multi-Process Service for all GPUs of this machine, as the user that runs Ray.
#
#   cluster/onprem/mps.sh start    before Ray
#   cluster/onprem/mps.sh stop     once Ray has ended
#
# Its clients find it in /tmp/nvidia-mps. Where that is another user's, set CUDA_MPS_PIPE_DIRECTORY and
# CUDA_MPS_LOG_DIRECTORY to folders of your own, here and where Ray is started.
set -euo pipefail

if ! command -v nvidia-cuda-mps-control >/dev/null; then
  echo "nvidia-cuda-mps-control must be there, it is part of NVIDIA's driver: install the driver" >&2
  exit 2
fi
case "${1:-}" in
start) nvidia-cuda-mps-control -d ;;
stop) echo quit | nvidia-cuda-mps-control ;;
*)
  echo "the command must be start or stop, got '${1:-}': give one of them" >&2
  exit 2
  ;;
esac
