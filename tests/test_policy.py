"""The policy of a repository: what it refuses, and what it leaves alone."""

from __future__ import annotations

import datetime
import os
import subprocess
import sys
import tomllib

import pytest

from pytest_mlchaos import faults
from pytest_mlchaos.core.approvals import (
    Approval,
    doubt,
    parse_until,
    read_approvals,
    write_approvals,
)
from pytest_mlchaos.core.faults import EVERY, OneOf, create
from pytest_mlchaos.core.policy import (
    Case,
    Rule,
    is_below,
    refusals_of_fault,
    refusals_of_test,
    severity_of,
    watched_by,
)
from pytest_mlchaos.core.policy_file import combined, find_policies, read_policy
from pytest_mlchaos.errors import BadArgument
from tests.example import entries_in

faults.load()
HEAD = "[tool.mlchaos.policy]\n"
RULE = "[[tool.mlchaos.policy.rule]]\n"


def policy_of(folder, text):
    """Read a policy from a file of the folder."""
    file = folder / "pyproject.toml"
    file.write_text(text)
    return read_policy(file)


def reasons(folder, text, fault, **facts):
    """Return the reasons why a policy refuses a fault in a test with these facts."""
    case = Case(test="tests/test_it.py::test_it", path=folder / "tests/test_it.py", **facts)
    rules = policy_of(folder, text).rules_for(case)
    found = [one for rule in rules for one in refusals_of_fault(rule, case, fault)]
    found += [one for rule in rules for one in refusals_of_test(rule, case)]
    return [one.text(case.test) for one in found]


OOM = create("gpu_oom", at=1)
NAN = create("corrupt_batch", at=0, severity=3)
HALF = create("corrupt_batch", at=0, fraction=0.5)
KILL = create("rank_failure", rank=1, at=2)
FULL = create("disk_full", at=0)
RADIUS = "[tool.mlchaos.policy.blast_radius]\n"
STAGING = {"ENVIRONMENT": "staging"}


@pytest.mark.parametrize(
    ("policy", "fault", "facts"),
    [
        (HEAD + 'forbid = ["gpu_oom"]', OOM, {}),
        (HEAD + 'forbid = "gpu_*"', OOM, {}),
        (HEAD + 'forbid = ["GPU_OOM"]', OOM, {}),
        (HEAD + 'forbid = ["the device and the host"]', OOM, {}),
        (HEAD + 'forbid = ["storage"]', FULL, {}),
        (HEAD + 'forbid = ["bad_data"]', NAN, {}),
        (HEAD + 'forbid = ["*"]', OOM, {}),
        (HEAD + 'allow = ["storage"]', OOM, {}),
        (HEAD + "allow = []", OOM, {}),
        (HEAD + 'allow = ["gpu_oom"]\nforbid = ["gpu_oom"]', OOM, {}),
        (HEAD + "max_severity = 2", NAN, {}),
        (HEAD + "max_severity = 3", HALF, {}),
        (HEAD + "max_severity = 2", create("corrupt_batch", at=0), {}),
        (HEAD + "max_severity = 2", create("corrupt_batch", severity=OneOf((1, 3))), {}),
        (HEAD + "max_severity = 2", create("corrupt_image", at=0), {}),
        (HEAD + "require_owner = true", OOM, {}),
        (HEAD + 'owners = ["ml-*"]', OOM, {"owner": "web"}),
        (HEAD + 'owners = ["ml-*"]', OOM, {}),
        (RADIUS + "processes = false", KILL, {}),
        (RADIUS + "processes = false", create("crash", at=0), {"isolated": True}),
        (RADIUS + "processes = false", create("straggler", rank=0, share=0.5), {}),
        (RADIUS + "directories = []", create("disk_full", path="/data/*.pt", at=0), {}),
        (RADIUS + "directories = []", create("damaged_file", path="/data/x.csv", at=0), {}),
        (RADIUS + 'directories = ["/a"]', create("disk_full", path="/ab/x", at=0), {}),
        (RADIUS + 'directories = ["/a"]', create("disk_full", path="/a/../b/x", at=0), {}),
        (RULE + 'marker = "nightly"\nforbid = ["*"]', OOM, {"markers": frozenset({"nightly"})}),
        (RULE + 'path = "tests/*"\nforbid = ["*"]', OOM, {}),
        (RULE + 'path = "tests"\nforbid = ["*"]', OOM, {}),
        (RULE + 'environment = "ENVIRONMENT=stag*"\nforbid = ["*"]', OOM, {"environment": STAGING}),
        (RULE + 'environment = "ENVIRONMENT=STAGING"\nforbid = "*"', OOM, {"environment": STAGING}),
        (
            HEAD + 'allow = ["*"]\n' + RULE + 'path = "tests"\nmax_severity = 1',
            NAN,
            {},
        ),
        (
            "[tool.mlchaos.policy.synthetic]\npii = ['fake_*']",
            OOM,
            {"markers": frozenset({"pii"}), "fixtures": ("fake_users", "users")},
        ),
    ],
)
def test_a_policy_refuses(tmp_path, policy, fault, facts):
    """A rule that applies gives one line with the test, the file and the key, and a cure."""
    found = reasons(tmp_path, policy, fault, **facts)
    assert len(found) == 1
    key = policy.splitlines()[-1].split(" = ")[0]
    assert found[0].startswith("tests/test_it.py::test_it: ")
    assert "pyproject.toml [" in found[0]
    assert key in found[0]
    assert "\n" not in found[0]


