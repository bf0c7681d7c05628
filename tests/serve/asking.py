"""Requests to the application in one event loop, from clients that may leave."""

import asyncio
import json


async def ask(app, path, body, left=None):
    """Return status and body of the answer; (499, b"") to a client that `left` (an event)."""
    sent, told = [], []
    data = body if isinstance(body, bytes) else json.dumps(body).encode()

    async def receive():
        if not sent:
            sent.append(data)
            return {"type": "http.request", "body": data, "more_body": False}
        await (left or asyncio.Event()).wait()
        return {"type": "http.disconnect"}

    async def send(message):
        told.append(message)

    scope = {"type": "http", "method": "POST", "path": path, "headers": []}
    scope |= {"query_string": b"", "root_path": "", "client": None, "server": None}
    await app(scope, receive, send)
    return (told[0]["status"], told[1]["body"]) if told else (499, b"")
