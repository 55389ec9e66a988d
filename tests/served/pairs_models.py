"""Apps that a fault of their model reveals, each with its sound twin."""

import asyncio

from twins import sound_alone, twins, unsound_alone

from pytest_mlchaos import chaos

FALLBACK = {"score": None, "fallback": True}


class Model:
    """A model with two weights."""

    def __init__(self, version=1):
        self.version, self.weights = version, [2.0, 3.0]

    def predict(self, value):
        """Return a score."""
        return self.weights[0] * value + self.weights[1]

    async def predict_slowly(self, value):
        """Return a score, from a model server."""
        await asyncio.sleep(0.01)
        return self.predict(value)


model = Model()
MODELS = {"fraud": Model(), "churn": Model(2)}


@twins
@chaos.model_unavailable(model="pairs_models:model")
def test_model_unavailable(mlchaos, sound):
    """The app catches a different error than a model that is down gives."""
    caught = OSError if sound else TimeoutError

    def app(value):
        try:
            return {"score": model.predict(value)}
        except caught:
            return FALLBACK

    mlchaos.serve(app).drive(range(5)).assert_fallback(value=FALLBACK)


@twins
@chaos.model_unavailable(model="pairs_models:MODELS['fraud']")
def test_one_model_of_two_unavailable(mlchaos, sound):
    """One breaker for all models keeps the healthy one from answering."""
    broken = set()

    def app(name):
        key = name if sound else "any"
        if key not in broken:
            try:
                return MODELS[name].predict(1)
            except ConnectionError:
                broken.add(key)
        return "unavailable"

    load = mlchaos.serve(app).drive(["fraud", "churn", "churn", "fraud"])
    load.assert_isolated(by=lambda reply: reply.value if reply.request == "churn" else "")


@twins
@chaos.model_slow(model="pairs_models:Model.predict_slowly", delay="30s")
def test_model_slow(mlchaos, sound):
    """A request waits as long as its model does."""

    async def app(value):
        try:
            async with asyncio.timeout(0.1 if sound else None):
                return await model.predict_slowly(value)
        except TimeoutError:
            return FALLBACK

    mlchaos.serve(app).drive(range(5)).assert_slo(max="1s")


async def predict_remotely(value):
    """Return a score."""
    await asyncio.sleep(0.01)
    return value


@twins
@chaos.cold_start(model="pairs_models:predict_remotely", delay="30s")
def test_cold_start(mlchaos, sound):
    """The first user pays for the first use of the model."""

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            await receive()
            if sound:
                await predict_remotely(0)
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        await predict_remotely(1)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"1"})

    mlchaos.serve(app, timeout=60).drive(["/"] * 5).assert_slo(max="1s")


# -- loads and reloads -----------------------------------------------------------------------------

LOADS = [1, "reload", 2, "reload", 3]


def load_model(version=1):
    """Return a model of this version."""
    return Model(version)


class Reloading:
    """Load a model at the first request, and again on demand."""

    def __init__(self, sound, read=None):
        self.sound, self.model, self.read = sound, None, read or self._read

    def _read(self):
        return load_model()

    def __call__(self, request):
        if request == "reload":
            return self.reload()
        if self.model is None:
            self.model = self.read()
        return self.model.predict(request)

    def reload(self):
        if not self.sound:
            self.model = Model(0)
            self.model.weights = [0.0, 0.0]
        try:
            self.model = self.read()
        except OSError:
            return "not reloaded"
        return "reloaded"


@twins
@chaos.model_load_failure(target="pairs_models:load_model", at=1)
def test_model_load_failure(mlchaos, sound):
    """A reload throws the old model away before it has the new one."""
    mlchaos.serve(Reloading(sound)).drive(LOADS).assert_isolated()


@twins
@chaos.corrupt_model(target="pairs_models:load_model")
def test_corrupt_model(mlchaos, sound):
    """Nothing checks the weights that were loaded."""

    def read():
        for _ in range(3):
            found = load_model()
            if not sound or found.predict(2.0) == 7.0:
                break
        return found

    load = mlchaos.serve(Reloading(True, read)).drive(LOADS)
    load.assert_isolated()
    load.assert_recovered(within=0, error_rate=0)


@twins
@chaos.stale_model(target="pairs_models:load_model")
def test_stale_model(mlchaos, sound):
    """An update is reported as done, and the old version answers."""
    held = {"model": load_model(1)}

    def app(request):
        if isinstance(request, int):
            return held["model"].version
        wanted = int(request[1:])
        for _ in range(3):
            held["model"] = load_model(wanted)
            if not sound or held["model"].version == wanted:
                break
        return "updated"

    mlchaos.serve(app).drive(["v2", 0, "v3", 0]).assert_isolated()


REGISTRY = {"fraud": 1, "churn": 2}


def get_model(name):
    """Return a model by its name."""
    return {"name": name, "weight": REGISTRY[name]}


@twins
@chaos.wrong_model(target="pairs_models:get_model")
def test_wrong_model(mlchaos, sound):
    """A model is kept under the name that was asked for."""
    known = {}

    def app(name):
        for _ in range(3):
            if name in known:
                break
            found = get_model(name)
            if not sound or found["name"] == name:
                known[name] = found
        return known[name]["weight"]

    mlchaos.serve(app).drive(["fraud", "churn", "fraud", "churn"]).assert_isolated()


STATE = {"weight": 2, "bias": 1}


def reload_in_place():
    """Change one value after another."""
    STATE.clear()
    STATE["weight"] = 2
    STATE["bias"] = 1


def reload_at_once():
    """Change all at once."""
    fresh = {"weight": 2}
    fresh["bias"] = 1
    STATE.update(fresh)


def _reloading(reload):
    def app(request):
        if request != "reload":
            return STATE.get("weight", 0) * request + STATE.get("bias", 0)
        try:
            reload()
        except RuntimeError:
            return "not reloaded"
        return "reloaded"

    return app


@chaos.hot_reload_failure(target="pairs_models:reload_at_once")
@sound_alone
def test_hot_reload_failure_at_once(mlchaos, sound):
    """The new values are there, or the old ones."""
    mlchaos.serve(_reloading(reload_at_once)).drive(LOADS).assert_isolated()


@chaos.hot_reload_failure(target="pairs_models:reload_in_place")
@unsound_alone
def test_hot_reload_failure_in_place(mlchaos, sound):
    """A reload that fails half-way leaves half a model."""
    mlchaos.serve(_reloading(reload_in_place)).drive(LOADS).assert_isolated()
