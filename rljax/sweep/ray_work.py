"""What a task of `ray_tasks` does, on its node. Needs no JAX before it has taken over settings."""

import cloudpickle

from rljax.utils import forkserver, nodes


def do(origin: nodes.Origin, packed: bytes) -> tuple[str, list]:
    """A packed `ray_tasks.Task`: (what is wrong with its node, its `results.Progress`, each with
    the numbers of its trials)."""
    if wrong := nodes.take_over(origin):
        return wrong, []
    with forkserver.main_module_left_out():  # Ray's own
        task = cloudpickle.loads(packed)
        steps = list(_in_one_program(task) if task.most else _in_processes(task))
    whole = steps[0][0]._replace(env_steps=sum(step.env_steps for step, _ in steps))
    others = [(step._replace(env_steps=0), numbers) for step, numbers in steps[1:]]
    return "", [(whole, steps[0][1]), *(x for x in others if x[0].result or x[0].failure)]


def _in_one_program(task):
    from rljax.sweep import population
    from rljax.utils import platform

    with platform.computing_on(task.how.device):
        forkserver.take_over(task.settings)
        for step in population.train(task.trials, task.how, most=task.most):
            if step.result:
                numbers = [trial.number for trial in step.result.trials]
                yield step._replace(result=step.result._replace(trials=[])), numbers
            elif step.failure:
                yield step._replace(failure=step.failure.why), [step.failure.trial.number]
            else:
                yield step, []


def _in_processes(task):
    from rljax.utils import preload  # noqa: F401, I001  before anything imports JAX
    from rljax.sweep import trial_pool

    forkserver.take_over(task.settings)
    (trial,), steps = task.trials, []
    with trial_pool.failure_sent(steps.append):
        trial_pool.train_one(steps.append, trial_pool.Job(trial), task.how)
    for step in steps:
        yield step, [trial.number]
