// All that the portal knows of the host, kept true by the event stream. Components read signals and
// call functions of this module and of actions.ts; nothing else holds shared state.
import { batch, computed, signal, type ReadonlySignal, type Signal } from '@preact/signals';
import { get, getAll, registerHooks, request } from '../api/client';
import { EventStream, type StreamState } from '../api/events';
import { Problem } from '../api/problem';
import type {
  Datastore,
  Grant,
  Group,
  Host,
  HostEvent,
  Image,
  MachineSummary,
  Network,
  Pool,
  Session,
  Task,
  Template,
  Token,
  User,
} from '../api/types';

const EVENTS_KEPT = 300;
const TASKS_KEPT = 200;
const REFRESH_MS = 20_000;

/** undefined: not asked yet; null: nobody is logged in. */
export const session = signal<Session | null | undefined>(undefined);
export const connection = signal<StreamState>('connecting');
export const host = signal<Host | null>(null);
export const events = signal<HostEvent[]>([]);
export const tasks = signal<ReadonlyMap<string, Task>>(new Map());
export const machines = signal<ReadonlyMap<string, MachineSummary>>(new Map());
export const machinesLoaded = signal(false);
export const loadProblem = signal<string | null>(null);
/** Lists the server has said it does not have, with its reason. */
export const unavailable = signal<ReadonlyMap<string, string>>(new Map());
/** Grows with each change of a machine: what shows details of it asks again. */
export const revisions = signal<ReadonlyMap<string, number>>(new Map());

export const machineList = computed(() => [...machines.value.values()]);
export const runningTasks = computed(() =>
  [...tasks.value.values()].filter((t) => t.state === 'running' || t.state === 'queued'),
);
/** What this version of the host does not do yet, by the names docs/host.md lists. */
export type Feature =
  | 'cloud-init'
  | 'disk-import'
  | 'image-build'
  | 'network-bridge'
  | 'network-isolated'
  | 'network-nat'
  | 'pools'
  | 'templates';

export const has = (feature: Feature): boolean => !host.value?.missing?.includes(feature);

export const mayChange = computed(
  () => session.value?.role === 'administrator' || session.value?.role === 'operator',
);
export const isAdministrator = computed(() => session.value?.role === 'administrator');

/** A list of the server that is loaded when first shown and again when something of its kind changes. */
export class Collection<T> {
  readonly items: Signal<T[]> = signal<T[]>([]);
  readonly loaded = signal(false);
  readonly problem = signal<string | null>(null);
  private running: Promise<void> | null = null;

  constructor(readonly path: string) {}

  get available(): boolean {
    return !unavailable.value.has(this.path);
  }

  /** Load it unless it is there. */
  ensure(): void {
    if (!this.loaded.value && !this.running) void this.load();
  }

  load(): Promise<void> {
    this.running ??= this.fetch().finally(() => (this.running = null));
    return this.running;
  }

  reset(): void {
    this.items.value = [];
    this.loaded.value = false;
    this.problem.value = null;
  }

  private async fetch(): Promise<void> {
    try {
      const items = await getAll<T>(this.path);
      batch(() => {
        this.items.value = items;
        this.loaded.value = true;
        this.problem.value = null;
      });
    } catch (error) {
      this.problem.value = error instanceof Error ? error.message : String(error);
    }
  }
}

export const images = new Collection<Image>('/images');
export const templates = new Collection<Template>('/templates');
export const datastores = new Collection<Datastore>('/datastores');
export const networks = new Collection<Network>('/networks');
export const pools = new Collection<Pool>('/pools');
export const users = new Collection<User>('/users');
export const groups = new Collection<Group>('/groups');
export const grants = new Collection<Grant>('/grants');
export const tokens = new Collection<Token>('/tokens');

const collections: Record<string, Collection<unknown>> = {
  image: images as Collection<unknown>,
  iso: images as Collection<unknown>,
  template: templates as Collection<unknown>,
  datastore: datastores as Collection<unknown>,
  network: networks as Collection<unknown>,
  pool: pools as Collection<unknown>,
  user: users as Collection<unknown>,
  group: groups as Collection<unknown>,
  grant: grants as Collection<unknown>,
  token: tokens as Collection<unknown>,
};

