"""Trains A2C on MuJoCo's environments, each with its preset; needs the extra mujoco.

python experiments/mujoco_envs.py
python experiments/mujoco_envs.py --envs HalfCheetah-v5 --num-seeds 1
"""

import sys

from rljax.cli import suite

ENVS = ("HalfCheetah-v5", "Hopper-v5", "Walker2d-v5", "Swimmer-v5", "Ant-v5")

if __name__ == "__main__":
    sys.exit(suite.main("a2c", __doc__, ENVS, num_seeds=5, run_dir="runs/mujoco"))
