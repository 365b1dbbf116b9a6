"""Trains A2C on a gymnax environment, several seeds at once, and writes a run directory.

python experiments/a2c.py --env CartPole-v1 --num-seeds 8
"""

import sys
import time

import common

ALGORITHM = "a2c"


def main(argv: list[str]) -> int:
    """Runs; returns the exit status."""
    begun = time.perf_counter()
    signals = common.Signals()
    try:
        try:
            config, options = common.parse(ALGORITHM, __doc__.splitlines()[0], argv)
            config.validate()
            options.validate()
            device = common.set_device(options.device)
            run_dir = prepare(config, options, device)
        except (ValueError, TypeError) as error:
            return common.fail(error)
        return run(config, options, run_dir, device, signals, begun)
    except KeyboardInterrupt:
        print("interrupted before anything was trained", file=sys.stderr)
        return signals.exit_status


def prepare(config, options, device):
    """Checks all that can be checked before training, then makes the run directory."""
    import jax

    from rljax import a2c, runs

    jax.eval_shape(a2c.init, config, jax.random.key(0))
    run_dir = options.run_dir or common.default_run_dir(config, ALGORITHM, options.seed)
    return runs.create(run_dir, common.config_record(ALGORITHM, config, options, device))


def run(config, options, run_dir, device, signals, begun):
    """Trains, evaluates and writes; returns the exit status."""
    import jax
    import numpy as np

    from rljax import a2c, evaluate

    seeds = list(range(options.seed, options.seed + options.num_seeds))
    keys = jax.vmap(jax.random.key)(np.array(seeds, np.uint32))

    def returns_of(state, updates):
        """Returns [S, N] of full episodes, with keys of their own."""
        found = evaluate.evaluate(
            config,
            state.learner,
            evaluate.evaluation_keys(keys, updates),
            options.eval_episodes,
            options.eval_mode == "greedy",
        )
        return np.asarray(found.returns)

    title = f"A2C · {config.env} · {len(seeds)} seeds · {device}"
    total = config.num_updates * config.batch_size * len(seeds)
    with common.Display(title, total, options.quiet) as display:
        outcome = common.follow(
            a2c.chunks(config, keys), config, options, run_dir, seeds, display, signals, returns_of
        )
    return common.finish(ALGORITHM, config, seeds, run_dir, display, outcome, begun)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