@pytest.mark.parametrize(
    ("policy", "fault", "facts"),
    [
        (HEAD, OOM, {}),
        (HEAD + 'forbid = ["storage"]', OOM, {}),
        (HEAD + 'allow = ["gpu_*"]', OOM, {}),
        (HEAD + 'allow = ["storage", "The device and the host"]', OOM, {}),
        (HEAD + "max_severity = 3", NAN, {}),
        (HEAD + "max_severity = 4", HALF, {}),
        (HEAD + "max_severity = 1", OOM, {}),
        (HEAD + "require_owner = true", OOM, {"owner": "ml-core"}),
        (HEAD + 'owners = ["ml-*"]', OOM, {"owner": "ml-core"}),
        (RADIUS + "processes = false", create("crash", at=0), {}),
        (RADIUS + "processes = false", create("straggler", rank=0, delay=1.0), {}),
        (RADIUS + "directories = []", create("disk_full", path="*.pt", at=0), {}),
        (RADIUS + 'directories = ["/a"]', create("disk_full", path="/a/*.pt", at=0), {}),
        (RULE + 'marker = "nightly"\nforbid = ["*"]', OOM, {"markers": frozenset({"smoke"})}),
        (RULE + 'path = "other/*"\nforbid = ["*"]', OOM, {}),
        (RULE + 'path = "test"\nforbid = ["*"]', OOM, {}),
        (RULE + 'environment = "ENVIRONMENT=prod"\nforbid = "*"', OOM, {"environment": STAGING}),
        (RULE + 'environment = "ENVIRONMENT=*"\nforbid = "*"', OOM, {}),
        (
            RULE + 'path = "tests"\nmarker = "nightly"\nforbid = "*"',
            OOM,
            {},
        ),
        (
            "[tool.mlchaos.policy.synthetic]\npii = ['fake_*']",
            OOM,
            {"markers": frozenset({"pii"}), "fixtures": ("fake_users",)},
        ),
        (
            "[tool.mlchaos.policy.synthetic]\npii = ['fake_*']",
            OOM,
            {"fixtures": ("users",)},
        ),
    ],
)
def test_a_policy_allows(tmp_path, policy, fault, facts):
    """Allow a fault that no rule refuses."""
    assert reasons(tmp_path, policy, fault, **facts) == []


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        (HEAD + "forbidd = []", "unknown key 'forbidd' (did you mean 'forbid'?)"),
        (HEAD + "max_severity = 6", "max_severity must be a whole number from 1 to 5, got 6"),
        (HEAD + "max_severity = true", "max_severity must be a whole number from 1 to 5"),
        (HEAD + "max_trials = 0", "max_trials must be a whole number of 1 or more, got 0"),
        (HEAD + 'max_time = "soon"', "max_time"),
        (HEAD + "forbid = 3", "forbid must be a text or a list of texts, got 3 (int)"),
        (HEAD + 'forbid = [""]', "forbid must be a text or a list of texts"),
        (HEAD + 'require_owner = "yes"', "require_owner must be true or false"),
        (HEAD + 'abort = "guards"', "abort must name a function, such as 'mypkg.guards:healthy'"),
        (HEAD + 'min_free_disk = "much"', "min_free_disk must be in bytes"),
        (HEAD + "blast_radius = 3", "blast_radius must be a table"),
        (RADIUS + "host = []", "blast_radius: unknown key 'host' (did you mean 'hosts'?)"),
        (RADIUS + "processes = 0", "blast_radius processes must be true or false"),
        (RULE + 'forbid = ["*"]', "number 1 has no condition"),
        (RULE + 'enviroment = "A=b"', "unknown key 'enviroment' (did you mean 'environment'?)"),
        (RULE + 'environment = "staging"', "environment must be NAME=pattern"),
        (RULE + 'path = "x"\nsession_time = "1m"', "unknown key 'session_time'"),
        ("[tool.mlchaos]\npolicy = 3", "must be a table"),
        (HEAD + "forbid = [", "is not valid TOML"),
        ("[tool.mlchaos.policy.synthetic]\npii = 3", "synthetic.pii must be a text or a list"),
    ],
)
def test_a_wrong_policy_is_one_clear_line(tmp_path, policy, said):
    """An error names the file, the key, the rule and the nearest known key."""
    with pytest.raises(BadArgument) as caught:
        policy_of(tmp_path, policy)
    assert "pyproject.toml" in str(caught.value)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value).strip()


