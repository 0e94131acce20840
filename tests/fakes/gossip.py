"""Forged gossip packets for a Serf agent: memberlist's protocol, unencrypted."""

import socket

import msgpack

_ALIVE = b"\x04"  # memberlist's net.go: aliveMsg
_TAGS = b"\xff"  # Serf's serf.go: tagMagicByte, before a map
_VERSIONS = bytes([1, 5, 2, 2, 5, 4])  # of memberlist and of Serf: lowest, highest, current


def say_alive(gossip: str, name: str, address: bytes, tags: object) -> None:
    """Send the Serf agent one UDP packet that announces a member as alive.

    Args:
        gossip: The Serf agent's gossip address, host:port.
        name: The member's name.
        address: The member's address, of any length.
        tags: The member's tags, normally a map.
    """
    host, _, port = gossip.rpartition(":")
    alive = {
        "Incarnation": 1,
        "Node": name,
        "Addr": address,
        "Port": int(port),
        "Meta": _TAGS + msgpack.packb(tags, use_bin_type=False),
        "Vsn": _VERSIONS,
    }
    with socket.socket(type=socket.SOCK_DGRAM) as sender:
        sender.sendto(_ALIVE + msgpack.packb(alive, use_bin_type=False), (host, int(port)))
