#!/usr/bin/env bash
# Installs on Debian and Ubuntu what Maskwright in containers needs: Docker and Docker Compose; --gpu: NVIDIA's container toolkit too.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

TOOLKIT=https://nvidia.github.io/libnvidia-container
KEY=/usr/share/keyrings/nvidia-container-toolkit.gpg

die() { printf '%s\n' "$*" >&2; exit 1; }
case ${1:-} in '' | --gpu) ;; *) die "Usage: ./install_full.sh [--gpu]" ;; esac
command -v apt-get >/dev/null || die "This installs on Debian and Ubuntu only. Elsewhere: your distribution's packages docker and docker-compose."
[ "$(id -u)" = 0 ] || exec sudo "./$(basename "$0")" "$@"

export DEBIAN_FRONTEND=noninteractive
if ! command -v dockerd >/dev/null; then
  apt-get update -qq
  apt-get install -y -qq docker.io
fi
./install_compose.sh

if [ "${1:-}" = --gpu ] && ! command -v nvidia-ctk >/dev/null; then
  apt-get install -y -qq curl gnupg
  curl -fsSL "$TOOLKIT/gpgkey" | gpg --dearmor >"$KEY"
  echo "deb [signed-by=$KEY] $TOOLKIT/stable/deb/\$(ARCH) /" >/etc/apt/sources.list.d/nvidia-container-toolkit.list
  apt-get update -qq
  apt-get install -y -qq nvidia-container-toolkit
  nvidia-ctk runtime configure --runtime=docker
  if command -v systemctl >/dev/null; then systemctl restart docker; fi
fi

if [ -n "${SUDO_USER:-}" ]; then
  usermod -aG docker "$SUDO_USER"
  echo "$SUDO_USER may use Docker after logging out and in again."
fi
echo "Installed. Next: ./setup_solution_parameters.sh"
