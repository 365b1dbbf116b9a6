"""The clock of simulated A3C once more, as a queue of events in Python."""

import heapq
import itertools

PUBLISHED, PULL, PUSH, ARRIVAL = range(4)  # at one moment, in this order


def simulate(durations, number, in_flight, starts):
    """The first gradients that are applied, as (worker, version of its parameters), and the time at
    which each is published.

    Args:
        durations: {work, transit, service, pause: [W, N]}, used again and again.
        starts: [W] when workers pull for the first time.
    """
    queue, tie = [], itertools.count()
    done, times, waiting = [], [], []
    workers = range(len(starts))
    pulls, pushes, begun, arrived = ([0] * len(starts) for _ in range(4))
    blocked = {}  # worker: since when it waits with a push
    version, busy, last = 0, False, [0.0] * len(starts)
    held = [[] for _ in workers]  # versions pulled, of gradients not applied yet

    def duration(name, worker, index):
        row = durations[name][worker]
        return row[index % len(row)]

    def add(time, kind, worker):
        heapq.heappush(queue, (time, kind, next(tie), worker))

    def push(worker, now):
        index = pushes[worker]
        pushes[worker] += 1
        last[worker] = max(last[worker], now + duration("transit", worker, index))
        add(last[worker], ARRIVAL, worker)
        add(now + duration("pause", worker, index), PULL, worker)

    def serve(now):
        nonlocal busy
        worker = waiting.pop(0)
        busy = True
        add(now + duration("service", worker, begun[worker]), PUBLISHED, worker)
        begun[worker] += 1
        if worker in blocked:
            push(worker, max(now, blocked.pop(worker)))

    for worker, start in enumerate(starts):
        add(start, PULL, worker)
    while len(done) < number:
        now, kind, _, worker = heapq.heappop(queue)
        if kind == PULL:
            held[worker].append(version)
            add(now + duration("work", worker, pulls[worker]), PUSH, worker)
            pulls[worker] += 1
        elif kind == PUSH:
            if pushes[worker] - begun[worker] < in_flight:
                push(worker, now)
            else:
                blocked[worker] = now
        elif kind == ARRIVAL:
            arrived[worker] += 1
            waiting.append(worker)
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