/** `machine:UUID` -> ['machine', UUID] */
export function splitObject(object: string | null | undefined): [string, string] {
  if (!object) return ['', ''];
  const at = object.indexOf(':');
  return at < 0 ? ['', object] : [object.slice(0, at), object.slice(at + 1)];
}

export function machineSignal(id: string): ReadonlySignal<MachineSummary | undefined> {
  return computed(() => machines.value.get(id));
}

// Changes of machines and tasks come in bursts (500 machines starting): they are gathered and
// applied once a frame.
const changedMachines = new Map<string, MachineSummary | null>();
const changedTasks = new Map<string, Task>();
let flushing = false;

function scheduleFlush(): void {
  if (flushing) return;
  flushing = true;
  const later = typeof requestAnimationFrame === 'function' ? requestAnimationFrame : setTimeout;
  // A hidden page gets no frames; what it misses must still not pile up.
  if (typeof document !== 'undefined' && document.hidden) setTimeout(flush, 250);
  else later(flush);
}

export function flush(): void {
  flushing = false;
  batch(() => {
    if (changedMachines.size) {
      const next = new Map(machines.value);
      const turned = new Map(revisions.value);
      for (const [id, machine] of changedMachines) {
        if (machine) next.set(id, { ...next.get(id), ...machine });
        else next.delete(id);
        turned.set(id, (turned.get(id) ?? 0) + 1);
      }
      changedMachines.clear();
      machines.value = next;
      revisions.value = turned;
    }
    if (changedTasks.size) {
      const next = new Map(tasks.value);
      for (const [id, task] of changedTasks) next.set(id, { ...next.get(id), ...task });
      changedTasks.clear();
      while (next.size > TASKS_KEPT) next.delete(next.keys().next().value!);
      tasks.value = next;
    }
  });
}

export function putMachine(machine: MachineSummary): void {
  changedMachines.set(machine.id, machine);
  scheduleFlush();
}

export function dropMachine(id: string): void {
  changedMachines.set(id, null);
  scheduleFlush();
}

const hasEnded = (task: Task | undefined): boolean =>
  !!task && task.state !== 'queued' && task.state !== 'running';

/** The answer that made a task may come behind the event that tells its end: that stays. */
export function putTask(task: Task): void {
  const known = changedTasks.get(task.id) ?? tasks.value.get(task.id);
  if (hasEnded(known) && !hasEnded(task)) return;
  changedTasks.set(task.id, task);
  scheduleFlush();
}

/** Show a change before the server has said so; @returns what takes it back. */
export function assume(id: string, change: Partial<MachineSummary>): () => void {
  const before = machines.value.get(id);
  if (!before) return () => undefined;
  machines.value = new Map(machines.value).set(id, { ...before, ...change });
  return () => {
    const now = machines.value.get(id);
    if (!now) return;
    const back = Object.fromEntries(
      Object.keys(change).map((k) => [k, before[k as keyof MachineSummary]]),
    );
    machines.value = new Map(machines.value).set(id, { ...now, ...back });
  };
}

/** Tells of an object's new state; no line of the history. */
export const isUpdate = (event: HostEvent): boolean =>
  ['changed', 'removed', 'subscribed'].includes(event.type);

let refreshHostSoon: ReturnType<typeof setTimeout> | undefined;

export function applyEvent(event: HostEvent): void {
  const [kind, id] = splitObject(event.object);
  const data = event.data as Record<string, unknown> | null | undefined;
  if (kind === 'task' && data && 'state' in data) putTask(data as unknown as Task);
  if (kind === 'machine') {
    if (event.type === 'removed') dropMachine(id);
    else if (data && typeof data.state === 'string' && typeof data.name === 'string')
      putMachine(data as unknown as MachineSummary);
    else if (event.type !== 'changed' && !machines.value.has(id)) void loadMachine(id);
  }
  const collection = collections[kind];
  if (collection?.loaded.value) void collection.load();
  if (isUpdate(event)) return;
  events.value = [event, ...events.value.filter((e) => e.id !== event.id)].slice(0, EVENTS_KEPT);
  refreshHostSoon ??= setTimeout(() => {
    refreshHostSoon = undefined;
    void loadHost();
  }, 1500);
}

