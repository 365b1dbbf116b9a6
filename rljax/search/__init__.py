"""Search: good settings with few steps, and how good they are.

    found = sweep.search(Config(env="Acrobot-v1"), {"learning_rate": sweep.log(1e-3, 1e-1)}, "50M")

Points are trained in brackets, with several seeds each: at each rung the poor ones end, on an
interval over their seeds, and the others go on from where they are. The winner is trained anew,
with fresh seeds, beside the runner-up and the settings of before.

    searching   search: a whole search
    options     its options
    axes        values and ranges, some under a condition
    samplers    what chooses the points; optuna_study has Optuna's
    halving     which points of a rung go on
    objectives  returns as scores
    brackets    a search as a state, and the events that change it
    training    its training, in one program or in processes
    verdict     fresh seeds
    store       its files, from which it continues
    directory   a search that is written, and resumed
    follower    its numbers while it is in progress
    report      what it prints and draws
"""
