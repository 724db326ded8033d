"""A mulliond of one's own in a temporary folder, and clients of its API: HTTP over the Unix socket
and over TLS, WebSockets. The standard library only."""
import base64
import http.client
import json
import os
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
# Seconds that anything may take on a busy machine, or in a machine in a machine.
PATIENCE = 60 * int(os.environ.get("MULLION_PATIENCE", "1"))


class Refused(Exception):
    """An answer of 400 and more."""

    def __init__(self, answer):
        super().__init__(f"{answer.status} {answer.text[:300]}")
        self.answer = answer


class Answer:
    def __init__(self, response, body):
        self.status, self.headers, self.body = response.status, response.headers, body

    @property
    def text(self):
        return self.body.decode(errors="replace")

    @property
    def json(self):
        return json.loads(self.body)


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout):
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Client:
    """Requests of one person: by the local socket, or by TLS with a token or a session."""

    def __init__(self, daemon, tls=False, token=None):
        self.daemon, self.tls, self.token = daemon, tls, token
        self.cookie = self.csrf = None
        self.connection = None

    def connect(self):
        if not self.tls:
            return UnixConnection(self.daemon.socket, PATIENCE)
        context = ssl.create_default_context(cafile=self.daemon.certificate)
        context.check_hostname = False
        host, port = self.daemon.address
        return http.client.HTTPSConnection(host, port, context=context, timeout=PATIENCE)

    def close(self):
        if self.connection:
            self.connection.close()
        self.connection = None

    def headers(self):
        headers = {}
        if self.token:
            headers["Authorization"] = "Bearer " + self.token
        if self.cookie:
            headers["Cookie"] = self.cookie
        if self.csrf:
            headers["X-CSRF-Token"] = self.csrf
        return headers

    def raw(self, method, path, body=None, headers=None, api="/api/v1"):
        """One request. @return the answer, whatever its status"""
        all_headers = self.headers()
        if isinstance(body, (dict, list)):
            body = json.dumps(body)
            all_headers["Content-Type"] = "application/json"
        all_headers.update(headers or {})
        for attempt in range(2):
            if not self.connection:
                self.connection = self.connect()
            try:
                self.connection.request(method, api + path, body, all_headers)
                response = self.connection.getresponse()
                answer = Answer(response, response.read())
                break
            except (http.client.HTTPException, OSError):
                self.close()
                if attempt:
                    raise
        if response.headers.get("Connection", "").lower() == "close":
            self.close()
        return answer

    def call(self, method, path, body=None, headers=None):
        answer = self.raw(method, path, body, headers)
        if answer.status >= 400:
            raise Refused(answer)
        return answer.json if answer.body else None

    def get(self, path, **kw):
        return self.call("GET", path, **kw)

    def post(self, path, body=None, **kw):
        return self.call("POST", path, body, **kw)

    def patch(self, path, body=None, **kw):
        return self.call("PATCH", path, body, **kw)

    def delete(self, path, **kw):
        return self.call("DELETE", path, **kw)

    def login(self, user, password):
        answer = self.raw("POST", "/sessions", {"user": user, "password": password})
        if answer.status != 201:
            raise Refused(answer)
        self.cookie = answer.headers["Set-Cookie"].split(";")[0]
        self.csrf = answer.json["csrf_token"]
        return answer

    def wait(self, task, state="succeeded"):
        """Wait for a task to end. @return it"""
        end = time.monotonic() + PATIENCE
        while task["state"] in ("queued", "running"):
            assert time.monotonic() < end, f"task goes on for ever: {task}"
            time.sleep(0.02)
            task = self.get("/tasks/" + task["id"])
        assert state is None or task["state"] == state, f"task {task}"
        return task

    def do(self, path, body=None, method="POST"):
        return self.wait(self.call(method, path, body))

    def machine(self, name, **kw):
        """Make a machine. @return its id"""
        body = dict({"name": name, "memory": 64 << 20, "networks": []}, **kw)
        return self.do("/machines", body)["result"]["object"].partition(":")[2]

    def until(self, path, check):
        """Ask until it is so."""
        end = time.monotonic() + PATIENCE
        while True:
            got = self.get(path)
            if check(got):
                return got
            assert time.monotonic() < end, f"{path}: {got}"
            time.sleep(0.02)

    def websocket(self, path):
        return WebSocket(self, path)