export async function loadMachine(id: string): Promise<void> {
  try {
    putMachine(await get<MachineSummary>(`/machines/${id}`));
  } catch (error) {
    if (error instanceof Problem && error.status === 404) dropMachine(id);
  }
}

export async function loadMachines(): Promise<void> {
  const list = await getAll<MachineSummary>('/machines');
  batch(() => {
    machines.value = new Map(list.map((m) => [m.id, m]));
    machinesLoaded.value = true;
  });
}

export async function loadHost(): Promise<void> {
  host.value = await get<Host>('/host').catch(() => host.value);
}

async function loadTasks(): Promise<void> {
  const page = await get<{ items: Task[] }>('/tasks', { limit: 100, sort: '-created' });
  const known = tasks.value;
  const newest = (t: Task): Task =>
    hasEnded(t) ? t : hasEnded(known.get(t.id)) ? known.get(t.id)! : t;
  tasks.value = new Map([...page.items].reverse().map((t) => [t.id, newest(t)]));
}

async function loadEvents(): Promise<void> {
  const page = await get<{ items: HostEvent[] }>('/events', { limit: 100, sort: '-id' });
  events.value = page.items.filter((e) => !isUpdate(e));
}

export async function loadAll(): Promise<void> {
  const results = await Promise.allSettled([loadMachines(), loadHost(), loadTasks(), loadEvents()]);
  const [list] = results;
  loadProblem.value = list.status === 'rejected' ? (list.reason as Error).message : null;
}

const stream = new EventStream(applyEvent, (state, again) => {
  connection.value = state;
  // What happened meanwhile comes as events; a long silence may have outlived the server's memory.
  if (state === 'live' && again) {
    void loadAll();
    for (const collection of new Set(Object.values(collections)))
      if (collection.loaded.value) void collection.load();
  }
});

export const reconnectNow = (): void => stream.retryNow();

/** Usage, uptime and addresses change without events: asked for while somebody looks. */
async function refreshUsage(): Promise<void> {
  if (document.hidden || connection.value !== 'live') return;
  const fields = 'id,state,usage,uptime,addresses';
  try {
    const list = await getAll<MachineSummary>('/machines', { fields });
    const next = new Map(machines.value);
    let strange = list.length !== next.size;
    for (const part of list) {
      const known = next.get(part.id);
      if (known) next.set(part.id, { ...known, ...part });
      else strange = true;
    }
    // Made or gone between the list's answer and the stream's beginning.
    if (strange) await loadMachines();
    else machines.value = next;
    await loadHost();
  } catch {
    // The stream notices a lost host and says so.
  }
}

let refreshTimer: ReturnType<typeof setInterval> | undefined;

function begin(who: Session): void {
  session.value = who;
  void loadAll();
  stream.start();
  refreshTimer ??= setInterval(() => void refreshUsage(), REFRESH_MS);
}

function forget(): void {
  stream.stop();
  clearInterval(refreshTimer);
  refreshTimer = undefined;
  batch(() => {
    session.value = null;
    machines.value = new Map();
    machinesLoaded.value = false;
    tasks.value = new Map();
    events.value = [];
    host.value = null;
    for (const collection of Object.values(collections)) collection.reset();
  });
}

registerHooks({
  csrfToken: () => session.value?.csrf_token ?? null,
  unauthenticated: () => {
    if (session.value) forget();
  },
  unavailable: (path, reason) => {
    if (!unavailable.value.has(path))
      unavailable.value = new Map(unavailable.value).set(path, reason);
  },
});

/** At the start: is there a session already? */
export async function resume(): Promise<void> {
  try {
    begin(await get<Session>('/sessions/current'));
  } catch {
    session.value = null;
  }
}

export async function login(user: string, password: string): Promise<void> {
  begin(await request<Session>('POST', '/sessions', { body: { user, password } }));
}

export async function logout(): Promise<void> {
  await request('DELETE', '/sessions/current').catch(() => undefined);
  forget();
}
