"""May a script be killed at any moment?"""

from pathlib import Path

SCRIPT = Path(__file__).parent / "script_job.py"


def test_any_moment(mlchaos, tmp_path):
    """It goes on with the round that it had begun."""
    mlchaos.explore_crashes(mlchaos.script(SCRIPT), tmp_path).assert_recovers()
