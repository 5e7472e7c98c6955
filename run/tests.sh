#!/usr/bin/env bash
# Lint, types, import rules and tests. Arguments go to pytest: ./run/tests.sh -k wizard
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. run/install.sh
install_all
install_trackers
if [ $# -eq 0 ]; then
  .venv/bin/ruff check .
  .venv/bin/mypy
  .venv/bin/lint-imports
fi
.venv/bin/python -m pytest "$@"
