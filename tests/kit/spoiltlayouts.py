"""OCI layouts that are not what they say."""

import gzip

from kit.oci import CONFIG, LAYER, Layout, digest_of
from kit.ociimages import ROOT


def broken(change):
    """A layout that `change` gets to spoil: it is called with layout, config's and layer's descriptors."""
    layout = Layout()
    config = layout.put_json(
        {
            "os": "linux",
            "architecture": "amd64",
            "config": {},
            "rootfs": {"diff_ids": [digest_of(ROOT)]},
        },
        CONFIG,
    )
    layer = layout.put(gzip.compress(ROOT, mtime=0), LAYER)
    change(layout, config, layer)
    return layout


def damaged(which):
    def change(layout, config, layer):
        layout.add_manifest(config, [layer])
        digest = {"layer": layer, "config": config, "manifest": layout.manifests[0]}[which][
            "digest"
        ]
        path = f"blobs/sha256/{digest.removeprefix('sha256:')}"
        content = layout.files[path]
        layout.files[path] = content[:-1] + bytes([content[-1] ^ 1])

    return change
