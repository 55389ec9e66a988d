"""``mlchaos.federation`` with unmodified apps of Flower."""

from __future__ import annotations

import numpy as np
import pytest

from pytest_mlchaos.core.faults import EVERY, create
from pytest_mlchaos.errors import BadArgument, BrokenModel, NotConverged, NotRecovered
from pytest_mlchaos.federation.flower import as_arrays
from tests.federations import learned, loss, samples
from tests.test_federation import fault, federate  # noqa: F401  # a fixture

pytest.importorskip("flwr")

from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAdam, FedAvg, FedMedian, MultiKrum

app = ClientApp()
START = {"w": np.zeros(3)}


@app.train()
def train(message, context):
    """Train on the data of this partition."""
    x, y = samples(context.node_config["partition-id"])
    w = learned(message.content["arrays"].to_numpy_ndarrays()[0], x, y)
    metrics = MetricRecord({"loss": float(((x @ w - y) ** 2).mean()), "num-examples": len(y)})
    arrays = ArrayRecord([w])
    arrays["w"] = arrays.pop("0")
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)


@app.evaluate()
def evaluate(message, context):
    """Evaluate on the data of this partition."""
    w = message.content["arrays"].to_numpy_ndarrays()[0]
    value = loss({"w": w}, context.node_config["partition-id"])
    metrics = MetricRecord({"loss": value, "num-examples": 40})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)


def strategy(cls=FedAvg, **options):
    """A strategy that asks all clients."""
    counts = {"min_train_nodes": 5, "min_available_nodes": 5, "min_evaluate_nodes": 5}
    return cls(**counts, **options)


@pytest.fixture
def run(federate):  # noqa: F811
    """Run the app with a strategy and these faults."""

    def run(server, *faults, **options):
        options = {"parameters": START, **options}
        return federate(server, *faults, client=app, **options)

    return run


def test_a_strategy_trains_without_faults_as_in_flower(run):
    """Five rounds, and the metric of each."""
    result = run(
        strategy(), evaluate=lambda arrays: loss({"w": arrays.to_numpy_ndarrays()[0]}), rounds=3
    )
    assert [one.answered for one in result.rounds] == [[0, 1, 2, 3, 4]] * 3
    assert len(result.models) == 4
    result.assert_converged(below=0.5)


@pytest.mark.parametrize(
    ("strike", "unsound", "sound", "judge", "verdict"),
    [
        (
            fault("malicious_update", kind="sign", at=3),
            (FedAvg, {}),
            (MultiKrum, {"num_malicious_nodes": 1}),
            lambda run: run.assert_converged(within=0.1),
            NotConverged,
        ),
        (
            fault("malicious_update", kind="nan"),
            (FedMedian, {}),
            (MultiKrum, {"num_malicious_nodes": 1}),
            lambda run: run.assert_intact(),
            BrokenModel,
        ),
        (
            create("all_clients_gone", at=0),
            (FedAvg, {}),
            None,
            lambda run: run.assert_intact(),
            BrokenModel,
        ),
        (
            create("server_restart", at=2),
            (FedAdam, {}),
            (FedAvg, {}),
            lambda run: run.assert_recovered(),
            NotRecovered,
        ),
        (
            fault("malicious_update", kind="nan", at=3),
            (FedAvg, {}),
            None,
            lambda run: run.assert_intact(),
            BrokenModel,
        ),
    ],
    ids=lambda value: repr(value)[:40] if hasattr(value, "at") else "",
)
def test_faults_reveal_strategies_that_are_not_robust(run, strike, unsound, sound, judge, verdict):
    """Two strategies of Flower, of which one survives."""
    cls, options = unsound
    with pytest.raises(verdict):
        judge(run(strategy(cls, **options), strike))
    if sound is not None:
        cls, options = sound
        judge(run(strategy(cls, **options), strike))


def test_wrong_keys_end_a_strategy_with_an_error(run):
    """Flower checks the names."""
    result = run(strategy(), fault("wrong_keys"))
    result.assert_intact()
    assert result.error is not None


def test_a_client_that_fails_is_an_error_message(run):
    """The strategy averages the others."""
    failing = create("call_failure", target="tests.federations:learned", at=7)
    result = run(strategy(fraction_evaluate=0.0), failing)
    assert list(result.rounds[1].failed) == [2]
    result.assert_converged(within=0.1)


def test_clients_evaluate_by_their_own_app(run):
    """Fairness needs no further function."""
    result = run(strategy(), fault("client_dropout", at=EVERY))
    result.assert_fair_between_clients(margin=0.1)


def test_data_is_poisoned_where_the_app_loads_it(run):
    """The function is named, because the app loads its data itself."""
    lies = fault("malicious_update", kind="label_flip", factor=20.0, at=3)
    result = run(strategy(), lies, data="tests.federations:samples")
    with pytest.raises(NotConverged, match="malicious_update struck client 2"):
        result.assert_converged(within=0.1)


def test_a_server_app_runs_unmodified(run):
    """Its main function builds the strategy."""
    server = ServerApp()

    @server.main()
    def main(grid, context):
        rounds = context.run_config["rounds"]
        strategy().start(grid=grid, initial_arrays=as_arrays(START), num_rounds=rounds)

    lies = fault("malicious_update", kind="nan", at=1)
    result = run(server, lies, parameters=None, config={"rounds": 3})
    assert len(result.rounds) == 3
    with pytest.raises(BrokenModel, match="after round 1 is NaN"):
        result.assert_intact()


def test_a_strategy_that_waits_for_more_clients_is_refused(run):
    """It would wait for ever."""
    with pytest.raises(BadArgument, match="waits for more than 5 clients"):
        run(FedAvg(min_train_nodes=6, min_available_nodes=6))
