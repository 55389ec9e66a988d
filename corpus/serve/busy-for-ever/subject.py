"""gradio: a demo of a model that draws for one user at a time."""

import asyncio

import gradio


class Model:
    busy = False

    async def draw(self, text):
        await asyncio.sleep(0.005)
        return "".join(f"<{letter}>" for letter in text)


model = Model()


async def draw(text):
    if model.busy:
        return "busy, come again later"
    model.busy = True
    drawn = await model.draw(text)
    model.busy = False
    return drawn


with gradio.Blocks() as demo:
    text, drawn = gradio.Textbox(), gradio.Textbox()
    gradio.Button().click(draw, text, drawn, api_name="draw", queue=False)

app = gradio.routes.App.create_app(demo)