@pytest.mark.parametrize(
    ("fault", "severity"),
    [
        (create("corrupt_batch", at=0, fraction=0.01), 1),
        (create("corrupt_batch", at=0, fraction=0.2), 3),
        (create("corrupt_batch", at=0, fraction=0.21), 4),
        (create("corrupt_batch", at=0, fraction=1.0), 5),
        (create("corrupt_batch", at=0, fraction=OneOf((0.01, 0.5))), 4),
    ],
)
def test_a_parameter_counts_as_the_severity_that_it_reaches(fault, severity):
    """A ceiling also holds for the parameters for which a severity stands."""
    found = severity_of(fault)
    assert found is not None
    assert found[0] == severity


def test_a_strategy_has_no_severity_below_the_ceiling(tmp_path):
    """Refuse a strategy under a ceiling, because its values are not known."""
    from hypothesis import strategies as st

    fault = create("corrupt_batch", severity=st.integers(1, 2))
    [line] = reasons(tmp_path, HEAD + "max_severity = 5", fault)
    assert "chaos.one_of" in line


def test_paths_are_compared_by_their_real_place(tmp_path):
    """A symbolic link does not lead out of the allowed directories."""
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    outside.mkdir()
    (inside / "link").symlink_to(outside)
    assert is_below(str(inside / "x"), [str(inside)])
    assert not is_below(str(inside / "link" / "x"), [str(inside)])


def test_policies_of_all_folders_above_hold_together(tmp_path):
    """A package cannot widen the policy of its repository by one of its own."""
    inner = tmp_path / "package"
    inner.mkdir()
    policy_of(tmp_path, HEAD + 'forbid = ["gpu_*"]\nmin_free_disk = "2GiB"')
    policy_of(inner, HEAD + 'allow = ["gpu_oom"]\nmin_free_disk = "1GiB"')
    found = combined(find_policies([inner], {}))
    assert len(found.rules) == 2
    assert found.min_free_disk == 2 * 2**30
    case = Case(test="t", path=inner / "test_it.py")
    assert [one for rule in found.rules for one in refusals_of_fault(rule, case, OOM)]


def test_the_digest_does_not_depend_on_the_order_of_keys(tmp_path):
    """A comment or a different order is the same policy. A different value is not."""
    first = policy_of(tmp_path, HEAD + "max_trials = 3\nmax_severity = 2").digest
    assert first == policy_of(tmp_path, HEAD + "max_severity = 2 # low\nmax_trials = 3").digest
    assert first != policy_of(tmp_path, HEAD + "max_severity = 3\nmax_trials = 3").digest


# -- approvals -------------------------------------------------------------------------------------

TODAY = datetime.date(2027, 1, 31)
APPROVED = Approval(test="t::a", digest="d", by="Ada", until=TODAY, faults=("crash(at=0)",))


@pytest.mark.parametrize(
    ("test", "digest", "today", "said"),
    [
        ("t::a", "d", TODAY, ""),
        ("t::a", "d", TODAY + datetime.timedelta(1), "approval by Ada expired on 2027-01-31"),
        ("t::a", "e", TODAY, "have changed since the approval by Ada"),
        ("t::b", "d", TODAY, "it has none"),
    ],
)
def test_an_approval_holds_for_its_test_as_it_was_until_its_date(test, digest, today, said):
    """The last day counts. A changed test or fault needs a new approval."""
    found, reason = doubt([APPROVED], test, digest, today)
    assert (found is APPROVED) == (not said)
    assert said in reason


