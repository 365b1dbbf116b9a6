"""What verifies a file: its length and its SHA-256, recorded elsewhere."""

import hashlib
import re
from typing import Any


class DamagedError(ValueError):
    """A file is not what was saved. The message names file and damage."""


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def mark(data: bytes) -> dict:
    """What is recorded of a file: {"bytes": its length, "sha256": its sum}."""
    return {"bytes": len(data), "sha256": sha256(data)}


def is_mark(wanted: Any) -> bool:
    """Whether this is of the form of `mark`."""
    if not isinstance(wanted, dict) or not isinstance(wanted.get("sha256"), str):
        return False
    return is_count(wanted.get("bytes")) and bool(re.fullmatch("[0-9a-f]{64}", wanted["sha256"]))


def is_count(number: Any) -> bool:
    """Whether this is a whole number from 0 to 2**63."""
    return type(number) is int and 0 <= number < 2**63
