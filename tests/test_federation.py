"""``mlchaos.federation``: servers that survive bad clients, and twins that do not."""

from __future__ import annotations

import contextlib
import os
import types

import numpy as np
import pytest

from pytest_mlchaos import faults, sites
from pytest_mlchaos.core.faults import EVERY, create
from pytest_mlchaos.core.schedule import Schedule
from pytest_mlchaos.engine.patching import Patches
from pytest_mlchaos.engine.trial import trial
from pytest_mlchaos.errors import (
    BadArgument,
    BrokenModel,
    GaveUp,
    NonDeterministicSubject,
    NotConverged,
    NotRecovered,
    PayloadMismatch,
    TargetNotFound,
    Unfair,
    Worse,
)
from pytest_mlchaos.plugin.fixture import Mlchaos
from tests import federations
from tests.example import entries_in
from tests.federations import (
    CLIENTS,
    ROUNDS,
    START,
    Momentum,
    SavedMomentum,
    samples,
    train,
)

faults.load()
sites.load()


@pytest.fixture
def federate(tmp_path):
    """Run a federation in a trial of these faults."""
    # A trial reports a mistake of the test at its end, too.
    with contextlib.suppress(BadArgument, PayloadMismatch), contextlib.ExitStack() as stack:

        def run(aggregate, *faults, client=train, parameters=START, **options):
            stack.enter_context(trial(Schedule(faults), Patches(), clock="virtual"))
            options = {"clients": CLIENTS, "rounds": ROUNDS, **options}
            return Mlchaos(tmp_path).federation(client, aggregate, parameters=parameters, **options)

        yield run


def fault(name, client=2, at=1, **how):
    """A fault of one client in round 1."""
    return create(name, client=client, at=at, **how)


def is_close(run):
    """Judge by the distance to the golden model."""
    run.assert_converged(within=0.1)


# -- each fault, a server that it reveals, and its sound twin --------------------------------------


@pytest.mark.parametrize(
    ("strike", "unsound", "sound", "judge", "verdict", "says"),
    [
        (
            fault("client_dropout", at=3),
            federations.mean_of_all,
            federations.mean,
            is_close,
            NotConverged,
            "of the way of training away",
        ),
        (
            fault("client_dropout", at=3, when="after"),
            federations.mean_of_all,
            federations.mean,
            is_close,
            NotConverged,
            "round 3: client_dropout struck client 2; 4 updates from 5 clients",
        ),
        (
            fault("malicious_update", kind="sign", at=3),
            federations.mean,
            federations.median,
            is_close,
            NotConverged,
            "round 3: malicious_update struck client 2",
        ),
        (
            fault("malicious_update", kind="scale"),
            federations.mean,
            federations.median,
            is_close,
            NotConverged,
            "malicious_update struck client 2",
        ),
        (
            fault("malicious_update", kind="nan"),
            federations.median,
            federations.finite_median,
            lambda run: run.assert_intact(),
            BrokenModel,
            "after round 1 is NaN or infinite: w: 3 of 3 values. No error said so",
        ),
        (
            fault("wrong_keys"),
            federations.mean_by_name,
            federations.mean_of_known_names,
            lambda run: run.assert_intact(),
            BrokenModel,
            "after round 1 has a different form: it also has",
        ),
        (
            fault("duplicate_update"),
            federations.mean,
            federations.mean_of_distinct,
            lambda run: run.assert_recovered(),
            NotRecovered,
            "round 1: duplicate_update struck client 2; 6 updates from 5 clients",
        ),
        (
            create("all_clients_gone", at=1),
            federations.mean_by_name,
            federations.mean_or_same,
            lambda run: run.assert_intact(),
            BrokenModel,
            "after round 1 is empty",
        ),
        (
            create("all_clients_gone", at=1),
            federations.mean_by_name,
            federations.mean_or_error,
            lambda run: run.assert_intact(),
            BrokenModel,
            "all_clients_gone struck all 5 clients; 0 updates from 5 clients",
        ),
        (
            create("server_restart", at=2),
            Momentum(),
            SavedMomentum(),
            lambda run: run.assert_recovered(),
            NotRecovered,
            "round 2: the server restarted",
        ),
    ],
    ids=lambda value: repr(value)[:40] if hasattr(value, "name") else "",
)
def test_each_fault_reveals_the_unsound_server_alone(
    federate, strike, unsound, sound, judge, verdict, says
):
    """The message names the round and the client, and the sound twin passes."""
    with pytest.raises(verdict) as caught:
        judge(federate(unsound, strike))
    assert says in str(caught.value)
    judge(federate(sound, strike))


