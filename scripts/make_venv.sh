#!/usr/bin/env bash
# Makes a virtual environment, or says what is missing:  scripts/make_venv.sh PYTHON DIRECTORY
set -euo pipefail

python=${1:-}
directory=${2:?usage: scripts/make_venv.sh PYTHON DIRECTORY}

say() { printf '%s\n' "$*" >&2; }

if [[ -z $python ]]; then
  say "kiki needs Python 3.11 or newer, and none was found on PATH. Name one: make PYTHON=/path/to/python3.11 …"
  exit 1
fi
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
  say "kiki needs Python 3.11 or newer; $python is $("$python" --version 2>&1)."
  exit 1
fi

# Debian ships venv and ensurepip apart from Python.
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
  package=python3-venv
  if [[ $("$python" -c 'import sys; print(sys.executable)') == /usr/bin/* ]]; then
    package=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
  fi
  if ((EUID == 0)) && [[ -e /etc/debian_version ]] && [[ $package != python3-venv ]] && command -v apt-get >/dev/null; then
    say "installing $package: this Python cannot make virtual environments without it"
    export DEBIAN_FRONTEND=noninteractive
    apt-get -q -o DPkg::Lock::Timeout=120 update >&2
    apt-get -q -y -o DPkg::Lock::Timeout=120 install --no-install-recommends "$package" >&2
  else
    say "$python cannot make virtual environments: apt-get install $package"
    exit 1
  fi
fi

# One that works is kept; one that was left half made, or whose Python is gone, is made anew.
if ! "$directory/bin/python" -c 'import pip' 2>/dev/null; then
  rm -rf "$directory"
  mkdir -p "$(dirname "$directory")"
  "$python" -m venv "$directory"
fi
