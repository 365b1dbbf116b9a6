"""The clock of simulated A3C, its delays, and the timing of real runs that they are measured in."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import slow_events

from rljax.a3c import delays, events, timing
from rljax.a3c.simulation import SimulationConfig
from rljax.utils.traced import Parsed, joined, split


def run_clock(options, number, key=0, clock=None):
    """(worker [N], version [N], time at which each is published [N])."""

    def step(carry, turn):
        clock, version, key = carry
        key, key_now = jax.random.split(key)
        now = events.find(clock, version)
        clock, passed = events.serve(options, clock, now, key_now, version, turn, jnp.bool_(True))
        return (clock, version + 1, key), (now, passed)

    @jax.jit
    def run(key):
        first = events.start(options, key) if clock is None else clock
        carry = first, jnp.int32(0), key
        _, (now, passed) = jax.lax.scan(step, carry, jnp.arange(number, dtype=jnp.int32))
        return now, passed

    now, passed = run(jax.random.key(key))
    return np.array(now.worker), np.array(now.version), np.cumsum(np.array(passed, float))


def with_measured(options, durations, before):
    """Options with given durations, {name: [W, N]}, of workers that are at places [W, T]."""
    floats, others = split(options)
    made = joined(SimulationConfig, floats, others)
    for name, found in durations.items():
        object.__setattr__(made, name, Parsed((delays.MEASURED,), (found, before)))
    return made


@pytest.mark.parametrize(("num_workers", "in_flight"), [(1, 1), (3, 1), (3, 2), (8, 3)])
@pytest.mark.parametrize("busy", [0.1, 2.0], ids=["an idle holder", "a busy holder"])
def test_the_clock_is_that_of_a_queue_of_events(num_workers, in_flight, busy):
    generator = np.random.default_rng(num_workers)
    means = dict(work=1.0, transit=0.7, service=busy / num_workers, pause=0.2)
    found = {
        name: generator.exponential(mean, (num_workers, 400)).astype(np.float32)
        for name, mean in means.items()
    }
    options = SimulationConfig(num_workers=num_workers, in_flight=in_flight)
    turns = generator.permuted(np.tile(np.arange(num_workers), 350 // num_workers))
    is_turn = turns == np.arange(num_workers)[:, None]
    before = (np.cumsum(is_turn, axis=1) - is_turn).astype(np.int32)
    options = with_measured(options, found, before)
    number = 300
    clock = jax.jit(lambda key: events.start(options, key))(jax.random.key(0))
    shifted = np.roll(before, -(int(clock.first) % before.shape[1]), axis=1)
    starts = np.arange(num_workers) / num_workers * found["work"].mean()
    expected, times = slow_events.simulate(found, shifted, number, in_flight, starts)
    workers, versions, ends = run_clock(options, number, clock=clock)
    assert list(zip(workers.tolist(), versions.tolist())) == expected
    np.testing.assert_allclose(ends, times, rtol=1e-4)
    assert (np.arange(number) - versions).max() > (num_workers > 1)  # else nothing was tested


def staleness(options, number=400):
    _, versions, _ = run_clock(options, number)
    return np.arange(number) - versions


@pytest.mark.parametrize("num_workers", [1, 4])
def test_constant_work_gives_a_constant_staleness(num_workers):
    found = staleness(SimulationConfig(num_workers=num_workers, work="constant:1"))
    assert set(found[num_workers:].tolist()) == {num_workers - 1}


def test_without_durations_workers_are_in_lockstep():
    options = SimulationConfig(num_workers=4, work="constant:0")
    workers, versions, _ = run_clock(options, 40)
    assert workers.tolist() == [0, 1, 2, 3] * 10
    assert versions.tolist() == list(range(40))


def test_a_worker_alone_is_one_version_behind_what_is_on_its_way():
    options = SimulationConfig(num_workers=1, work="constant:1", transit="constant:0.25")
    assert set(staleness(options)[1:].tolist()) == {1}
    far = SimulationConfig(num_workers=1, work="constant:1", transit="constant:3.5", in_flight=8)
    assert set(staleness(far)[8:].tolist()) == {4}


def test_a_slow_worker_is_stale_and_rare():
    options = SimulationConfig(num_workers=4, work="slow:1:10")
    workers, versions, _ = run_clock(options, 2000)
    old = np.arange(2000) - versions
    assert np.mean(workers == 0) == pytest.approx(1 / 31, rel=0.1)
    assert np.median(old[workers == 0][1:]) == pytest.approx(30, abs=2)
    assert np.median(old[workers != 0]) == pytest.approx(2, abs=1)


@pytest.mark.parametrize(
    ("text", "mean"),
    [
        ("2", 2.0),
        ("constant:2", 2.0),
        ("exponential:3", 3.0),
        ("lognormal:2:0.5", 2.0),
        ("pareto:2:4", 2.0),
    ],
)
def test_durations_have_their_mean(text, mean):
    parsed = delays.duration(text)
    many = jnp.zeros(40_000, jnp.int32)
    draw = jax.jit(lambda key: events.draw(parsed, key, jnp.int32(1), jnp.int32(0), many))
    found = np.array(draw(jax.random.key(1)))
    error = found.std() / np.sqrt(len(found))
    assert found.mean() == pytest.approx(mean, abs=5 * error + 1e-6)
    assert delays.mean(parsed) == mean
    if text.startswith("pareto"):
        assert found.min() >= 1.5 - 1e-3  # the scale: mean (1 - 1 / alpha)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("constant:3", {3: 1.0}),
        ("uniform:1:4", dict.fromkeys((1, 2, 3, 4), 0.25)),
        ("geometric:1", {k: 0.5 ** (k + 1) for k in range(12)}),
        ("geometric:0", {0: 1.0}),
    ],
)
def test_staleness_that_is_given(text, expected):
    options = SimulationConfig(num_workers=3, staleness=text)
    draw = jax.jit(
        jax.vmap(lambda key: events.given(options, key, jnp.int32(100), jnp.int32(1000)))
    )
    now = draw(jax.random.split(jax.random.key(2), 20_000))
    old = 1000 - np.array(now.version)
    for value, share in expected.items():
        assert np.mean(old == value) == pytest.approx(share, abs=0.02)
    assert set(np.array(now.worker).tolist()) == {1}
    assert (np.array(now.place) == np.array(now.version) % options.versions).all()
    young = jax.jit(lambda key: events.given(options, key, jnp.int32(0), jnp.int32(0)))
    assert young(jax.random.key(0)).version == 0  # there is no older one


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (dict(work="exponentail:1"), "unknown kind of work 'exponentail': did you mean expon"),
        (dict(work="lognormal:1"), "work = 'lognormal:1': must be lognormal:MEAN:SIGMA"),
        (dict(transit="constant:-1"), "transit = 'constant:-1': MEAN must be at least 0"),
        (dict(service="pareto:1:1"), "MEAN and ALPHA must be MEAN >= 0 and ALPHA > 1"),
        (dict(pause="constant:nan"), "pause = 'constant:nan': MEAN must be at least 0"),
        (dict(staleness="uniform:3:1"), "must be whole numbers, 0 <= LOW <= HIGH"),
        (dict(staleness="constant:0.5"), "K must be a whole number of at least 0"),
        (dict(staleness="exponential:1"), "unknown kind of staleness 'exponential'"),
        (dict(correction="vtrace"), "correction = 'vtrace': does not fit stale = 'gradients'"),
        (dict(stale="data", correction="dc_asgd_c"), "known are none, importance, vtrace"),
        (dict(stale="data", correction="vtarce"), "unknown correction 'vtarce': did you mean vtr"),
        (dict(data_epochs=2), "data_epochs = 2: must be 1 with stale = 'gradients'"),
        (dict(in_flight=0), "in_flight = 0: must be at least 1"),
        (dict(num_workers=0), "num_workers = 0: must be at least 1"),
        (dict(clip_range=0.0), "clip_range = 0.0: must be finite and above 0"),
        (dict(work="measured:nowhere"), "work = 'measured:nowhere': no run that has ended"),
    ],
)
def test_bad_options(setting, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        SimulationConfig(**setting).validate()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("work", [True, None, ("constant", 1)])
def test_a_duration_is_text(work):
    with pytest.raises(TypeError, match=r"must be text such as exponential:0\.5"):
        SimulationConfig(work=work).validate()


def test_timing_gives_back_the_durations(tmp_path):
    """Of a trace that the queue of events makes, of one worker: there nothing is hidden."""
    generator = np.random.default_rng(0)
    number, found = 200, {}
    means = dict(work=1e-3, transit=2e-4, service=10e-4, pause=1e-4)
    for name, mean in means.items():
        found[name] = np.round(generator.uniform(0.5 * mean, 1.5 * mean, (1, number)), 7)
    log, pull, published, taken = timing.empty(), 0.0, 0.0, 0.0
    pushed_before = waited_before = 0.0
    noticing, is_idle, waited, late = 5e-5, [], [], []
    for i in range(number):
        work, transit, service, pause = (found[name][0, i] for name in means)
        could = max(pull + work, taken)  # there is room when the holder has taken the one before
        pushed = could + noticing * (could > pull + work)
        waited.append(could > pull + work)
        taken = max(could + transit, published)
        late.append(taken - published)
        is_idle.append(pushed >= published)
        record = pull, published, taken, taken + service, i % 7
        timing.add(log, (0, pushed_before, waited_before, *record))
        published, pushed_before, waited_before = taken + service, pushed, pushed - pull - work
        pull = could + pause
    seen = timing.durations(log)
    inner = slice(1, number - 1)  # not the first, nor the last
    assert 0.2 < np.mean(is_idle) < 0.8
    assert 0.05 < np.mean(waited) < 0.9
    # Of a gradient that came while the holder was at work, what is left of its transit is seen as
    # service, from when that work was done.
    transit = np.where(is_idle, found["transit"][0], noticing * np.array(waited))
    hidden = np.where(is_idle, 0, np.array(late))
    np.testing.assert_allclose(seen["transit"], transit[inner], atol=1e-9)
    np.testing.assert_allclose(seen["service"], (found["service"][0] + hidden)[inner], atol=1e-9)
    for name in ("work", "pause"):
        np.testing.assert_allclose(seen[name], found[name][0, inner], atol=1e-9)
    assert seen["staleness"].tolist() == [i % 7 for i in range(number)][inner]
    (tmp_path / "summary.json").write_text(json.dumps({"timing": timing.summary(log)}))
    read, before = timing.read(tmp_path, "work")
    np.testing.assert_allclose(read, found["work"][:, inner], atol=1e-6)
    assert before.tolist() == [list(range(number - 2))]
    (tmp_path / "summary.json").write_text("{}")
    with pytest.raises(ValueError, match="no run of A3C with --log-timing"):
        delays.duration(f"measured:{tmp_path}", name="work")


def test_only_the_last_gradients_are_kept():
    log = timing.empty()
    for i in range(timing.SIZE + 10):
        timing.add(log, (0, *[float(i)] * 7))
    assert int(log.count) == timing.SIZE + 10
    assert log.records[:, 3].min() == 10
    assert len(timing.durations(log)["work"]) == timing.SIZE - 2
