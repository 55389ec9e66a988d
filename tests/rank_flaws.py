"""Provide jobs of real DDP that survive each fault of a family, and their flaws.

A job gets the name of a fault as its ``flaw``. It then lacks what this fault alone requires, so the
other faults of the family must not reveal it. Without a flaw, it is the sound twin.
"""

from __future__ import annotations

import datetime
import os
import time

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from tests.rank_matrix import gathered, limited_group

SCALE = 2**20
"""Gradients travel as whole numbers, so that their checksum is exact."""
MARK = 0x5A5A5A5A
SLOW = 2.0
"""Seconds after which a flawed job takes a peer, or itself, for slow."""


class Checkpoints:
    """The saved steps of one rank, and the last one that all ranks have."""

    def __init__(self, folder):
        self.own = folder / str(dist.get_rank())
        self.own.mkdir(exist_ok=True)

    def last(self):
        """Return the number of steps that each rank has saved."""
        return int(gathered(None, len(list(self.own.glob("*.pt")))).min())

    def load(self, done):
        """Return what was saved after that many steps."""
        return torch.load(self.own / f"{done}.pt")

    def save(self, done, state):
        """Save after that many steps."""
        torch.save(state, self.own / "new")
        os.replace(self.own / "new", self.own / f"{done}.pt")


def packed(values, step):
    """Return a message: presence, step, values, checksum and a trailer.

    Each part is linear, so the sum over the ranks can be checked like a single message.
    """
    presence = 2 ** dist.get_rank()
    body = torch.cat([torch.tensor([presence, (step + 1) * presence]), values])
    return torch.cat([body, body.sum()[None], torch.tensor([presence])])


def check_sum(message, step, flaw, group):
    """Raise ``ValueError`` if the sum of all messages is damaged."""
    presence, steps, check, trailer = (int(message[place]) for place in (0, 1, -2, -1))
    everyone = 2 ** dist.get_world_size() - 1
    first = dist.get_rank() == 0
    if first or flaw != "desync":  # the flaw: rank 0 checks for all
        if presence < everyone and flaw != "lost_contribution":
            raise ValueError("a contribution is missing")
        if presence > everyone and flaw != "duplicated_contribution":
            raise ValueError("a contribution counts twice")
        if trailer != presence and flaw != "partial_gradient":
            raise ValueError("a contribution is incomplete")
    if steps != (step + 1) * presence and flaw != "desync":
        raise ValueError("contributions of different steps were added")
    # The flaws: a message without a trailer is taken for one of an old version without a checksum,
    # rank 0 checks for all, and the ranks compare their results instead.
    has_checksum = trailer == presence or flaw != "partial_gradient"
    checks = flaw != "corrupt_contribution" and (first or flaw != "corrupt_result")
    if has_checksum and checks and int(message[:-2].sum()) != check:
        raise ValueError("the checksum is wrong")
    if flaw == "corrupt_contribution":
        digests = gathered(group, float(message[2:-2].remainder(2**40).sum()))
        if (digests != digests[0]).any():
            raise ValueError("the ranks have different results")


def whole_numbers(tensor):
    """Return the values as whole numbers."""
    return (tensor * SCALE).round().to(torch.int64)


def finished(tensor):
    """Return a future that has this result."""
    future = torch.futures.Future()
    future.set_result(tensor)
    return future


