"""What carries messages and parameters, each test over every carrier: pipes and memory of a
machine, and TCP between machines."""

import fcntl
import multiprocessing
import os
import secrets
import socket
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rljax.a3c import network, transport
from rljax.utils import connections

KEY = secrets.token_bytes(32)


class Pipes:
    """A worker's queue and its reader."""

    def __init__(self, longest=1000):
        take, put = multiprocessing.Pipe(duplex=False)
        grants, self.order = multiprocessing.Pipe(duplex=False)
        self.queue = transport.Queue(put, grants)
        self.reader = transport.Reader(take, longest, longest)
        self.get, self.stop = self.reader.get, self.order.close
        self.leave = put.close

    def write(self, content):
        return os.write(self.queue.pipe.fileno(), content)

    def grant(self):
        os.write(self.order.fileno(), b"g")


class Network:
    """The same over TCP."""

    def __init__(self, longest=1000):
        here, there = connected()
        self.queue = network.Link(there)
        self.reader = transport.Reader(here, longest, longest)
        self.get, self.stop, self.leave = self.reader.get, here.close, there.close

    def write(self, content):
        return self.queue.sock.send(content, socket.MSG_DONTWAIT)

    def grant(self):
        network.order(self.reader.pipe, network.GRANT)


def connected():
    """(the holder's end, the other) of a connection whose ends have proven who they are."""
    listener, came = connections.listen("127.0.0.1"), []
    connections.accept(listener, KEY, lambda *what: came.append(what))
    there = connections.connect(listener.getsockname()[:2], KEY, {"name": "worker"})
    while not came:
        time.sleep(0.001)
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    assert came[0][1] == {"name": "worker"}
    return came[0][0], there


@pytest.fixture(params=[Pipes, Network])
def carrier(request):
    return request.param


def all_messages(carried, number):
    """As they come, in at most 10 s."""
    got, deadline = [], time.monotonic() + 10
    while len(got) < number and time.monotonic() < deadline:
        got += [(kind, bytes(content)) for kind, content in carried.get()]
    return got


def test_messages_arrive_whole_and_in_order(carrier):
    carried = carrier()
    sent = [(0, b"one"), (2, b""), (1, bytes(range(200))), (1, b"x"), (0, b"last")]
    got = []
    for kind, content in sent:
        carried.queue.put(kind, content)
        got += all_messages(carried, 1)
    assert got == sent
    assert carried.get() == []


def test_a_writer_waits_while_nobody_reads(carrier):
    """Messages are bounded in number, however small they are."""
    carried, written = carrier(), []

    def write():
        for i in range(4):
            carried.queue.take_grant()
            carried.queue.put(0, bytes([i]))
            written.append(i)

    carried.grant()
    writer = threading.Thread(target=write)
    writer.start()
    time.sleep(0.3)  # it writes what it was granted, and waits
    assert written == [0]
    for i in range(4):
        assert all_messages(carried, 1) == [(0, bytes([i]))]
        carried.grant()
    writer.join()


def test_a_message_waits_while_nobody_reads(carrier):
    carried, waited = carrier(longest=30_000_000), []
    content = np.random.default_rng(0).bytes(30_000_000)
    writer = threading.Thread(target=lambda: waited.append(carried.queue.put(0, content)))
    writer.start()
    time.sleep(0.3)  # it fills what there is room for, and waits
    assert not waited
    assert all_messages(carried, 1) == [(0, content)]
    writer.join()
    assert waited[0] > 0.1


class Counting(bytearray):
    """Counts the bytes that are written to it in slices."""

    moved = 0

    def __setitem__(self, key, value):
        self.moved += len(value)
        super().__setitem__(key, value)


