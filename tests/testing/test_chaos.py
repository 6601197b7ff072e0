"""Chaos: only answers that a kernel may give, the same ones for the same seed."""

from __future__ import annotations

import errno
import os
import random
import socket
import time
from selectors import EVENT_READ, EVENT_WRITE

import pytest

import selectors_ffi
from selectors_ffi import backends
from selectors_ffi.binding import Binding
from selectors_ffi.testing import chaos, chaotic, inject, kernel
from selectors_ffi.testing.chaos import BOUND, Chaos
from selectors_ffi.testing.library import proxied
from tests import apart, needs

BOTH = EVENT_READ | EVENT_WRITE
SEEDS = range(1, 11)


def names(found):
    """The data of each key, in order."""
    return [key.data for key, _ in found]


def wait_often(selector, timeout):
    """Wait sixty times, whatever comes."""
    for _ in range(60):
        selector.select(timeout)


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_wrong_and_nothing_is_starved(subject, below, many, seed):
    """What comes is ready, something comes, and at most ``BOUND`` waits in a row leave one out."""
    ready = {number for number in range(10) if number % 3}
    with subject.cls(binding=chaos(seed, below)) as selector:
        for number, (near, far) in enumerate(many):
            selector.register(near, EVENT_READ, number)
            if number in ready:
                far.send(b"x")
        last = dict.fromkeys(ready, 0)
        for turn in range(1, 200):
            found = names(selector.select(1))
            assert found
            assert len(found) == len(set(found))
            assert set(found) <= ready
            last.update(dict.fromkeys(found, turn))
            assert turn - min(last.values()) <= BOUND


def test_more_than_there_is_room_for_are_not_starved(subject, below, new_pair):
    """An answer that is full may leave one out as well, and counts as one that did."""
    pairs = [new_pair() for _ in range(17)]  # a new selector has room for 16
    for seed in SEEDS:
        last = dict.fromkeys(range(17), 0)
        with subject.cls(binding=chaos(seed, below)) as selector:
            for number, (near, _) in enumerate(pairs):
                selector.register(near, EVENT_WRITE, number)
            for turn in range(1, 40):
                last.update(dict.fromkeys(names(selector.select(turn % 2)), turn))
                assert turn - min(last.values()) <= BOUND


@pytest.mark.parametrize("timeout", [None, 1, 0])
def test_one_that_is_ready_is_never_withheld(subject, below, pair, timeout):
    """The only ready descriptor is in every answer, whatever the timeout."""
    near, _ = pair
    with subject.cls(binding=chaos(1, below)) as selector:
        key = selector.register(near, EVENT_WRITE)
        for _ in range(100):
            assert selector.select(timeout) == [(key, EVENT_WRITE)]


def test_a_timeout_is_never_early(subject, below, pair):
    """A wait that brings nothing has taken its whole time, interrupted or not."""
    near, _ = pair
    with subject.cls(binding=chaos(4, below)) as selector:
        selector.register(near, EVENT_READ)
        for _ in range(30):
            begun = time.monotonic()
            assert selector.select(0.002) == []
            assert time.monotonic() - begun >= 0.002


def test_waits_are_late_where_time_is_patched(subject, below, pair, monkeypatch):
    """What a program's test puts in place of ``time.sleep`` is not called."""
    monkeypatch.setattr(time, "sleep", None)
    binding = chaos(3, below)
    with subject.cls(binding=binding) as selector:
        selector.register(pair[0], EVENT_READ)
        for _ in range(5):
            wait_often(selector, 0)
    assert binding.lib.hook.counts["late"]


def test_directions_stay_right(subject, below, many):
    """Each result has the directions that are ready, and no other."""
    with subject.cls(binding=chaos(2, below)) as selector:
        expected = {}
        for number, (near, far) in enumerate(many):
            events = (EVENT_READ, EVENT_WRITE, BOTH)[number % 3]
            if number % 2:
                far.send(b"x")
            selector.register(near, events, number)
            expected[number] = events & (BOTH if number % 2 else EVENT_WRITE)
        for _ in range(100):
            for key, events in selector.select(1):
                # kqueue reports the directions one by one, and one of them may be left out.
                assert events & ~expected[key.data] == 0
                assert events == expected[key.data] or subject.mechanism == "kqueue"


