#!/bin/sh
# Makes a small image from this machine's static busybox: busybox.sh OUT.tar
# Its init says hello on the console, then serves /srv/www on port 80. The same input gives the same bytes.
set -eu
out=${1:?usage: busybox.sh OUT.tar}
busybox=$(command -v busybox) || { echo "busybox is missing: apt-get install busybox-static" >&2; exit 1; }
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT INT TERM
mkdir -p "$root/bin" "$root/sbin" "$root/etc/init.d" "$root/proc" "$root/sys" "$root/dev" \
  "$root/root" "$root/run" "$root/srv/www" "$root/tmp" "$root/usr/bin" "$root/usr/sbin" "$root/var/log"
cp "$busybox" "$root/bin/busybox"
for applet in $("$busybox" --list-full); do
  mkdir -p "$root/$(dirname "$applet")"
  [ -e "$root/$applet" ] || ln -s /bin/busybox "$root/$applet"
done
cat >"$root/etc/inittab" <<'TAB'
::sysinit:/etc/init.d/rcS
::respawn:/bin/httpd -f -p 80 -h /srv/www
::shutdown:/bin/sync
TAB
[ -x "$root/bin/httpd" ] || ln -s /bin/busybox "$root/bin/httpd"
cat >"$root/etc/init.d/rcS" <<'RCS'
#!/bin/sh
hostname >/srv/www/index.html
echo "$(hostname): up"
RCS
chmod 755 "$root/etc/init.d/rcS"
echo 'root:x:0:0:root:/root:/bin/sh' >"$root/etc/passwd"
echo 'root:x:0:' >"$root/etc/group"
printf '127.0.0.1 localhost\n' >"$root/etc/hosts"
chmod 1777 "$root/tmp"
chmod 700 "$root/root"
chmod 755 "$root"  # or only root could do anything in it
tar --create --file "$out.part" --directory "$root" --sort=name --numeric-owner --owner=0 --group=0 --mtime=@0 .
mv "$out.part" "$out"