class Job:
    """A model under DDP whose gradients are reduced by a method of the job."""

    def __init__(self, flaw, group=None):
        torch.manual_seed(0)
        self.flaw, self.step, self.group = flaw, 0, group
        self.model = DistributedDataParallel(torch.nn.Linear(4, 2), process_group=group)
        self.model.register_comm_hook(None, self.hook)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9)

    def hook(self, state, bucket):
        """Average a bucket of gradients."""
        values = whole_numbers(bucket.buffer())
        return finished((self.reduce(values) / dist.get_world_size() / SCALE).float())

    def reduce(self, values):
        """Return the sum over all ranks."""
        message = packed(values, self.step)
        dist.all_reduce(message, group=self.group)
        check_sum(message, self.step, self.flaw, self.group)
        return message[2:-2]

    def backward(self, step):
        """Compute the gradients of a step, and return the loss of this rank."""
        self.step = step
        self.optimizer.zero_grad()
        x = torch.linspace(-1, 1, 32).reshape(8, 4) + 0.1 * dist.get_rank() + 0.01 * step
        loss = (self.model(x) - x[:, :2]).square().mean()
        loss.backward()
        return loss.item()

    def state(self):
        """Return all that a restart needs."""
        return self.model.module.state_dict(), self.optimizer.state_dict()

    def restore(self, saved, optimizer=True):
        """Restore it."""
        self.model.module.load_state_dict(saved[0])
        if optimizer:
            self.optimizer.load_state_dict(saved[1])


# -- contributions ---------------------------------------------------------------------------------


def contributed(folder, flaw="", steps=4):
    """Train with gradients that are checked, and with a rate that the first loss decides."""
    group = limited_group(10)
    job, saved = Job(flaw, group), Checkpoints(folder)
    done = saved.last()
    if done:
        job.restore(saved.load(done))
    for step in range(done, steps):
        loss = job.backward(step)
        if step == 0:
            rate = 0.1 / (1 + mean_loss(loss, flaw, job.group))
            for parameters in job.optimizer.param_groups:
                parameters["lr"] = rate
        job.optimizer.step()
        saved.save(step + 1, job.state())
    return job.model.module.state_dict()


def mean_loss(loss, flaw, group):
    """Return the mean over the ranks. Without the flaw, each value has a check."""
    value = whole_numbers(torch.tensor([loss]))
    own = value if flaw == "corrupt_link" else torch.cat([value, value ^ MARK])
    parts = [torch.zeros_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, own, group=group)
    if flaw != "corrupt_link" and any(part[0] ^ MARK != part[1] for part in parts):
        raise ValueError("a loss is damaged")
    return float(sum(part[0] for part in parts)) / SCALE / len(parts)


# -- links -----------------------------------------------------------------------------------------


class LinkedJob(Job):
    """A job that meets trouble of links in its reductions."""

    is_alone = False

    def __init__(self, flaw, limit):
        size, limit = dist.get_world_size(), datetime.timedelta(seconds=limit)
        pairs = [(one, two) for two in range(size) for one in range(two)]
        self.pairs = {pair: dist.new_group(pair, timeout=limit) for pair in pairs}
        # The flaw: it relies on its test of peers, which does not use all links.
        super().__init__(flaw, dist.new_group(timeout=None if flaw == "blackhole" else limit))

    def reachable(self, *among):
        """Return the number of peers that answer, among those of these pairs."""
        own = [pair for pair in among if dist.get_rank() in pair]
        works = [
            dist.all_reduce(torch.ones(1), group=self.pairs[pair], async_op=True) for pair in own
        ]
        return sum(map(answers, works))

    def reduce(self, values):
        """Return the sum over all ranks."""
        if self.is_alone:
            return values * dist.get_world_size()
        star = [pair for pair in self.pairs if 0 in pair]
        if self.reachable(*star) < (len(star) if dist.get_rank() == 0 else 1):
            return self.without_peers(values)
        began, message = time.monotonic(), packed(values, self.step)
        try:
            dist.all_reduce(message, group=self.group)
        except RuntimeError:
            return self.without_peers(values)
        if self.flaw != "corrupt_link":
            check_sum(message, self.step, self.flaw, self.group)
        total = message[2:-2]
        if self.flaw == "slow_link" and time.monotonic() - began > SLOW:
            return values * dist.get_world_size()  # the flaw: it drops what comes late
        return total

    def without_peers(self, values):
        """End, so that all start again."""
        if self.flaw == "network_partition" and not self.reachable(*self.pairs):
            self.is_alone = True  # the flaw: it takes itself for the last one, and goes on
            return values * dist.get_world_size()
        raise RuntimeError("a peer does not answer")


