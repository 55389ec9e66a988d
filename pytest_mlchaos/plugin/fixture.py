"""Define the fixture ``mlchaos``, which runs a subject and judges it."""

from __future__ import annotations

from .judging_methods import JudgingMethods
from .service_methods import ServiceMethods
from .training_methods import TrainingMethods
from .world_methods import WorldMethods

__all__ = ["Mlchaos"]


class Mlchaos(TrainingMethods, ServiceMethods, WorldMethods, JudgingMethods):
    """Run a subject under the faults of a test, and judge the result.

    The fixture works in the body of the test that asked for it, and each trial has a fresh one.
    Call ``run``, ``explore_crashes``, ``pipeline`` and a world's ``run`` in the test itself, not
    inside each other's subjects. A subject may use everything else, also ``serve``. There is one
    exception: the subject of ``explore_crashes`` may run a world, because no fault strikes there.
    """