class WebSocket:
    """RFC 6455, as far as a client needs it."""

    def __init__(self, client, path):
        connection = client.connect()
        connection.connect()
        self.sock, self.buffer = connection.sock, b""
        head = [f"GET {path} HTTP/1.1", "Host: localhost", "Upgrade: websocket",
                "Connection: Upgrade", "Sec-WebSocket-Version: 13",
                "Sec-WebSocket-Key: " + base64.b64encode(os.urandom(16)).decode()]
        head += [f"{k}: {v}" for k, v in client.headers().items()]
        self.sock.sendall("\r\n".join(head + ["", ""]).encode())
        while b"\r\n\r\n" not in self.buffer:
            data = self.sock.recv(4096)
            if not data:
                raise ConnectionError("closed")
            self.buffer += data
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        self.status = int(head.split()[1])
        if self.status != 101:
            raise ConnectionError(f"status {self.status}")

    def need(self, n):
        while len(self.buffer) < n:
            data = self.sock.recv(65536)
            if not data:
                raise ConnectionError("closed")
            self.buffer += data
        data, self.buffer = self.buffer[:n], self.buffer[n:]
        return data

    def frame(self):
        """@return (opcode, payload)"""
        first, size = self.need(2)
        if size == 126:
            size = struct.unpack(">H", self.need(2))[0]
        elif size == 127:
            size = struct.unpack(">Q", self.need(8))[0]
        return first & 15, self.need(size)

    def message(self):
        while True:
            opcode, payload = self.frame()
            if opcode in (1, 2):
                return payload
            if opcode == 8:
                raise ConnectionError("closed by the host")
            if opcode == 9:
                self.send(payload, 10)

    def send(self, payload, opcode=2):
        mask = os.urandom(4)
        size = len(payload)
        head = bytes([0x80 | opcode])
        head += bytes([0x80 | size]) if size < 126 else struct.pack(">BH", 0xfe, size)
        self.sock.sendall(head + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(payload)))

    def close(self):
        self.sock.close()


class Daemon:
    """mulliond with its data and sockets below one temporary folder."""

    def __init__(self, build, options=None, arguments=(), data=None):
        self.build = os.path.abspath(build)
        self.folder = tempfile.mkdtemp(prefix="mullion-h")
        self.data = data or os.path.join(self.folder, "data")
        self.runtime = os.path.join(self.folder, "run")
        self.log = os.path.join(self.folder, "log")
        self.config = os.path.join(self.folder, "mulliond.json")
        self.arguments = list(arguments)
        settings = dict({"listen": "127.0.0.1:0", "requests_per_second": 100000,
                         "logins_per_minute": 10000}, **(options or {}))
        with open(self.config, "w", encoding="utf-8") as f:
            json.dump(settings, f)
        self.process = None

    def command(self):
        return [os.path.join(self.build, "mulliond"), "--data", self.data, "--runtime",
                self.runtime, "--config", self.config, "--verbose", *self.arguments]

    def spawn(self, **kw):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log, **kw)

    def start(self, **kw):
        pid = os.path.join(self.runtime, "mulliond.pid")
        if os.path.exists(pid):
            os.unlink(pid)
        self.spawn(**kw)
        end = time.monotonic() + PATIENCE
        while not os.path.exists(pid):
            assert self.process.poll() is None, self.messages()
            assert time.monotonic() < end, "mulliond does not start: " + self.messages()
            time.sleep(0.01)
        return self

    @property
    def socket(self):
        return os.path.join(self.runtime, "mulliond.sock")

    @property
    def certificate(self):
        return os.path.join(self.data, "tls", "cert.pem")

    @property
    def address(self):
        with open(os.path.join(self.runtime, "mulliond.pid"), encoding="utf-8") as f:
            url = f.read().split("\n")[1]
        host, _, port = url.split("//")[1].rstrip("/").rpartition(":")
        return host, int(port)

    @property
    def password(self):
        with open(os.path.join(self.data, "initial-password"), encoding="utf-8") as f:
            return f.read().strip()

    def messages(self):
        with open(self.log, encoding="utf-8", errors="replace") as f:
            return f.read()

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        assert self.process.wait(PATIENCE) == 0, self.messages()

    def machines_alive(self):
        """PIDs of mullion-vmm processes that hold their lock."""
        found = {}
        for name in os.listdir(self.runtime) if os.path.isdir(self.runtime) else []:
            try:
                with open(os.path.join(self.runtime, name, "life"), encoding="utf-8") as f:
                    words = f.read().split()
            except OSError:
                continue
            if len(words) >= 2 and os.path.exists(f"/proc/{words[1]}"):
                found[name] = int(words[1])
        return found

    def remove(self):
        if self.process and self.process.poll() is None:
            self.kill()
        for pid in self.machines_alive().values():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.remove()
