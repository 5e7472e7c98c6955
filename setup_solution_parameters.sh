#!/usr/bin/env bash
# Is this machine ready for Maskwright in containers, and how shall it run? Answers go into .env, which compose reads.
#
#   ./setup_solution_parameters.sh                        asks
#   ./setup_solution_parameters.sh --arch gpu --yes       does not; cpu, cpu_mkl, gpu or gpu_mkl
#
# --open gui|sdk|inference publishes that service to the network instead of to this machine alone; it wants a TOKEN in the environment.
# --root-path /path is where a reverse proxy shows the pages. Ports and folders are taken from the environment (docs/docker.md), proxies
# from proxy.json. What .env says already stays, unless something newer is given. Without all this, the CPU deployment works as it is.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

GIGABYTES_CPU=8   # images, and room to build them
GIGABYTES_GPU=25
KEYS="ARCH GUI_PORT SDK_PORT INFERENCE_PORT GUI_ADDRESS SDK_ADDRESS INFERENCE_ADDRESS TOKEN ROOT_PATH DATASETS CHECKPOINTS CLASSIFIERS WEIGHTS
  WEIGHTS_URL DOCKER_SOCKET PYTHON_IMAGE PIP_INDEX_URL PIP_EXTRA_INDEX_URL HTTP_PROXY HTTPS_PROXY NO_PROXY HOSTS TLS FORWARDED_ALLOW_IPS"
ADDRESS='^https?://[][A-Za-z0-9._~:/@%!*(),;=+-]+$' # nothing that compose or a shell would read as more than itself
OWN_ADDRESSES="localhost,127.0.0.1,docker_sdk_api,gui,inference_api"

TOKEN_SIGNS='^[A-Za-z0-9._~+/=-]*$'

say() { printf '%s\n' "$*"; }
die() { printf '%s\n' "$*" >&2; exit 2; }
missing=0
# lacks CAUSE CURE
lacks() { missing=$((missing + 1)); printf '\n%s. %s\n   %s\n' "$missing" "$1" "$2"; }

# What .env says, or the environment, which counts more.
kept() {
  if [ -n "${!1:-}" ]; then printf '%s' "${!1}"; return; fi
  if [ -f .env ]; then sed -n "s/^$1=//p" .env | tail -n 1; fi
}

# proxy NAME: its address in proxy.json. Never printed: there may be a password in it.
proxy() {
  local address
  [ -f proxy.json ] || return 0
  address=$(sed -n 's/.*"'"$1"'"[[:space:]]*:[[:space:]]*"\([^"]*\)".*/\1/p' proxy.json | head -n 1)
  if [ "$1" != NO_PROXY ] && [ -n "$address" ] && ! [[ $address =~ $ADDRESS ]]; then
    die "$1 in proxy.json is no address such as http://name:password@proxy:3128. Write other signs of a password as %40 (for @) and the like."
  fi
  printf '%s' "$address"
}

check_engine() {
  local said
  if ! command -v docker >/dev/null; then
    lacks "Docker is not installed." "./install_full.sh installs it on Debian and Ubuntu."
  elif ! said=$(docker version --format '{{.Server.Version}}' 2>&1); then
    case $said in
      *"permission denied"*) lacks "You may not use the Docker engine." "sudo usermod -aG docker $(id -un), then log out and in again." ;;
      *) lacks "The Docker engine does not run." "sudo systemctl start docker" ;;
    esac
  fi
}

find_compose() {
  if docker compose version >/dev/null 2>&1; then say "docker compose"; elif command -v docker-compose >/dev/null; then say "docker-compose"; fi
}

check_compose() {
  local version
  [ -n "$compose" ] || { lacks "Docker Compose is not installed." "./install_compose.sh installs it on Debian and Ubuntu."; return; }
  version=$($compose version --short 2>/dev/null || true)
  case $version in
    1.2[89]* | v[2-9]* | [2-9]*) ;;
    *) lacks "Docker Compose $version is too old: 1.28 or newer, or 2, is needed." "./install_compose.sh installs a newer one." ;;
  esac
}

check_gpu() {
  command -v nvidia-smi >/dev/null && nvidia-smi -L 2>/dev/null | grep -q GPU ||
    lacks "NVIDIA's driver finds no GPU." "Install the driver (Debian: sudo apt install nvidia-driver) and restart, or choose --arch cpu_mkl."
  command -v nvidia-ctk >/dev/null || command -v nvidia-container-cli >/dev/null ||
    lacks "NVIDIA's container toolkit is not installed." "./install_full.sh --gpu installs it on Debian and Ubuntu."
}

check_disk() {
  local needed=$1 folder free
  folder=$(docker info --format '{{.DockerRootDir}}' 2>/dev/null || true)
  free=$(df -Pk "$([ -d "$folder" ] && printf '%s' "$folder" || printf .)" | awk 'NR == 2 { print int($4 / 1048576) }')
  [ "$free" -ge "$needed" ] || lacks "The disk of ${folder:-this folder} has $free GB free, and the images need about $needed." "Free some: docker system df shows what images take, docker image prune removes old ones."
}