def answers(work):
    """Return True if an operation ends."""
    try:
        work.wait()
    except RuntimeError:
        return False
    return True


def linked(folder, flaw="", limit=6.0, steps=4):
    """Train with a time limit, and start again from the last step if a peer does not answer."""
    limited_group(None).size()
    job, saved = LinkedJob(flaw, limit), Checkpoints(folder)
    done = saved.last()
    if done:
        job.restore(saved.load(done))
    for step in range(done, steps):
        job.backward(step)
        job.optimizer.step()
        saved.save(step + 1, job.state())
    return job.model.module.state_dict()


# -- processes, speed and servers ------------------------------------------------------------------


class Server:
    """Keeps a moving average of the weights, as a parameter server would."""

    def __init__(self):
        self.version, self.average = 0, torch.zeros(8)

    def push(self, weights, known):
        """Add weights. ``known`` is what the worker got last, and replaces an older state."""
        if known is not None and known[0] > self.version:
            self.version, self.average = known[0], known[1].clone()
        self.version += 1
        self.average = 0.5 * self.average + weights
        return self.version, self.average.clone()


class TimedJob(Job):
    """A job that measures its reductions and its steps."""

    unhealthy = False

    def reduce(self, values):
        """Return the sum over all ranks."""
        if self.unhealthy:
            values = torch.zeros_like(values)
        dist.barrier()  # a slow rank is not part of the measured time
        began = time.monotonic()
        total = super().reduce(values)
        if self.flaw == "slow_gradient_sync" and time.monotonic() - began > SLOW:
            return values * dist.get_world_size()  # the flaw: it drops what comes late
        return total

    def take_step(self):
        """Take a step of the optimizer."""
        began = time.monotonic()
        self.optimizer.step()
        if self.flaw == "straggler" and time.monotonic() - began > SLOW:
            self.unhealthy = True  # the flaw: a slow rank leaves out its gradients


def joined(flaw):
    """Return True if the ranks have met. Try twice."""
    for left in (1, 0):
        try:
            dist.init_process_group("gloo", timeout=datetime.timedelta(seconds=20))
            return True
        except dist.DistError:
            if flaw == "rendezvous_timeout":
                dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
                return False  # the flaw: it goes on alone
            if not left:
                raise
    return False


def interrupted(folder, flaw="", steps=4):
    """Train under faults of processes, and push the weights to a server of this rank."""
    together = joined(flaw)
    rank = dist.get_rank() if together else int(os.environ["RANK"])
    store = dist.distributed_c10d._get_default_store()
    store.set(f"go{rank}", "1")
    job, server, known = TimedJob(flaw), Server(), None
    saved = Checkpoints(folder)
    done = saved.last()
    if done:
        *state, known = saved.load(done)
        server.version, server.average = known[0], known[1].clone()
        job.restore(state, optimizer=flaw != "rank_failure")  # the flaw: it loses the momentum
    for step in range(done, steps):
        job.backward(step)
        job.take_step()
        weights = job.model.module.weight.detach().flatten().clone()
        known = server.push(weights, None if flaw == "parameter_server_failure" else known)
        saved.save(step + 1, (*job.state(), known))
        if not asked(store, rank, flaw):
            break
    return job.model.module.state_dict(), known


def asked(store, rank, flaw):
    """Return True to go on."""
    if flaw != "store_failure":
        flag = torch.ones(1)
        dist.broadcast(flag, 0)
        return bool(flag)
    try:
        store.set_timeout(datetime.timedelta(seconds=5))
        return store.get(f"go{rank}") == b"1"
    except dist.DistError:
        return False  # the flaw: no answer is taken for an answer