def run(subject, seed, pairs, turns=60):
    """The answers of a program that writes and reads as its own generator says."""
    program = random.Random(1).random
    answers = []
    binding = chaos(seed, subject.new_binding())
    with subject.cls(binding=binding) as selector:
        for number, (near, _) in enumerate(pairs):
            selector.register(near, BOTH, number)
        for _ in range(turns):
            near, far = pairs[int(len(pairs) * program())]
            if program() < 0.5:
                far.send(b"x")
            found = selector.select(0.001)
            answers.append([(key.data, events) for key, events in found])
            for key, events in found:
                if events & EVENT_READ:
                    key.fileobj.recv(100)
    return answers, binding.lib.hook.counts


def test_the_same_seed_takes_the_same_decisions(subject, new_pair):
    """Answers and counts are equal for one seed, and differ between seeds."""
    runs = [run(subject, seed, [new_pair() for _ in range(5)]) for seed in (1, 1, 2)]

    assert runs[0] == runs[1]
    assert runs[0][1] != runs[2][1]
    assert set(runs[0][1]) <= {"interrupted", "late", "split", "withheld", "permuted"}


def test_the_numbers_of_descriptors_decide_nothing(subject, many):
    """A new kernel object with the number of a closed one answers as one with another number."""
    if not subject.kernel_keeps_list:
        pytest.skip("poll and select have one sequence of decisions")
    answers = []
    for between in (0, 1):
        binding, found, spare = chaos(3, subject.new_binding()), [], []
        for _ in range(2):
            with subject.cls(binding=binding) as selector:
                for number, (near, _) in enumerate(many):
                    selector.register(near, EVENT_WRITE, number)
                found += [names(selector.select(1)) for _ in range(20)]
            spare += [os.dup(0) for _ in range(between)]  # takes the number
        answers.append(found)
        for fd in spare:
            os.close(fd)
    assert answers[0] == answers[1]
    assert answers[0][:20] != answers[0][20:]


def test_each_kind_is_given(subject, below, many):
    """In a few hundred waits every kind comes that the mechanism allows."""
    binding = chaos(3, below)
    with subject.cls(binding=binding) as selector:
        for near, _ in many:
            selector.register(near, EVENT_WRITE)
        for _ in range(300):
            selector.select(1)
    kinds = {"interrupted", "late", "withheld"}
    if subject.kernel_keeps_list:
        kinds |= {"split", "permuted"}
    if subject.winsock:
        kinds.discard("interrupted")
    if subject.mechanism == "eventport":
        kinds.discard("withheld")
    assert set(binding.lib.hook.counts) == kinds


def test_spurious_readiness_is_of_a_registered_socket(subject, below, many):
    """Only when asked for, only for sockets that are watched for reading, and reads would block."""
    binding = chaos(5, below, spurious=True)
    with subject.cls(binding=binding) as selector:
        for number, (near, _) in enumerate(many):
            selector.register(near, EVENT_READ if number % 2 else EVENT_WRITE, number)
        odd = set()
        for _ in range(300):
            for key, events in selector.select(0.001):
                if key.events == EVENT_READ:
                    assert events == EVENT_READ
                    with pytest.raises(BlockingIOError):
                        key.fileobj.recv(1)
                    odd.add(key.data)
    allowed = subject.mechanism in ("epoll", "poll", "select")
    assert odd == ({1, 3, 5, 7, 9} if allowed else set())
    assert ("spurious" in binding.lib.hook.counts) == allowed


@needs.dup2_of_sockets
def test_spurious_readiness_ends_with_the_registration(subject, below, new_pair):
    """Neither an unregistered descriptor nor a number that was closed and reused is reported."""
    near, _ = new_pair()
    gone, _ = new_pair()
    stranger, _ = new_pair()
    binding = chaos(6, below, spurious=True)
    with subject.cls(binding=binding) as selector:
        selector.register(near, EVENT_WRITE)
        selector.register(gone, EVENT_READ)
        selector.modify(gone, EVENT_WRITE)
        selector.modify(gone, EVENT_READ)
        selector.unregister(gone)
        number = os.dup(gone.fileno())
        selector.register(number, EVENT_READ)
        os.dup2(stranger.fileno(), number)
        try:
            for _ in range(200):
                found = {key.fd for key, _ in selector.select(0)}
                assert found <= (
                    {near.fileno(), number} if subject.mechanism != "epoll" else {near.fileno()}
                )
        finally:
            selector.unregister(number)
            os.close(number)


def test_another_selector_does_not_inherit_a_number(pair):
    """A new epoll with the number of a closed one knows nothing of its registrations."""
    if not hasattr(selectors_ffi, "EpollSelector"):
        pytest.skip("epoll is Linux's")
    near, _ = pair
    binding = chaos(7, spurious=True)
    first = backends.EpollSelector(binding=binding)
    first.register(near, EVENT_READ)
    number = first.fileno()
    first.close()
    with backends.EpollSelector(binding=binding) as second:
        assert second.fileno() == number
        for _ in range(100):
            assert second.select(0) == []
    assert not binding.lib.hook.counts["spurious"]


