"""Enforce the policy of the repository, and end the session if a condition says so.

Each pytest session loads this module, so all else is imported if a policy exists.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ..errors import BadArgument

if TYPE_CHECKING:
    from .policy_session import PolicySession

__all__ = [
    "Hooks",
    "add_options",
    "configure",
    "pytest_addhooks",
    "pytest_load_initial_conftests",
]

NAME = "mlchaos-policy"
_OWNER = (
    "mlchaos_owner(name): the owner of a chaos test, whom a policy can require. Write it as "
    '@chaos.owner("team").'
)


class Hooks:
    """The hooks that this plugin defines for others."""

    @pytest.hookspec(firstresult=True)
    def pytest_mlchaos_abort(self, config: pytest.Config) -> str | None:
        """Return the reason why the session must end now, or None to go on.

        It is called before each test and about once a second while chaos tests run, from a thread
        of its own. It must not take long, nor touch what a test uses.
        """


def add_options(parser: pytest.Parser, group: pytest.OptionGroup) -> None:
    """Add the options of the policy."""
    group.addoption(
        "--mlchaos-plan",
        dest="mlchaos_plan",
        action="store_true",
        help="print the faults that each chaos test would inject, and what the policy says, and "
        "run nothing",
    )


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Add the hooks that other plugins and conftest files can implement."""
    pluginmanager.add_hookspecs(Hooks)


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Let ``--mlchaos-plan`` keep no bytecode, also of conftest files, which are loaded next."""
    if early_config.known_args_namespace.mlchaos_plan:
        before = sys.dont_write_bytecode
        early_config.add_cleanup(lambda: setattr(sys, "dont_write_bytecode", before))
        sys.dont_write_bytecode = True


def configure(config: pytest.Config) -> None:
    """Read the policy of the root directory, so that a mistake in it ends the session."""
    config.addinivalue_line("markers", _OWNER)
    plan = config.getoption("mlchaos_plan")
    if plan:
        from .plan import prepare

        prepare(config)
    watch = FolderWatch(config)
    config.pluginmanager.register(watch, f"{NAME}-folders")
    if plan or watch.has_policy([config.rootpath, Path.cwd()]) or _implements_abort(config):
        watch.begin()


def _implements_abort(config: pytest.Config) -> bool:
    return bool(config.hook.pytest_mlchaos_abort.get_hookimpls())


class FolderWatch:
    """Look for policies in the folders of chaos tests, and load the rest if there is one."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._seen: dict[Path, bool] = {}

    def has_policy(self, starts: list[Path]) -> bool:
        """Return True if a ``pyproject.toml`` of these folders, or above them, may have a policy."""
        found = False
        for folder in {one: None for start in starts for one in (start, *start.parents)}:
            if folder not in self._seen:
                try:
                    content = (folder / "pyproject.toml").read_bytes()
                except OSError:
                    content = b""
                self._seen[folder] = b"mlchaos" in content and b"policy" in content
            found = found or self._seen[folder]
        return found

    def begin(self) -> PolicySession:
        """Load the rest."""
        from .policy_session import PolicySession

        try:
            session = PolicySession(self._config)
        except BadArgument as error:
            raise pytest.UsageError(f"mlchaos: {error}") from None
        self._config.pluginmanager.register(session, NAME)
        return session

    @pytest.hookimpl(trylast=True)  # after ``-m`` and ``-k`` select
    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        """Decide about each chaos test, before anything runs."""
        plugins = config.pluginmanager
        session: PolicySession | None
        chaos = [item for item in items if item.get_closest_marker("mlchaos") is not None]
        if plugins.get_plugin(NAME) is None and (
            _implements_abort(config)  # that of a conftest file below the root directory
            or self.has_policy(list({item.path.parent: None for item in chaos}))
        ):
            self.begin()
        if (session := plugins.get_plugin(NAME)) is not None:
            try:
                session.decide(chaos)
            except BadArgument as error:
                session.problem = f"mlchaos: {error}"
                if not hasattr(config, "workerinput"):  # there, each test says so
                    raise pytest.UsageError(session.problem) from None
