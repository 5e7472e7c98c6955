#!/usr/bin/env bash
# Everything that a machine without internet needs, in one archive: ./run/bundle.sh cpu|cpu_mkl|gpu|gpu_mkl [FILE] [--without gluon|pytorch]
#
# It holds the images as they are on this machine (build them first), the files that run them, the dataset to begin with, what lies in
# weights/, and a checksum of each file. docs/install.md says how it is loaded: run/load_bundle.sh is in it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

FILES="setup_solution_parameters.sh LICENSE README.md docs run/run_*.yml run/load_bundle.sh datasets/README.md datasets/dummy_dataset checkpoints/README.md
  classifiers/README.md weights"

say() { printf '%s\n' "$*"; }
die() { printf '%s\n' "$*" >&2; exit 1; }

arch=${1:-} archive='' without=''
shift || true
while [ $# -gt 0 ]; do
  case $1 in --without) without=${2:-} && shift ;; *) archive=$1 ;; esac
  shift
done
case $arch in cpu | cpu_mkl | gpu | gpu_mkl) ;; *) die "Usage: $0 cpu|cpu_mkl|gpu|gpu_mkl [FILE] [--without gluon|pytorch]" ;; esac
case $without in '' | gluon | pytorch) ;; *) die "--without takes gluon or pytorch." ;; esac
name=maskwright-$arch
archive=$(readlink -m "${archive:-$name.tar}")

images=(maskwright_docker_sdk_api maskwright_gui maskwright_inference_api)
[ "$without" = pytorch ] || images+=("pytorch_semantic_segmentation_training_api_${arch%_mkl}")
[ "$without" = gluon ] || images+=("gluoncv_semantic_segmentation_training_api_$arch")
bytes=0
for image in "${images[@]}"; do
  size=$(docker image inspect --format '{{.Size}}' "$image" 2>/dev/null) || die "The image $image is not on this machine. Build it: docker-compose -f build/build_$arch.yml build"
  bytes=$((bytes + size))
done
free=$(df -Pk "$(dirname "$archive")" | awk 'NR == 2 { print $4 * 1024 }')
[ "$free" -gt "$bytes" ] || die "$(dirname "$archive") has $((free / 1000000)) MB free, and $((bytes / 1000000)) MB may be needed. Name a file elsewhere: $0 $arch FILE"

folder=$(mktemp -d "$archive.XXXX") # beside the archive: that is the disk with room
trap 'rm -rf "$folder"' EXIT
mkdir "$folder/$name"
tar -c --exclude=.env --exclude=.maskwright $FILES | tar -x --no-same-owner -C "$folder/$name"
say "$arch ${images[*]}" >"$folder/$name/IMAGES"
say "Saving ${#images[@]} images. This takes some minutes."
docker save "${images[@]}" | gzip -1 >"$folder/$name/images.tar.gz"
(cd "$folder/$name" && find . -type f ! -name SHA256SUMS -print0 | sort -z | xargs -0 sha256sum >SHA256SUMS)
tar -c -C "$folder" --owner=0 --group=0 -f "$folder/done" "$name"
mv "$folder/done" "$archive"
say "$archive: $(($(stat -c %s "$archive") / 1000000)) MB. On the machine without internet:

  tar -xf $(basename "$archive")
  ./$name/run/load_bundle.sh"
