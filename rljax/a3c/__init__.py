"""Advantage actor-critic, asynchronous (Mnih et al. 2016, arXiv 1602.01783).

    worker 0   environments, parameters  --- gradients ---> queue 0 ---+
    worker 1   environments, parameters  --- gradients ---> queue 1 ---+--> ParameterHolder
      ...                                                              |    one at a time, as
    worker N                             --- gradients ---> queue N ---+    they come
        ^                                                                      |
        +---------- SharedParameters: the newest, with its version <-----------+

Each worker is a process that, for ever: pulls the newest parameters, acts for `num_steps` steps,
computes the gradient of the actor-critic loss and pushes it, without waiting for the others. The
holder is the process that called `chunks`. It applies each gradient as it comes, with statistics
of RMSProp that all share, and publishes a new version.

    training     init, chunks, train, in the holder's process
    holder       ParameterHolder: applies gradients
    counts       counts of gradients, and rows of metrics
    supervisor   the holder's bookkeeping of its workers
    worker       what a worker does
    worker_pool  starting, watching, restarting and stopping workers
    messages     what a worker sends, and the vectors that parameters and gradients become
    transport    Queue and SharedParameters: what carries it
    timing       how long the parts of a gradient's way take, in a run
    corrections  what is done about staleness

Workers on other machines, which Ray starts there:

    ray_pool     what worker_pool is, with actors of a Ray cluster
    ray_relays   the newest parameters on all nodes that have workers
    ray_actors   what runs on the nodes: workers, and relays of parameters
    network      what transport is, over TCP

The same without processes, as one program:

    simulation   SimulationConfig
    simulated    init, update, train, chunks
    events       the simulated clock: whose gradient comes next, and how old it is
    delays       distributions of durations
    stale_steps  a step of the learner, on stale gradients or stale data
"""

from importlib import import_module

_HOMES = {
    "SimulationConfig": "simulation",
    "WorkerError": "worker_pool",
    "ParameterHolder": "holder",
    "State": "holder",
    "Status": "supervisor",
    **dict.fromkeys("chunks in_one_program init init_seeds summary train".split(), "training"),
}

__all__ = list(_HOMES)


def __getattr__(name):
    if name in _HOMES:
        return getattr(import_module(f"rljax.a3c.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'rljax.a3c' has no attribute {name!r}")


def __dir__():
    return __all__
