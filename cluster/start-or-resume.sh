#!/usr/bin/env bash
# Runs `s4 train` or `s4 tune`, with --resume where what has this name has begun already.
#
#   start-or-resume.sh train|tune [PRESET] --name NAME --storage DIR [OPTIONS OF S4]
#
# A scheduler that starts a job again (requeued, on another node, in a new cluster) starts the same words: here they turn
# into a beginning or a going on. Becomes `s4`, so signals sent to this process reach it.
set -euo pipefail

refuse() {
  printf '%s: %s\n' "$(basename "$0")" "$1" >&2
  exit 2
}

name=
storage=
words=("$@")
for number in "${!words[@]}"; do
  case ${words[number]} in
    --name=*) name=${words[number]#*=} ;;
    --storage=*) storage=${words[number]#*=} ;;
    --name) name=${words[number + 1]:-} ;;
    --storage) storage=${words[number + 1]:-} ;;
    --resume) refuse "--resume must be left out, it is added where $name has begun: remove it" ;;
  esac
done
[ -n "$name" ] || refuse "--name must be given, for a second start to find what the first one began; got none: add --name NAME"
[ -n "$storage" ] || refuse "--storage must name a folder that all nodes see, got none: add --storage DIR"

# s4 writes the first of these once everything it was given has been checked, and version 0.1 wrote the others; before
# that it refuses --resume.
for begun in run.yaml search.yaml train.yaml; do
  if [ -e "$storage/$name/$begun" ]; then
    exec s4 "$@" --resume
  fi
done
exec s4 "$@"
