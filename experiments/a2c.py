"""Trains A2C on a gymnax environment, several seeds at once, and writes a run directory.

python experiments/a2c.py --env CartPole-v1 --num-seeds 8
python experiments/a2c.py --resume RUN_DIR
"""

import sys
import time

import common
from display import Display
from start import fresh, resumed

ALGORITHM = "a2c"


def main(argv: list[str]) -> int:
    """Runs; returns the exit status."""
    return common.main(ALGORITHM, __doc__, argv, prepare, train)


def prepare(asked: common.Asked):
    """Checks all that can be checked before training; a context that gives the `Start`."""
    import jax

    from rljax import a2c

    like = jax.eval_shape(a2c.init_seeds, asked.config, asked.keys)
    asked.signals.check()
    if asked.options.resume:
        return resumed(asked.config, asked.options, asked.device, asked.seeds, like)
    return fresh(ALGORITHM, asked.config, asked.options, asked.device)


def train(asked: common.Asked, start) -> int:
    """Trains, evaluates and writes; returns the exit status."""
    import jax

    from rljax import a2c

    config, seeds = asked.config, asked.seeds
    title = f"A2C · {config.env} · {len(seeds)} seed{'s' * (len(seeds) > 1)} · {asked.device}"
    if start.updates:
        title += f" · from {start.updates * config.batch_size:,} steps each"
    step = config.batch_size * len(seeds)
    done, total = start.updates * step, config.num_updates * step
    with Display(title, done, total, asked.options.quiet) as display:
        run = common.begin(ALGORITHM, asked, start, display)
        making = time.perf_counter()
        states = a2c.init_seeds(config, asked.keys) if start.states is None else start.states
        if start.raised:
            states, row = a2c.begin_row(states)
            if start.in_row:
                common.append_rows(run, jax.device_get(row), speed=0.0)
        chunks = a2c.chunks(config, asked.keys, states)
        return common.finish(run, common.follow(run, start, states, chunks, making))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