FAULTS = {
    "client_dropout": ([fault("client_dropout", at=3)], is_close, NotConverged),
    "late_update": ([fault("late_update", at=0, rounds=3)], is_close, NotConverged),
    "malicious_update": (
        [fault("malicious_update", kind=kind, at=3) for kind in ("sign", "scale")],
        is_close,
        NotConverged,
    ),
    "malicious_update-nan": (
        [fault("malicious_update", kind="nan")],
        lambda run: run.assert_intact(),
        BrokenModel,
    ),
    "wrong_keys": (
        [fault("wrong_keys", kind=kind) for kind in ("extra", "renamed")],
        lambda run: run.assert_intact(),
        BrokenModel,
    ),
    "duplicate_update": (
        [fault("duplicate_update")],
        lambda run: run.assert_recovered(),
        NotRecovered,
    ),
    "all_clients_gone": (
        [create("all_clients_gone", at=1)],
        lambda run: run.assert_intact(),
        BrokenModel,
    ),
    "server_restart": (
        [create("server_restart", at=2)],
        lambda run: run.assert_recovered(),
        NotRecovered,
    ),
}
"""Each fault, the judgement that sees it, and its verdict."""


@pytest.mark.parametrize(
    "flaw", ["", *(pytest.param(name, marks=pytest.mark.slow) for name in FAULTS)]
)
def test_only_its_own_fault_reveals_a_flaw(federate, flaw):
    """A server without the flaw passes under all of them."""
    for name, (strikes, judge, verdict) in FAULTS.items():
        for strike in strikes:
            run = federate(federations.server(flaw), strike)
            assert run.faults, strike
            if name != flaw:
                judge(run)
                continue
            with pytest.raises(verdict, match=r"round \d"):
                judge(run)


@pytest.mark.parametrize(
    "aggregate", [federations.sum_of_differences, federations.sum_of_fresh_differences]
)
def test_a_late_update_reveals_a_server_that_takes_it_for_a_fresh_one(federate, aggregate):
    """It arrives beside the fresh one of a later round."""
    run = federate(
        aggregate,
        fault("late_update", at=0, rounds=3),
        client=federations.train_differences,
        updates="differences",
    )
    assert (run.rounds[0].answered, run.rounds[3].late) == ([0, 1, 3, 4], [2])
    if aggregate is federations.sum_of_fresh_differences:
        run.assert_converged(within=0.1)
        return
    with pytest.raises(NotConverged, match="an old update of client 2 arrived; 6 updates"):
        run.assert_converged(within=0.1)


def test_a_client_that_lies_in_each_round_is_judged_by_the_metric(federate):
    """A lasting attacker, and a loss that the test measures."""
    lies = fault("malicious_update", kind="sign", factor=20.0, at=EVERY)
    run = federate(federations.mean, lies, evaluate=federations.loss)
    assert len(run.metrics) == ROUNDS
    with pytest.raises(NotConverged, match="round 0: malicious_update struck client 2"):
        run.assert_converged(below=1.0)
    with pytest.raises(Worse, match="the metric of the global model is"):
        run.assert_not_worse(margin=0.1)
    sound = federate(federations.median, lies, evaluate=federations.loss)
    sound.assert_converged(below=1.0)
    sound.assert_not_worse(margin=0.1)


