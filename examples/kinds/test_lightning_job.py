"""Does a Lightning job survive losing its process?"""

from examples.kinds import lightning_job
from pytest_mlchaos import chaos


@chaos.crash
@chaos.settings(max_trials=4)
def test_restart(mlchaos, tmp_path):
    """It ends with the weights of a run without a crash."""
    mlchaos.run(lightning_job.train, tmp_path).assert_recovered()
