"""Trains A2C, several seeds at once on gymnax's environments, and writes a run directory.

python experiments/a2c.py --env CartPole-v1 --num-seeds 8
python experiments/a2c.py --env gymnasium/LunarLander-v3 --num-envs 16 --vectorization sync
python experiments/a2c.py --resume RUN_DIR
"""

import sys
import time

import common
import flags
import in_turn
from display import Display
from start import Start, fresh, resumed

from rljax.utils import forkserver

ALGORITHM = "a2c"


def main(argv: list[str]) -> int:
    """Runs; returns the exit status."""
    return common.main(ALGORITHM, __doc__, argv, prepare, train, settle=settle)


def settle(config, options):
    """What the flags come to; starts the server that environments' processes are forked from."""
    if config.vectorization == "async":
        flags.set_xla_flags(options.device)  # the server takes them over
        forkserver.start_server()  # it imports while this process does
    import jax

    # Where Python steps the environments, handing each call to another thread costs more than it
    # gains; calls of half a second do not notice.
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    return config, options


def prepare(asked: common.Asked):
    """Checks all that can be checked before training; a context that gives the `Start`."""
    import jax

    from rljax import a2c

    like = jax.eval_shape(a2c.init_seeds, asked.config, asked.keys)
    asked.signals.check()
    if asked.options.resume:
        return resumed(asked.config, asked.options, asked.device, asked.seeds, like)
    return fresh(ALGORITHM, asked.config, asked.options, asked.device)


def train(asked: common.Asked, start: Start) -> int:
    """Trains, evaluates and writes; returns the exit status."""
    from rljax import a2c, rollout
    from rljax.envs.host_envs import HostEnv

    env, _ = rollout.make_env_and_network(asked.config)
    states = a2c.init_seeds(asked.config, asked.keys) if start.states is None else start.states
    train = _train_in_turn if isinstance(env, HostEnv) else _train_at_once
    return train(asked, start, states)


def _train_at_once(asked, start, states):
    """All seeds in one program."""
    import jax

    from rljax import a2c

    config, seeds, making = asked.config, asked.seeds, time.perf_counter()
    title = f"A2C · {config.env} · {len(seeds)} seed{'s' * (len(seeds) > 1)} · {asked.device}"
    if start.updates:
        title += f" · from {start.updates * config.batch_size:,} steps each"
    step = config.batch_size * len(seeds)
    done, total = start.updates * step, config.num_updates * step
    with Display(title, done, total, asked.options.quiet) as display:
        failures = (forkserver.EnvError,)
        run = common.begin(ALGORITHM, asked, start, display, failures=failures)
        if start.raised:
            states, row = a2c.begin_row(states)
            if start.in_row:
                common.append_rows(run, jax.device_get(row), speed=0.0)
        chunks = a2c.chunks(config, asked.keys, states)
        return common.finish(run, common.follow(run, start, states, chunks, making))


def _train_in_turn(asked, start, states):
    """Environments that Python steps."""
    from rljax import a2c

    config = asked.config
    title = f"A2C · {config.env} · {config.num_envs} environments ({config.vectorization})"

    def chunks(run, state, index):
        return a2c.chunks(config, None, state)

    return in_turn.train(
        ALGORITHM,
        asked,
        start,
        states,
        f"{title} · {asked.device}",
        chunks,
        a2c.begin_row,
        failures=(forkserver.EnvError,),
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
