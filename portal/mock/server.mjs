// A stand-in for mulliond with an inventory in memory: for work on the portal without a host, for its
// component tests and for the screenshots. It answers as docs/host.md says, in its simplest way.
//   node mock/server.mjs [--port 8080] [--machines 500] [--dist dist]
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { extname, join, normalize, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { WebSocketServer } from 'ws';
import { Api } from './api.mjs';
import { Refusal } from './helpers.mjs';
import { serveVnc, picture } from './screen.mjs';
import { serveSerial } from './serial.mjs';

const TYPES = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript',
  '.css': 'text/css',
  '.svg': 'image/svg+xml',
  '.woff2': 'font/woff2',
};
/** As mulliond sends it: nothing from other hosts. xterm.js makes style elements. */
const POLICY =
  "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; frame-ancestors 'none'";

async function readBody(request) {
  const parts = [];
  for await (const part of request) parts.push(part);
  return Buffer.concat(parts);
}

async function sendFile(dist, path, response) {
  const file = join(dist, normalize(path === '/' ? '/index.html' : path));
  try {
    const body = await readFile(file);
    response.writeHead(200, {
      'Content-Type': TYPES[extname(file)] ?? 'application/octet-stream',
      'Content-Security-Policy': POLICY,
    });
    response.end(body);
  } catch {
    response.writeHead(404).end();
  }
}

function sendAnswer(response, answer) {
  const headers = { ...answer.headers };
  if (Buffer.isBuffer(answer.body)) {
    response.writeHead(answer.status, { 'Content-Type': answer.type, ...headers }).end(answer.body);
    return;
  }
  if (answer.body !== undefined) headers['Content-Type'] = answer.type ?? 'application/json';
  response.writeHead(answer.status, headers);
  response.end(answer.body === undefined ? undefined : JSON.stringify(answer.body));
}

/** @returns {Promise<{url: string, api: Api, close(): Promise<void>}>} */
export async function startMock({
  port = 0,
  machines = 500,
  dist,
  password = 'secret',
  missing = [],
}) {
  const api = new Api({ machines, password, missing });
  const server = createServer(async (request, response) => {
    const url = new URL(request.url, 'http://localhost');
    if (!url.pathname.startsWith('/api/')) return sendFile(dist, url.pathname, response);
    try {
      sendAnswer(response, await api.handle(request, url, await readBody(request)));
    } catch (error) {
      const status = error instanceof Refusal ? error.status : 500;
      const body = {
        type: `https://mullion.example/problems/${error.kind ?? 'internal'}`,
        title: error.kind ?? 'internal',
        status,
        detail: error.message,
        field: error.field,
      };
      sendAnswer(response, { status, body, type: 'application/problem+json' });
    }
  });
  const sockets = new WebSocketServer({ noServer: true });
  server.on('upgrade', (request, socket, head) => {
    const url = new URL(request.url, 'http://localhost');
    sockets.handleUpgrade(request, socket, head, (ws) => {
      if (url.pathname === '/api/v1/events/stream') return api.listen(ws);
      const console = api.takeTicket(url.pathname.split('/').pop());
      if (!console) return ws.close(1008);
      if (console.type === 'vnc') serveVnc(ws, picture(), (key) => api.keys.push(key));
      else serveSerial(ws, console.machine, (text) => api.typed.push(text));
    });
  });
  await new Promise((done) => server.listen(port, '127.0.0.1', done));
  return {
    url: `http://localhost:${server.address().port}`,
    api,
    close: () =>
      new Promise((done) => {
        api.stop();
        for (const ws of sockets.clients) ws.terminate();
        server.closeAllConnections();
        server.close(done);
      }),
  };
}

function option(name, fallback) {
  const at = process.argv.indexOf(`--${name}`);
  return at < 0 ? fallback : process.argv[at + 1];
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const mock = await startMock({
    port: Number(option('port', 8080)),
    machines: Number(option('machines', 500)),
    dist: resolve(option('dist', 'dist')),
  });
  mock.api.liven();
  console.log(`${mock.url}  user admin, password secret`);
}
