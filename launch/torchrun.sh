#!/bin/bash
# One node of a training run under torchrun; start the same line on every node, and again to resume.
#
#   launch/torchrun.sh RUN_FOLDER [torchrun options] -- [launch/pretrain.py flags]
#   launch/torchrun.sh runs/mine --nproc-per-node 8 -- --config configs/quickstart.yaml --execution.engine fsdp2
#
# SIGTERM, SIGUSR1 and Ctrl-C reach the ranks, which save and stop together; a second Ctrl-C ends them at once. Exit code: 75 if the run was stopped on request and
# is to be started again, else torchrun's.
set -u
run=$1; shift
options=()
while [ $# -gt 0 ] && [ "$1" != "--" ]; do options+=("$1"); shift; done
[ $# -gt 0 ] && shift

setsid python -m torch.distributed.run --max-restarts 3 "${options[@]}" launch/pretrain.py "$@" --out "$run" &
agent=$!
ranks() { ps -o pid= --ppid "$agent"; }
interrupts=0
interrupt() {
  interrupts=$((interrupts + 1))
  if [ "$interrupts" -eq 1 ]; then kill -USR1 $(ranks) 2>/dev/null; else kill -KILL "$agent" $(ranks) 2>/dev/null; fi
}
trap 'kill -USR1 $(ranks) 2>/dev/null' TERM USR1
trap interrupt INT
code=-1
while kill -0 "$agent" 2>/dev/null; do wait "$agent"; code=$?; done
[ "$code" -eq 0 ] && [ -e "$run/REQUEUE" ] && exit 75
exit "$code"
