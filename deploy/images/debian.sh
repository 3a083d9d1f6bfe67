#!/bin/sh
# Makes a Debian 12 image with systemd: debian.sh OUT.tar.zst
# Packages come from the mirrors that this machine's apt uses for bookworm, and through its proxy; MIRROR=URL names another.
# It is small: systemd, dbus, login and network tools; no kernel, boot loader, udev or file system checks; root has no password.
set -eu
out=${1:?usage: debian.sh OUT.tar.zst}
suite=bookworm
command -v mmdebstrap >/dev/null || { echo "mmdebstrap is missing: apt-get install mmdebstrap" >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM

# One-line sources of the suite, out of apt's own idea of its configuration (also of deb822 files).
sources() {
  if [ -n "${MIRROR:-}" ]; then
    echo "deb $MIRROR $suite main"
    return
  fi
  # shellcheck disable=SC2016 # apt's own format
  apt-get indextargets --format 'deb $(SITE) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
    sort -u | grep -E " $suite(-updates|-security)? main\$" || true
}
sources >"$work/sources.list"
grep -q " $suite main" "$work/sources.list" || {
  echo "apt on this machine knows no Debian $suite: give MIRROR=http://deb.debian.org/debian" >&2
  exit 1
}

proxy=
eval "$(apt-config shell proxy Acquire::http::Proxy)"

cat >"$work/setup" <<'SETUP'
#!/bin/sh
# $1 is the new root. What a container can't do is not there to fail, all else is as Debian has it.
set -eu
root=$1
# The address is set from outside before init runs: whoever manages networks in here would take it away, or wait for more.
# Nothing else is masked: what a container can't run, systemd leaves out by itself (docs/reference/images.md).
for unit in systemd-networkd.service systemd-networkd.socket systemd-networkd-wait-online.service networking.service; do
  ln -sf /dev/null "$root/etc/systemd/system/$unit"
done
# The console, for `vectl console`.
mkdir -p "$root/etc/systemd/system/getty.target.wants"
ln -sf /lib/systemd/system/console-getty.service "$root/etc/systemd/system/getty.target.wants/console-getty.service"
ln -sf /lib/systemd/system/multi-user.target "$root/etc/systemd/system/default.target"
# As much of the journal as a small disk bears.
mkdir -p "$root/etc/systemd/journald.conf.d" "$root/var/log/journal"
printf '[Journal]\nStorage=persistent\nSystemMaxUse=64M\n' >"$root/etc/systemd/journald.conf.d/size.conf"
printf 'LANG=C.UTF-8\n' >"$root/etc/default/locale"
: >"$root/etc/machine-id"   # made anew in each VE
rm -f "$root/etc/hostname" "$root/etc/resolv.conf" "$root/var/lib/dbus/machine-id" "$root"/etc/ssh/ssh_host_*
printf '127.0.0.1 localhost\n::1 localhost ip6-localhost\n' >"$root/etc/hosts"
: >"$root/etc/fstab"
chroot "$root" passwd --lock root >/dev/null
SETUP
chmod 755 "$work/setup"

mmdebstrap --quiet --variant=minbase --mode=root --format=tar \
  --include=systemd,systemd-sysv,libpam-systemd,dbus,iproute2,iputils-ping,ca-certificates,procps,less,login,passwd,netbase \
  --aptopt='Acquire::Languages "none"' --aptopt='APT::Install-Recommends "false"' \
  --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
  --dpkgopt='path-include=/usr/share/doc/*/copyright' --dpkgopt='path-exclude=/usr/share/locale/*' \
  ${proxy:+--aptopt="Acquire::http::Proxy \"$proxy\""} \
  --customize-hook="$work/setup \"\$1\"" \
  "$suite" "$work/root.tar" "$work/sources.list"
zstd --quiet -T0 -6 "$work/root.tar" -o "$out.part" -f
mv "$out.part" "$out"