def test_a_large_message_is_not_moved_as_often_as_it_has_parts(carrier):
    carried = carrier(longest=3_000_000)
    reader = carried.reader
    reader.buffer = Counting(reader.buffer)
    sent = np.array([3_000_000, 1], np.uint32).tobytes() + np.random.default_rng(0).bytes(3_000_000)
    for _ in range(4):
        for part in range(0, len(sent), 50_000):
            carried.write(sent[part : part + 50_000])
            got = reader.get()
        assert [(kind, bytes(content)) for kind, content in got] == [(1, sent[8:])]
    assert reader.buffer.moved < len(sent)


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(
    carrier=st.sampled_from([Pipes, Network]),
    sizes=st.lists(st.integers(0, 3000) | st.sampled_from([0, 1, 7, 8, 9, 2999, 3000])),
    parts=st.lists(st.integers(1, 9000), min_size=1),
    looks=st.lists(st.booleans(), min_size=1),
    lost=st.integers(0, 3000),
)
def test_messages_that_come_in_any_parts_arrive_whole_and_once(carrier, sizes, parts, looks, lost):
    """Those of which the last bytes are lost with their writer do not."""
    carried = carrier(longest=3000)
    reader = carried.reader
    contents = [np.random.default_rng(i).bytes(size) for i, size in enumerate(sizes)]
    headers = (np.array([len(x), i], np.uint32).tobytes() for i, x in enumerate(contents))
    stream = b"".join(header + x for header, x in zip(headers, contents))
    stream = stream[: len(stream) - lost]
    found, at, turn = [], 0, 0

    def look():
        found.extend((kind, bytes(content)) for kind, content in reader.get())

    while at < len(stream):
        try:
            at += carried.write(stream[at : at + parts[turn % len(parts)]])
        except BlockingIOError:  # it is full
            look()
        if looks[turn % len(looks)]:
            look()
        turn += 1
    carried.leave()
    deadline = time.monotonic() + 10
    while not reader.ended and time.monotonic() < deadline:
        look()
    ends = np.cumsum([8 + size for size in sizes])
    assert found == list(enumerate(contents))[: int(np.sum(ends <= len(stream)))]
    assert reader.ended
    assert not reader.malformed
    reader.close()


def test_a_pipe_is_as_large_as_the_system_allows():
    """A user who is not root is refused more than its limit, and gets that."""
    limit = int(Path("/proc/sys/fs/pipe-max-size").read_text())
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        reader = Pipes(longest=5 * limit).reader
    finally:
        if root:
            os.seteuid(0)
    assert fcntl.fcntl(reader.fileno(), fcntl.F_GETPIPE_SZ) == limit


def test_a_writer_that_dies_within_a_message_leaves_nothing_of_it(carrier):
    carried = carrier()
    carried.queue.put(0, b"whole")
    carried.write(np.array([100, 0], np.uint32).tobytes() + b"only a part")
    carried.leave()
    assert all_messages(carried, 1) == [(0, b"whole")]
    deadline = time.monotonic() + 10
    while not carried.reader.ended and time.monotonic() < deadline:
        assert carried.get() == []
    assert carried.reader.ended


def test_bytes_that_are_no_message_are_noticed(carrier):
    carried = carrier(longest=1000)
    carried.queue.put(0, b"whole")
    carried.write(np.array([1001, 0], np.uint32).tobytes())
    assert all_messages(carried, 1) == [(0, b"whole")]
    assert carried.get() == []
    assert carried.reader.malformed


def test_a_full_queue_lets_its_writer_stop(carrier):
    carried = carrier()
    threading.Timer(0.1, carried.stop).start()

    def write():
        while True:
            carried.queue.put(0, bytes(10_000_000))

    with pytest.raises(transport.Stopped):
        write()
    assert carried.queue.is_stopped()


def test_a_writer_notices_that_the_reader_is_gone(carrier):
    carried = carrier()
    carried.reader.close()

    def write():
        while True:
            carried.queue.put(0, b"x")

    with pytest.raises(transport.Stopped):
        write()


def test_grants_are_taken_one_at_a_time_until_the_order_to_stop(carrier):
    carried = carrier()
    assert not carried.queue.is_stopped()
    for _ in range(2):
        carried.grant()
    for _ in range(2):
        carried.queue.take_grant()
    threading.Timer(0.1, carried.stop).start()
    with pytest.raises(transport.Stopped):
        carried.queue.take_grant()


class Placed:
    """A worker's link that knows one place."""

    least = 0

    def __init__(self, place):
        self.place = place

    def memory(self):
        return self.place


class Mapped:
    """Parameters in the memory of a node, as another process finds them."""

    def __init__(self, place, size):
        self.place, self.size = place, size

    def opened(self):
        return network.MappedParameters(Placed(self.place), self.size)


class SharedMemory:
    """How parameters come to another process: `publish`, and what that process reads."""

    def __init__(self, context, size):
        self.there = transport.SharedParameters(context, size)
        self.publish = self.there.publish


class NodeMemory:
    def __init__(self, context, size):
        self.memory = network.NodeMemory(size)
        self.publish, self.there = self.memory.publish, Mapped(self.memory.place, size)


class Relay:
    def __init__(self, context, size):
        here, there = connected()
        self.feed, memory = network.Feed(here), network.NodeMemory(size)
        threading.Thread(target=network.relay, args=(there, memory, size), daemon=True).start()
        self.there = Mapped(memory.place, size)

    def publish(self, version, vector):
        """The first is on its way when this returns, of others the newest."""
        self.feed.offer(version, vector)
        while self.feed.rest or not self.feed.is_ready:
            self.feed.send()
            self.feed.take()
        self.feed.take()


