"""Checkpoints: folders of arrays that can tell whether they are whole.

    checkpoints/000000500000/     named by the environment steps of each seed
        manifest.json             what is in it; the SHA-256 of every other file and of itself
        state.safetensors         the arrays of a pytree, each named by its path in the tree

A checkpoint is written beside its place, to the disk, and renamed. Loading verifies every byte
against the manifest, unpickles nothing and executes nothing, and trusts nothing in the manifest:
file names stay inside the folder, and every entry has the form that it must have.
"""

import errno
import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rljax.utils import atomic_io, errors, verified
from rljax.utils.verified import DamagedError, is_mark, sha256

FORMAT = 1  # of the folder; another one is refused

_SUFFIX = ".safetensors"
_SUM, _END = b',\n "sha256": "', b"\n}\n"
_PLAIN = frozenset(
    "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64".split()
)
_NOT_THERE = {
    getattr(errno, name) for name in "ENOENT ENOTDIR EISDIR ELOOP EINVAL ENAMETOOLONG ENXIO".split()
}
_DEEPEST = 64  # parts of a path in a tree


def folder(run_dir: Path, env_steps: int) -> Path:
    """The folder of the checkpoint after this number of environment steps of each seed."""
    return Path(run_dir) / "checkpoints" / f"{env_steps:012d}"


def existing(run_dir: Path) -> list[int]:
    """The environment steps of all checkpoints, whole or not, newest last."""
    parent = Path(run_dir) / "checkpoints"
    try:
        names = os.listdir(parent)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise ValueError(f"{parent} cannot be read ({error.strerror})") from error
    return sorted(int(name) for name in names if name.isascii() and name.isdecimal())


def save(path: Path, trees: Mapping[str, Any], facts: Mapping) -> None:
    """Saves pytrees of arrays, such as an `AgentState`, as one checkpoint.

    Args:
        trees: pytrees by the names of their files, without suffix.
        facts: JSON that goes into the manifest; not "format", "files" or "sha256".

    Raises:
        ValueError: such a fact, a name that no file can have, or two leaves with the same path.
        WriteError: as `atomic_io.write_folder` does.
    """
    write(path, {name: flatten(tree) for name, tree in trees.items()}, facts)


def load(path: Path) -> tuple[dict, dict[str, dict[str, np.ndarray]]]:
    """(manifest, arrays of each tree by path, as `restore` and `nest` take them), verified. Raises
    DamagedError if the checkpoint is not whole, ValueError if it has another format."""
    manifest = _unseal(path / "manifest.json")
    trees = {}
    for name, wanted in manifest["files"].items():
        data = _read(path / name, wanted["bytes"])
        if sha256(data) != wanted["sha256"]:
            raise DamagedError(f"{path / name} is damaged: its SHA-256 is not the manifest's")
        trees[name.removesuffix(_SUFFIX)] = _arrays(path / name, data)
    return manifest, trees


def newest(
    run_dir: Path, check: Callable[[Path, dict, dict], None] = lambda path, manifest, trees: None
) -> tuple[dict, dict[str, dict[str, np.ndarray]], list[str]]:
    """(manifest, arrays of each tree, what is wrong with newer ones) of the newest whole one.
    Raises ValueError, which says what is wrong with each, if there is none.

    Args:
        check: raises DamagedError for damage that it finds in a folder, manifest and trees.
    """
    problems = {}
    for env_steps in reversed(existing(run_dir)):
        path = folder(run_dir, env_steps)
        try:
            manifest, trees = load(path)
            check(path, manifest, trees)
            return manifest, trees, list(problems)
        except DamagedError as error:
            problems[str(error)] = None
    why = "; ".join(problems) or "there are none"
    raise ValueError(f"no whole checkpoint in {str(run_dir)!r}: {why}")


def restore(arrays: Mapping[str, np.ndarray], like: Any, new: Collection[str] = frozenset()) -> Any:
    """The pytree that these arrays were saved from.

    Args:
        like: a pytree of the same structure, of arrays or `jax.ShapeDtypeStruct`s.
        new: parts of paths; leaves with such a part become zeros where a checkpoint lacks them.

    Raises:
        ValueError: the arrays are of another tree; the message names the first leaf that differs.
    """
    import jax

    from rljax.utils import pytrees

    saved = dict(_typed(name, array) for name, array in arrays.items())
    wanted = dict(pytrees.named_leaves(like))
    for name, leaf in wanted.items():
        if name not in saved and not set(new).isdisjoint(name.split("/")):
            saved[name] = np.zeros(leaf.shape, leaf.dtype)
    for name in [*wanted, *saved]:
        here, there = (_describe(leaves.get(name)) for leaves in (saved, wanted))
        if here != there:
            raise ValueError(f"the saved {name} is {here}, not {there}")
    return jax.tree.structure(like).unflatten([saved[name] for name in wanted])


def nest(arrays: Mapping[str, np.ndarray]) -> dict:
    """The arrays as nested dicts by the parts of their paths; random keys as raw data. Raises
    ValueError if a path leads through a leaf, or is nested too deeply."""
    tree = {}
    for name, array in arrays.items():
        *above, last = name.partition("|")[0].split("/")
        if len(above) >= _DEEPEST:
            raise ValueError(f"{name[:80]!r}... is nested too deeply in the tree")
        inner = tree
        for part in above:
            inner = inner.setdefault(part, {})
            if not isinstance(inner, dict):
                raise ValueError(f"{name!r} lies below a leaf of the tree")
        if last in inner:
            raise ValueError(f"{name!r} is both a leaf and a part of a path in the tree")
        inner[last] = _typed(name, array, keys=False)[1]
    return tree