def test_a_client_that_is_left_behind_is_named(federate):
    """The mean loss hides it, because the other clients gain."""

    def far(client):
        x, y = federations.samples(client)
        return (x, y + 4 * x[:, 0]) if client == 4 else (x, y)

    def learn(parameters, config):
        w = federations.learned(parameters["w"], *far(config["client"]), steps=20)
        return {"parameters": {"w": w}, "client": config["client"]}

    def loss(parameters, client):
        x, y = far(client)
        return float(((x @ parameters["w"] - y) ** 2).mean())

    gone = fault("client_dropout", client=4, at=[1, 2, 3])
    options = {"client": learn, "evaluate_client": loss}
    with pytest.raises(Unfair, match=r"1 of 5 clients .* client 4 \("):
        federate(federations.mean, gone, **options).assert_fair_between_clients(margin=1.0)
    federate(federations.Remembering(), gone, **options).assert_fair_between_clients(margin=1.0)


# -- poisoned data ---------------------------------------------------------------------------------


def classes(client):
    """Two classes that a line separates."""
    rng = np.random.default_rng(client)
    y = rng.integers(0, 2, 60)
    return rng.normal(size=(60, 4)) + np.outer(2 * y - 1, [1.5, 1, 0, 0]), y


def load_classes(client):
    """Load the data of a client."""
    return classes(client)


def learn_classes(parameters, config, data=None):
    """Logistic regression."""
    x, y = load_classes(config["client"]) if data is None else data
    w = parameters["w"]
    for _ in range(10):
        w = w - 0.5 * x.T @ (1 / (1 + np.exp(-x @ w)) - y) / len(y)
    return {"w": w}


def learn_passed_classes(parameters, config, data):
    """The same with data as an argument."""
    return learn_classes(parameters, config, data)


def mean_of_classes(updates):
    """Average."""
    return {"w": np.mean([update["w"] for update in updates], axis=0)}


def median_of_classes(updates):
    """Take the median."""
    return {"w": np.median([update["w"] for update in updates], axis=0)}


def accuracy(parameters):
    """The accuracy on clean data, and how often the backdoor opens."""
    from pytest_mlchaos.faults.federation.poisoned_data import add_trigger

    x, y = classes(99)
    marked = add_trigger(x[y == 1].copy())
    return {
        "accuracy": float(((x @ parameters["w"] > 0) == y).mean()),
        "attacks": float((marked @ parameters["w"] <= 0).mean()),
    }


@pytest.mark.parametrize("passed", [True, False])
@pytest.mark.parametrize(("kind", "key"), [("label_flip", "accuracy"), ("backdoor", "attacks")])
def test_poisoned_data_reaches_the_clients_own_training(federate, kind, key, passed):
    """Data is an argument of the client, or comes from a function that it calls."""
    lies = fault("malicious_update", kind=kind, factor=20.0, at=3)
    options = {
        "parameters": {"w": np.zeros(4)},
        "evaluate": accuracy,
        "client": learn_passed_classes if passed else learn_classes,
        "data": [classes(client) for client in range(CLIENTS)]
        if passed
        else "tests.test_federation:load_classes",
    }
    judge = {"margin": 0.1, "key": key, "higher_is_better": key == "accuracy"}
    with pytest.raises(Worse, match="malicious_update struck client 2"):
        federate(mean_of_classes, lies, **options).assert_not_worse(**judge)
    federate(median_of_classes, lies, **options).assert_not_worse(**judge)


def test_poisoned_data_without_data_is_refused(federate):
    """The message names the argument that is missing."""
    with pytest.raises(BadArgument, match="Give data= to mlchaos"):
        federate(federations.mean, fault("malicious_update", kind="label_flip"))


