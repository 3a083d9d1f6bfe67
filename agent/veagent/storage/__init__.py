"""Roots of VEs and images on btrfs: `pool` brings the file system up, `roots` and `images` implement the ports."""
