"""Packets that a stranger sends to a Serf agent: the gossip of memberlist, unencrypted."""

import socket

import msgpack

_ALIVE = b"\x04"  # memberlist's net.go: aliveMsg
_TAGS = b"\xff"  # Serf's serf.go: tagMagicByte, before a map
_VERSIONS = bytes([1, 5, 2, 2, 5, 4])  # of memberlist and of Serf: lowest, highest, present


def say_alive(gossip: str, name: str, address: bytes, tags: object) -> None:
    """Tell the agent at host:port in one UDP packet that a member is alive.

    Args:
        gossip: Where the agent gossips.
        name: The member's name.
        address: Its address, of any number of bytes.
        tags: Its tags, which should be a map.
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
