"""Is a worse version of a scorer rolled back?"""

from examples.canary import sound, unsound
from examples.canary.models import CUSTOMERS
from pytest_mlchaos import chaos


@chaos.bad_deploy
def test_unsound_controller(mlchaos):
    """It counts the failed checks, and promotes the version."""
    mlchaos.rollout(unsound.Canary(), CUSTOMERS).assert_safe()


@chaos.bad_deploy
def test_sound_controller(mlchaos):
    """Five failed checks are enough, and a version that is not worse is promoted."""
    mlchaos.rollout(sound.Canary(), CUSTOMERS).assert_safe()