# -- models of torch -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "judge", "verdict"),
    [
        ({"kind": "sign"}, is_close, NotConverged),
        ({"kind": "nan"}, lambda run: run.assert_intact(), BrokenModel),
    ],
)
def test_a_state_dict_is_poisoned_and_judged(federate, how, judge, verdict):
    """Counters of batches stay whole numbers, and an update may be an object."""
    torch = pytest.importorskip("torch")

    def model():
        torch.manual_seed(0)
        return torch.nn.Sequential(torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 1))

    def learn(parameters, config):
        net = model()
        net.load_state_dict(parameters)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
        x, y = (torch.tensor(part, dtype=torch.float32) for part in samples(config["client"]))
        for _ in range(5):
            optimizer.zero_grad()
            (net(x).squeeze(1) - y).square().mean().backward()
            optimizer.step()
        return types.SimpleNamespace(state=net.state_dict(), examples=len(y))

    def combined(updates, combine):
        names = updates[0].state
        return {
            name: combine(torch.stack([one.state[name] for one in updates]).double()).to(
                names[name].dtype
            )
            for name in names
        }

    def mean(updates):
        return combined(updates, lambda values: values.mean(0))

    def median(updates):
        return combined(updates, lambda values: values.nan_to_num().median(0).values)

    options = {"client": learn, "parameters": model().state_dict()}
    strike = fault("malicious_update", at=3, **how)
    with pytest.raises(verdict):
        judge(federate(mean, strike, **options))
    judge(federate(median, strike, **options))


# -- what a federation is --------------------------------------------------------------------------


def test_a_federation_without_faults_is_its_golden_run(federate):
    """Nothing else disturbs it, and the clients' random numbers are the same."""

    def noisy(parameters, config):
        update = train(parameters, config)
        update["parameters"]["w"] += np.random.normal(size=3)
        return update

    struck = federate(federations.mean_of_distinct, fault("duplicate_update"), client=noisy)
    struck.assert_recovered()
    assert [one.answered for one in struck.rounds][1] == [0, 1, 2, 2, 3, 4]


def test_clients_and_server_share_no_memory(federate):
    """A client that changes its parameters in place disturbs no other client."""

    def in_place(parameters, config):
        update = train(parameters, config)
        parameters["w"] += 100
        return update

    federate(federations.mean, fault("duplicate_update"), client=in_place).assert_converged(
        within=0.1
    )


def test_a_client_that_crashes_sends_no_update(federate):
    """Faults of other kinds strike inside clients, too."""
    failing = create("call_failure", target="tests.federations:learned", at=7)
    run = federate(federations.mean, failing)
    assert list(run.rounds[1].failed) == [2]
    assert run.rounds[1].answered == [0, 1, 3, 4]
    run.assert_converged(within=0.1)
    with pytest.raises(NotConverged, match="client 2 failed with"):
        federate(federations.mean_of_all, failing).assert_converged(within=0.01)


def test_an_error_of_the_server_ends_the_federation(federate):
    """An error is not silent, but it is not a trained model either."""
    run = federate(federations.mean_or_error, create("all_clients_gone", at=2))
    run.assert_intact()
    assert isinstance(run.error, RuntimeError)
    with pytest.raises(NotConverged, match="ended the federation with RuntimeError"):
        run.assert_converged(within=0.1)


def test_an_error_without_a_fault_is_raised(federate):
    """It is a bug of the test's own code."""

    def broken(updates):
        raise KeyError("weights")

    with pytest.raises(KeyError):
        federate(broken, fault("client_dropout", at=3))


def test_a_restarted_server_goes_on_from_the_users_checkpoint(federate, tmp_path):
    """It begins with what ``restore`` returns."""

    def saving(updates, parameters, config):
        value = federations.mean(updates)
        np.save(tmp_path / "model.npy", value["w"])
        return value

    def restore():
        return {"w": np.load(tmp_path / "model.npy")}

    run = federate(saving, create("server_restart", at=2), restore=restore)
    assert run.restarts == 1
    assert [one.number for one in run.rounds] == [0, 1, 2, 2, 3]
    run.assert_recovered()
    with pytest.raises(NotRecovered):
        federate(
            federations.mean, create("server_restart", at=2), restore=lambda: None
        ).assert_recovered()


def test_a_server_that_restarts_for_ever_is_given_up(federate):
    """The federation always ends."""
    with pytest.raises(GaveUp, match="the server did not finish"):
        federate(federations.mean, create("server_restart", at=EVERY))