def read_often(there, number, found):
    parameters = there.opened() if isinstance(there, Mapped) else there
    vector = np.empty(parameters.size, np.float32)
    found.send("ready")
    versions = [parameters.read(vector) for _ in range(3)]
    torn = 0
    for _ in range(number):
        version = parameters.read(vector)
        torn += int(not (vector == version % 1000).all())
        versions.append(version)
    found.send((torn, versions))


@pytest.mark.parametrize("kind", [SharedMemory, NodeMemory, Relay])
def test_parameters_are_never_read_in_the_middle_of_being_written(kind):
    context = multiprocessing.get_context("spawn")
    parameters = kind(context, 200_000)
    parameters.publish(0, np.zeros(200_000, np.float32))
    take, put = context.Pipe(duplex=False)
    process = context.Process(target=read_often, args=(parameters.there, 1000, put))
    process.start()
    assert take.recv() == "ready"
    version = 0
    while not take.poll(0):
        version += 1
        parameters.publish(version, np.full(200_000, version % 1000, np.float32))
    torn, versions = take.recv()
    process.join()
    assert torn == 0
    assert versions == sorted(versions)
    assert len(set(versions)) > 3  # how often the two alternate is the machine's to say


def test_a_relay_that_is_slow_gets_the_newest_and_misses_others():
    here, there = connected()
    feed, size = network.Feed(here), 2_000_000
    for version in range(50):  # more than a connection holds
        feed.offer(version, np.full(size, version, np.float32))
    memory = network.NodeMemory(size)
    threading.Thread(target=network.relay, args=(there, memory, size), daemon=True).start()
    deadline = time.monotonic() + 20
    while feed.sent < 49 and time.monotonic() < deadline:
        feed.send() if feed.rest else None
        feed.take()
        feed.offer(49, np.full(size, 49, np.float32))
    assert feed.sent == 49
    vector, reader = np.empty(size, np.float32), Mapped(memory.place, size).opened()
    while reader.read(vector) < 49 and time.monotonic() < deadline:
        feed.send() if feed.rest else None
        feed.take()
    assert (vector == 49).all()
    assert memory.number == 2  # versions 0 and 49


def test_a_turn_waits_for_its_parameters():
    here, there = connected()
    link, memory, vector = network.Link(there), network.NodeMemory(3), np.empty(3, np.float32)
    memory.publish(4, np.full(3, 4, np.float32))
    network.order(here, network.MEMORY, memory.place)
    network.order(here, network.GRANT, (5, 0))
    link.take_grant()
    threading.Timer(0.2, memory.publish, (5, np.full(3, 5, np.float32))).start()
    parameters = network.MappedParameters(link, 3)
    assert parameters.read(vector) == 5
    assert vector.tolist() == [5, 5, 5]
    network.order(here, network.GRANT, (6, 0))
    link.take_grant()
    threading.Timer(0.2, here.close).start()
    with pytest.raises(transport.Stopped):
        parameters.read(vector)


def test_a_relays_end_is_noticed():
    here, there = connected()
    feed = network.Feed(here)
    there.close()
    deadline = time.monotonic() + 10
    while not feed.ended and time.monotonic() < deadline:
        feed.take()
    assert feed.ended


# Who may connect


def test_who_does_not_know_the_key_is_sent_away():
    listener, came = connections.listen("127.0.0.1"), []
    connections.accept(listener, KEY, lambda *what: came.append(what))
    address = listener.getsockname()[:2]
    with pytest.raises(ConnectionError):
        connections.connect(address, secrets.token_bytes(32), {})
    silent = socket.create_connection(address)  # delays nobody
    connections.connect(address, KEY, {"name": "known"})
    deadline = time.monotonic() + 10
    while not came and time.monotonic() < deadline:
        time.sleep(0.001)
    assert [hello for _, hello in came] == [{"name": "known"}]
    silent.close()
    listener.shutdown(socket.SHUT_RDWR)


def test_a_holder_that_does_not_know_the_key_is_told_nothing():
    listener = connections.listen("127.0.0.1")
    heard = []

    def pretend():
        sock, _ = listener.accept()
        sock.sendall(bytes(32))
        heard.append(sock.recv(64, socket.MSG_WAITALL))
        sock.sendall(bytes(32))
        heard.append(sock.recv(1000))

    thread = threading.Thread(target=pretend)
    thread.start()
    with pytest.raises(ConnectionError, match="does not know the key of the run"):
        connections.connect(listener.getsockname()[:2], KEY, {"secret": "hello"})
    thread.join()
    assert heard[1] == b""
