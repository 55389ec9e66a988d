"""Test the links between ranks, which pass through the switch: real gloo connections (needs torch)."""

from __future__ import annotations

import datetime
import os
import socket
import struct
import time

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from pytest_mlchaos import Fault, chaos
from pytest_mlchaos.core.faults import register
from pytest_mlchaos.core.links import Cut, Flip, Slow
from pytest_mlchaos.ranks.links.gloo_address import UnknownFormat, parse_address
from pytest_mlchaos.ranks.links.gloo_frames import Frames
from pytest_mlchaos.ranks.links.stream import DirectionState, Imposed, Stream
from pytest_mlchaos.ranks.links.switch import _Switch

psutil = pytest.importorskip("psutil")
pytest.importorskip("cloudpickle")  # most subjects here are local functions

CONDITIONS = {
    "cut": Cut(),
    "blip": Cut(heal_after=1.0),
    "slow": Slow(delay=0.1),
    "narrow": Slow(bandwidth=100_000),
    "flip": Flip(seed=3),
}


@register
class ImposedCondition(Fault):
    """Impose a condition on what this rank sends to all others."""

    name = "imposed"
    site = "train.step"
    on_links = True
    kind: str = "cut"

    def apply(self, visit):
        """Impose it."""
        visit.skip()
        rank, size = visit.attributes["rank"], visit.attributes["world_size"]
        visit.attributes["links"].impose(
            [(rank, peer) for peer in range(size) if peer != rank],
            CONDITIONS[self.kind],
            visit.record_injection,
        )


def train(steps=4, timeout=2.0, width=64):
    """Take steps of DDP. Return the time of each, and a digest."""
    dist.init_process_group("gloo")
    torch.manual_seed(0)
    model = DistributedDataParallel(torch.nn.Linear(width, width))
    # The limit counts from here. Ranks on a busy machine may need longer to meet.
    dist.distributed_c10d._set_pg_timeout(datetime.timedelta(seconds=timeout))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    times = []
    for step in range(steps):
        begun = time.monotonic()
        model(torch.full((8, width), float(step + dist.get_rank()))).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        times.append(time.monotonic() - begun)
    return times, float(sum(p.detach().double().sum() for p in model.parameters()))


def times(run):
    """The time of each step in the slowest rank."""
    return [max(pair) for pair in zip(*(rank.value[0] for rank in run.ranks), strict=True)]


# -- real connections ------------------------------------------------------------------------------


@chaos.imposed(kind="cut", at=1)
def test_behind_a_cut_every_rank_times_out_by_itself(mlchaos):
    """No rank sees the end of one on the other side: a connection that is cut does not close."""
    run = mlchaos.world(ranks=2, grace=30, timeout=60).run(train)
    assert [strike.details["rank"] for strike in run.faults] == [0, 1]
    for rank in run.ranks:
        assert "Timed out" in str(rank.error)
        assert rank.steps == 2


@chaos.imposed(kind="blip", at=1)
def test_after_a_blip_all_goes_on(mlchaos):
    """One step takes as long as the links are cut, and nothing is lost."""
    run = mlchaos.world(ranks=2).run(train, 4, 20.0)
    run.assert_finished()
    assert run.ranks[0].value[1] == run.golden.ranks[0].value[1]
    assert times(run)[2] > 0.9


@chaos.imposed(kind="slow", at=1)
@pytest.mark.parametrize("ranks", [2, 3])
def test_a_delay_slows_each_later_step(mlchaos, ranks):
    """A ring passes the gradients along, so a step takes several delays."""
    run = mlchaos.world(ranks=ranks).run(train, 4, 20.0)
    run.assert_finished()
    assert min(times(run)[2:]) > 0.19


@chaos.imposed(kind="narrow", at=1)
def test_a_limited_bandwidth_slows_each_later_step(mlchaos):
    """17 kB of gradients at 100 kB/s."""
    run = mlchaos.world(ranks=2).run(train, 4, 20.0)
    run.assert_finished()
    assert min(times(run)[2:]) > 0.15


