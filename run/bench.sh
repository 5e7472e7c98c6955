#!/usr/bin/env bash
# Measure: ./run/bench.sh NAME [arguments] runs benchmarks/NAME.py. The last line it prints is JSON with the figures.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. run/install.sh
names=$(cd benchmarks && printf '%s ' *.py | sed 's/\.py//g; s/machine //')
[ -n "${1:-}" ] && [ -f "benchmarks/$1.py" ] || die "Usage: ./run/bench.sh NAME [arguments], where NAME is one of: $names"
install_all >&2
exec .venv/bin/python "benchmarks/$1.py" "${@:2}"
