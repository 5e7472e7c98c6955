#!/usr/bin/env bash
# Maskwright without Docker: installs what it needs into this checkout and starts the three services. Ctrl-C stops them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. run/install.sh
install_all
exec .venv/bin/maskwright up
