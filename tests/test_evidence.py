"""``--mlchaos-evidence``: verdicts, clauses, the in-toto statement, and the folder."""

from __future__ import annotations

import json
import textwrap

import pytest

from pytest_mlchaos.__main__ import main
from pytest_mlchaos.core import entries
from pytest_mlchaos.core.policy_entries import Abort, PolicyDecision
from pytest_mlchaos.core.provenance import Provenance
from pytest_mlchaos.core.shard_entries import ShardEntry
from pytest_mlchaos.errors import BadArgument
from pytest_mlchaos.reports import evidence
from pytest_mlchaos.reports.evidence.clauses import Clause, judge, read_table, template
from pytest_mlchaos.reports.evidence.session_facts import facts_of
from pytest_mlchaos.reports.evidence.statement import PREDICATE, result_of
from pytest_mlchaos.reports.evidence.verdicts import results_of
from pytest_mlchaos.reports.evidence.verify import verify

from .session_logs import CRASHES, NEVER, OWN, PASSED, SEARCH, WRONG, everything, session

SOURCE = Provenance(
    commit="c" * 40, tree="7" * 40, marks=("robustness",), fidelity={"crash": "not all"}
)
STRIKE = entries.StrikeEntry(fault="crash(at=3)", site="train.step", visit=3)
ENDED = entries.Test(outcome="passed", faults=("crash()",), trials=1, strikes=1)


def one(*parts, end=ENDED, test="t.py::test_it", source=SOURCE, problems=()):
    """The session of one test with these entries."""
    found = [*parts, *([source] if source else []), *([end] if end else [])]
    return session(*((test, 1, part) for part in found), problems=problems)


def verdict_of(log):
    """The verdict on the one test of a session, and the reason."""
    (result,) = results_of(log)
    return result.verdict, result.reason


def test_each_kind_of_end_has_its_verdict():
    """Only a test that passed is ``passed``."""
    assert {result.nodeid: result.verdict for result in results_of(everything())} == {
        PASSED: "passed",
        CRASHES: "failed",
        SEARCH: "failed",
        OWN: "failed",
        NEVER: "vacuous",
        WRONG: "inconclusive",
    }


LEFT = entries.Exploration(number=0, states=9, tried=4, bad=0, left_out="5 were left: max_states")
STATE = entries.State(exploration=0, state="#1", verdict="recovered")


@pytest.mark.parametrize(
    ("log", "verdict"),
    [
        (one(STRIKE), ("passed", "")),
        (one(end=entries.Test(outcome="passed")), ("nothing struck", "")),
        (
            one(end=entries.Test(outcome="passed"), source=Provenance(settings="off")),
            ("nothing struck", "faults were off"),
        ),
        (one(end=entries.Test(outcome="skipped")), ("skipped", "")),
        (one(STRIKE, end=entries.Test(outcome="interrupted")), ("interrupted", "")),
        (one(STRIKE, end=None), ("did not end", "the session ended before the test")),
        (
            one(end=entries.Test(outcome="failed", error="InjectionForbidden")),
            ("refused", "InjectionForbidden"),
        ),
        (one(end=entries.Test(outcome="failed", error="Vacuous")), ("vacuous", "Vacuous")),
        (
            one(STRIKE, end=entries.Test(outcome="failed", error="FaultError", strikes=1)),
            ("no verdict", "FaultError"),
        ),
        (
            one(STRIKE, entries.Test(outcome="failed", strikes=1)),
            ("inconclusive", "it failed in 1 of 2 runs"),
        ),
        (one(STATE, LEFT), ("passed in part", "4 of 9 crash states: 5 were left: max_states")),
        (
            one(
                STRIKE,
                end=entries.Test(outcome="passed", strikes=1, untried=("crash at train.step 3",)),
            ),
            ("passed in part", "not tried: crash at train.step 3"),
        ),
        (one(STATE, end=entries.Test(outcome="passed", trials=1)), ("passed", "")),
        (
            one(STRIKE, source=Provenance(settings="seed=1, replay=crash(at=3)")),
            (
                "passed in part",
                "it ran under the replayed schedule crash(at=3) instead of its own faults",
            ),
        ),
        (
            one(STRIKE, Abort(condition="min_free_disk", reason="1 GB is left"), end=None),
            ("interrupted", "min_free_disk ended the session: 1 GB is left"),
        ),
        (
            one(end=entries.Test(outcome="failed", error="PolicyRefused")),
            ("refused", "PolicyRefused"),
        ),
    ],
)
def test_a_test_that_has_not_shown_everything_is_not_passed(log, verdict):
    """Refused, aborted, vacuous, retried, left out: each has its own verdict and reason."""
    assert verdict_of(log) == verdict


