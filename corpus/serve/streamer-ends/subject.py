"""FastAPI, transformers: tokens of a tiny GPT-2, from a thread."""

import asyncio

import torch
from fastapi import FastAPI
from transformers import AsyncTextIteratorStreamer, GPT2Config, GPT2LMHeadModel

app = FastAPI()
torch.manual_seed(0)
model = GPT2LMHeadModel(
    GPT2Config(vocab_size=32, n_embd=16, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=1)
)


class Letters:
    def decode(self, tokens, **options):
        letters = torch.as_tensor(tokens).flatten().tolist()
        return "".join(chr(97 + token % 26) for token in letters)


def prepared(prompt):
    return torch.tensor([[2, prompt]])


def generate(prompt, streamer):
    try:
        tokens = prepared(prompt)
        model.generate(tokens, max_new_tokens=4, do_sample=False, streamer=streamer)
    finally:
        streamer.on_finalized_text("", stream_end=True)


@app.get("/generate/{prompt}")
async def generated(prompt: int):
    streamer = AsyncTextIteratorStreamer(Letters())
    thread = asyncio.create_task(asyncio.to_thread(generate, prompt, streamer))
    text = "".join([part async for part in streamer])
    await thread
    return {"text": text}
