#!/usr/bin/env bash
# Makes sure that the servers which the tests start are on this machine.
#
#   scripts/ensure_servers.sh            all of them
#   scripts/ensure_servers.sh NAME...    only these
#
# What is missing is installed with apt-get when this is Debian or Ubuntu and we are root; otherwise the
# package is named and the script fails. A server installed here is never left running, nor started at boot:
# the tests start their own, on free ports, and stop them.
set -euo pipefail

# program on PATH : Debian package
SERVERS=(
  "redis-server:redis-server"
  "postgres:postgresql"
  "openssl:openssl"
  "promtool:prometheus"
  "bwrap:bubblewrap"
)

say() { printf '%s\n' "$*" >&2; }

# Debian keeps the programs of PostgreSQL's server off PATH, in a folder for each version; the tests look there too.
is_there() {
  command -v "$1" >/dev/null || compgen -G "/usr/lib/postgresql/*/bin/$1" >/dev/null
}

package_of() {
  local entry
  for entry in "${SERVERS[@]}"; do
    if [[ "${entry%%:*}" == "$1" ]]; then
      printf '%s' "${entry#*:}"
      return
    fi
  done
  say "ensure_servers: unknown server '$1'"
  exit 2
}

install_packages() {
  # 101 means "not allowed" to invoke-rc.d, so no package starts its service; an existing policy stays.
  local policy=/usr/sbin/policy-rc.d
  if [[ ! -e $policy ]]; then
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
  fi
  export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
  apt-get -q -o DPkg::Lock::Timeout=120 update >&2
  apt-get -q -y -o DPkg::Lock::Timeout=120 install --no-install-recommends "$@" >&2
  if command -v systemctl >/dev/null; then
    local name
    for name in "$@"; do
      systemctl disable --now "$name" >/dev/null 2>&1 || true
    done
  fi
}

wanted=("$@")
if ((${#wanted[@]} == 0)); then
  wanted=("${SERVERS[@]%%:*}")
fi

packages=()
for name in "${wanted[@]}"; do
  package=$(package_of "$name")
  is_there "$name" || packages+=("$package")
done
((${#packages[@]})) || exit 0

if ((EUID == 0)) && [[ -e /etc/debian_version ]] && command -v apt-get >/dev/null; then
  say "installing for the tests: ${packages[*]}"
  install_packages "${packages[@]}"
else
  say "The tests need programs that are not on this machine. Please install the packages (as named on Debian): ${packages[*]}"
  say "On Debian or Ubuntu: sudo apt-get install ${packages[*]}"
  exit 1
fi

for name in "${wanted[@]}"; do
  if ! is_there "$name"; then
    say "'$name' is still not to be found after installing ${packages[*]}."
    exit 1
  fi
done
