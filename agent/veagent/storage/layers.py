"""Puts the layers of an OCI image on top of each other, each by a real `tar` in the sandbox.

A layer can replace a folder by a file, a link by a folder, and take away what lies below by whiteouts: `.wh.NAME` for one
name, `.wh..wh..opq` for all in a folder. tar alone can do none of it. So every layer but the lowest is unpacked into a
folder of its own (its name can't be guessed), then what it replaces and takes away is removed, and then it is linked into
place. All of it happens in the sandbox, in a shell that sees only the root and this host's programs: whatever a
layer plays with links ends there. Nothing else runs there meanwhile, so what was looked at stays as it was.

A layer need not name the folders above its files. Those it only implies: they stay as they are below, and when a link to
a folder is there, the files go where it leads (`lib/x` with /lib -> usr/lib). tar makes them with the mode that the umask
gives, so they are told apart by an odd one.
"""

import secrets
from pathlib import Path

from veagent.storage import unpack
from veagent.storage.oci import Layer
from veapi.errors import InvalidInput

_NO_WHITEOUTS = ("--exclude=.wh.*", "--exclude=*/.wh.*")
# $1 is the layer's folder, the rest is tar. Parents come before what is in them, so a checked path stays a path of folders.
_MERGE = r"""
set -eu
umask 022
new=$1; shift
mkdir -m 700 -- "$new"
chown --reference=. -- "$new"; chmod --reference=. -- "$new"
(umask 0061; exec "$@" --directory="$new")
cd -- "$new"
find . -mindepth 1 -maxdepth 2 -type d \( -perm 0716 -o -perm 2716 \) -exec sh -fuec '
  for path do
    [ -d "$path" ] && [ -L "../$path" ] || continue
    link=$(readlink -- "../$path")
    case $link in /*) link=..$link ;; *) link=../$path ;; esac
    real=$(realpath --canonicalize-missing --relative-base=.. -- "$link")
    case $real in /*|.) continue ;; esac
    [ -d "../$real" ] || continue
    made=.; IFS=/
    for part in $real; do made=$made/$part; [ -d "$made" ] || mkdir -m 0716 -- "$made"; done
    find "$path" -mindepth 1 -maxdepth 1 -print0 |
      xargs -0 -r cp --archive --link --remove-destination --target-directory="$real" --
    rm -rf -- "$path"
  done' sh {} +
find . -mindepth 1 -type d \( -perm 0716 -o -perm 2716 \) -exec sh -euc '
  for path do
    if [ -d "../$path" ] && ! [ -L "../$path" ]; then
      chown --reference="../$path" -- "$path"; chmod --reference="../$path" -- "$path"
      touch --reference="../$path" -- "$path"
    else
      chmod 00755 -- "$path"
    fi
  done' sh {} +
find . -mindepth 1 -type d -exec sh -euc '
  for path do
    if [ -L "../$path" ] || { [ -e "../$path" ] && ! [ -d "../$path" ]; }; then rm -f -- "../$path"; fi
  done' sh {} +
find . -mindepth 1 -name '.wh.*' -prune -exec sh -euc '
  new=$1; shift
  for mark do
    folder=${mark%/*} name=${mark##*/}
    case $name in
      .wh..wh..opq)
        if [ -d "../$folder" ]; then
          find "../$folder" -mindepth 1 -maxdepth 1 ! -name "$new" -print0 | xargs -0 -r rm -rf --
        fi ;;
      .wh..wh.*) ;;
      .wh.|.wh..|.wh...) echo "whiteout without a name: $mark"; exit 3 ;;
      *) rm -rf -- "../$folder/${name#.wh.}" ;;
    esac
    rm -rf -- "$mark"
  done' sh "$new" {} +
find . -mindepth 1 ! -type d -exec sh -euc '
  for path do
    if [ -d "../$path" ] && ! [ -L "../$path" ]; then rm -rf -- "../$path"; fi
  done' sh {} +
# cp can't make a folder that its owner may not write to where there is no /proc; it can give its mode to one that is there.
find . -mindepth 1 -type d ! -perm -0700 -exec sh -euc '
  for path do mkdir -p -- "../$path"; done' sh {} +
cp --archive --link --remove-destination --no-target-directory -- . ..
cd ..
rm -rf -- "$new"
"""


async def apply(layers: tuple[Layer, ...], root: Path, *, limits: unpack.Bounds) -> int:
    """Fills `root` (an empty subvolume) with them; gives the bytes of all uncompressed tars.

    InvalidInput when one is no tar, is not what the config says, or all of them are too large.
    """
    total = 0
    for number, layer in enumerate(layers):
        argv = unpack.tar_argv(*_NO_WHITEOUTS) if number == 0 else _merging()
        done = await unpack.run_tar(layer.path, root, argv, limits.less(total))
        total += done.tar_bytes
        if done.digest != layer.diff_id:
            raise InvalidInput(
                f"layer {number + 1} of the image is not the one that its config names",
                hint="the image was changed or damaged; build or copy it anew",
            )
    return total


def _merging() -> list[str]:
    folder = f".layer-{secrets.token_hex(16)}"
    return [*unpack.located(["sh"]), "-c", _MERGE, "sh", folder, *unpack.tar_argv()]
