#!/usr/bin/env bash
# On a machine without internet, in an unpacked bundle (run/bundle.sh): compares checksums, and gives the images to the Docker engine.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

die() { printf '%s\n' "$*" >&2; exit 1; }

[ -f IMAGES ] && [ -f SHA256SUMS ] || die "This is no unpacked bundle. ./run/bundle.sh makes one, where the images are."
read -r arch images <IMAGES
echo "Comparing checksums."
bad=$(sha256sum --check --quiet SHA256SUMS 2>/dev/null) || die "These files are not as they were packed. Copy the archive again:
$bad"
docker version >/dev/null 2>&1 || die "The Docker engine does not answer. ./setup_solution_parameters.sh says what is missing."
echo "Loading images. This takes some minutes."
gzip -dc images.tar.gz | docker load
for image in $images; do docker image inspect "$image" >/dev/null || die "The image $image did not arrive. Look at the engine's own log."; done
echo "
Loaded. Next:

  ./setup_solution_parameters.sh --arch $arch                 optional: checks this machine, writes .env
  docker-compose -f run/run_$arch.yml up -d

and open http://localhost:4200. images.tar.gz is not needed any more."
