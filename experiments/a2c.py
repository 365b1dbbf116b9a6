"""Trains A2C on a gymnax environment, several seeds at once, and writes a run directory.

python experiments/a2c.py --env CartPole-v1 --num-seeds 8
python experiments/a2c.py --resume RUN_DIR
"""

import contextlib
import sys
import time

import common
import flags
from display import Display
from signals import Signals
from start import fresh, resumed

from rljax import files

ALGORITHM = "a2c"


def main(argv: list[str]) -> int:
    """Runs; returns the exit status."""
    begun = time.perf_counter()
    with Signals() as signals, contextlib.ExitStack() as stack:
        try:
            try:
                config, options = flags.parse(ALGORITHM, __doc__.splitlines()[0], argv)
                config.validate()
                options.validate()
                device = flags.set_device(options.device)
                signals.check()
                seeds = list(range(options.seed, options.seed + options.num_seeds))
                keys = common.seed_keys(seeds)
                start = stack.enter_context(prepare(config, options, device, seeds, keys, signals))
            except (ValueError, TypeError) as error:
                return flags.fail(error)
            if start.complete:
                print(f"{start.run_dir} is complete: there is nothing left to do")
                return 0
            return train(config, options, start, seeds, keys, device, signals, begun)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return signals.exit_status
        except files.WriteError as error:
            print(f"error: {error}; --resume goes on from what was saved", file=sys.stderr)
            return 1


def prepare(config, options, device, seeds, keys, signals):
    """Checks all that can be checked before training; a context that gives the `Start`."""
    import jax

    from rljax import a2c

    like = jax.eval_shape(a2c.init_seeds, config, keys)
    signals.check()
    if options.resume:
        return resumed(config, options, device, seeds, like)
    return fresh(ALGORITHM, config, options, device)


def train(config, options, start, seeds, keys, device, signals, begun):
    """Trains, evaluates and writes; returns the exit status."""
    import jax

    from rljax import a2c, evaluate

    def play(states, updates):
        eval_keys = evaluate.evaluation_keys(keys, updates)
        greedy = options.eval_mode == "greedy"
        return evaluate.evaluate(config, states.learner, eval_keys, options.eval_episodes, greedy)

    title = f"A2C · {config.env} · {len(seeds)} seed{'s' * (len(seeds) > 1)} · {device}"
    if start.updates:
        title += f" · from {start.updates * config.batch_size:,} steps each"
    step = config.batch_size * len(seeds)
    done, total = start.updates * step, config.num_updates * step
    with Display(title, done, total, options.quiet) as display:
        run = common.Run(
            algorithm=ALGORITHM,
            config=config,
            options=options,
            run_dir=start.run_dir,
            seeds=seeds,
            display=display,
            signals=signals,
            evaluate=play,
            progress=start.progress,
            begun=begun - start.progress.wall_seconds,
        )
        making = time.perf_counter()
        states = a2c.init_seeds(config, keys) if start.states is None else start.states
        if start.raised:
            states, row = a2c.begin_row(states)
            if start.in_row:
                common.append_rows(run, jax.device_get(row), speed=0.0)
        chunks = a2c.chunks(config, keys, states)
        return common.finish(run, common.follow(run, start, states, chunks, making))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
