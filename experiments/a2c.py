"""Trains A2C on a gymnax environment, several seeds at once, and writes a run directory.

python experiments/a2c.py --env CartPole-v1 --num-seeds 8
"""

import dataclasses
import sys
import time

import common
from display import Display

ALGORITHM = "a2c"


def main(argv: list[str]) -> int:
    """Runs; returns the exit status."""
    begun = time.perf_counter()
    with common.Signals() as signals:
        try:
            try:
                config, options = common.parse(ALGORITHM, __doc__.splitlines()[0], argv)
                config.validate()
                options.validate()
                device = common.set_device(options.device)
                signals.check()
                run_dir = prepare(config, options, device, signals)
            except (ValueError, TypeError) as error:
                return common.fail(error)
            return train(config, options, run_dir, device, signals, begun)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return signals.exit_status


def prepare(config, options, device, signals):
    """Checks all that can be checked before training, then makes the run directory."""
    import jax

    from rljax import a2c, runs

    jax.eval_shape(a2c.init, config, jax.random.key(0))
    signals.check()
    run_dir = options.run_dir or common.default_run_dir(config, ALGORITHM, options.seed)
    options = dataclasses.replace(options, run_dir=run_dir)
    return runs.create(run_dir, common.config_record(ALGORITHM, config, options, device))


def train(config, options, run_dir, device, signals, begun):
    """Trains, evaluates and writes; returns the exit status."""
    import jax
    import numpy as np

    from rljax import a2c, evaluate

    seeds = list(range(options.seed, options.seed + options.num_seeds))
    keys = jax.vmap(jax.random.key)(np.array(seeds, np.uint32))

    def play(state, updates):
        eval_keys = evaluate.evaluation_keys(keys, updates)
        greedy = options.eval_mode == "greedy"
        return evaluate.evaluate(config, state.learner, eval_keys, options.eval_episodes, greedy)

    title = f"A2C · {config.env} · {len(seeds)} seed{'s' * (len(seeds) > 1)} · {device}"
    total = config.num_updates * config.batch_size * len(seeds)
    with Display(title, total, options.quiet) as display:
        run = common.Run(ALGORITHM, config, options, run_dir, seeds, display, signals, play, begun)
        return common.finish(run, common.follow(run, a2c.chunks(config, keys)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
