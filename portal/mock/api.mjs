// The mock's API: a table of routes over an inventory in memory, tasks that take a second, events.
import { randomBytes, randomUUID } from 'node:crypto';
import * as data from './data.mjs';
import { png } from './png.mjs';
import { HEIGHT, picture, WIDTH } from './screen.mjs';
import { bootLog } from './serial.mjs';

const GIB = 1024 ** 3;

export class Refusal extends Error {
    constructor(status, kind, detail, field) {
        super(detail);
        this.status = status;
        this.kind = kind;
        this.field = field;
    }
}

const summary = (machine) => {
    const { config, pending_config, resources, ...rest } = machine;
    (void config, pending_config, resources);
    return rest;
};

const merge = (from, patch) => {
    if (typeof patch !== 'object' || patch === null || Array.isArray(patch)) return patch;
    const out = { ...(typeof from === 'object' && !Array.isArray(from) ? from : {}) };
    for (const [key, value] of Object.entries(patch))
        if (value === null) delete out[key];
        else out[key] = merge(out[key], value);
    return out;
};

export class Api {
    constructor({ machines, password }) {
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
            templates: [],
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
        this.history();
    }

    history() {
        const some = [...this.machines.values()].slice(0, 9);
        const [a, b, c, d, e] = some;
        const past = [
            [86400, 'machine.created', a, 'info', `${a.name} was created from debian-12`, 'marek'],
            [21000, 'datastore.low', null, 'warning', 'Datastore archive is 88 % full', null],
            [9000, 'machine.running', b, 'info', `${b.name} runs on kvm`, 'marek'],
            [5200, 'machine.crashed', d, 'error', `${d.name}: the guest panicked`, null],
            [3600, 'machine.changed', c, 'info', `${c.name}: 4 CPUs at the next start`, 'yuki'],
            [1500, 'user.login', null, 'info', 'marek logged in from 10.20.1.7', 'marek'],
            [640, 'machine.paused', e, 'info', `${e.name} was paused`, 'marek'],
            [95, 'user.login', null, 'info', 'admin logged in from 10.20.1.4', 'admin'],
        ];
        for (const [seconds, type, m, severity, text, user] of past)
            this.events.push({
                id: this.events.length + 1,
                time: data.ago(seconds),
                type,
                object: m ? `machine:${m.id}` : null,
                object_name: m?.name ?? null,
                user,
                severity,
                text,
                data: null,
            });
        for (const [seconds, type, m, state, took, error] of [
            [7400, 'machine.export', c, 'succeeded', 48],
            [
                5300,
                'machine.start',
                d,
                'failed',
                3,
                'The disk db-4.qcow2 is locked by another process (pid 4121)',
            ],
            [640, 'machine.pause', e, 'succeeded', 1],
        ]) {
            const started = Date.now() - seconds * 1000;
            this.tasks.push({
                id: randomUUID(),
                type,
                object: `machine:${m.id}`,
                object_name: m.name,
                state,
                progress: state === 'succeeded' ? 100 : 20,
                step: null,
                created: new Date(started).toISOString(),
                started: new Date(started).toISOString(),
                ended: new Date(started + took * 1000).toISOString(),
                user: 'marek',
                result: null,
                error: error ? { detail: error, title: 'conflict', status: 409 } : null,
                cancellable: false,
            });
        }
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
                    m.usage.cpu = Math.max(
                        1,
                        Math.min(m.cpus * 98, m.usage.cpu * (0.9 + next() * 0.22)),
                    );
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
            task.step =
                steps[Math.min(steps.length - 1, Math.floor((i / count) * steps.length))] ?? null;
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

    setState(machine, state, text) {
        const live = state === 'running' || state === 'paused';
        Object.assign(machine, {
            state,
            state_reason: null,
            engine: live ? 'kvm' : null,
            uptime: live ? 1 : null,
            started: live ? new Date().toISOString() : null,
        });
        if (!live) machine.usage = { cpu: 0, memory: 0 };
        else if (!machine.usage.cpu) machine.usage = { cpu: 20, memory: machine.memory * 0.3 };
        if (state === 'running' && machine.pending_config) {
            machine.config = machine.pending_config;
            machine.pending_config = null;
            machine.pending = false;
            machine.cpus = machine.config.cpus;
            machine.memory = machine.config.memory;
        }
        this.changed(machine);
        if (text)
            this.emit({
                type: `machine.${state}`,
                object: `machine:${machine.id}`,
                object_name: machine.name,
                text: `${machine.name} ${text}`,
            });
    }

    power(machine, verb, body) {
        const goals = {
            start: 'running',
            stop: 'stopped',
            restart: 'running',
            pause: 'paused',
            resume: 'running',
            reset: 'running',
        };
        const between = { start: 'starting', stop: 'stopping', restart: 'stopping' }[verb];
        if (verb === 'start' && machine.state === 'running')
            throw new Refusal(409, 'conflict', `${machine.name} runs already`);
        if (between) this.setState(machine, between);
        return this.task(
            `machine.${verb}`,
            `machine:${machine.id}`,
            machine.name,
            [body?.force ? 'Cutting the power' : 'Asking the guest', 'Waiting'],
            () =>
                this.setState(
                    machine,
                    goals[verb],
                    {
                        start: 'runs',
                        stop: 'is off',
                        restart: 'runs again',
                        pause: 'is paused',
                        resume: 'goes on',
                        reset: 'was reset',
                    }[verb],
                ),
            700,
        );
    }

    create(body) {
        if (!/^[A-Za-z0-9_.-]{1,63}$/.test(body.name ?? ''))
            throw new Refusal(
                422,
                'invalid',
                'A name has letters, digits, dot, hyphen and underscore.',
                '/name',
            );
        if ([...this.machines.values()].some((m) => m.name === body.name))
            throw new Refusal(
                409,
                'conflict',
                `There is a machine ${body.name} already; choose another name.`,
                '/name',
            );
        const kind = {
            prefix: 'new',
            folder: body.folder ?? '/',
            tags: body.tags ?? [],
            os: body.os ?? 'debian12-64',
            cpus: body.cpus ?? 1,
            memory: (body.memory ?? GIB) / GIB,
            load: 10,
        };
        const machine = data.makeMachine(
            kind,
            body.name,
            data.random(this.machines.size),
            'creating',
        );
        machine.id = randomUUID();
        machine.created = new Date().toISOString();
        machine.config.display.type = 'vnc';
        this.machines.set(machine.id, machine);
        this.changed(machine);
        return this.task(
            'machine.create',
            `machine:${machine.id}`,
            machine.name,
            ['Reading the image', 'Copying the disk', 'Making the cloud-init seed'],
            () => this.setState(machine, body.start ? 'running' : 'stopped', 'was created'),
        );
    }

    change(machine, body) {
        const { config, pending_config, ...rest } = body;
        if (pending_config === null)
            Object.assign(machine, { pending_config: null, pending: false });
        Object.assign(machine, rest);
        if (config) {
            if (config.cpus > 64)
                throw new Refusal(422, 'invalid', 'A machine has 64 CPUs at most.', '/config/cpus');
            const next = merge(machine.pending_config ?? machine.config, config);
            if (machine.state === 'stopped') {
                machine.config = next;
                machine.cpus = next.cpus;
                machine.memory = next.memory;
            } else Object.assign(machine, { pending_config: next, pending: true });
        }
        this.changed(machine);
        return { status: 200, body: machine };
    }

    disksOf(machine) {
        return machine.config.disks.map((d, i) => ({
            name: d.path.replace(/\.\w+$/, ''),
            path: `${data.DATASTORES[0].path}/machines/${machine.id}/${d.path}`,
            datastore: data.DATASTORES[0].id,
            format: 'qcow2',
            bus: d.bus ?? 'virtio',
            capacity: d.capacity ?? 20 * GIB,
            allocated: Math.round((d.capacity ?? 20 * GIB) * 0.37),
            readonly: false,
            cbt: i === 0,
            bootable: i === 0,
        }));
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
        if (isUpload) return this.append(parts[1], request, bytes);
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

    append(id, request, bytes) {
        const upload = this.uploads.get(id);
        if (!upload) throw new Refusal(404, 'not-found', 'There is no such upload.');
        if (this.failUploads > 0) {
            this.failUploads--;
            throw new Refusal(503, 'unavailable', 'Try again.');
        }
        if (Number(request.headers['upload-offset']) !== upload.offset)
            throw new Refusal(409, 'conflict', `The upload stands at ${upload.offset}.`);
        upload.offset += bytes.length;
        return { status: 200, body: upload };
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
            list = [...list].sort(
                (a, b) => (a[key] < b[key] ? -1 : 1) * (sort.startsWith('-') ? -1 : 1),
            );
        }
        const fields = query.get('fields')?.split(',');
        const shown = list.slice(start, start + limit);
        return {
            status: 200,
            body: {
                items: fields
                    ? shown.map((x) => Object.fromEntries(fields.map((f) => [f, x[f]])))
                    : shown,
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
                ? this.machineRoute(method, parts, query, body)
                : method === 'POST'
                  ? this.create(body)
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
                            permissions: [
                                'host',
                                'machines',
                                'images',
                                'networks',
                                'users',
                                'audit',
                            ],
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
        if (first === 'audit') return this.page(this.audit(), query);
        if (first === 'uploads') return this.uploadRoute(method, id, body);
        if (first === 'imports') return this.importRoute(body);
        if (first === 'datastores' && third === 'files')
            return this.page(this.files(query.get('path') ?? ''), query);
        if (this.lists[first]) return this.listRoute(method, parts, query, body);
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

    machineRoute(method, parts, query, body) {
        const [, id, what, disk, fourth, snapshot, apply] = parts;
        const machine = this.machines.get(id);
        if (!machine) throw new Refusal(404, 'not-found', 'There is no such machine.');
        const object = `machine:${id}`;
        if (!what && method === 'GET') return { status: 200, body: machine };
        if (!what && method === 'PATCH') return this.change(machine, body);
        if (!what && method === 'DELETE') {
            this.setState(machine, 'deleting');
            return this.task('machine.delete', object, machine.name, ['Removing disks'], () => {
                this.machines.delete(id);
                this.emit({ type: 'removed', object, object_name: machine.name });
                this.emit({
                    type: 'machine.deleted',
                    object_name: machine.name,
                    text: `${machine.name} was deleted`,
                });
            });
        }
        if (what === 'stats')
            return {
                status: 200,
                body: data.makeSeries(parseInt(id.slice(0, 6), 16), query.get('range') ?? 'hour', {
                    cpu: machine.usage.cpu || 12,
                    memory: machine.usage.memory || GIB / 4,
                }),
            };
        if (what === 'console') {
            const ticket = randomBytes(16).toString('hex');
            this.tickets.set(ticket, { type: body.type, machine });
            return {
                status: 201,
                body: { ticket, url: `/api/v1/consoles/${ticket}`, expires: data.ago(-30) },
            };
        }
        if (what === 'console-log')
            return { status: 200, type: 'text/plain', body: Buffer.from(bootLog(machine.name)) };
        if (what === 'screenshot')
            return { status: 200, type: 'image/png', body: png(WIDTH, HEIGHT, picture()) };
        if (what === 'keys') {
            this.keys.push(...(body.keys ?? [body.text]));
            return { status: 204 };
        }
        if (what === 'export')
            return this.task(
                'machine.export',
                object,
                machine.name,
                ['Converting the disk', 'Packing'],
                () => ({ download: `/api/v1/downloads/${randomUUID()}` }),
            );
        if (what === 'disks')
            return this.diskRoute(method, machine, { disk, fourth, snapshot, apply }, query, body);
        return this.power(machine, what, body);
    }

    diskRoute(method, machine, { disk, fourth, snapshot, apply }, query, body) {
        const key = `${machine.id}/${disk}`;
        const list = this.snapshots.get(key) ?? [
            { name: 'before-upgrade', created: data.ago(86400 * 6), size: 412e6 },
            { name: 'clean-install', created: data.ago(86400 * 48), size: 1.9e9 },
        ];
        this.snapshots.set(key, list);
        if (fourth === 'snapshots') {
            if (method === 'POST' && apply)
                return this.task(
                    'disk.revert',
                    `machine:${machine.id}`,
                    machine.name,
                    ['Going back'],
                    () => null,
                );
            if (method === 'POST')
                list.unshift({ name: body.name, created: new Date().toISOString(), size: 0 });
            if (method === 'DELETE')
                this.snapshots.set(
                    key,
                    list.filter((s) => s.name !== snapshot),
                );
            return method === 'GET' ? this.page(list, query) : { status: 201, body: list[0] };
        }
        if (method === 'POST')
            machine.config.disks.push({
                path: `${machine.name}-${machine.config.disks.length}.qcow2`,
                bus: body.bus,
                capacity: body.capacity,
            });
        if (method === 'PATCH') machine.config.disks[0].capacity = body.capacity;
        if (method === 'DELETE')
            machine.config.disks = machine.config.disks.filter(
                (d) => !d.path.startsWith(`${disk}.`),
            );
        if (method !== 'GET') {
            this.changed(machine);
            return this.task(
                `disk.${{ POST: 'add', PATCH: 'grow', DELETE: 'remove' }[method]}`,
                `machine:${machine.id}`,
                machine.name,
                [],
                () => null,
                300,
            );
        }
        return this.page(this.disksOf(machine), query);
    }

    uploadRoute(method, id, body) {
        if (method === 'POST') {
            const upload = {
                id: randomUUID(),
                name: body.name,
                offset: 0,
                size: body.size,
                sha256: null,
                expires: data.ago(-86400),
            };
            this.uploads.set(upload.id, upload);
            return { status: 201, body: upload };
        }
        const upload = this.uploads.get(id);
        if (!upload) throw new Refusal(404, 'not-found', 'There is no such upload.');
        if (method === 'DELETE') this.uploads.delete(id);
        return method === 'DELETE' ? { status: 204 } : { status: 200, body: upload };
    }

    importRoute(body) {
        const upload = this.uploads.get(body.upload);
        if (!upload || upload.offset !== upload.size)
            throw new Refusal(409, 'conflict', 'The upload is not complete.', '/upload');
        return this.task(
            'import',
            null,
            body.name,
            ['Reading the package', 'Converting disks'],
            () => {
                if (body.kind === 'appliance')
                    this.create({ name: body.name, cpus: 2, memory: 2 * GIB });
                else
                    this.lists.images.push({
                        ...data.IMAGES[0],
                        name: body.name,
                        kind: body.kind === 'iso' ? 'iso' : 'image',
                        created: new Date().toISOString(),
                    });
                this.emit({
                    type: 'changed',
                    object: `image:${body.name}`,
                    object_name: body.name,
                    data: {},
                });
            },
        );
    }

    listRoute(method, [first, id], query, body) {
        const list = this.lists[first];
        const key = ['users', 'groups', 'images'].includes(first) ? 'name' : 'id';
        const at = list.findIndex((x) => x[key] === id);
        if (id && at < 0) throw new Refusal(404, 'not-found', 'There is none.');
        if (method === 'GET') return id ? { status: 200, body: list[at] } : this.page(list, query);
        if (method === 'DELETE') {
            list.splice(at, 1);
            return { status: 204 };
        }
        if (method === 'PATCH') {
            list[at] = merge(list[at], body);
            return { status: 200, body: list[at] };
        }
        if (first === 'images')
            return this.task(
                'image.build',
                null,
                body.name,
                ['Fetching packages', 'Making the file system'],
                () => null,
                4000,
            );
        if (list.some((x) => x.name && x.name === body.name))
            throw new Refusal(409, 'conflict', `${body.name} exists already.`, '/name');
        const { password, ...kept } = body;
        void password;
        const made = {
            id: randomUUID(),
            created: new Date().toISOString(),
            last_used: null,
            machines: 0,
            groups: [],
            user: 'admin',
            state: 'up',
            reason: null,
            ...kept,
        };
        list.push(made);
        return {
            status: 201,
            body:
                first === 'tokens'
                    ? { ...made, token: `mul_${randomBytes(20).toString('base64url')}` }
                    : made,
        };
    }

    files(path) {
        const folder = (name) => ({
            name,
            kind: 'folder',
            size: 0,
            modified: data.ago(86400),
            used_by: null,
        });
        const file = (name, size, used) => ({
            name,
            kind: 'file',
            size,
            modified: data.ago(size % 864000),
            used_by: used ?? null,
        });
        if (!path)
            return [
                folder('machines'),
                folder('images'),
                folder('isos'),
                folder('templates'),
                file('inventory-note.txt', 1240),
            ];
        if (path === 'images' || path === 'isos')
            return this.lists.images
                .filter((i) => (i.kind === 'iso') === (path === 'isos'))
                .map((i) => file(`${i.name}.${i.format}`, i.size, `image:${i.name}`));
        if (path === 'machines')
            return [...this.machines.values()].slice(0, 40).map((m) => folder(m.id));
        const machine = this.machines.get(path.split('/')[1]);
        return machine
            ? [
                  file('machine.json', 1822, `machine:${machine.id}`),
                  file(`${machine.name}.qcow2`, 7.4 * GIB, `machine:${machine.id}`),
                  file('nvram', 540672, `machine:${machine.id}`),
                  file('log', 48211),
              ]
            : [];
    }

    audit() {
        const rows = [
            [20, 'admin', 'POST', '/sessions', 201],
            [640, 'marek', 'POST', `/machines/${data.uuid('m')}/pause`, 202],
            [1500, 'marek', 'POST', '/sessions', 201],
            [1510, 'marek', 'POST', '/sessions', 401],
            [3600, 'yuki', 'PATCH', `/machines/${data.uuid('n')}`, 200],
            [7200, 'auditor', 'DELETE', `/machines/${data.uuid('o')}`, 403],
            [86400, 'marek', 'POST', '/machines', 202],
        ];
        return rows.map(([seconds, user, method, path, status], i) => ({
            id: rows.length - i,
            time: data.ago(seconds),
            user,
            from: `10.20.1.${4 + (i % 3)}`,
            method,
            path: `/api/v1${path}`,
            status,
        }));
    }
}
