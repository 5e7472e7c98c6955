#!/usr/bin/env bash
# Lint, types, import rules and tests, in two processes. Arguments go to pytest: ./run/tests.sh -k wizard
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. run/install.sh
install_all
install_trackers
if [ "${MASKWRIGHT_TEST_RAY:-}" = 1 ]; then install_ray; fi
if [ $# -eq 0 ]; then
  .venv/bin/ruff check .
  .venv/bin/mypy
  .venv/bin/lint-imports
  ./run/audit.sh || echo "Raise the versions above, or say in build/requirements/known_flaws.txt why not."
fi
.venv/bin/python -m pytest -n 2 --no-loadscope-reorder --durations 20 "$@"