def write(path: Path, trees: Mapping[str, Mapping], facts: Mapping) -> None:
    """`save` for trees from `flatten`."""
    import safetensors.numpy

    contents = {f"{name}{_SUFFIX}": safetensors.numpy.save(a) for name, a in trees.items()}
    for name in contents:
        if not _is_plain_name(name):
            raise ValueError(f"a tree's name becomes a file's, which {name!r} cannot be")
    sums = {name: verified.mark(d) for name, d in contents.items()}
    if taken := {"format", "files", "sha256"} & set(facts):
        raise ValueError(f"facts = {dict(facts)}: a manifest has its own {' and '.join(taken)}")
    contents["manifest.json"] = _seal({"format": FORMAT, "files": sums, **facts})
    atomic_io.write_folder(path, contents)


def _seal(facts):
    """A JSON file that ends with the SHA-256 of the rest."""
    return _with_sum(atomic_io.json_bytes(facts, indent=1).removesuffix(_END))


def _with_sum(begin):
    """A JSON object of several lines, without its end, and the SHA-256 of it with its end."""
    return begin + _SUM + sha256(begin + _END).encode() + b'"' + _END


def _unseal(path):
    """The manifest, verified as the text that it is."""
    data = _read(path)
    is_whole = _with_sum(data.rpartition(_SUM)[0]) == data
    try:
        facts = atomic_io.parse_json(data)
        is_known = facts["format"] == FORMAT and type(facts["format"]) is type(FORMAT)
    except errors.WRONG:
        raise DamagedError(f"{path} is damaged: it is no manifest") from None
    if not is_whole:
        raise DamagedError(f"{path} is damaged: its SHA-256 is not that of its contents")
    if not is_known:
        found = " ".join(str(facts["format"]).split())[:80]
        raise ValueError(f"{path}: format {found}, not {FORMAT}: of another version")
    listed = facts.get("files")
    if not isinstance(listed, dict) or not all(map(is_mark, listed.values())):
        raise DamagedError(f"{path} is damaged: it lacks the files, or their bytes and SHA-256")
    for name in listed:
        if not _is_plain_name(name):
            why = f"{name[:80]!r} is no name of a file in its folder"
            raise DamagedError(f"{path} is damaged: {why}")
    return facts


def _is_plain_name(name):
    is_plain = name.endswith(_SUFFIX) and not name.startswith(".") and len(name) <= 200
    return is_plain and name.isprintable() and not {"/", "\\"} & set(name)


def _arrays(path, data):
    """The arrays of a safetensors file by their names."""
    import safetensors.numpy

    try:
        return safetensors.numpy.load(data)
    except Exception as error:  # of many kinds, for a header can be wrong in many ways
        why = " ".join(str(error).split())[:200]
        raise DamagedError(f"{path} is damaged: it holds no arrays ({why})") from error


def _read(path, size=None):
    """A file's bytes. It must have `size` of them; a manifest may have any number."""
    try:
        with atomic_io.opened(path) as file:
            there = os.fstat(file.fileno()).st_size
            if size is None and there > atomic_io.LARGEST:
                raise DamagedError(f"{path} is damaged: it has {there} bytes")
            if size not in (None, there):
                raise DamagedError(f"{path} has {there} bytes, not {size}")
            return file.read(there)
    except OSError as error:
        if error.errno in _NOT_THERE:
            raise DamagedError(f"{path} cannot be read ({error.strerror})") from error
        # Such as a permission: no damage, and nothing to put aside.
        raise ValueError(f"{path} cannot be read ({error.strerror})") from error


def flatten(tree: Any) -> dict[str, np.ndarray]:
    """Arrays of a pytree by path. Types that safetensors lacks are stored as unsigned integers,
    with the type in the name: "path|threefry2x32" for random keys, "path|bfloat16"."""
    import jax

    from rljax.utils import pytrees

    arrays = {}
    for name, leaf in pytrees.named_leaves(jax.device_get(tree)):
        if "|" in name:
            raise ValueError(f"a leaf of the tree has a '|' in its path {name!r}")
        if pytrees.is_key(leaf):
            name, leaf = f"{name}|{jax.random.key_impl(leaf)}", jax.random.key_data(leaf)
        array = np.array(leaf, order="C")  # safetensors writes other orders wrongly
        if array.dtype.name not in _PLAIN:
            name, array = f"{name}|{array.dtype.name}", array.view(f"uint{8 * array.itemsize}")
        if name in arrays:
            raise ValueError(f"two leaves of the tree have the path {name!r}")
        arrays[name] = array
    return arrays


def _typed(name, array, keys=True):
    """(path, leaf) from a name and an array of `flatten`."""
    import jax

    path, _, kind = name.partition("|")
    try:
        if kind and hasattr(jax.numpy, kind):
            array = array.view(jax.numpy.dtype(kind))
        elif kind and keys:
            array = jax.random.wrap_key_data(array, impl=kind)
    except (ValueError, TypeError) as error:
        why = " ".join(str(error).split())
        raise ValueError(f"{path} cannot be of kind {kind!r}: {why}") from error
    return path, array


def _describe(leaf):
    return "absent" if leaf is None else f"{leaf.dtype}{list(leaf.shape)}"