@chaos.imposed(kind="flip", at=1, rank=0)
def test_a_flipped_bit_leaves_the_ranks_in_agreement_and_wrong(mlchaos):
    """The sum travels on with the bit, so only the golden run shows it."""
    run = mlchaos.world(ranks=2).run(train)
    (strike,) = run.faults
    assert (strike.details["rank"], strike.details["bits"]) == (0, 1)
    assert strike.details["payload"] > 64 * 64  # a part of the gradients, and not a header
    run.assert_in_sync()
    assert run.ranks[0].value[1] != run.golden.ranks[0].value[1]


@chaos.imposed(kind="cut", at=0, rank=0)
def test_each_group_passes_the_switch(mlchaos):
    """Also one of a part of the ranks, in which a rank has a different number."""

    def subject():
        dist.init_process_group("gloo")
        part = dist.new_group([0, 2])
        rest = dist.new_group([1, 2])
        if dist.get_rank() != 1:
            seconds = datetime.timedelta(seconds=1.5)
            dist.distributed_c10d._set_pg_timeout(seconds, part)
        weight = torch.nn.Parameter(torch.ones(1))
        weight.grad = torch.ones(1)
        torch.optim.SGD([weight], lr=0.1).step()
        if dist.get_rank() != 0:
            dist.all_reduce(torch.ones(8), group=rest)
        if dist.get_rank() != 1:
            dist.all_reduce(torch.ones(8), group=part)
        return "done"

    run = mlchaos.world(ranks=3, grace=30, timeout=60).run(subject)
    assert run.ranks[1].value == "done"
    assert "Timed out" in str(run.ranks[2].error)


IMPOSED = """
    import torch, torch.distributed as dist
    from tests.test_links import parse_address, train
    from pytest_mlchaos import chaos
    from pytest_mlchaos.ranks.links import client

    def step():
        weight = torch.nn.Parameter(torch.ones(1))
        weight.grad = torch.ones(1)
        torch.optim.SGD([weight], lr=0.1).step()

    def alone():
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        step()

    def different():
        client.parse_address = lambda value, size: parse_address(value + b"?", size)
        train()

    @chaos.imposed(at=0)
    def test_it(mlchaos):
        mlchaos.world(ranks=2).run(SUBJECT).assert_finished()
"""


@pytest.mark.slow
@pytest.mark.parametrize("subject", ["step", "alone"])
def test_ranks_without_a_link_are_an_error_of_the_test(example, subject):
    """A group of one rank, or none at all, has no connection that could be disturbed."""
    outcome = example.with_tests(IMPOSED.replace("SUBJECT", subject)).run(failed=1)
    assert "BadArgument: rank 0 and rank 1 have no link" in outcome.text


def test_a_torch_with_a_different_format_is_not_a_verdict(example):
    """The error names the version of torch, and what was found."""
    outcome = example.with_tests(IMPOSED.replace("SUBJECT", "different")).run(failed=1)
    assert f"gloo in torch {torch.__version__}: 17 bytes after the address" in outcome.text
    assert "MlchaosError: faults of links do not know" in outcome.text


@chaos.settings(allow_quiet=True)
def test_without_a_fault_of_links_nothing_is_wrapped(mlchaos):
    """No thread, no patch, no process."""

    def looks():
        dist.init_process_group("gloo")
        init = dist.distributed_c10d.ProcessGroupGloo.__init__
        return hasattr(init, "__wrapped__"), len(psutil.Process(os.getppid()).children())

    assert [rank.value for rank in mlchaos.world(ranks=2).run(looks).ranks] == [(False, 2)] * 2


def test_what_becomes_due_between_two_looks_is_not_missed():
    """A wait without an end would hang the ranks."""
    wire = Wire()
    wire.impose(Slow(delay=0.02), time.monotonic())
    with socket.create_server(("127.0.0.1", 0)) as listener:
        switch = _Switch(listener)
        switch._streams[0, 1] = [wire.stream]
        wire.sender.send(message(1, b"abc"))
        wire.stream.read(time.monotonic())
        switch._step()
        time.sleep(0.05)
        assert switch._next_event() < time.monotonic()
    wire.close()