def test_approvals_are_read_back_as_written(tmp_path):
    """Names with quotes and other characters survive. A new approval replaces that of its test."""
    file = tmp_path / "approvals.toml"
    odd = Approval(test='t::x["\\é😀]', digest="d", by='A "B"', until=TODAY)
    write_approvals(file, [APPROVED, odd])
    write_approvals(file, [Approval(test="t::a", digest="new", by="Bo", until=TODAY)])
    tomllib.loads(file.read_text())
    assert [(one.test, one.digest, one.by) for one in read_approvals(file)] == [
        ("t::a", "new", "Bo"),
        (odd.test, "d", 'A "B"'),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[approval]]\ntset = 'a'", "unknown key 'tset' (did you mean 'test'?)"),
        ("[[approval]]\ntest = 'a'\ndigest = 'd'\nby = ''", "by must be a text"),
        ("[[approval]]\ntest = 'a'\ndigest = 'd'\nby = 'b'\nuntil = 'soon'", "must be a date"),
        ("[[approval]", "cannot be read"),
        ("approval = 3", "must be tables"),
    ],
)
def test_a_wrong_file_of_approvals_is_one_clear_line(tmp_path, text, said):
    """An error names the file and the entry."""
    file = tmp_path / "approvals.toml"
    file.write_text(text)
    with pytest.raises(BadArgument, match=r"approvals\.toml") as caught:
        read_approvals(file)
    assert said in str(caught.value)


@pytest.mark.parametrize("value", ["31.01.2027", "soon", 3, None])
def test_a_date_is_written_in_one_way(value):
    """The message shows an example."""
    with pytest.raises(BadArgument, match="2027-01-31"):
        parse_until("--until", value)


# -- whole sessions --------------------------------------------------------------------------------

CALL = """
    import json, pytest

    @chaos.call_failure(target="json:loads", at=0)
    def test_it():
        with pytest.raises(RuntimeError):
            json.loads("1")
"""


def with_policy(example, text, tests=CALL):
    """The project with a policy."""
    return example.with_file("pyproject.toml", text).with_tests(tests)


def test_a_refused_test_fails_before_its_fixtures(example):
    """It is an error, other tests run, and the summary counts it."""
    outcome = with_policy(
        example,
        HEAD + 'forbid = ["call_*"]',
        """
        import pytest

        @pytest.fixture
        def database():
            raise SystemExit("it was set up")

        @chaos.call_failure(target="json:loads", at=0)
        def test_it(database): ...

        def test_other(): ...
        """,
    ).run(errors=1, passed=1)
    outcome.has(
        "test_it.py::test_it: call_failure(at=0, target='json:loads') is forbidden",
        '[tool.mlchaos.policy] forbid = "call_*"). Remove the fault from the test',
        "failures/#policyrefused",
        "mlchaos policy: 1 test was refused",
    )
    assert "it was set up" not in outcome.text


@pytest.mark.parametrize(
    "how",
    [
        ("--mlchaos-replay", "call_failure(target='json:loads', at=1)"),
        pytest.param(("--mlchaos-max-trials=100000",), marks=pytest.mark.slow),
        pytest.param(("-c", "pytest.ini", "--rootdir=/"), marks=pytest.mark.slow),
    ],
)
def test_no_option_widens_a_policy(example, how):
    """A refused fault stays refused, whatever the command line says."""
    with_policy(example, HEAD + 'forbid = ["call_*"]').run(*how, errors=1)


def test_without_faults_nothing_is_refused(example):
    """``--mlchaos-off`` injects nothing, so the policy has nothing to refuse."""
    with_policy(
        example,
        HEAD + 'forbid = ["call_*"]\nrequire_owner = true',
        """
        @chaos.call_failure(target="json:loads", at=0)
        def test_it(): ...
        """,
    ).run("--mlchaos-off", passed=1)


def test_an_expected_failure_does_not_hide_a_refusal(example):
    """``xfail`` is about the code under test."""
    with_policy(
        example,
        HEAD + 'forbid = ["call_*"]',
        """
        import pytest

        @pytest.mark.xfail
        @chaos.call_failure(target="json:loads", at=0)
        def test_it(): ...
        """,
    ).run(errors=1)


def test_a_replay_cannot_bring_a_forbidden_fault(example):
    """The faults of ``--mlchaos-replay`` are those that count."""
    outcome = with_policy(example, HEAD + 'forbid = ["call_delay"]').run(
        "--mlchaos-replay", "call_delay(target='json:loads', delay='1s', at=0)", errors=1
    )
    outcome.has("call_delay", "of --mlchaos-replay is forbidden")