# -- the statement ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("log", "result"),
    [
        (one(STRIKE), "PASSED"),
        (session(), "FAILED"),
        (one(STRIKE, source=None), "WARNED"),
        (one(STRIKE, source=Provenance()), "WARNED"),
        (one(STRIKE, source=Provenance(commit="c", changed=1)), "WARNED"),
        (one(STRIKE, problems=("line 3 is incomplete",)), "WARNED"),
        (one(end=entries.Test(outcome="passed")), "WARNED"),
        (one(STATE, LEFT), "WARNED"),
        (one(STRIKE, end=entries.Test(outcome="interrupted")), "FAILED"),
        (everything(), "FAILED"),
    ],
)
def test_the_result_is_passed_only_if_all_tests_passed_on_a_commit(log, result):
    """A session that ran nothing is FAILED: a gate must not accept it."""
    assert result_of(results_of(log), facts_of(log), log.problems) == result


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder, as the current directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(folder, log):
    """Write the evidence of a session, and return its statement and its report."""
    evidence.check("evidence")
    evidence.write(log, "evidence")
    statement = json.loads((folder / "evidence" / "statement.json").read_text())
    return statement, (folder / "evidence" / "report.md").read_text()


def test_the_statement_follows_the_schema_of_in_toto(folder):
    """Statement v1, test-result v0.1. Each test is in exactly one list."""
    statement, _ = written(folder, everything())
    assert statement.keys() == {"_type", "subject", "predicateType", "predicate"}
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["predicateType"] == PREDICATE
    predicate = statement["predicate"]
    lists = ("passedTests", "warnedTests", "failedTests")
    assert predicate.keys() == {"result", "configuration", *lists}
    named = [name for kind in lists for name in predicate[kind]]
    assert sorted(named) == sorted(everything().tests)
    assert predicate["passedTests"] == [PASSED]
    for descriptor in [*statement["subject"], *predicate["configuration"]]:
        assert descriptor.keys() == {"name", "digest"}
        assert all(set(value) <= set("0123456789abcdef") for value in descriptor["digest"].values())


def test_the_subject_is_the_commit_if_nothing_was_changed(folder):
    """Else it is the journal alone: the commit does not say what ran."""
    statement, report = written(folder, one(STRIKE))
    assert [subject["name"] for subject in statement["subject"]] == ["source", "journal.jsonl"]
    assert statement["subject"][0]["digest"] == {"gitCommit": "c" * 40, "gitTree": "7" * 40}
    assert f"commit {'c' * 40} |" in report
    changed = Provenance(commit="c" * 40, changed=2)
    statement, report = written(folder, one(STRIKE, source=changed))
    assert [subject["name"] for subject in statement["subject"]] == ["journal.jsonl"]
    assert "The code differed from the commit in 2 files" in report


def test_tests_of_different_commits_are_refused(folder):
    """One folder is about one state of the code."""
    log = session(
        ("a", 0, Provenance(commit="a" * 40)),
        ("a", 0, ENDED),
        ("b", 0, Provenance(commit="b" * 40)),
        ("b", 0, ENDED),
    )
    with pytest.raises(BadArgument, match=r"different commits \(a{12} and b{12}\)"):
        evidence.write(log, "evidence")


