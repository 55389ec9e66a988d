"""Does fine-tuning with Trainer survive a kill at any optimizer step?"""

from examples.kinds import trainer
from pytest_mlchaos import chaos


@chaos.crash
@chaos.settings(max_trials=5)
def test_restart(mlchaos, tmp_path):
    """It ends with the weights of a run without a crash."""
    mlchaos.run(trainer.train, tmp_path).assert_recovered()