def test_a_composite_cannot_bring_a_forbidden_fault(example):
    """The message names the members and writes the decorator without them."""
    outcome = with_policy(
        example,
        HEAD + 'forbid = ["empty_batch", "wrong_*"]',
        """
        @chaos.bad_data
        def test_it(): ...
        """,
    ).run(errors=1)
    outcome.has(
        "bad_data() tries faults that are refused (empty_batch is forbidden)",
        "Write @chaos.bad_data(exclude=['empty_batch', ",
    )


BREAKING = """
    def train(): return visit("x", 1.0)

    @chaos.register
    class Shift(Fault):
        '''A shift.'''
        site = "x"
        amount: float = 0.0
        def apply(self, visit): return visit.payload + self.amount

    def test_it(mlchaos):
        weaker = {how}
        mlchaos.breaking_point(train, weaker, lambda run: run.value < 1.5)
"""


@pytest.mark.parametrize(
    ("how", "errors"),
    [
        ("chaos.shift(amount=chaos.scale(0, 1))", {"errors": 1}),
        ("getattr(chaos, 'sh' + 'ift')(amount=chaos.scale(0, 1))", {"failed": 1}),
    ],
)
def test_a_breaking_point_cannot_bring_a_forbidden_fault(example, how, errors):
    """A fault that the code names is refused at collection, and a hidden one before it strikes."""
    outcome = with_policy(example, HEAD + 'forbid = ["shift"]', BREAKING.format(how=how)).run(
        **errors
    )
    outcome.has("shift", "is forbidden", "forbid")


def test_a_ceiling_holds_for_the_range_of_a_breaking_point(example):
    """The strongest level is checked before a weaker one strikes."""
    outcome = with_policy(
        example,
        HEAD + "max_severity = 2",
        """
        def train(): raise SystemExit("it was run")

        def test_it(mlchaos):
            fault = chaos.corrupt_batch(severity=chaos.scale(1, 5))
            mlchaos.breaking_point(train, fault, lambda run: True)
        """,
    ).run(failed=1)
    outcome.has("is too strong: severity=5", "max_severity = 2")
    assert "it was run" not in outcome.text


def test_an_exploration_is_a_crash(example):
    """``explore_crashes`` needs no decorator, and a policy that forbids crashes refuses it."""
    outcome = with_policy(
        example,
        HEAD + 'forbid = ["crash"]',
        """
        def test_it(mlchaos, tmp_path):
            mlchaos.explore_crashes(lambda folder: None, tmp_path).assert_recovers()
        """,
    ).run(errors=1)
    outcome.has("of mlchaos.explore_crashes is forbidden")


def test_a_mark_that_a_fixture_adds_is_refused_before_it_strikes(example):
    """The second check sees faults that were not there at collection."""
    outcome = with_policy(
        example,
        HEAD + 'forbid = ["call_*"]',
        """
        import json, pytest

        @pytest.fixture(autouse=True)
        def more(request):
            request.node.add_marker(chaos.call_failure(target="json:loads", at=0))

        def test_it(mlchaos):
            assert json.loads("1") == 1
            raise SystemExit("the body was run")
        """,
    ).run(failed=1)
    outcome.has("call_failure(at=0, target='json:loads') is forbidden")
    assert "the body was run" not in outcome.text


def test_a_strike_outside_of_the_allowed_directories_is_refused(example, tmp_path_factory):
    """A pattern may match files anywhere, so the place of each strike is checked."""
    outside = tmp_path_factory.mktemp("outside") / "model.bin"
    outcome = with_policy(
        example,
        RADIUS + "directories = []",
        f"""
        @chaos.flaky_storage(path="model.bin", at=0)
        def test_it(mlchaos):
            try:
                open({str(outside)!r}, "wb").close()
            except OSError:
                pass
        """,
    ).run("--basetemp=base", failed=1)
    outcome.has("outside of the allowed directories", "blast_radius.directories = []")


def test_hosts_outside_of_the_policy_are_refused(example):
    """A proxy to a server that the policy does not name is never opened."""
    outcome = with_policy(
        example,
        RADIUS + 'hosts = ["db.internal"]',
        """
        @chaos.reset(at=0)
        def test_it(mlchaos):
            mlchaos.proxy("http://db.example:9000")
        """,
    ).run(failed=1)
    outcome.has("mlchaos.proxy reaches db.example:9000, which is not an allowed host")


