// A mulliond of one's own in a temporary folder, with its portal, and a client of its API.
import { spawn } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { until } from './tap.mjs';

export class Host {
  constructor(build) {
    this.folder = mkdtempSync(join(tmpdir(), 'mullion-p'));
    this.runtime = join(this.folder, 'run');
    this.data = join(this.folder, 'data');
    const config = join(this.folder, 'mulliond.json');
    writeFileSync(config, JSON.stringify({ listen: '127.0.0.1:0', requests_per_second: 100000 }));
    this.log = openSync(join(this.folder, 'log'), 'a');
    this.process = spawn(
      join(build, 'mulliond'),
      [
        '--data',
        this.data,
        '--runtime',
        this.runtime,
        '--config',
        config,
        '--portal',
        join(build, 'portal/dist'),
      ],
      { stdio: ['ignore', this.log, this.log] },
    );
    this.ended = new Promise((done) => this.process.on('exit', done));
  }

  /** Wait until it serves. @returns the portal's URL */
  async url() {
    const [, url] = await until('mulliond starts', () => {
      if (this.process.exitCode !== null) throw new Error(`mulliond: ${this.messages()}`);
      try {
        return readFileSync(join(this.runtime, 'mulliond.pid'), 'utf8').split('\n');
      } catch {
        return null;
      }
    });
    return url;
  }

  get password() {
    return readFileSync(join(this.data, 'initial-password'), 'utf8').trim();
  }

  messages() {
    return readFileSync(join(this.folder, 'log'), 'utf8').slice(-2000);
  }

  /** One request by the local socket, as its owner. @returns {status, body: Buffer, json} */
  call(method, path, body, headers = {}) {
    const bytes = Buffer.isBuffer(body) ? body : body && Buffer.from(JSON.stringify(body));
    return new Promise((done, fail) => {
      const r = request(
        {
          socketPath: join(this.runtime, 'mulliond.sock'),
          path: path.startsWith('/api/') ? path : `/api/v1${path}`,
          method,
          headers: {
            Host: 'localhost',
            ...(bytes
              ? { 'Content-Type': 'application/json', 'Content-Length': bytes.length }
              : {}),
            ...headers,
          },
        },
        (response) => {
          const parts = [];
          response.on('data', (part) => parts.push(part));
          response.on('end', () => {
            const all = Buffer.concat(parts);
            if (response.statusCode >= 400)
              return fail(new Error(`${method} ${path}: ${response.statusCode} ${all}`));
            const isJson = response.headers['content-type']?.includes('json');
            done({
              status: response.statusCode,
              body: all,
              json: isJson ? JSON.parse(all) : null,
            });
          });
        },
      );
      r.on('error', fail);
      r.end(bytes);
    });
  }

  /** A request that becomes a task; waits for its end. */
  async task(method, path, body) {
    const { json } = await this.call(method, path, body);
    const task = await until(
      `task ${json.type}`,
      async () => (await this.call('GET', `/tasks/${json.id}`)).json,
      (t) => t.state !== 'queued' && t.state !== 'running',
    );
    if (task.state !== 'succeeded') throw new Error(`task ${JSON.stringify(task)}`);
    return task;
  }

  /** Bring a file's bytes in, and import them. */
  async bring(name, bytes, request_) {
    const { json } = await this.call('POST', '/uploads', { name, size: bytes.length });
    await this.call('PATCH', `/uploads/${json.id}`, bytes, {
      'Content-Type': 'application/octet-stream',
      'Upload-Offset': '0',
    });
    return this.task('POST', '/imports', { upload: json.id, ...request_ });
  }

  /** Ends it and its machines, and removes what it kept. */
  async close() {
    const running = await this.call('GET', '/machines?state=running').catch(() => null);
    for (const { id } of running?.json.items ?? [])
      await this.task('POST', `/machines/${id}/stop`, { force: true }).catch(() => undefined);
    this.process.kill('SIGUSR1');
    const patience = setTimeout(() => this.process.kill('SIGKILL'), 30_000);
    await this.ended;
    clearTimeout(patience);
    closeSync(this.log);
    rmSync(this.folder, { recursive: true, force: true });
  }
}
