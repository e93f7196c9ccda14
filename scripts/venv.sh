# Sourced by the scripts beside it: finds Python, makes .venv and installs the package, each once.
repository="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)"
venv="$repository/.venv"

find_python() {
  local name
  for name in "${PYTHON:-}" python3.13 python3.12 python3.11 python3 python; do
    if [[ -n "$name" ]] && "$name" -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$name"
      return
    fi
  done
  echo "no Python of version 3.11 or later with the venv module; install one, or name it in PYTHON" >&2
  return 2
}

# install_once EXTRA: (re)install when pyproject.toml or the folder has changed since the last time.
install_once() {
  local extra="$1" stamp="$venv/installed${1:+-$1}" python wanted
  wanted="$(cksum <"$repository/pyproject.toml") $repository"
  if [[ -f "$stamp" && "$(<"$stamp")" == "$wanted" ]]; then
    return
  fi
  python="$(find_python)"
  [[ -x "$venv/bin/pip" ]] || "$python" -m venv "$venv"
  echo "installing into $venv (some minutes: torch is large)" >&2
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -e "$repository${extra:+[$extra]}"
  echo "$wanted" | tee "$stamp" >"$venv/installed" # an extra has what no extra has
}
