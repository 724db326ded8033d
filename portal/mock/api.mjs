// The mock's API: who is logged in, which path goes where, tasks that take a second, events.
import { randomBytes, randomUUID } from 'node:crypto';
import * as data from './data.mjs';
import { Refusal, summary } from './helpers.mjs';
import { history, audit } from './history.mjs';
import { create, machineRoute } from './machines.mjs';
import { uploadRoute, importRoute, listRoute, files, append } from './lists.mjs';

const GIB = 1024 ** 3;

export class Api {
  constructor({ machines, password, missing }) {
    this.missing = missing;
    this.password = password;
    this.machines = new Map(data.makeMachines(machines).map((m) => [m.id, m]));
    this.lists = {
      images: structuredClone(data.IMAGES),
      datastores: structuredClone(data.DATASTORES),
      networks: structuredClone(data.NETWORKS),
      pools: structuredClone(data.POOLS),
      users: structuredClone(data.USERS),
      groups: structuredClone(data.GROUPS),
      grants: structuredClone(data.GRANTS),
      tokens: structuredClone(data.TOKENS),
      templates: [data.template('debian-web', 'nginx on Debian 12')],
    };
    this.lists.datastores[0].machines = machines;
    this.tasks = [];
    this.events = [];
    this.uploads = new Map();
    this.tickets = new Map();
    this.snapshots = new Map();
    this.listeners = new Set();
    this.timers = new Set();
    /** What was typed into consoles, for tests. */
    this.keys = [];
    this.typed = [];
    /** How many of the next uploaded pieces are refused, for tests of going on. */
    this.failUploads = 0;
    this.reserve();
    history(this);
  }

  /** One address of the lab for a machine that runs with another. */
  reserve() {
    const running = [...this.machines.values()].filter(
      (m) => m.networks[0] === 'lab' && m.state === 'running',
    );
    for (const [i, m] of running.entries()) m.addresses = [`10.77.0.${20 + i}`];
    const [dev] = running;
    const lab = this.lists.networks.find((n) => n.name === 'lab');
    if (dev) lab.reservations = { [dev.name]: '10.77.0.200', 'dev-gateway': '10.77.0.2' };
  }

  stop() {
    for (const timer of this.timers) clearTimeout(timer);
  }

  later(ms, work) {
    const timer = setTimeout(() => {
      this.timers.delete(timer);
      work();
    }, ms);
    this.timers.add(timer);
  }

  /** Keep changing, as a real host does. */
  liven() {
    const next = data.random(3);
    const tick = () => {
      for (const m of this.machines.values())
        if (m.state === 'running')
          m.usage.cpu = Math.max(1, Math.min(m.cpus * 98, m.usage.cpu * (0.9 + next() * 0.22)));
      const list = [...this.machines.values()];
      this.changed(list[Math.floor(next() * list.length)]);
      this.later(2000, tick);
    };
    tick();
  }

  // Events

  listen(ws) {
    this.listeners.add(ws);
    ws.on('close', () => this.listeners.delete(ws));
  }

  emit(event) {
    const full = {
      id: this.events.length + 1,
      time: new Date().toISOString(),
      object: null,
      object_name: null,
      user: 'admin',
      severity: 'info',
      text: '',
      data: null,
      ...event,
    };
    this.events.push(full);
    for (const ws of this.listeners) ws.send(JSON.stringify(full));
  }

  changed(machine) {
    this.emit({
      type: 'changed',
      object: `machine:${machine.id}`,
      object_name: machine.name,
      data: summary(machine),
    });
  }

  // Tasks

  task(type, object, name, steps, done, ms = 1200) {
    const now = new Date().toISOString();
    const task = {
      id: randomUUID(),
      type,
      object,
      object_name: name,
      state: 'running',
      progress: 0,
      step: steps[0] ?? null,
      created: now,
      started: now,
      ended: null,
      user: 'admin',
      result: null,
      error: null,
      cancellable: true,
    };
    this.tasks.push(task);
    const tell = () =>
      this.emit({
        type: 'changed',
        object: `task:${task.id}`,
        object_name: name,
        data: { ...task },
      });
    const count = 10;
    const advance = (i) => {
      if (task.state !== 'running') return tell();
      task.progress = (i / count) * 100;
      task.step = steps[Math.min(steps.length - 1, Math.floor((i / count) * steps.length))] ?? null;
      if (i >= count) {
        task.state = 'succeeded';
        task.ended = new Date().toISOString();
        task.result = done() ?? null;
        task.cancellable = false;
      }
      tell();
      if (i < count) this.later(ms / count, () => advance(i + 1));
    };
    this.later(10, () => advance(0));
    return {
      status: 202,
      body: { ...task },
      headers: { Location: `/api/v1/tasks/${task.id}` },
    };
  }

  takeTicket(ticket) {
    const found = this.tickets.get(ticket);
    this.tickets.delete(ticket);
    return found;
  }

  // Requests

  async handle(request, url, bytes) {
    const path = url.pathname.replace(/^\/api\/v1/, '') || '/';
    const method = request.method;
    const parts = path.split('/').filter(Boolean).map(decodeURIComponent);
    const isUpload = method === 'PATCH' && parts[0] === 'uploads';
    const body = bytes.length && !isUpload ? JSON.parse(bytes.toString()) : {};
    if (path === '/sessions' && method === 'POST') return this.login(body);
    const cookie = /mullion_session=(\w+)/.exec(request.headers.cookie ?? '')?.[1];
    if (!this.session || cookie !== this.session.cookie)
      throw new Refusal(401, 'unauthenticated', 'Log in first.');
    if (method !== 'GET' && request.headers['x-csrf-token'] !== this.session.csrf_token)
      throw new Refusal(403, 'forbidden', 'The CSRF token is missing or wrong.');
    if (isUpload) return append(this, parts[1], request, bytes);
    return this.route(method, parts, url.searchParams, body);
  }

