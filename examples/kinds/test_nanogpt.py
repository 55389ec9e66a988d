"""May the training of a small GPT be killed at any moment?"""

from examples.kinds import nanogpt


def test_any_moment(mlchaos, tmp_path):
    """It resumes from each state, and loses at most the steps since the last checkpoint."""
    mlchaos.explore_crashes(nanogpt.train, tmp_path).assert_recovers(max_lost_steps=3)
