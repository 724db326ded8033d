// What the mock's host has been through before anybody looks.
import { randomUUID } from 'node:crypto';
import * as data from './data.mjs';

export function history(api) {
  const some = [...api.machines.values()].slice(0, 9);
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
    api.events.push({
      id: api.events.length + 1,
      time: data.ago(seconds),
      type,
      object: m ? `machine:${m.id}` : null,
      object_name: m?.name ?? null,
      user,
      severity,
      text,
      data: null,
    });
  for (const [i, n] of api.lists.networks.entries())
    api.events.push({
      id: api.events.length + 1,
      time: data.ago(80 - i),
      type: n.state === 'up' ? 'network.changed' : 'network.down',
      object: `network:${n.id}`,
      object_name: n.name,
      user: n.state === 'up' ? 'yuki' : null,
      severity: n.state === 'up' ? 'info' : 'error',
      text:
        n.state === 'up'
          ? `network ${n.name} was changed`
          : `network ${n.name} is down: ${n.reason}`,
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
    api.tasks.push({
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

export function audit() {
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
