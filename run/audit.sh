#!/usr/bin/env bash
# Are there known flaws in the pinned versions? Asks pip-audit, whose database is on the internet: without it, this says so and fails nothing.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
if ! { .venv/bin/python -m venv "$folder" && "$folder/bin/pip" install --quiet --disable-pip-version-check pip-audit; } >"$folder/said" 2>&1; then
  echo "pip-audit cannot be installed here, so nothing was looked at:"; tail -n 1 "$folder/said"; exit 0
fi
passed_over=$(sed -n 's/^\([A-Z]*-[^ ]*\) .*/--ignore-vuln \1/p' build/requirements/known_flaws.txt)
audit() { timeout 300 "$folder/bin/pip-audit" --no-deps --disable-pip --progress-spinner off "$@" >"$folder/said" 2>&1; }

# A mirror of the index may answer without the flaws: this version has one that has been known since 2018.
echo "requests==2.19.0" >"$folder/known.txt"
audit -r "$folder/known.txt"
if ! grep -qi '^found [0-9]* known' "$folder/said"; then
  echo "The database of flaws cannot be asked from here, so nothing was looked at:"; tail -n 1 "$folder/said"; exit 0
fi
found=0
for list in build/requirements/constraints.txt build/requirements/gluon.txt; do
  # The lists hold versions for several Pythons and engines, so nothing is resolved: each pin is looked up as it stands.
  # shellcheck disable=SC2086  # several words, or none
  if audit $passed_over -r "$list"; then
    echo "$list: no known flaws"
  elif grep -qi '^found [0-9]* known' "$folder/said"; then
    echo "$list:"; cat "$folder/said"; found=1
  else
    echo "$list: the database of flaws cannot be asked, so nothing was looked at:"; tail -n 1 "$folder/said"
  fi
done
exit $found
