"""Write ``--mlchaos-evidence=DIR``: what the tests have shown, for a person who was not there.

The folder has the journal, an in-toto statement, a report by clauses, what was not simulated, and a
chain of hashes over all of it. ``python -m pytest_mlchaos verify DIR`` checks the chain.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from ...core.slugs import slug_of
from ...errors import BadArgument
from ..collector import write_journal
from ..journal_reader import SessionLog, timings_path
from .chain import CHAIN, FIRST, HEAD, digest_of, seal
from .clauses import ClauseTable, judge, mapping_files, read_table
from .report_text import clause_counts, counts_of, report_text
from .session_facts import SessionFacts, facts_of, problems_of
from .statement import statement_text
from .verdicts import results_of

__all__ = ["check", "lines", "write"]

CONFIGURATION = "configuration.json"
NOT_SIMULATED = "not-simulated.json"
REPORT = "report.md"
STATEMENT = "statement.json"
OWN = (
    *(FIRST, timings_path(Path(FIRST)).name, CONFIGURATION, NOT_SIMULATED),
    *(REPORT, STATEMENT, CHAIN, HEAD),
)
"""The files of the folder, beside the copies of the clauses."""


def check(target: str) -> None:
    """Raise ``BadArgument`` if the folder has other files, or if the clauses are wrong."""
    folder = Path(target)
    others = [path.name for path in _entries(folder) if not _is_own(path)]
    if others:
        raise BadArgument(
            f"--mlchaos-evidence: {folder} has other files ({', '.join(sorted(others)[:3])}). Give "
            f"a folder of its own, because each file in it is evidence"
        )
    _tables()


def write(session: SessionLog, target: str) -> None:
    """Write the folder anew.

    Raises:
        BadArgument: The clauses are wrong, or the tests are of different commits.
    """
    folder, results, facts = Path(target), results_of(session), facts_of(session)
    tables, problems = _tables(), problems_of(session)
    folder.mkdir(parents=True, exist_ok=True)
    for path in [path for path in _entries(folder) if _is_own(path)]:
        path.unlink()
    write_journal(session, folder / FIRST)
    texts = {CONFIGURATION: facts.text(), NOT_SIMULATED: _not_simulated(facts)}
    texts |= {name: path.read_text(encoding="utf-8") for name, (path, _) in tables.items()}
    for name, text in texts.items():
        _write(folder / name, text)
    digests = {FIRST: digest_of((folder / FIRST).read_bytes())}
    digests |= {name: digest_of(text.encode()) for name, text in texts.items()}
    judged = [
        (table, [judge(clause, results, problems) for clause in table.clauses])
        for _, table in tables.values()
    ]
    _write(folder / REPORT, report_text(results, facts, judged, problems))
    _write(folder / STATEMENT, statement_text(results, facts, digests, problems))
    seal(folder)


def lines(session: SessionLog, target: str) -> Iterator[str]:
    """Yield what the folder shows, and the head to note elsewhere."""
    results, problems = results_of(session), problems_of(session)
    judged = [
        (table, [judge(clause, results, problems) for clause in table.clauses])
        for _, table in _tables().values()
    ]
    yield f"mlchaos: evidence in {target}: {counts_of(results)}"
    if judged:
        yield f"mlchaos: {clause_counts(judged)}"
    head = json.loads((Path(target) / HEAD).read_text(encoding="utf-8"))["head"]
    yield f"mlchaos: head of the evidence: {head}"


def _tables() -> dict[str, tuple[Path, ClauseTable]]:
    """Return the tables of clauses, by the name of their copy in the folder."""
    found: dict[str, tuple[Path, ClauseTable]] = {}
    for path in mapping_files(Path.cwd()):
        name = f"clauses-{slug_of(path.stem)}.toml"
        if name in found:
            raise BadArgument(
                f"[tool.mlchaos.evidence]: two files of clauses are named {path.name}"
            )
        found[name] = (path, read_table(path))
    return found


def _not_simulated(facts: SessionFacts) -> str:
    return json.dumps(dict(facts.fidelity), indent=1, ensure_ascii=False) + "\n"


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _is_own(path: Path) -> bool:
    is_clauses = path.name.startswith("clauses-") and path.suffix == ".toml"
    return (path.name in OWN or is_clauses) and path.is_file() and not path.is_symlink()


def _write(path: Path, text: str) -> None:
    # No translation of line ends: the digest is that of these bytes.
    path.write_bytes(text.encode())