def test_the_report_says_who_allowed_a_test(folder):
    """The owner and the approval, if a policy decided."""
    decision = PolicyDecision(
        decision="allowed",
        digest="d" * 64,
        files=("pyproject.toml",),
        owner="ml-team",
        approved_by="ana",
        approved_until="2030-01-01",
    )
    _, report = written(folder, one(STRIKE, decision))
    assert "| allowed; owner: ml-team; approved by ana until 2030-01-01 |" in report
    facts = json.loads((folder / "evidence" / "configuration.json").read_text())
    assert facts["policies"] == {"pyproject.toml": "d" * 64}
    _, report = written(folder, one(STRIKE))
    assert "allowed by the policy" not in report


def test_one_shard_by_itself_shows_nothing(folder):
    """The others may have failed."""
    log = session(
        *(("t.py::test_it", 1, part) for part in (STRIKE, SOURCE, ENDED)),
        ("", 0, ShardEntry(shard="3/8")),
    )
    statement, report = written(folder, log)
    assert statement["predicate"]["result"] == "WARNED"
    assert "The session is not complete: shard 3/8 by itself gives no verdict." in report


# -- what was not simulated ------------------------------------------------------------------------


def test_the_report_says_what_each_fault_does_not_simulate(folder):
    """Also of a fault whose docstring does not say it, and of one that never struck."""
    source = Provenance(
        fidelity={"crash": "``finally`` runs.", "mine": "", "gpu_oom": "No driver."}
    )
    mine = entries.StrikeEntry(fault="mine()", site="own.site", visit=0)
    _, report = written(folder, one(STRIKE, mine, source=source))
    assert "- `crash`: `finally` runs.\n" in report
    assert "- `gpu_oom`: No driver. It never struck.\n" in report
    assert "- `mine`: The docstring of this fault does not say it" in report
    bill = json.loads((folder / "evidence" / "not-simulated.json").read_text())
    assert bill == {"crash": "``finally`` runs.", "gpu_oom": "No driver.", "mine": ""}


# -- clauses ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("clause", "log", "status", "reason"),
    [
        (Clause("1", tests=("t.py::test_it",)), one(STRIKE), "shown", ""),
        (Clause("1", tests=("t.py::*",), marks=("robustness",)), one(STRIKE), "shown", ""),
        (Clause("1"), one(STRIKE), "not shown", "no test is named for it"),
        (
            Clause("1", tests=("t.py::test_it", "gone.py::*")),
            one(STRIKE),
            "not shown",
            "no test of this session has the id gone.py::*",
        ),
        (
            Clause("1", marks=("cyber",)),
            one(STRIKE),
            "not shown",
            "no test of this session has the mark cyber",
        ),
        (
            Clause("1", tests=("*",)),
            one(end=entries.Test(outcome="skipped", message="not run")),
            "not shown",
            "t.py::test_it: skipped: not run",
        ),
        (
            Clause("1", tests=("*",)),
            one(end=entries.Test(outcome="passed")),
            "not shown",
            "t.py::test_it: nothing struck",
        ),
        (
            Clause("1", tests=("*",)),
            one(end=entries.Test(outcome="failed", error="Inconclusive")),
            "not shown",
            "t.py::test_it: inconclusive: Inconclusive",
        ),
        (
            Clause("1", tests=("*",)),
            one(STATE, LEFT),
            "shown in part",
            "t.py::test_it: passed in part: 4 of 9 crash states: 5 were left: max_states",
        ),
        (
            Clause("1", tests=("*",)),
            one(STRIKE, problems=("j.jsonl: line 3 is incomplete",)),
            "not shown",
            "the session is not complete: see the limits of this evidence",
        ),
        (Clause("1", tests=("t.py::test[a-b]",)), one(STRIKE, test="t.py::test[a-b]"), "shown", ""),
        (
            Clause("1", tests=("t.py::test[a-c]",)),
            one(STRIKE, test="t.py::test[b]"),
            "not shown",
            "no test of this session has the id t.py::test[a-c]",
        ),
    ],
)
def test_a_clause_is_shown_only_if_all_its_tests_passed(clause, log, status, reason):
    """And it says what is missing."""
    result = judge(clause, results_of(log), log.problems)
    assert (result.status, " ".join(result.reasons)) == (status, reason)


