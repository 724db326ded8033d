"""What the tests of the API share: a daemon with people of every role, and each answer of each test checked
against the OpenAPI document."""
import json
import os

import client
from client import Client, Daemon, Refused
from schema import Document

with open(os.path.join(client.ROOT, "src", "api", "rest", "openapi.json"), encoding="utf-8") as f:
    DOCUMENT = Document(json.load(f))
GIB = 1 << 30


def checked(raw):
    def call(self, method, path, body=None, headers=None, api="/api/v1"):
        answer = raw(self, method, path, body, headers, api)
        if api == "/api/v1":
            DOCUMENT.check_answer(method, path, answer)
        return answer
    return call


Client.raw = checked(Client.raw)


def refused(status, function, *args, problem=None, field=None, **kw):
    """It must be refused with this status. @return the problem"""
    try:
        got = function(*args, **kw)
    except Refused as e:
        assert e.answer.status == status, f"{args}: {e} instead of {status}"
        if status != 304 and e.answer.headers["Content-Type"].startswith("application/problem"):
            found = e.answer.json
            assert problem is None or found["type"].endswith("/" + problem), found
            assert field is None or found.get("field") == field, found
            assert found["status"] == status and found["detail"]
            return found
        return None
    raise AssertionError(f"{args}: was allowed: {got}")


class World:
    """One daemon for the tests that do not end it; people with every role."""

    def __init__(self, build):
        self.build = build
        self.daemon = Daemon(build).start()
        self.local = Client(self.daemon)
        self.admin_password = self.daemon.password
        self.people = {}
        for role in ("administrator", "operator", "viewer", "none"):
            name = "one-" + role
            self.local.post("/users", {"name": name, "role": role, "password": "secret-" + role})
            token = self.local.post("/tokens", {"name": "t", "user": name})["token"]
            self.people[role] = Client(self.daemon, tls=True, token=token)

    def remove(self):
        self.daemon.remove()


def each_operation():
    for path, item in DOCUMENT.document["paths"].items():
        for method, operation in item.items():
            if method != "parameters":
                yield path, method.upper(), operation
