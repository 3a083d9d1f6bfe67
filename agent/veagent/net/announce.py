"""Tells the overlay where a VE is now: it may have lived on another host, and nobody would look for it here.

VXLAN and bridges learn from what a card sends, and keep that for five minutes. A VE that has just begun may send nothing for as
long. So its ARP announcement is sent to all hosts on its behalf; and it is asked for its address, so that its
answer passes the bridge of this host.
"""

import socket
from ipaddress import IPv4Address

_ARP = 0x0806
_BROADCAST = b"\xff" * 6
_HEAD = b"\x00\x01\x08\x00\x06\x04"
_REQUEST = b"\x00\x01"


def announcement(mac: str, ip: str) -> bytes:
    """An ARP frame from that card to all: this address is mine."""
    return _frame(_mac(mac), _ip(ip), _ip(ip))


def question(mac: str, ip: str, *, asked: str) -> bytes:
    """An ARP frame from that card to all: who has the address `asked`?"""
    return _frame(_mac(mac), _ip(ip), _ip(asked))


def send(device: str, frame: bytes) -> None:
    """Raises OSError."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0) as out:
        out.bind((device, 0))
        out.send(frame)


def _frame(mac: bytes, ip: bytes, asked: bytes) -> bytes:
    ethernet = _BROADCAST + mac + _ARP.to_bytes(2, "big")
    return ethernet + _HEAD + _REQUEST + mac + ip + bytes(6) + asked


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def _ip(text: str) -> bytes:
    return IPv4Address(text).packed
