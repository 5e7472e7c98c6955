#!/usr/bin/env bash
# A Ray cluster (docs/cluster.md), one command a machine; Ctrl-C or "leave" ends a node.
#   ./run/cluster.sh head [ADDRESS]              the first machine, and its own address where it has several
#   ./run/cluster.sh join HEAD[:PORT] [ADDRESS]  every other one
#   ./run/cluster.sh leave                       take this machine out: its jobs go on elsewhere
#   ./run/cluster.sh serve | unserve             on any of them: inference_api in the cluster (docs/replicas.md), and its end
# Where the machines share no disk: NODE_CACHE, NODE_CACHE_GB and AWS_* tell this one of its cache and the object store (docs/cluster.md).
# Settings: RAY_PORT (6379), RAY_ARGUMENTS (ray start's own, such as "--num-cpus=8 --num-gpus=1"), and those of run/install.sh.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. run/install.sh
usage() { die "Usage: $0 head [ADDRESS] | join HEAD[:PORT] [ADDRESS] | leave | serve | unserve"; }
case ${1:-} in
  head) place=(--head "--port=${RAY_PORT:-6379}") own=${2:-} ;;
  join) [ -n "${2:-}" ] || usage
    case $2 in *:*) head=$2 ;; *) head=$2:${RAY_PORT:-6379} ;; esac
    place=("--address=$head") own=${3:-} ;;
  leave) exec .venv-ray/bin/ray stop ;;
  serve) exec .venv-ray/bin/python -m inference_api.on_ray ;;
  unserve) exec .venv-ray/bin/serve shutdown --yes ;;
  *) usage ;;
esac
install_all
install_ray
# A job may wait for days for its turn (Ray's own limit is a quarter of an hour), and nobody is told that this cluster exists.
export RAY_JOB_START_TIMEOUT_SECONDS=${RAY_JOB_START_TIMEOUT_SECONDS:-31536000} RAY_USAGE_STATS_ENABLED=0
if [ "$1" = head ]; then say "On every other machine, in this folder: ./run/cluster.sh join ${own:-ADDRESS (the Local node IP below)}"; fi
# shellcheck disable=SC2086
exec .venv-ray/bin/ray start "${place[@]}" ${own:+"--node-ip-address=$own"} --block ${RAY_ARGUMENTS:-}
