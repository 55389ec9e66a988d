"""Does the model stop when the client of a stream has left?"""

from examples.tokens import sound, unsound
from pytest_mlchaos import chaos

PROMPTS = [f"/generate/{token}" for token in range(3)]


@chaos.client_disconnect
def test_unsound_server(mlchaos):
    """It generates the whole text in vain."""
    load = mlchaos.serve(unsound.app).drive(PROMPTS)
    load.assert_work_stops(within="100ms")


@chaos.client_disconnect
def test_sound_server(mlchaos):
    """The task is cancelled with the response, and the next client gets its usual answer."""
    load = mlchaos.serve(sound.app).drive(PROMPTS)
    load.assert_work_stops(within="100ms")
    load.assert_isolated()
