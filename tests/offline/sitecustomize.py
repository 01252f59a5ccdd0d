"""Put on PYTHONPATH: no process of this Python reaches a network, and every attempt is noted."""

import os
import socket
from pathlib import Path


def _refuse(what: str):
    with Path(os.environ["OFFLINE_LOG"]).open("a") as file:
        file.write(f"{what}\n")
    raise OSError(f"no network here: {what}")


class _Socket(socket.socket):
    def connect(self, address):
        if self.family != socket.AF_UNIX:
            _refuse(f"connect {address}")
        super().connect(address)

    def connect_ex(self, address):
        if self.family != socket.AF_UNIX:
            _refuse(f"connect {address}")
        return super().connect_ex(address)

    def sendto(self, *words):
        if self.family != socket.AF_UNIX:
            _refuse(f"send to {words[-1]}")
        return super().sendto(*words)


def _look_up(host, *rest, **options):
    _refuse(f"look up {host}")


if "OFFLINE_LOG" in os.environ:
    socket.socket = _Socket
    socket.getaddrinfo = _look_up