@chaos.imposed(kind="slow", at=0)
def test_a_large_tensor_passes_a_slow_link(mlchaos):
    """It consists of many messages, each with its own time of arrival."""

    def subject():
        dist.init_process_group("gloo", timeout=datetime.timedelta(seconds=25))
        weight = torch.nn.Parameter(torch.ones(1))
        weight.grad = torch.ones(1)
        torch.optim.SGD([weight], lr=0.1).step()
        large = torch.ones(4_000_000)
        dist.all_reduce(large)
        return float(large.sum())

    run = mlchaos.world(ranks=2).run(subject)
    assert [rank.value for rank in run.ranks] == [8e6, 8e6]


@pytest.mark.slow
@chaos.imposed(kind="cut", at=0)
def test_groups_that_connect_late_pass_the_switch(mlchaos, monkeypatch):
    """They read the addresses of their peers at the first collective."""
    monkeypatch.setenv("TORCH_GLOO_LAZY_INIT", "1")
    run = mlchaos.world(ranks=2).run(train)
    assert ["Timed out" in str(rank.error) for rank in run.ranks] == [True, True]


# -- gloo's formats --------------------------------------------------------------------------------


def blob(family=socket.AF_INET, host=bytes([127, 0, 0, 1]), port=4660, pairs=2, name=b"vm", seq=-1):
    """Return the value that gloo writes to the store for one rank."""
    address = bytearray(b"\xaa" * 128)  # gloo does not initialise it
    struct.pack_into("<H", address, 0, family)
    struct.pack_into(">H", address, 2, port)
    at = 4 if family == socket.AF_INET else 8
    address[at : at + len(host)] = host
    body = bytes(address) + struct.pack("<q", seq)
    parts = struct.pack("<Q", len(name)) + name + struct.pack("<Q", len(body)) + body
    return parts + struct.pack(f"<{pairs}q", *range(pairs))


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_only_the_address_is_rewritten(family):
    """The unspecified host, which leads to this machine, and the port of the switch."""
    host = socket.inet_pton(family, "10.1.2.3" if family == socket.AF_INET else "fe80::12")
    before = blob(family, host)
    found = parse_address(before, 2)
    assert found.target == (socket.inet_ntop(family, host), 4660)
    after = parse_address(found.at_switch(99), 2)
    assert after.target == ("0.0.0.0" if family == socket.AF_INET else "::", 99)
    assert len(after.blob) == len(before)
    changed = [place for place in range(len(before)) if before[place] != after.blob[place]]
    assert set(changed) <= set(range(18 + 2, 18 + 28))


def test_the_rank_that_connects_stays_the_same():
    """Gloo compares hosts, then ports as they are in memory. Any address is above that of the switch."""
    low, high = parse_address(blob(port=0x0102), 2), parse_address(blob(port=0x0201), 2)
    assert low.connects_to(high)  # 0x0201 in memory
    assert not high.connects_to(low)
    other = parse_address(blob(host=bytes([127, 0, 0, 2]), port=0x0201), 2)
    assert other.connects_to(low)
    assert low.connects_to(parse_address(high.at_switch(65535), 2))


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (b"", "only 0 bytes"),
        (b"x" * 40, "the host name of"),
        (blob(name=b""), "a host name of 0 bytes"),
        (blob()[:-1], "bytes after the address"),
        (blob(pairs=3), "24 bytes after the address, for 2 ranks"),
        (blob(family=1), "the family 1"),
        (blob(port=0), "port 0"),
        (blob(seq=7), "the sequence number 7"),
        (blob().replace(struct.pack("<Q", 136), struct.pack("<Q", 128)), "an address of 128 bytes"),
    ],
)
def test_a_different_format_is_refused(value, says):
    """It may be a different version of torch, so nothing is guessed."""
    with pytest.raises(UnknownFormat, match=says):
        parse_address(value, 2)


