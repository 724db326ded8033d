#!/usr/bin/env python3
"""Logging in by PAM: users without a password of their own, a PAM service that libpam-wrapper keeps in the
test's folder. Right and wrong passwords, accounts that have expired, are locked or must change their
password, and that no password is left anywhere."""
import glob
import os
import sys

import harness
from client import Client, Daemon, Refused

SERVICE = "mullion-test"
SECRETS = {name: f"by-pam-{name}-{os.getpid()}" for name in ("paula", "expired", "locked", "aged", "stranger")}
WRONG = f"wrong-{os.getpid()}-guess"
OWN = f"own-{os.getpid()}-password"


def wrapper(name):
    found = glob.glob(f"/usr/lib/*/{name}") + glob.glob(f"/usr/lib/{name}") + glob.glob(f"/usr/lib64/{name}")
    assert found, f"{name} is missing: scripts/setup test"
    return found[0]


def write(path, text):
    with open(path, "w", encoding="ascii") as f:
        f.write(text)
    return path


class World:
    def __init__(self, build):
        self.daemon = Daemon(build, {"pam_service": SERVICE})
        try:
            self.start()
        except BaseException:
            self.daemon.remove()
            raise

    def remove(self):
        self.daemon.remove()

    def start(self):
        folder = self.folder = self.daemon.folder
        services = os.path.join(folder, "pam.d")
        os.mkdir(services)
        matrix = wrapper("pam_wrapper/pam_matrix.so")
        passwords = self.write_passwords("another")
        lists = [(write(os.path.join(folder, name), name + "\n"), code)
                 for name, code in (("expired", "acct_expired"), ("aged", "new_authtok_reqd"))]
        # Who is in a list has a module of his own, others jump over it.
        write(os.path.join(services, SERVICE), f"auth required {matrix} passdb={passwords}\n" + "".join(
            f"account [success=ignore default=1] pam_listfile.so item=user sense=allow onerr=fail file={path}\n"
            f"account requisite pam_debug.so acct={code}\n" for path, code in lists) +
            f"account required {matrix} passdb={passwords}\n")
        env = dict(os.environ, LD_PRELOAD=wrapper("libpam_wrapper.so"), PAM_WRAPPER="1",
                   PAM_WRAPPER_SERVICE_DIR=services)
        self.daemon.start(env=env)
        self.local = Client(self.daemon)
        for name in SECRETS:
            if name != "stranger":
                self.local.post("/users", {"name": name, "role": "viewer"})
        self.local.post("/users", {"name": "olga", "role": "viewer", "password": OWN})


    def write_passwords(self, of_locked):
        """user:password:the service that the account is for"""
        return write(os.path.join(self.folder, "passdb"), "".join(
            f"{name}:{secret}:{of_locked if name == 'locked' else SERVICE}\n"
            for name, secret in [*SECRETS.items(), ("olga", SECRETS["paula"])]))


def login(w, name, password):
    person = Client(w.daemon, tls=True)
    try:
        person.login(name, password)
    finally:
        person.close()
    return person


def refused(w, name, password):
    try:
        login(w, name, password)
    except Refused as e:
        assert e.answer.status == 401, e
        assert password not in e.answer.text or not password, e.answer.text
        return e.answer.json["detail"]
    raise AssertionError(f"{name} was let in")


def test_right_password(w):
    person = login(w, "paula", SECRETS["paula"])
    assert person.get("/users/paula")["role"] == "viewer"
    person.close()


def test_wrong_password(w):
    for wrong in (WRONG, SECRETS["expired"], SECRETS["paula"][:-1], SECRETS["paula"] + "x"):
        refused(w, "paula", wrong)


def test_accounts_that_are_refused(w):
    """With the right password; and nobody learns that it was."""
    details = {refused(w, name, SECRETS[name]) for name in ("expired", "locked", "aged")}
    details.add(refused(w, "paula", WRONG))
    assert len(details) == 1, details
    # It was the account that kept them out.
    w.write_passwords(SERVICE)
    for name in ("expired", "aged"):
        write(os.path.join(w.folder, name), "nobody\n")
    for name in ("expired", "locked", "aged"):
        login(w, name, SECRETS[name])


def test_who_pam_knows_and_the_host_does_not(w):
    refused(w, "stranger", SECRETS["stranger"])


def test_own_password_goes_before_pam(w):
    login(w, "olga", OWN)
    refused(w, "olga", SECRETS["paula"])  # her password for PAM


def test_disabled_user(w):
    w.local.patch("/users/paula", {"enabled": False})
    refused(w, "paula", SECRETS["paula"])
    w.local.patch("/users/paula", {"enabled": True})
    login(w, "paula", SECRETS["paula"])


def test_no_password_is_left(w):
    """Neither in the log, the events, nor in the host's files. After the others."""
    login(w, "paula", SECRETS["paula"])
    refused(w, "paula", WRONG)
    texts = {"log": w.daemon.messages().encode(), "events": w.local.raw("GET", "/events").body}
    assert b"paula logged in" in texts["events"] and b"failed" in texts["events"], texts["events"]
    with open(f"/proc/{w.daemon.process.pid}/cmdline", "rb") as f:
        texts["command line"] = f.read()
    for folder in (w.daemon.data, w.daemon.runtime):
        for path, _, names in os.walk(folder):
            for name in names:
                if os.path.isfile(os.path.join(path, name)):
                    with open(os.path.join(path, name), "rb") as f:
                        texts[name] = f.read()
    for secret in (*SECRETS.values(), WRONG, OWN):
        for where, text in texts.items():
            assert secret.encode() not in text, f"a password is in {where}"


if __name__ == "__main__":
    sys.exit(harness.main(__doc__, harness.tests_of(globals()), World))
