#!/usr/bin/env bash
# Runs the driver, and leaves its process id and then its exit code in a folder: `ray symmetric-run` hands no signal on,
# and some nodes' Ray ends a minute after the driver, with an exit code of its own.
#
#   driver.sh FOLDER COMMAND...
set -euo pipefail
folder=$1
shift
"$@" &
echo $! >"$folder/driver.pid"
code=0
wait $! || code=$?
echo "$code" >"$folder/driver.code"
exit "$code"
