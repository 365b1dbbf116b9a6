"""The clock of simulated A3C once more, as a queue of events in Python."""

import heapq
import itertools

PUBLISHED, PULL, PUSH, ARRIVAL = range(4)  # at one moment, in this order


def simulate(durations, before, number, in_flight, starts):
    """The first gradients that are applied, as (worker, version of its parameters), and the time at
    which each is published.

    Args:
        durations: {work, transit, service, pause: [W, N]}, used again and again.
        before: [W, T] where in them a worker is after as many gradients, used again and again.
        starts: [W] when workers pull for the first time.
    """
    queue, tie, workers = [], itertools.count(), range(len(starts))
    done, times, waiting = [], [], []
    pulls, pushes, begun = ([0] * len(starts) for _ in range(3))
    pulled = {}  # worker: when, for a gradient whose work is not known yet
    pushed = {}  # (worker, gradient): when, of those whose transit is not known yet
    last = [0.0] * len(starts)  # arrival of a worker
    version, turn, busy = 0, 0, False
    held = [[] for _ in workers]  # versions pulled, of gradients not applied yet

    def duration(name, worker, ahead):
        place, row = before[worker][turn % len(before[worker])], durations[name][worker]
        return row[(place + ahead) % len(row)]

    works, pauses = (
        [[duration(name, worker, i) for i in range(in_flight)] for worker in workers]
        for name in ("work", "pause")
    )
    transits = [[duration("transit", worker, 0)] for worker in workers]

    def add(time, kind, worker):
        heapq.heappush(queue, (time, kind, next(tie), worker))

    def arrive(worker, time, now):
        last[worker] = max(last[worker], time)
        if last[worker] > now:
            add(last[worker], ARRIVAL, worker)
        else:
            waiting.append((last[worker], worker))

    def serve(now):
        nonlocal busy, turn
        busy = True
        waiting.sort()
        _, worker = waiting.pop(0)
        add(now + duration("service", worker, 0), PUBLISHED, worker)
        works[worker].append(duration("work", worker, in_flight))
        pauses[worker].append(duration("pause", worker, in_flight))
        transits[worker].append(duration("transit", worker, 1))
        begun[worker] += 1
        turn += 1
        if worker in pulled:
            add(max(now, pulled.pop(worker) + works[worker][-1]), PUSH, worker)
        if (following := (worker, begun[worker])) in pushed:
            arrive(worker, pushed.pop(following) + transits[worker][-1], now)

    for worker, start in enumerate(starts):
        add(start, PULL, worker)
    while len(done) < number:
        now, kind, _, worker = heapq.heappop(queue)
        if kind == PULL:
            held[worker].append(version)
            if pulls[worker] < len(works[worker]):
                add(now + works[worker][pulls[worker]], PUSH, worker)
            else:
                pulled[worker] = now
            pulls[worker] += 1
        elif kind == PUSH:
            gradient = pushes[worker]
            pushes[worker] += 1
            add(now + pauses[worker][gradient], PULL, worker)
            if gradient < len(transits[worker]):
                arrive(worker, now + transits[worker][gradient], -1.0)
            else:
                pushed[worker, gradient] = now
        elif kind == ARRIVAL:
            waiting.append((now, worker))
            if not busy:
                serve(now)
        else:
            version += 1
            done.append((worker, held[worker].pop(0)))
            times.append(now)
            busy = False
            if waiting:
                serve(now)
    return done, times