def test_a_server_process_is_refused(example):
    """``processes = false`` also refuses servers that are started as processes."""
    outcome = with_policy(
        example,
        RADIUS + "processes = false",
        """
        def test_it(mlchaos):
            mlchaos.serve(command=["no-such-program"], url="http://127.0.0.1:1")
        """,
    ).run(failed=1)
    outcome.has("mlchaos.serve(command=…) starts a server process")


SEARCH = """
    import pytest
    runs = []

    @chaos.owner("ml")
    @chaos.register
    class Wrong(Fault):
        '''A wrong value.'''
        site = "x"
        def apply(self, visit): return -1

    @chaos.settings(max_trials=40)
    @chaos.wrong
    def test_it():
        runs.append(1)
        for _ in range(30): visit("x", 1)

    def test_runs():
        assert len(runs) <= {most}
"""


def test_a_search_keeps_to_the_trials_of_the_policy(example):
    """A decorator cannot raise the number of schedules above the ceiling."""
    with_policy(
        example,
        HEAD + "max_trials = 5",
        SEARCH.replace('    @chaos.owner("ml")\n    @chaos.reg', "    @chaos.reg").format(most=6),
    ).run(passed=2)


def test_the_session_ends_its_chaos_tests_at_its_budget(example):
    """Tests beyond the budget did not run, and count as refused, never as passed."""
    tests = CALL + CALL.replace("test_it", "test_two") + "\n    def test_plain(): ...\n"
    outcome = with_policy(example, HEAD + "session_trials = 1", tests).run(passed=2, errors=1)
    outcome.has("test_two: the test did not run: the session's budget is used up")


@pytest.mark.slow
def test_the_closest_owner_counts(example):
    """An owner of a module or a class is a default for its tests."""
    outcome = with_policy(
        example,
        HEAD + 'owners = ["ml"]',
        """
        import json, pytest
        pytestmark = chaos.owner("web")

        @chaos.owner("ml")
        @chaos.call_failure(target="json:loads", at=0)
        def test_mine():
            with pytest.raises(RuntimeError):
                json.loads("1")

        @chaos.call_failure(target="json:loads", at=0)
        def test_other(): ...
        """,
    ).run(passed=1, errors=1)
    outcome.has("has the owner 'web', whom the policy does not name")


@pytest.mark.parametrize("how", ["users", "request"])
def test_tests_of_a_data_class_use_synthetic_fixtures_only(example, how):
    """Also a fixture that the body asks for by its name is refused. Those of pytest are not."""
    body = "" if how == "users" else 'request.getfixturevalue("users")'
    outcome = with_policy(
        example,
        "[tool.mlchaos.policy.synthetic]\npii = ['fake_*']\n",
        f"""
        import json, pytest

        @pytest.fixture
        def users(): raise SystemExit("real data were read")

        @pytest.fixture
        def fake_users(): return [1]

        @pytest.mark.pii
        @chaos.call_failure(target="json:loads", at=0)
        def test_it(fake_users, tmp_path, monkeypatch, {how}):
            {body or "pass"}
        """,
    ).run("--strict-markers")
    assert outcome.exit_code == 1
    outcome.has("uses the fixture 'users', which is not named as synthetic")
    assert "real data were read" not in outcome.text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (HEAD + 'forbid = ["gpu_omm"]', "is neither a fault nor a family of faults (did you mean"),
        (HEAD + "forbidd = []", "unknown key 'forbidd' (did you mean 'forbid'?)"),
        (HEAD + 'abort = "no_such_module_x:f"', "cannot be imported"),
    ],
)
def test_a_wrong_policy_ends_the_session(example, text, said):
    """It is a usage error, before any test runs."""
    outcome = with_policy(example, text).run()
    assert outcome.exit_code == pytest.ExitCode.USAGE_ERROR
    outcome.has(said)


def test_the_journal_holds_the_decisions(example):
    """Refused and allowed tests have an entry with the digest of the policy and the owner."""
    example = with_policy(example, HEAD + 'forbid = ["call_*"]')
    example.run("--mlchaos-journal=j.jsonl", errors=1)
    [refused] = entries_in(example.pytester.path / "j.jsonl", "policy")
    assert refused["decision"] == "refused"
    assert "is forbidden" in refused["refusals"][0]
    assert refused["files"] == ["pyproject.toml"]
    with_policy(
        example,
        HEAD + 'allow = ["call_*"]',
        CALL.replace("@chaos", '@chaos.owner("ml")\n    @chaos', 1),
    ).run("--mlchaos-journal=j.jsonl", passed=1)
    [allowed] = entries_in(example.pytester.path / "j.jsonl", "policy")
    assert allowed["decision"] == "allowed"
    assert allowed["owner"] == "ml"
    assert allowed["digest"] != refused["digest"]