check_port() {
  local port=$1 name=$2
  [[ $port =~ ^[0-9]+$ ]] || { lacks "$name is $port, which is no port." "Set it to a number below 65536."; return; }
  (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || return 0
  docker ps --filter "publish=$port" --format '{{.Image}}' 2>/dev/null | grep -q '^maskwright_' && return # an update
  lacks "The port $port is used by another program." "Choose another one: $name=$((port + 1)) ./setup_solution_parameters.sh"
}

arch='' yes='' opened=()
while [ $# -gt 0 ]; do
  case $1 in
    --arch) arch=${2:-} && shift ;;
    --yes) yes=1 ;;
    --open) opened+=("${2:-}") && shift ;;
    --root-path) ROOT_PATH=${2:-} && shift ;;
    -h | --help) sed -n '2,10s/^# \{0,1\}//p' "$0"; exit ;;
    *) die "Unknown: $1. See --help." ;;
  esac
  shift
done

if [ -z "$arch" ]; then
  arch=$(kept ARCH)
  usual=${arch:-$(command -v nvidia-smi >/dev/null && echo gpu || echo cpu_mkl)}
  if [ -z "$yes" ]; then read -r -p "Train on the processor or on NVIDIA GPUs? cpu, cpu_mkl, gpu or gpu_mkl [$usual]: " arch || true; fi
  arch=${arch:-$usual}
fi
case $arch in cpu | cpu_mkl | gpu | gpu_mkl) ;; *) die "There is no architecture $arch: it is cpu, cpu_mkl, gpu or gpu_mkl." ;; esac
for service in ${opened[@]+"${opened[@]}"}; do
  case $service in gui | sdk | inference) ;; *) die "--open takes gui, sdk or inference." ;; esac
  [ -n "$(kept TOKEN)" ] || die "To open $service to the network, set a token first: TOKEN=\$(openssl rand -hex 16) $0 --arch $arch --open $service"
  declare "${service^^}_ADDRESS=0.0.0.0"
done
for name in HTTP_PROXY HTTPS_PROXY NO_PROXY; do
  address=$(proxy "$name")
  if [ -n "$address" ]; then declare "$name=$address"; fi
done
if [ -n "$(kept HTTP_PROXY)$(kept HTTPS_PROXY)" ]; then
  others=$(kept NO_PROXY)
  NO_PROXY=$OWN_ADDRESSES${others:+,${others#"$OWN_ADDRESSES"}}
  NO_PROXY=${NO_PROXY//,,/,} && NO_PROXY=${NO_PROXY%,}
fi

# What compose would read out of .env as something else than it is: a token with a $ in it would be another token.
token=$(kept TOKEN) && token=${token%[\"\']} && token=${token#[\"\']} # as somebody may have put it into .env
[[ $token =~ $TOKEN_SIGNS ]] || die "TOKEN may hold letters, digits and . _ ~ + / = - alone: compose reads other signs as more than themselves. Take TOKEN=\$(openssl rand -hex 32)."
for name in $KEYS; do
  case ${!name:-} in
    *[\$\"\'\`\\]* | *[[:space:]]\#* | \#* | [[:space:]]* | *[[:space:]] | *$'\n'*)
      die "$name holds a sign that compose reads as more than itself: \$, a quotation mark, a backslash, a # after a blank, or a blank at its begin or end. Write it without." ;;
  esac
done

compose=$(find_compose)
check_engine
check_compose
case $arch in gpu*) check_gpu && check_disk $GIGABYTES_GPU ;; *) check_disk $GIGABYTES_CPU ;; esac
for pair in GUI_PORT:4200 SDK_PORT:4222 INFERENCE_PORT:4343; do
  port=$(kept "${pair%:*}")
  check_port "${port:-${pair#*:}}" "${pair%:*}"
done
if [ "$missing" -gt 0 ]; then printf '\nNothing was written. Then start this again.\n'; exit 1; fi

ARCH=$arch
umask 077 # a proxy's password may be in it
{
  say "# Written by setup_solution_parameters.sh. docs/docker.md says what each is."
  for name in $KEYS; do value=$(kept "$name"); if [ -n "$value" ]; then say "$name=$value"; fi; done
  grep -vE "^#|^($(echo $KEYS | tr -s ' ' '|'))=" .env 2>/dev/null || true # what somebody wrote there by hand
} >.env.new
mv .env.new .env
for folder in build run; do # compose looks beside the file that it is given; an offline bundle has no build
  if [ -d $folder ]; then ln -sfn ../.env $folder/.env; fi
done
say "This machine is ready. The answers are in .env. Next:
"
if [ -d build ]; then say "  $compose -f build/build_$arch.yml build"; fi
say "  $compose -f run/run_$arch.yml up -d

and open http://localhost:$(port=$(kept GUI_PORT); echo "${port:-4200}")$(kept ROOT_PATH)"
