#!/usr/bin/env python3
"""The host's API (docs/host.md), held to its OpenAPI document: every path and every error, who may
do what, and what attackers try. Each answer of each test is checked against the document."""
import sys

import api_access
import api_attacks
import api_files
import api_machines
import harness
from api_world import DOCUMENT, World, each_operation


def test_every_list(w):
    for path, method, operation in each_operation():
        if method == "GET" and operation["operationId"].startswith("list") and "{" not in path:
            page = w.local.get(path + "?limit=1000")
            assert len(page["items"]) == page["total"] or page["next"], path
            # In pages of two it is the same list; what is written meanwhile stands before the log's newest.
            kept, cursor = [], ""
            while cursor is not None and len(kept) < 9:
                part = w.local.get(path + "?limit=2" + cursor)
                kept += part["items"]
                cursor = "&cursor=" + part["next"] if part["next"] else None
            ids = [o.get("id") or o["name"] for o in kept]
            assert len(set(ids)) == len(ids), (path, ids)
            if path not in ("/events", "/audit", "/tasks"):
                assert ids == [o.get("id") or o["name"] for o in page["items"]][:len(ids)], path
    network = w.local.get("/networks?q=default")["items"][0]
    assert w.local.get("/networks/" + network["id"])["name"] == "default"
    assert w.local.get("/networks/" + network["id"] + "/ports")["items"] == []
    assert w.local.get("/networks/" + network["id"] + "/leases")["items"] == []
    w.local.post("/groups", {"name": "looked-at"})
    assert w.local.get("/groups/looked-at")["members"] == []
    w.local.delete("/groups/looked-at")


def test_every_answer_is_described(w):
    """Last: what the tests have seen of the document."""
    missing = []
    for path, method, operation in each_operation():
        statuses = {s for p, m, s in DOCUMENT.seen if (p, m) == (path, method.lower())}
        good = {s for s in operation["responses"] if s[0] in "123"}
        later = "501" in operation["responses"] and "501" in statuses
        sockets = "101" in good
        if not statuses & good and not later and not sockets:
            missing.append(f"{method} {path}: {sorted(statuses)}")
    allowed = {"POST /tasks/{id}/cancel",
               # resources.py has pools
               "POST /pools",
               # library.py has templates
               "DELETE /templates/{id}", "GET /templates/{id}", "POST /templates",
               # guests.py has a guest that answers
               "POST /machines/{id}/exec", "GET /machines/{id}/files", "PUT /machines/{id}/files",
               "POST /images"}
    missing = [m for m in missing if m.split(":")[0] not in allowed and "pools/" not in m]
    assert not missing, missing


# In this order: the last ones look at what the others have seen.
TESTS = [*harness.tests_of(vars(api_access)), *harness.tests_of(vars(api_machines)),
         *harness.tests_of(vars(api_files)), *harness.tests_of(vars(api_attacks)), *harness.tests_of(globals())]

if __name__ == "__main__":
    sys.exit(harness.main(__doc__, TESTS, World))