def test_what_is_reported_once_is_never_withheld(many):
    """An edge-triggered or one-shot event would be lost: the kernel does not report it again."""
    if not hasattr(selectors_ffi, "EpollSelector"):
        pytest.skip("epoll is Linux's")
    binding = chaos(1)
    ffi, constant, call = binding.ffi, binding.constant, binding.call
    epfd = call(binding.function("epoll_create1"), 0)
    events = ffi.new("struct epoll_event[]", 64)
    flags = constant("EPOLLOUT") | constant("EPOLLONESHOT")
    try:
        for turn in range(30):
            op = constant("EPOLL_CTL_MOD" if turn else "EPOLL_CTL_ADD")
            for near, _ in many:
                event = ffi.new("struct epoll_event *", {"events": flags, "data": near.fileno()})
                call(binding.function("epoll_ctl"), epfd, op, near.fileno(), event)
            seen = []
            while len(seen) < len(many):
                try:
                    n = call(binding.function("epoll_wait"), epfd, events, 64, 1000)
                except InterruptedError:
                    continue
                assert n
                seen += [events[i].data for i in range(n)]
            assert sorted(seen) == sorted(near.fileno() for near, _ in many)
    finally:
        os.close(epfd)
    assert not binding.lib.hook.counts["withheld"]


def test_a_chaos_that_begins_anew(subject, many):
    """It decides as a new one, also for a selector that is there, and keeps what is registered once."""
    if subject.mechanism != "epoll":
        pytest.skip("only an epoll is told nothing of the registrations when it waits")
    answers = []
    for old_seed in (5, 3):
        binding = chaos(old_seed, subject.new_binding())
        with subject.cls(binding=binding) as selector:
            if old_seed != 3:
                wait_often(selector, 0)
                binding.lib.hook.begin(3)
            for number, (near, _) in enumerate(many):
                selector.register(near, EVENT_WRITE, number)
            assert binding.lib.hook.seed == 3
            answers.append([names(selector.select(1)) for _ in range(20)])
            for seed in SEEDS:
                for number, (near, _) in enumerate(many):
                    selector.modify(near, EVENT_WRITE, number, trigger=selectors_ffi.LEVEL)
                    selector.modify(near, EVENT_WRITE, number, trigger=selectors_ffi.EDGE)
                binding.lib.hook.begin(11)
                binding.lib.hook.begin(seed)
                seen = [number for _ in range(20) for number in names(selector.select(0))]
                assert sorted(seen) == list(range(10))
    assert answers[0] == answers[1]


def test_kqueue_is_told_by_its_flags(many):
    """EV_ONESHOT comes back with the event, which is then never left out."""
    binding = chaos(1, kernel("darwin"))
    ffi, constant = binding.ffi, binding.constant
    queue = binding.call(binding.function("kqueue"))
    changes = ffi.new("struct kevent[]", len(many))
    for change, (near, _) in zip(changes, many):
        change.ident, change.filter = near.fileno(), constant("EVFILT_WRITE")
        change.flags = constant("EV_ADD") | constant("EV_ONESHOT")
    room = ffi.new("struct kevent[]", 64)
    zero = ffi.new("struct timespec *")
    kevent = binding.function("kevent")
    for _ in range(30):
        binding.call(kevent, queue, changes, len(many), ffi.NULL, 0, ffi.NULL)
        seen = set()
        while len(seen) < len(many):
            n = binding.call(kevent, queue, ffi.NULL, 0, room, 64, zero)
            assert n
            seen |= {room[i].ident for i in range(n)}
    binding.close(queue)
    assert not binding.lib.hook.counts["withheld"]


def test_the_block_reaches_every_selector(many):
    """Selectors that are made in the block have chaos, those made before and after have none."""
    outside = selectors_ffi.DefaultSelector()
    with chaotic(9) as c:
        inside = selectors_ffi.DefaultSelector()
        poll = selectors_ffi.SelectSelector()
    after = selectors_ffi.DefaultSelector()
    for selector in (outside, after):
        for near, _ in many:
            selector.register(near, EVENT_WRITE)
        for _ in range(30):
            assert len(selector.select(1)) == len(many)
        selector.close()
    assert isinstance(c, Chaos)
    assert (c.seed, sum(c.counts.values())) == (9, 0)
    for selector in (inside, poll):
        for near, _ in many:
            selector.register(near, EVENT_WRITE)
        sizes = {len(selector.select(1)) for _ in range(30)}
        assert len(sizes) > 1
        selector.close()
    assert c.counts["withheld"] > 10


