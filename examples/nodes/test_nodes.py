"""Does a job that loses a node train on all of its data?"""

from pathlib import Path

from pytest_mlchaos import chaos

HERE = Path(__file__).parent


@chaos.node_loss(ranks=[1], at=3)
def test_unsound_script(mlchaos, tmp_path):
    """The flowers of the lost node are missing from then on."""
    run = mlchaos.torchrun(HERE / "unsound.py", tmp_path, nnodes=2, min_nodes=1, restarts=2)
    run.assert_recovered(rtol=1e-3, atol=1e-4)


@chaos.node_loss(ranks=[1], at=3)
def test_sound_script(mlchaos, tmp_path):
    """The one that is left takes all flowers."""
    run = mlchaos.torchrun(HERE / "sound.py", tmp_path, nnodes=2, min_nodes=1, restarts=2)
    run.assert_recovered(rtol=1e-3, atol=1e-4)