def message(kind, payload):
    """One message as gloo sends it."""
    return struct.pack("<6Q", 48 + len(payload), kind, 7, 0, len(payload), 0) + payload


@pytest.mark.parametrize("step", [1, 7, 1000])
def test_payloads_are_found_in_pieces_of_any_length(step):
    """Numbers of pairs and headers are left out."""
    data = bytes(8) + message(1, b"abcdefg") + message(2, b"") + message(1, b"") + message(0, b"hi")
    frames, found = Frames(connects=True), bytearray()
    for at in range(0, len(data), step):
        piece = data[at : at + step]
        for start, length, position, size in frames.feed(piece):
            assert size == (7 if len(found) < 7 else 2)
            assert position == len(found) % 7
            found += piece[start : start + length]
    assert found == b"abcdefghi"


@pytest.mark.parametrize("header", [(50, 1, 0, 0, 1, 0), (48, 9, 0, 0, 0, 0)])
def test_a_different_header_is_refused(header):
    """Its lengths contradict each other, or its kind is unknown."""
    with pytest.raises(UnknownFormat, match="a message of"):
        list(Frames(connects=False).feed(struct.pack("<6Q", *header)))


# -- one stream ------------------------------------------------------------------------------------


class Wire:
    """A stream between two socket pairs, on a clock of its own."""

    def __init__(self):
        self.sender, source = socket.socketpair()
        target, self.receiver = socket.socketpair()
        for sock in (source, target, self.receiver):
            sock.setblocking(False)
        self.state, self.effects = DirectionState(), []
        self.stream = Stream(source, target, self.state, Frames(connects=False))

    def impose(self, condition, now=0.0):
        """Impose a condition."""
        self.state.impose(Imposed(condition, now, lambda **details: self.effects.append(details)))

    def at(self, now):
        """Let the stream do what it can, and return what has arrived. None is the end."""
        self.state.expire(now)
        while self.stream.read(now):
            pass
        self.stream.write(now)
        try:
            return self.receiver.recv(1 << 20) or None
        except BlockingIOError:
            return b""

    def close(self):
        """Close all sockets."""
        for sock in (self.sender, self.receiver, self.stream.source, self.stream.target):
            sock.close()


@pytest.fixture
def wire():
    """A stream under test."""
    wire = Wire()
    yield wire
    wire.close()


def test_a_cut_holds_bytes_and_the_end_until_it_heals(wire):
    """The receiver does not learn that the sender has ended."""
    wire.impose(Cut(heal_after=5.0))
    assert wire.at(0) == b""
    assert not wire.effects
    data = message(1, b"abc")
    wire.sender.send(data)
    wire.sender.close()
    assert wire.at(4.9) == b""
    assert wire.effects == [{}]
    assert wire.at(5.1) == data
    assert wire.at(5.1) is None


def test_a_slow_link_keeps_the_order_and_delays_the_end(wire):
    """Bytes arrive after the delay, at the given rate."""
    wire.impose(Slow(delay=1.0, bandwidth=100.0))
    data = message(1, b"x" * 52)
    wire.sender.send(data)
    wire.sender.close()
    assert wire.at(0.0) == b""
    assert wire.at(1.9) == b""
    assert wire.at(2.1) == data
    assert wire.at(2.1) is None
    assert wire.effects == [{}]


def test_flips_hit_the_payload_of_the_next_message_alone(wire):
    """A header that differs would end the connection, which is a different fault."""
    first, second = message(1, bytes(1000)), message(1, bytes(1000))
    wire.sender.send(first[:300])
    assert wire.at(0) == first[:300]
    wire.impose(Flip(bits=3, seed=1))
    wire.sender.send(first[300:] + second + second)
    got = first[:300] + wire.at(1)
    assert got[: len(first) + 48] == first + second[:48]
    assert sum(byte.bit_count() for byte in got[len(first) + 48 :][:1000]) == 3
    assert got[2 * len(first) :] == second
    assert wire.effects == [{"bits": 3, "payload": 1000}]
