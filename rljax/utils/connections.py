"""Connections between the processes of a run, over TCP: both ends prove that they know its key, by
HMAC of random numbers, before anything else is read. What is sent is not encrypted.
"""

import contextlib
import hashlib
import hmac
import json
import secrets
import socket
import struct
import threading
from collections.abc import Callable

SILENCE = 60  # seconds without an answer, after which a connection is broken
HANDSHAKE = 10.0  # seconds for two processes to prove who they are
_NONCE = 32  # bytes; those of a proof, too
_LONGEST_HELLO = 2**16


def listen(host: str) -> socket.socket:
    """A socket that listens at a free port of this address alone."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, 0), family=family, backlog=1024)


def connect(address: tuple[str, int], key: bytes, hello: dict) -> socket.socket:
    """Connects to a holder that knows the key, and says hello. Raises an OSError if it cannot."""
    sock = socket.create_connection(address, timeout=HANDSHAKE)
    try:
        theirs, ours = _exactly(sock, _NONCE), secrets.token_bytes(_NONCE)
        sock.sendall(ours + _proof(key, b"worker", theirs, ours))
        _check(_exactly(sock, _NONCE), _proof(key, b"holder", theirs, ours))
        text = json.dumps(hello).encode()
        sock.sendall(struct.pack("=I", len(text)) + text)
    except OSError:
        sock.close()
        raise
    sock.settimeout(None)
    return _tuned(sock)


def admit(sock: socket.socket, key: bytes) -> dict:
    """What a process that connected says of itself. Raises an OSError if it does not know the key,
    or takes too long."""
    sock.settimeout(HANDSHAKE)
    ours = secrets.token_bytes(_NONCE)
    sock.sendall(ours)
    theirs = _exactly(sock, _NONCE)
    _check(_exactly(sock, _NONCE), _proof(key, b"worker", ours, theirs))
    sock.sendall(_proof(key, b"holder", ours, theirs))
    (length,) = struct.unpack("=I", _exactly(sock, 4))
    if length > _LONGEST_HELLO:
        raise ConnectionError("too long a hello")
    hello = json.loads(_exactly(sock, length))
    sock.setblocking(False)
    _tuned(sock)
    return hello


def accept(
    listener: socket.socket, key: bytes, welcome: Callable[[socket.socket, dict], None]
) -> None:
    """Starts a thread that admits processes until the listener is shut down, each in a thread, as
    one may be silent; `welcome` is called with a connection and its hello."""

    def one(sock):
        try:
            welcome(sock, admit(sock, key))
        except (OSError, ValueError):
            sock.close()

    def all_of_them():
        with contextlib.suppress(OSError):  # it was shut down
            while True:
                sock, _ = listener.accept()
                threading.Thread(target=one, args=(sock,), daemon=True).start()

    threading.Thread(target=all_of_them, daemon=True).start()


def _proof(key, who, *nonces):
    return hmac.digest(key, who + b"".join(nonces), hashlib.sha256)


def _check(given, expected):
    if not hmac.compare_digest(given, expected):
        raise ConnectionError("the other process does not know the key of the run")


def _exactly(sock, number):
    parts = b""
    while len(parts) < number:
        part = sock.recv(number - len(parts))
        if not part:
            raise ConnectionError("the connection ended")
        parts += part
    return parts


def _tuned(sock):
    """Sends at once, and notices where the other machine is gone without a word."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, SILENCE // 6)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, SILENCE // 6)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 5)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENCE * 1000)
    return sock