def test_blocks_lie_over_each_other(many):
    """A fault that is injected in a chaotic block counts the program's calls, not chaos's."""
    near, _ = many[0]
    with chaotic(1):
        binding = inject("wait:error=EINVAL:when=50")
    with selectors_ffi.SelectSelector(binding=binding) as selector:
        selector.register(near, EVENT_WRITE)
        with pytest.raises(OSError) as caught:
            wait_often(selector, 1)
    assert caught.value.errno == errno.EINVAL
    assert binding.lib.hook.hits == 1


def test_a_block_is_entered_once():
    """Entering twice, or leaving without having entered, is refused."""
    block = chaotic(1)
    with pytest.raises(RuntimeError, match="not entered"):
        block.__exit__(None, None, None)
    with block, pytest.raises(RuntimeError, match="entered already"):
        block.__enter__()


@pytest.mark.parametrize("seed", ["seven", 1.5, None])
def test_a_seed_is_an_integer(seed):
    """Anything else is refused before anything runs."""
    with pytest.raises(ValueError, match="a seed is an integer"):
        chaos(seed)
    with pytest.raises(ValueError, match="a seed is an integer"):
        chaotic(seed)


def environment(**variables):
    """Run a program under SELECTORS_FFI_* variables; return (status, output, errors)."""
    program = (
        "import socket, selectors_ffi as s\n"
        "one = s.DefaultSelector()\n"
        "pairs = [socket.socketpair() for _ in range(6)]\n"
        "for n, (near, _) in enumerate(pairs): one.register(near, s.EVENT_WRITE, n)\n"
        "for _ in range(20): print([key.data for key, _ in one.select(1)])\n"
    )
    done = apart.python("-c", program, **variables)
    return done.returncode, done.stdout, done.stderr


def test_the_variable_reaches_the_whole_program():
    """SELECTORS_FFI_CHAOS is a seed; the same one gives the same output, which differs from none."""
    plain = environment()
    first, again, other = (environment(SELECTORS_FFI_CHAOS=seed) for seed in ("3", "3", "4:spurious"))

    assert plain[0] == first[0] == other[0] == 0
    assert first == again
    assert len({plain[1], first[1], other[1]}) == 3


@pytest.mark.parametrize(
    ("seed", "said"),
    [("x", "SELECTORS_FFI_CHAOS: a seed is an integer, not 'x'"),
     ("3:odd", "SELECTORS_FFI_CHAOS: unknown option 'odd' of a seed; known: spurious")],
)  # fmt: skip
def test_a_wrong_variable_is_told(seed, said):
    """The program does not begin."""
    status, output, errors = environment(SELECTORS_FFI_CHAOS=seed)

    assert (status, output) == (1, "")
    assert errors.splitlines()[-1] == f"ValueError: {said}"


def test_a_proxy_of_a_proxy(pair):
    """Chaos over chaos over a kernel: each layer sees the calls of the one above."""
    near, _ = pair
    calls = []

    def watch(call):
        calls.append(call.name)
        return call.run()

    below = proxied(chaos(1), watch)
    assert isinstance(below, Binding)
    with selectors_ffi.SelectSelector(binding=chaos(2, below)) as selector:
        key = selector.register(near, EVENT_WRITE)
        for _ in range(50):
            assert selector.select(1) == [(key, EVENT_WRITE)]
    assert calls.count("select") >= 50


def test_wakeups_of_two_threads_are_not_lost(subject, below, many):
    """A descriptor that another thread makes ready ends a wait, under every seed."""
    import threading

    near, far = many[0]
    with subject.cls(binding=chaos(8, below)) as selector:
        selector.register(near, EVENT_READ)
        for _ in range(20):
            thread = threading.Thread(target=far.send, args=(b"x",))
            thread.start()
            assert selector.select(30)
            near.recv(10)
            thread.join()


def test_sockets_that_are_closed_are_not_invented():
    """A closed descriptor that select is asked about stays the caller's error."""
    near, far = socket.socketpair()
    with selectors_ffi.SelectSelector(binding=chaos(1, spurious=True)) as selector, far:
        selector.register(near, EVENT_READ)
        near.close()
        with pytest.raises(OSError) as caught:
            wait_often(selector, 0)
    assert caught.value.errno == (errno.EBADF if os.name == "posix" else errno.ENOTSOCK)