def test_a_federation_whose_golden_runs_differ_is_not_judged(federate):
    """Random numbers that no seed decides are not a finding."""

    def noisy(parameters, config):
        return {"parameters": {"w": parameters["w"] + os.urandom(1)[0]}, "round": config["round"]}

    with pytest.raises(NonDeterministicSubject, match="Fix the seeds of clients and server"):
        federate(federations.mean, fault("duplicate_update"), client=noisy).assert_recovered()


def test_a_golden_run_that_ends_in_nan_judges_nothing(federate):
    """Two models of NaN would be equal."""

    def diverging(updates, parameters, config):
        return {"w": parameters["w"] * np.nan}

    run = federate(diverging, fault("duplicate_update"))
    for judge in (run.assert_recovered, run.assert_intact, lambda: is_close(run)):
        with pytest.raises(BadArgument, match="without faults, the global model"):
            judge()


def test_few_clients_take_part_in_a_round(federate):
    """A pinned client that does not take part is not struck."""
    run = federate(federations.mean, fault("client_dropout", client=0, at=EVERY), per_round=2)
    assert all(len(one.clients) == 2 for one in run.rounds)
    assert len(run.faults) == sum(0 in one.clients for one in run.rounds)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"clients": 0}, "clients must be 1 or more"),
        ({"rounds": -1}, "rounds must be 1 or more"),
        ({"per_round": 6}, "per_round must be from 1 to 5"),
        ({"updates": "gradients"}, "updates must be 'parameters' or 'differences'"),
        ({"evaluate": 3}, "evaluate must be a function"),
        ({"parameters": None}, "parameters must be the global parameters"),
        ({"data": [1, 2]}, "data must be a list with a dataset for each of 5 clients"),
        ({"client": 3}, "client must be a plain function"),
        ({"client": lambda: None, "data": [1] * 5}, "client must be a function of parameters"),
    ],
)
def test_wrong_arguments_are_refused(federate, options, says):
    """The message names the argument and the rule."""
    with pytest.raises(BadArgument, match=says):
        federate(federations.mean, **options)


def test_a_dotted_aggregation_is_found(federate):
    """Both functions may be given by name."""
    run = federate("tests.federations:mean", client="tests.federations:train")
    assert run.value["w"].shape == (3,)
    with pytest.raises(TargetNotFound):
        federate("tests.federations:nothing")


def test_an_update_without_parameters_is_refused(federate):
    """A fault that finds nothing to change says so."""
    with pytest.raises(PayloadMismatch, match="found no parameters of the global model's form"):
        federate(
            lambda updates, parameters: parameters,
            fault("malicious_update"),
            client=lambda parameters, config: "done",
        )


def test_a_client_that_does_not_exist_is_refused(federate):
    """A typo must not pass as a fault that never strikes."""
    with pytest.raises(PayloadMismatch, match="client must be below 5"):
        federate(federations.mean, fault("client_dropout", client=5))


# -- in a test -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_search_finds_client_round_and_kind(example):
    """The smallest schedule names all three, and the journal has the rounds."""
    outcome = example.with_tests("""
        from tests.federations import START, finite_median, median, train

        @chaos.malicious_update
        @chaos.settings(max_trials=12)
        def test_unsound(mlchaos):
            mlchaos.federation(train, median, clients=3, rounds=2, parameters=START).assert_intact()

        @chaos.malicious_update
        @chaos.settings(max_trials=12)
        def test_sound(mlchaos):
            run = mlchaos.federation(train, finite_median, clients=3, rounds=2, parameters=START)
            run.assert_intact()
    """).run("--mlchaos-journal=journal.jsonl", failed=1, passed=1)
    outcome.has("reproduce: @chaos.malicious_update(at=0, client=0, kind='nan')")
    rounds = entries_in(example.pytester.path / "journal.jsonl", "federation_round")
    assert {(one["number"], tuple(one["answered"])) for one in rounds} == {
        (0, (0, 1, 2)),
        (1, (0, 1, 2)),
    }