CLAUSES = """
    title = "Our rules"
    [[clause]]
    id = "R1"
    text = "It survives | a crash."
    marks = ["robustness"]
    limits = "One crash."
    [[clause]]
    id = "R2"
    tests = ["missing.py::*"]
"""


def test_the_report_goes_from_clause_to_tests_to_results_to_limits(folder):
    """The file of clauses is named in pyproject.toml, and a copy is in the folder."""
    (folder / "pyproject.toml").write_text('[tool.mlchaos.evidence]\nclauses = ["rules.toml"]\n')
    (folder / "rules.toml").write_text(textwrap.dedent(CLAUSES))
    inside = folder / "tests"
    inside.mkdir()
    _, report = written(folder, one(STRIKE))
    assert "### Our rules\n\n#### R1\n\n> It survives | a crash.\n\n**Shown**, as far" in report
    assert "| `t.py::test_it` | passed | crash at train.step: 1 strike |" in report
    assert "\nLimits: One crash.\n\n#### R2\n\n**Not shown**.\n\n- no test of this" in report
    assert (folder / "evidence" / "clauses-rules.toml").read_text() == textwrap.dedent(CLAUSES)
    told = list(evidence.lines(one(STRIKE), "evidence"))
    assert told[0] == "mlchaos: evidence in evidence: 1 chaos test: 1 passed"
    assert told[1] == "mlchaos: 2 clauses: 1 not shown, 1 shown"
    assert told[2].endswith(verify(folder / "evidence").head)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("x = ", "is not valid TOML"),
        ("title = 'x'", "it needs at least one [[clause]]"),
        ("clause = 3", "it needs at least one [[clause]]"),
        ("[[clause]]\nid = 'a'\ntest = []", "[[clause]] a: unknown key 'test'. The keys are id, "),
        ("[[clause]]\ntext = 'a'", "[[clause]] 1: it needs an id"),
        ("[[clause]]\nid = 3", "[[clause]] 1: id must be a text, got int"),
        ("[[clause]]\nid='a'\n[[clause]]\nid='a'", "[[clause]] a: two clauses have this id"),
        ("[[clause]]\nid = 'a'\ntests = 'x'", "[[clause]] a: tests must be a list of texts"),
        ("[[clause]]\nid = 'a'\nmarks = [1]", "[[clause]] a: marks must be a list of texts"),
        ("[[clause]]\nid = 'a'\ntests = ['']", "[[clause]] a: tests must be a list of texts"),
    ],
)
def test_a_wrong_file_of_clauses_gets_one_line(folder, text, problem):
    """It names the clause and the key."""
    path = folder / "rules.toml"
    path.write_text(text)
    with pytest.raises(BadArgument) as caught:
        read_table(path)
    assert problem in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ("clauses = ['gone.toml']", "gone.toml cannot be read: No such file"),
        ("clauses = 'x.toml'", "clauses must be a list of texts"),
        ("clause = []", "unknown key 'clause'"),
    ],
)
def test_a_wrong_table_of_the_project_is_an_error_at_the_start(folder, table, problem):
    """Before any test runs."""
    (folder / "pyproject.toml").write_text(f"[tool.mlchaos.evidence]\n{table}\n")
    with pytest.raises(BadArgument, match=problem.replace("[", "\\[")):
        evidence.check("evidence")


def test_the_example_of_clauses_is_valid_and_claims_nothing(folder, capsys):
    """It has clauses without a test, no dates, and does not say that anything complies."""
    assert main(["clauses", "-o", "clauses.toml"]) == 0
    table = read_table(folder / "clauses.toml")
    assert "Article 15" in table.title
    assert any(not clause.tests and not clause.marks for clause in table.clauses)
    text = template().casefold()
    assert not any(word in text for word in ("complian", "complies", "conform", "20"))
    with pytest.raises(SystemExit):
        main(["clauses", "-o", "clauses.toml"])
    assert "exists, and may have your clauses" in capsys.readouterr().err