  login({ user, password }) {
    if (user !== 'admin' || password !== this.password)
      throw new Refusal(401, 'unauthenticated', 'User or password is wrong.');
    const session = {
      user,
      role: 'administrator',
      csrf_token: randomBytes(8).toString('hex'),
      expires: data.ago(-28800),
    };
    this.session = { ...session, cookie: randomBytes(16).toString('hex') };
    return {
      status: 201,
      body: session,
      headers: {
        'Set-Cookie': `mullion_session=${this.session.cookie}; HttpOnly; SameSite=Strict; Path=/`,
      },
    };
  }

  page(items, query) {
    const limit = Number(query.get('limit') ?? 100);
    const start = Number(query.get('cursor') ?? 0);
    const sort = query.get('sort');
    let list = items;
    for (const [key, value] of query)
      if (!['limit', 'cursor', 'sort', 'q', 'fields', 'after', 'path'].includes(key))
        list = list.filter((x) => String(x[key]) === value);
    if (sort) {
      const key = sort.replace(/^-/, '');
      list = [...list].sort((a, b) => (a[key] < b[key] ? -1 : 1) * (sort.startsWith('-') ? -1 : 1));
    }
    const fields = query.get('fields')?.split(',');
    const shown = list.slice(start, start + limit);
    return {
      status: 200,
      body: {
        items: fields ? shown.map((x) => Object.fromEntries(fields.map((f) => [f, x[f]]))) : shown,
        next: start + limit < list.length ? String(start + limit) : null,
        total: list.length,
      },
    };
  }

  route(method, parts, query, body) {
    const [first, id, third] = parts;
    if (first === 'sessions') {
      if (method === 'DELETE') this.session = null;
      return method === 'DELETE'
        ? { status: 204 }
        : { status: 200, body: { ...this.session, cookie: undefined } };
    }
    if (first === 'host') return this.hostRoute(method, id, query, body);
    if (first === 'machines')
      return id
        ? machineRoute(this, method, parts, query, body)
        : method === 'POST'
          ? create(this, body)
          : this.page([...this.machines.values()].map(summary), query);
    if (first === 'tasks') {
      if (third === 'cancel') {
        const task = this.tasks.find((t) => t.id === id);
        Object.assign(task, {
          state: 'cancelled',
          ended: new Date().toISOString(),
          cancellable: false,
        });
        return { status: 202, body: task };
      }
      return id
        ? { status: 200, body: this.tasks.find((t) => t.id === id) }
        : this.page(this.tasks, query);
    }
    if (first === 'events') return this.page(this.events, query);
    if (first === 'roles')
      return {
        status: 200,
        body: {
          items: [
            {
              name: 'administrator',
              permissions: ['host', 'machines', 'images', 'networks', 'users', 'audit'],
            },
            {
              name: 'operator',
              permissions: ['machines', 'images', 'console', 'imports'],
            },
            { name: 'viewer', permissions: ['read'] },
            { name: 'none', permissions: [] },
          ],
          next: null,
          total: 4,
        },
      };
    if (first === 'audit') return this.page(audit(), query);
    if (first === 'uploads') return uploadRoute(this, method, id, body);
    if (first === 'imports') return importRoute(this, body);
    if (first === 'datastores' && third === 'files')
      return this.page(files(this, query.get('path') ?? ''), query);
    if (this.lists[first]) return listRoute(this, method, parts, query, body);
    throw new Refusal(404, 'not-found', 'There is no such path.');
  }

  hostRoute(method, id, query, body) {
    if (id === 'stats')
      return {
        status: 200,
        body: data.makeSeries(11, query.get('range') ?? 'hour', {
          cpu: 1900,
          memory: 310 * GIB,
        }),
      };
    const all = [...this.machines.values()];
    this.host = {
      name: 'rack2-host1',
      autostart: true,
      ...this.host,
      ...(method === 'PATCH' ? body : {}),
    };
    return {
      status: 200,
      body: {
        ...this.host,
        missing: this.missing,
        capacity: {
          cpu: { total: 6400, reserved: 800 },
          memory: { total: 480 * 1024 ** 3, reserved: 64 * 1024 ** 3 },
        },
        version: '0.1.0',
        uptime: 86400 * 41 + 3600 * 7,
        cpus: 64,
        cpu_model: 'AMD EPYC 9354P 32-Core Processor',
        memory: { total: 512 * GIB, used: 331 * GIB, machines: 309 * GIB },
        engines: [
          {
            name: 'kvm',
            available: true,
            reason: 'Measured: hardware virtualization works',
          },
          { name: 'soft', available: true, reason: 'Always there' },
        ],
        load: [19.4, 18.1, 17.7],
        machines: {
          total: all.length,
          running: all.filter((m) => m.state === 'running').length,
          paused: all.filter((m) => m.state === 'paused').length,
        },
        storage: { total: 11520e9, used: 8940e9 },
        health: [
          { level: 'warning', text: 'Datastore archive is 88 % full' },
          { level: 'error', text: `${all[3]?.name ?? ''} has crashed` },
        ],
      },
    };
  }
}
