"""httpx: the mean of numbers that come line by line."""

import httpx
from local_server import serve

URL = ""


def prepare(workdir):
    global URL
    lines = "".join(f"{number % 101}\n" for number in range(20000))
    with serve({"/numbers": lines.encode()}) as URL:
        yield


def pipeline(workdir):
    numbers = []
    try:
        with httpx.stream("GET", f"{URL}/numbers", timeout=5) as response:
            response.raise_for_status()
            for line in response.iter_lines():
                numbers.append(int(line))
    except httpx.TransportError as error:
        print(f"the stream ended early: {error}")
    return sum(numbers) / max(1, len(numbers))