@pytest.mark.slow
def test_approve_writes_what_the_session_asks_for(example, capsys):
    """A test runs once it is approved, and no longer when it changes."""
    from pytest_mlchaos.plugin.approve import approve

    example = with_policy(example, HEAD + "approval = true")
    example.run(errors=1).has("needs an approval: it has none", "python -m pytest_mlchaos approve")
    until = str(datetime.date.today() + datetime.timedelta(1))
    assert approve(["test_it.py::test_it"], "Ada", until) == 0
    assert "approved: test_it.py::test_it" in capsys.readouterr().out
    example.run(passed=1)
    changed = with_policy(example, HEAD + "approval = true", CALL + "        assert True\n")
    changed.run(errors=1).has("have changed since the approval by Ada")


def test_a_fault_that_was_not_known_has_no_approval(example):
    """An approval covers the faults that pytest found, so a hidden one is refused at run time."""
    outcome = with_policy(
        example,
        HEAD + 'approval = ["shift"]',
        BREAKING.format(how="getattr(chaos, 'sh' + 'ift')(amount=chaos.scale(0, 1))"),
    ).run(failed=1)
    outcome.has("needs an approval, and pytest could not know it")


@pytest.mark.parametrize(
    ("by", "until", "said"),
    [
        ("Ada", "2001-01-01", "--until must not be in the past"),
        ("Ada", "soon", "--until must be a date"),
        (" ", "2999-01-01", "--by must be the name"),
    ],
)
def test_approve_refuses_wrong_arguments(by, until, said):
    """Each is one clear line."""
    from pytest_mlchaos.plugin.approve import approve

    with pytest.raises(BadArgument, match=said):
        approve(["test_it.py"], by, until)


# -- the plan --------------------------------------------------------------------------------------

PLANNED = """
    import pytest

    @pytest.fixture(scope="session")
    def data():
        raise SystemExit("a fixture ran")

    @chaos.owner("ml")
    @chaos.gpu_oom(at=[1, 2])
    def test_pinned(data):
        raise SystemExit("a body ran")

    @chaos.disk_full
    @chaos.settings(max_trials=7)
    def test_searched(data): ...

    def test_explores(mlchaos, tmp_path):
        mlchaos.explore_crashes(print, tmp_path)

    def test_plain(): ...
"""


def test_the_plan_says_what_would_be_injected(example):
    """Nothing runs. A refusal makes the exit code 1."""
    example = with_policy(example, HEAD + 'max_trials = 5\nforbid = ["disk_*"]', PLANNED)
    outcome = example.run("--mlchaos-plan", "-n0")
    assert outcome.exit_code == 1
    outcome.has(
        "mlchaos plan: 3 chaos tests of 4, 1 refused",
        "owner: ml",
        "gpu_oom(at=[1, 2])",
        "strikes: at visits 1, 2",
        "searched: up to 5 schedules",
        "refused: is forbidden",
        "crash(at=0) (mlchaos.explore_crashes)",
        "decision: refused",
        "decision: allowed",
        "no test and no fixture was run",
    )
    assert "ran" not in outcome.text.replace("no tests ran", "").replace("was run", "").split()


WATCHER = """
import os, re, sys

events = []
ACTIONS = {"os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.truncate", "os.link", "os.symlink",
           "os.fork", "os.forkpty", "os.exec", "os.posix_spawn", "os.spawn", "os.system", "os.kill",
           "subprocess.Popen", "socket.connect", "socket.bind"}

def hook(event, args):
    writes = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)
    # Python may keep the bytecode of pytest and its plugins, which it imports before any hook.
    # A number is a file that is open already.
    if (writes or event in ACTIONS) and not re.search("__pycache__|^/dev/null$|^[0-9]+$", str(args[0])):
        events.append((event, args))

sys.addaudithook(hook)
import pytest
code = pytest.main(sys.argv[1:])
print("CODE", int(code))
print("EVENTS", events)
"""


