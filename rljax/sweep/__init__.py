"""Sweeps: many trials of many settings, and one tidy table of their metrics.

    table = sweep.run(Config(), {"learning_rate": sweep.log(1e-4, 1e-2, 16)}, seeds=range(10))

A point is a value for each setting that varies, a trial a point with a seed. Trials that differ in
floats and seeds alone are a group: with environments in JAX one compiled program trains many of a
group at once, on all local devices; in A3C, and where Python steps the environments, each trial is
trained in a process.

    points      axes of settings, and the points made of them
    trials      points and seeds as trials, and their groups
    running     run, chunks: a whole sweep
    population  a group as one vmapped program
    programs    what is compiled for it
    trial_pool  a group in processes
    results     the tidy table
    options     the options of a sweep
    directory   a sweep that is written, and resumed
    follower    a sweep in progress
    journal     its table as it grows
    joining     a sweep that several processes work on
    ownership   which of them trains what
    parts       the parts of the table that they write
    report      its ranking and figures
"""

from importlib import import_module

_NAMES = {
    "journal": "Journal",
    "options": "SweepOptions",
    "points": "Range describe grid latin_hypercube linear log random",
    "results": "Failure Progress Result columns read",
    "running": "FailedError check chunks run",
    "trials": "Group Trial plan",
}
_HOMES = {
    name: f"rljax.sweep.{module}" for module, names in _NAMES.items() for name in names.split()
}
_HOMES |= {"search": "rljax.search.searching", "When": "rljax.search.axes"}

__all__ = list(_HOMES)


def __getattr__(name):
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'rljax.sweep' has no attribute {name!r}")


def __dir__():
    return __all__
