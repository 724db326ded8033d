// The mock's machines: their life, hardware and disks.
import { randomBytes, randomUUID } from 'node:crypto';
import * as data from './data.mjs';
import { Refusal, merge } from './helpers.mjs';
import { png } from './png.mjs';
import { HEIGHT, picture, WIDTH } from './screen.mjs';
import { bootLog } from './serial.mjs';

const GIB = 1024 ** 3;

export function setState(api, machine, state, text) {
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
  api.changed(machine);
  if (text)
    api.emit({
      type: `machine.${state}`,
      object: `machine:${machine.id}`,
      object_name: machine.name,
      text: `${machine.name} ${text}`,
    });
}

export function power(api, machine, verb, body) {
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
  if (between) setState(api, machine, between);
  return api.task(
    `machine.${verb}`,
    `machine:${machine.id}`,
    machine.name,
    [body?.force ? 'Cutting the power' : 'Asking the guest', 'Waiting'],
    () =>
      setState(
        api,
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

export function create(api, body) {
  if (!/^[A-Za-z0-9_.-]{1,63}$/.test(body.name ?? ''))
    throw new Refusal(
      422,
      'invalid',
      'A name has letters, digits, dot, hyphen and underscore.',
      '/name',
    );
  if ([...api.machines.values()].some((m) => m.name === body.name))
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
  const machine = data.makeMachine(kind, body.name, data.random(api.machines.size), 'creating');
  machine.id = randomUUID();
  machine.created = new Date().toISOString();
  api.machines.set(machine.id, machine);
  api.changed(machine);
  return api.task(
    'machine.create',
    `machine:${machine.id}`,
    machine.name,
    ['Reading the image', 'Copying the disk', 'Making the cloud-init seed'],
    () => setState(api, machine, body.start ? 'running' : 'stopped', 'was created'),
  );
}

export function change(api, machine, body) {
  const { config, pending_config, ...rest } = body;
  if (pending_config === null) Object.assign(machine, { pending_config: null, pending: false });
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
  api.changed(machine);
  return { status: 200, body: machine };
}

export function disksOf(api, machine) {
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

export function machineRoute(api, method, parts, query, body) {
  const [, id, what, disk, fourth, snapshot, apply] = parts;
  const machine = api.machines.get(id);
  if (!machine) throw new Refusal(404, 'not-found', 'There is no such machine.');
  const object = `machine:${id}`;
  if (!what && method === 'GET') return { status: 200, body: machine };
  if (!what && method === 'PATCH') return change(api, machine, body);
  if (!what && method === 'DELETE') {
    setState(api, machine, 'deleting');
    return api.task('machine.delete', object, machine.name, ['Removing disks'], () => {
      api.machines.delete(id);
      api.emit({ type: 'removed', object, object_name: machine.name });
      api.emit({
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
    api.tickets.set(ticket, { type: body.type, machine });
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
    api.keys.push(...(body.keys ?? [body.text]));
    return { status: 204 };
  }
  if (what === 'export')
    return api.task(
      'machine.export',
      object,
      machine.name,
      ['Converting the disk', 'Packing'],
      () => ({ download: `/api/v1/downloads/${randomUUID()}` }),
    );
  if (what === 'disks')
    return diskRoute(api, method, machine, { disk, fourth, snapshot, apply }, query, body);
  return power(api, machine, what, body);
}

export function diskRoute(api, method, machine, { disk, fourth, snapshot, apply }, query, body) {
  const key = `${machine.id}/${disk}`;
  const list = api.snapshots.get(key) ?? [
    { name: 'before-upgrade', created: data.ago(86400 * 6), size: 412e6 },
    { name: 'clean-install', created: data.ago(86400 * 48), size: 1.9e9 },
  ];
  api.snapshots.set(key, list);
  if (fourth === 'snapshots') {
    if (method === 'POST' && apply)
      return api.task(
        'disk.revert',
        `machine:${machine.id}`,
        machine.name,
        ['Going back'],
        () => null,
      );
    if (method === 'POST')
      list.unshift({ name: body.name, created: new Date().toISOString(), size: 0 });
    if (method === 'DELETE')
      api.snapshots.set(
        key,
        list.filter((s) => s.name !== snapshot),
      );
    return method === 'GET' ? api.page(list, query) : { status: 201, body: list[0] };
  }
  if (method === 'POST')
    machine.config.disks.push({
      path: `${machine.name}-${machine.config.disks.length}.qcow2`,
      bus: body.bus,
      capacity: body.capacity,
    });
  if (method === 'PATCH') machine.config.disks[0].capacity = body.capacity;
  if (method === 'DELETE')
    machine.config.disks = machine.config.disks.filter((d) => !d.path.startsWith(`${disk}.`));
  if (method !== 'GET') {
    api.changed(machine);
    return api.task(
      `disk.${{ POST: 'add', PATCH: 'grow', DELETE: 'remove' }[method]}`,
      `machine:${machine.id}`,
      machine.name,
      [],
      () => null,
      300,
    );
  }
  return api.page(disksOf(api, machine), query);
}