@pytest.mark.slow
def test_the_plan_touches_nothing(example, tmp_path):
    """No file is written, made or removed, no process starts, and no socket is opened."""
    example = with_policy(example, HEAD + 'allow = ["*"]', PLANNED).with_file("conftest.py", "")
    example.run("--collect-only")  # writes the files of the project
    folder = example.pytester.path
    script = tmp_path / "watcher.py"
    script.write_text(WATCHER)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    found = subprocess.run(
        [
            sys.executable,
            str(script),
            "-ppytest_mlchaos.plugin",
            "--mlchaos-plan",
            "--mlchaos-journal=j.jsonl",
            "--mlchaos-budget=1m",
            "-s",
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        # Other plugins start programs and sockets when they are imported.
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        check=False,
    )
    assert "CODE 0" in found.stdout, found.stdout + found.stderr
    assert "decision: allowed" in found.stdout
    assert "EVENTS []" in found.stdout, found.stdout
    after = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert after == before  # no bytecode of the tests either


# -- conditions that end the session ---------------------------------------------------------------

ABORTED = """
    import json, pathlib, pytest, time

    @pytest.fixture
    def service():
        yield
        pathlib.Path("closed").touch()

    @chaos.settings(clock="real")
    @chaos.call_failure(target="json:loads", at=1)
    def test_it(service):
        json.loads("1")
        pathlib.Path("stop").touch()
        try:
            time.sleep(60)
        finally:
            assert "mlchaos" not in getattr(json.loads, "__module__", "")

    def test_after():
        raise SystemExit("it went on")
"""
GUARDS = (
    "import pathlib\ndef healthy(): return not pathlib.Path('stop').exists() or 'canary is red'\n"
)


def test_an_unhealthy_system_ends_the_session(example, monkeypatch):
    """It has its own exit code and message, faults are undone, and no test has a verdict."""
    monkeypatch.setattr("pytest_mlchaos.plugin.abort.PERIOD_SECONDS", 0.05)
    example = with_policy(example, HEAD + 'abort = "guards:healthy"', ABORTED).with_file(
        "guards.py", GUARDS
    )
    outcome = example.run("--mlchaos-journal=j.jsonl")
    assert outcome.exit_code == 75
    outcome.has("the session was aborted by guards:healthy: canary is red", "not a verdict")
    assert not {"passed", "failed", "errors"} & outcome.outcomes.keys()
    assert (example.pytester.path / "closed").exists()
    [entry] = entries_in(example.pytester.path / "j.jsonl", "abort")
    assert entry["condition"] == "guards:healthy"
    [test] = entries_in(example.pytester.path / "j.jsonl", "test")
    assert test["outcome"] == "interrupted"


@pytest.mark.slow
def test_a_swallowed_interruption_gives_no_verdict(example, monkeypatch):
    """A test that catches the interruption and fails is not blamed."""
    monkeypatch.setattr("pytest_mlchaos.plugin.abort.PERIOD_SECONDS", 0.05)
    tests = ABORTED.replace("finally:", "except BaseException:")
    example = with_policy(example, HEAD + 'abort = "guards:healthy"', tests).with_file(
        "guards.py", GUARDS
    )
    outcome = example.run("--mlchaos-journal=j.jsonl")
    assert outcome.exit_code == 75
    assert not {"passed", "failed", "errors"} & outcome.outcomes.keys()
    [test] = entries_in(example.pytester.path / "j.jsonl", "test")
    assert test["outcome"] == "interrupted"


@pytest.mark.parametrize("key", ["min_free_memory", "min_free_disk"])
def test_too_little_memory_or_disk_ends_the_session(example, key):
    """The message says how much is free, and how much the policy asks for."""
    outcome = with_policy(example, HEAD + f'{key} = "4000TiB"'.replace("4000TiB", "4000TB")).run()
    assert outcome.exit_code == 75
    outcome.has(f"the session was aborted by {key}: ", "are free, and the policy asks for")


@pytest.mark.parametrize(
    ("returned", "code"),
    [
        ("None", 0),
        ("'the queue is full'", 75),
        pytest.param("False", 75, marks=pytest.mark.slow),
    ],
)
def test_a_hook_can_end_the_session(example, returned, code):
    """A conftest file implements ``pytest_mlchaos_abort``, without a policy."""
    outcome = (
        example.with_tests(CALL)
        .with_file("conftest.py", f"def pytest_mlchaos_abort(config): return {returned}\n")
        .run()
    )
    assert outcome.exit_code == code


def test_no_guard_is_left_behind():
    """Outside of tests, no policy is asked."""
    from pytest_mlchaos.core import policy

    with watched_by(None):
        policy.check_fault(create("crash", at=EVERY))
    assert policy._guard is None


def test_a_rule_without_conditions_applies_to_each_test(tmp_path):
    """Conditions narrow the tests of a rule. Without any, it is for all."""
    rule = Rule(source="x", folder=tmp_path, given={})
    assert rule.applies_to(Case(test="t", path=tmp_path / "a.py"))
