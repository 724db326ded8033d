import { beforeEach, describe, expect, it, vi } from 'vitest';
import type { HostEvent, MachineSummary } from '../src/api/types';
import { divide } from '../src/state/actions';
import * as store from '../src/state/store';

const machine = (id: string, more: Partial<MachineSummary> = {}): MachineSummary =>
  ({ id, name: id, state: 'running', tags: [], folder: '/', ...more }) as unknown as MachineSummary;

const event = (more: Partial<HostEvent>): HostEvent => ({
  id: 1,
  time: '2026-11-21T12:00:00Z',
  type: 'changed',
  object: null,
  object_name: null,
  user: null,
  severity: 'info',
  text: '',
  data: null,
  ...more,
});

beforeEach(() => {
  vi.useFakeTimers();
  store.machines.value = new Map([['a', machine('a')]]);
  store.events.value = [];
  store.tasks.value = new Map();
});

describe('the store', () => {
  it('takes machines from events, many at once', () => {
    const seen = vi.fn();
    const stop = store.machines.subscribe(seen);
    for (const id of ['b', 'c'])
      store.applyEvent(event({ object: `machine:${id}`, data: machine(id) as never }));
    store.applyEvent(
      event({ object: 'machine:a', data: machine('a', { state: 'stopped' }) as never }),
    );
    expect(store.machines.value.size).toBe(1);
    store.flush();
    expect(seen).toHaveBeenCalledTimes(2); // when subscribed, and once for all three
    expect(store.machines.value.get('a')!.state).toBe('stopped');
    expect(store.revisions.value.get('a')).toBe(1);
    stop();
  });
  it('drops what is removed and keeps history to what happened', () => {
    store.applyEvent(event({ type: 'removed', object: 'machine:a' }));
    store.applyEvent(event({ id: 2, type: 'user.login', text: 'in' }));
    store.applyEvent(event({ id: 2, type: 'user.login', text: 'in' }));
    store.flush();
    expect(store.machines.value.has('a')).toBe(false);
    expect(store.events.value.map((e) => e.id)).toEqual([2]);
  });
  it('follows tasks', () => {
    const task = { id: 't', state: 'running', progress: 10 };
    store.applyEvent(event({ object: 'task:t', data: task as never }));
    store.applyEvent(event({ object: 'task:t', data: { ...task, progress: 60 } as never }));
    store.flush();
    expect(store.runningTasks.value).toHaveLength(1);
    expect(store.tasks.value.get('t')!.progress).toBe(60);
  });
  it('keeps the end of a task that the answer to its request comes behind', () => {
    const task = { id: 't', state: 'running', progress: 0 };
    const ended = event({ object: 'task:t', data: { ...task, state: 'succeeded' } as never });
    store.applyEvent(ended);
    store.putTask(task as never);
    store.flush();
    expect(store.tasks.value.get('t')!.state).toBe('succeeded');
    store.putTask(task as never);
    store.flush();
    expect(store.runningTasks.value).toHaveLength(0);
  });
  it('takes an assumption back without losing what came between', () => {
    const back = store.assume('a', { state: 'stopping' });
    expect(store.machines.value.get('a')!.state).toBe('stopping');
    store.applyEvent(
      event({ object: 'machine:a', data: machine('a', { state: 'stopping', cpus: 4 }) as never }),
    );
    store.flush();
    back();
    expect(store.machines.value.get('a')).toMatchObject({ state: 'running', cpus: 4 });
  });
  it('reads objects as kind and id', () => {
    expect(store.splitObject('folder:/a:b')).toEqual(['folder', '/a:b']);
    expect(store.splitObject(null)).toEqual(['', '']);
  });
});

describe('actions', () => {
  it('apply to machines in the right state only', () => {
    const [fit, skipped] = divide('start', [machine('a'), machine('b', { state: 'stopped' })]);
    expect(fit.map((m) => m.id)).toEqual(['b']);
    expect(skipped).toBe(1);
  });
});
