#!/usr/bin/env bash
# Installs Docker Compose on Debian and Ubuntu: their own package, version 2 where they have it and 1.29 otherwise. Both do.
set -euo pipefail

die() { printf '%s\n' "$*" >&2; exit 1; }
if docker compose version >/dev/null 2>&1 || command -v docker-compose >/dev/null; then echo "Docker Compose is there."; exit; fi
command -v apt-get >/dev/null || die "This installs on Debian and Ubuntu only. Elsewhere: your distribution's package docker-compose."
[ "$(id -u)" = 0 ] || exec sudo "$0" "$@"

export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
for package in docker-compose-v2 docker-compose-plugin docker-compose; do # Ubuntu's, Docker's own, Debian's
  if apt-cache show "$package" >/dev/null 2>&1; then apt-get install -y -qq --no-install-recommends "$package" && exit; fi
done
die "No package of Docker Compose is to be had here. See that apt's sources hold your distribution's main and universe parts."
