#!/bin/sh
# Installs those of the named Debian packages that are missing: packages.sh NAME...
# No daemon of theirs is started: a rack starts its own.
set -eu
missing=
for name in "$@"; do
  dpkg-query -W -f '${db:Status-Abbrev}' "$name" 2>/dev/null | grep -q '^ii' || missing="$missing $name"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ]; then
  echo "Error: these packages are missing:$missing" >&2
  echo "Hint: run this as root, or: apt-get install$missing" >&2
  exit 1
fi
echo "installing Debian packages:$missing"
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod +x "$policy"
  trap 'rm -f "$policy"' EXIT INT TERM
fi
log=$(mktemp)
export DEBIAN_FRONTEND=noninteractive
if ! { apt-get update && apt-get install -y --no-install-recommends $missing; } >"$log" 2>&1; then
  tail -20 "$log" >&2
  echo "Error: apt-get failed; the whole of its output is in $log" >&2
  exit 1
fi
rm -f "$log"
