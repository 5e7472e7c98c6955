# Sourced by local.sh, tests.sh and bench.sh, from the project's root: what has to be installed, and only when it changed.
#
#   .venv        the services, the command line and PyTorch        Python 3.10 to 3.13
#   .venv-gluon  MXNet and GluonCV, whose pins conflict with those  Python 3.10 or 3.11
#   .venv-trackers  TensorBoard and an MLflow server, for the tests alone
#   .venv-ray    Ray, for the nodes of a cluster and for the tests  Python 3.10 to 3.13
#
# Settings: PYTHON (the interpreter of .venv), GLUON_PYTHON (of .venv-gluon), SKIP_GLUON=1, and pip's own, such as
# PIP_INDEX_URL, PIP_EXTRA_INDEX_URL (an index of PyTorch's CPU builds makes the download 10 times smaller), HTTPS_PROXY.

say() { printf '%s\n' "$*"; }
die() { printf '%s\n' "$*" >&2; exit 1; }

NEEDED_MB=6000
REQUIREMENTS=build/requirements

# The first Python of the versions given that can make environments.
find_python() {
  local version
  for version in "$@"; do
    if "python$version" -c 'import venv, ensurepip' 2>/dev/null; then command -v "python$version"; return; fi
  done
  return 1
}

require_disk() {
  local free
  free=$(df -Pm . | awk 'NR == 2 { print $4 }')
  [ "$free" -ge "$NEEDED_MB" ] || die "The disk has $free MB free, and the installation needs about $NEEDED_MB. Free some space and start again."
}

# install_environment FOLDER PYTHON FILE...: calls `fill_FOLDER` unless the very same files were installed before.
install_environment() {
  local folder=$1 python=$2 stamp
  shift 2
  stamp=$(cat "$@" | cksum; "$python" -V)
  [ "$(cat "$folder/.installed" 2>/dev/null)" = "$stamp" ] && return
  exec 8>.installing  # another window, or another machine of a cluster, may be filling the same folder
  if ! flock -n 8; then
    say "Another start is installing here: waiting for it."
    flock 8 || true  # a disk without locks has one user
  fi
  if [ "$(cat "$folder/.installed" 2>/dev/null)" = "$stamp" ]; then exec 8>&-; return; fi
  require_disk
  say "Installing $folder with $("$python" -V). This takes some minutes, once."
  rm -rf "$folder"
  "$python" -m venv "$folder" || die "$python cannot make an environment. Install its venv package (Debian: apt install python3-venv)."
  "fill_${folder//[.-]/_}" "$folder/bin/python" || die "The installation of $folder failed; the lines above say why. Behind a proxy set HTTPS_PROXY."
  printf '%s\n' "$stamp" >"$folder/.installed"
  exec 8>&-
}

pip_install() { "$1" -m pip install --quiet --disable-pip-version-check --constraint "$REQUIREMENTS/constraints.txt" "${@:2}"; }

# Without an NVIDIA GPU the CPU build of PyTorch does; where none can be had, the index's own build works too.
install_torch() {
  local version
  version=$(sed -n "s/^torch==//p" "$REQUIREMENTS/torch.txt")
  if ! command -v nvidia-smi >/dev/null && pip_install "$1" "torch==$version+cpu" 2>/dev/null; then return; fi
  command -v nvidia-smi >/dev/null || say "No CPU build of PyTorch is to be had here: installing the index's own, some gigabytes."
  pip_install "$1" "torch==$version"
}

fill__venv() {
  local list files=()
  for list in docker_sdk_api inference_api gui cli pytorch dev; do files+=(-r "$REQUIREMENTS/$list.txt"); done
  install_torch "$1" && pip_install "$1" "${files[@]}" && pip_install "$1" --no-deps -r $REQUIREMENTS/pytorch-no-deps.txt
}

# The sources themselves, whose list of packages and commands is in pyproject.toml: seconds, so not a reason to install all anew.
register_own() {
  local stamp
  stamp=$(cksum <pyproject.toml)
  [ "$(cat .venv/.registered 2>/dev/null)" = "$stamp" ] && return
  pip_install .venv/bin/python --no-deps --no-build-isolation -e . || die "The sources could not be registered in .venv; the lines above say why."
  printf '%s\n' "$stamp" >.venv/.registered
}

fill__venv_gluon() {
  "$1" -m pip install --quiet --disable-pip-version-check -r $REQUIREMENTS/gluon.txt &&
    "$1" -m pip install --quiet --disable-pip-version-check --no-deps -r $REQUIREMENTS/gluon-no-deps.txt
}

fill__venv_trackers() { "$1" -m pip install --quiet --disable-pip-version-check -r $REQUIREMENTS/trackers.txt; }

# For the tests alone: the tools that trainings tell their figures to. Where they cannot be had, those tests skip and say it.
install_trackers() {
  install_environment .venv-trackers "${PYTHON:-$(find_python 3.11 3.12 3.13 3.10 3)}" $REQUIREMENTS/trackers.txt
}

fill__venv_ray() { "$1" -m pip install --quiet --disable-pip-version-check -r $REQUIREMENTS/ray.txt -r $REQUIREMENTS/store.txt; }

# For a node of a cluster (run/cluster.sh). All nodes need one version of Python, to its second number, and of Ray.
install_ray() {
  install_environment .venv-ray "${PYTHON:-$(find_python 3.11 3.12 3.13 3.10 3)}" $REQUIREMENTS/{constraints,ray,store,inference_api,common}.txt
}

install_all() {
  local python gluon_python
  python=${PYTHON:-$(find_python 3.11 3.12 3.13 3.10 3 || true)}
  [ -n "$python" ] || die "No Python with venv was found. Install Python 3.11 with its venv package (Debian: apt install python3 python3-venv)."
  "$python" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' ||
    die "$("$python" -V) does not fit: Maskwright runs on Python 3.10 to 3.13. Install one of them, or name it: PYTHON=/path/to/python3.11 $0"
  install_environment .venv "$python" $REQUIREMENTS/{constraints,docker_sdk_api,inference_api,gui,cli,pytorch,pytorch-no-deps,dev,store,common,torch}.txt
  register_own
  [ "${SKIP_GLUON:-}" = 1 ] && return
  gluon_python=${GLUON_PYTHON:-$(find_python 3.11 3.10 || true)}
  if [ -z "$gluon_python" ]; then
    say "Without the engine gluon: MXNet runs on Python 3.10 or 3.11, and neither was found. All else works."
    return
  fi
  install_environment .venv-gluon "$gluon_python" $REQUIREMENTS/gluon.txt $REQUIREMENTS/gluon-no-deps.txt
}
