"""Environments for what concerns the actors of a Ray cluster that they are in."""

import os
import sys

from host_probes import RewardByAction


def in_actor():
    return sys.argv[0].endswith("default_worker.py")


class OnCpu(RewardByAction):
    """Fails in an actor that could take an accelerator, or several threads."""

    def reset(self, *, seed=None, options=None):
        if in_actor():
            import jax

            names = "JAX_PLATFORMS", "NPROC", "OMP_NUM_THREADS"
            assert [os.environ[name] for name in names] == ["cpu", "1", "1"]
            assert {device.platform for device in jax.devices()} == {"cpu"}
            assert jax.config.jax_numpy_rank_promotion == "raise"  # as in the tests' process
        return super().reset(seed=seed)


class Raising(RewardByAction):
    """Fails at its hundredth step in an actor."""

    steps = 0

    def step(self, action):
        self.steps += 1
        if self.steps == 100 and in_actor():
            raise RuntimeError("the simulator is out of fuel")
        return super().step(action)


class NotInActors(RewardByAction):
    def __init__(self):
        if in_actor():
            raise ValueError("there is no simulator on this machine")