# -- the folder ------------------------------------------------------------------------------------


def test_a_folder_with_other_files_is_refused(folder):
    """Each file in it is evidence. An older folder is written anew."""
    written(folder, everything())
    written(folder, one(STRIKE))
    assert not verify(folder / "evidence").problems
    (folder / "evidence" / "notes.txt").write_text("x")
    with pytest.raises(BadArgument, match=r"evidence has other files \(notes.txt\)"):
        evidence.check("evidence")


TESTS = """
    import json
    import pytest

    @pytest.fixture
    def broken():
        yield
        raise OSError("gone")

    @chaos.call_failure(target="json:dumps", error="ConnectionError", at=0)
    @pytest.mark.parametrize("number", [1, 2])
    def test_one(number):
        with pytest.raises(ConnectionError):
            json.dumps(1)

    @chaos.call_failure(target="json:dumps", error="ConnectionError", at=0)
    def test_torn_down(broken):
        with pytest.raises(ConnectionError):
            json.dumps(1)

    @chaos.call_failure(target="json:loads", error="ConnectionError", at=0)
    def test_never():
        pass

    @chaos.call_failure(target="json:dumps", error="ConnectionError", at=0)
    def test_late():
        with pytest.raises(ConnectionError):
            json.dumps(1)
"""


def lists_in(path):
    """The lists of the statement, by the first letters of their names."""
    predicate = json.loads((path / "statement.json").read_text())["predicate"]
    names = ("passedTests", "warnedTests", "failedTests")
    return [[one.rpartition("::")[2] for one in predicate[name]] for name in names]


def test_a_session_writes_evidence_and_a_journal_the_same(example, pytester):
    """Each byte. A test whose fixture fails at its end has not passed."""
    ran = example.with_tests(TESTS).run(
        "--mlchaos-evidence=evidence", "--mlchaos-journal=j.jsonl", passed=4, failed=1, errors=1
    )
    ran.has("mlchaos: evidence in evidence: 5 chaos tests: 3 passed, 1 failed, 1 vacuous")
    path = pytester.path / "evidence"
    assert lists_in(path) == [
        ["test_late", "test_one[1]", "test_one[2]"],
        [],
        ["test_never", "test_torn_down"],
    ]
    assert main(["report", "j.jsonl", "--evidence", "again"]) == 0
    for file in path.iterdir():
        assert file.read_bytes() == (pytester.path / "again" / file.name).read_bytes(), file.name
    assert main(["verify", "again"]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("mode", [("-p", "no:xdist"), ("-n", "2")], ids=["alone", "xdist"])
def test_tests_that_did_not_run_are_named(example, pytester, mode):
    """The session ended before them, so they have shown nothing."""
    if mode[0] == "-n":
        pytest.importorskip("xdist")
    example.with_tests(TESTS).run("--mlchaos-evidence=evidence", "--maxfail=1", *mode)
    passed, warned, failed = lists_in(pytester.path / "evidence")
    assert failed
    assert len(passed) + len(warned) + len(failed) == 5


@pytest.mark.slow
def test_a_file_that_could_not_be_collected_makes_the_session_incomplete(example, pytester):
    """Its tests are not known."""
    project = example.with_tests(TESTS).with_file("test_wrong.py", "import missing_module")
    options = ("--mlchaos-evidence=evidence", "--continue-on-collection-errors", "-k", "one")
    project.run(*options, passed=2, errors=1)
    report = (pytester.path / "evidence" / "report.md").read_text()
    assert "The session is not complete: test_wrong.py: the tests could not be collected" in report
    assert "| result | WARNED |" in report


@pytest.mark.slow
def test_a_wrong_folder_ends_the_session_at_its_start(example, pytester):
    """With one line."""
    (pytester.path / "evidence").mkdir()
    (pytester.path / "evidence" / "notes.txt").write_text("x")
    ran = example.with_tests(TESTS).run("--mlchaos-evidence=evidence")
    assert ran.exit_code == 4
    ran.has("ERROR: --mlchaos-evidence: evidence has other files (notes.txt)")
