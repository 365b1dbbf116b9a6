"""A trained policy as two files, from which a program without JAX plays it.

Arrays, float32, are in POLICY.safetensors:

    params.params.PATH     the network's parameters: of a layer L, L.kernel [I, O] and L.bias [O]
    obs_moments.mean, var  [*obs_shape] of observations, if `normalize_observations`
    carry.PATH             what is carried to the first step of an episode, if there is a core

POLICY.json holds "config", the settings as in config.json; "seed" and "env_steps" of the policy;
and "policy", what the environment adds to the settings:

    torso         "MLP", "CNN", or the name of a user's own
    channels      of a CNN, the axis of an image's channels: "last", "first", or "none" of [H, W]
    convolutions  of a CNN, [channels of its output, width K of its kernel, stride S] of each
    hidden_sizes, activation  of a CNN; "config" need not have them
    observation   of the environment: a `spaces.Observation` with the name of its class as "kind"
    action_space  a `spaces.ActionSpace` in the same form; infinite bounds are "inf" and "-inf"
    eps, clip     of `normalize_observations`

A user's own torso or core is named in "config"; what follows is of those named there by a word.
Names in backquotes are settings in "config", or paths of layers. The greedy action for one
observation:

Encoding. Observations are those of the environment with its `wrappers`: `mask_velocity` has made
the velocities 0. Numbers are float32 times "scale". OneHot has a 1 in n[i] numbers at position
x[i] - start[i], for each i in turn. Parts are encoded, flattened and joined, in their order. With
`frame_stack` N, the last N are joined, the oldest first; at an episode's start N times the first.
They are joined along the last axis, after a grey image [H, W] of a scale other than 1 became
[H, W, 1]; or along the first axis of images [C, H, W] with C < min(H, W).

Standardisation. x = clip((x - mean) / sqrt(var + eps), -clip, clip).

Torso, `actor_torso`. dense(L, x) = x @ L.kernel + L.bias. An MLP flattens x and then applies
x = f(dense(Dense_i, x)) for each i of `hidden_sizes`, where f is the `activation`; gelu is
0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))), silu x sigmoid(x), and elu expm1(x) for x < 0,
else x. A CNN makes x of shape [H, W, C]. For each of its `convolutions` it makes patches of the
K x K pixels from every S-th on, in both directions and where they are all there, row by row, with
the C channels of each in turn: [(H - K) // S + 1, (W - K) // S + 1, K K C]; then
x = f(dense(conv_i, patches)), where `conv_i` is `conv` if it is the only one. Then comes an MLP,
`MLP_0`.

Core, `actor_core`, if `core` is not "none". Its inputs are the torso's features, then of
`core_inputs` the last action and then the last reward, in this order whatever theirs is. With
x = dense(inputs, inputs) and H = `core_size`, in blocks of H:

    lstm: carry (c, h) = carry.cores.0.0 and .1. i, f, g, o = x + h @ recurrent.kernel;
          c = sigmoid(f) c + sigmoid(i) tanh(g); h = sigmoid(o) tanh(c)
    gru:  carry h = carry.cores.0.0. r, z, n of x and of y = dense(recurrent, h);
          r = sigmoid(x_r + y_r); z = sigmoid(x_z + y_z); n = tanh(x_n + r y_n);
          h = (1 - z) n + z h

h is the output, and what is carried to the next step. cores.1 is the critic's; with `shared_torso`
there is no other core and no other torso than the actor's. The last reward is that of the step
before, as the environment gave it. The last action is one-hot, [max(nvec)] for each of a
MultiDiscrete in turn; of a Box, `mean` below, before it is clipped or squashed. At the first step
of an episode, however the one before ended, the carry is carry.PATH, whose last_action and
last_reward are zeros.

Head. out = dense(actor_head, x).

    Discrete       the action is argmax(out), where invalid actions have -inf
    MultiDiscrete  argmax of each row of out, [number of actions, max(nvec)], where invalid actions,
                   and those of the i-th row from nvec[i] on, have -inf
    Box            mean = out; the action is clip(mean, low, high), with `action_bounds` "clip", or
                   low + (high - low) (1 + tanh(mean)) / 2 with "tanh"

Actions are numbered from 0 (gymnasium's Discrete can start elsewhere), and of the space's "shape".
The value is dense(critic_head, x), of the critic's torso and core. With `heads` "q", out are the
values of actions: there is no critic, and the value is max(out).
"""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import safetensors.numpy

from rljax import networks, normalization, rollout
from rljax.config import Config
from rljax.envs.interface import EnvSpec
from rljax.envs.spaces import Parts
from rljax.networks import torsos
from rljax.runs import records
from rljax.types import TrainState
from rljax.utils import atomic_io, pytrees


def write(path: Path, config: Config, learner: TrainState, facts: dict) -> None:
    """Writes the two files, the arrays to `path`.

    Args:
        learner: of one agent, trained with this config.
        facts: what else the JSON tells.

    Raises:
        ValueError, TypeError: the environment or the network cannot be made.
        WriteError: a file could not be written.
    """
    env, network = rollout.make_env_and_network(config)
    moments = learner.obs_moments
    first = networks.initial_carry(network, 1)
    tree = {
        "params": learner.params,
        "obs_moments": {"mean": moments.mean, "var": moments.var} if moments else {},
        "carry": jax.tree.map(lambda x: x[0], first),
    }
    arrays = {name.replace("/", "."): np.array(x) for name, x in pytrees.named_leaves(tree)}
    policy = describe(config, env.spec)
    record = {"config": records.config_record(config), "policy": policy, **facts}
    atomic_io.write(path, safetensors.numpy.save(arrays))
    atomic_io.write_json(path.with_suffix(".json"), record)


def describe(config: Config, spec: EnvSpec) -> dict:
    """What an environment adds to the settings of its policy: "policy" in the JSON.

    Args:
        spec: of the config's environment.
    """
    torso, observation = torsos.choose(config, spec), spec.observation
    if config.frame_stack > 1:
        one = rollout.make_env(dataclasses.replace(config, frame_stack=1))
        observation = one.spec.observation
    record = {"torso": torso.name, **(torso.settings if torso.name == "CNN" else {})}
    record |= {"observation": _space(observation), "action_space": _space(spec.action_space)}
    if config.normalize_observations:
        record |= {"eps": normalization.EPSILON, "clip": normalization.CLIP}
    return record


def _space(space):
    fields = space._asdict()
    if isinstance(space, Parts):
        fields["parts"] = [_space(part) for part in space.parts]
    return {"kind": type(space).__name__, **fields}
