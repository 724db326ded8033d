// Uploads that go on while the user is elsewhere in the portal, each followed by its import.
import { signal } from '@preact/signals';
import { post } from '../api/client';
import { sayProblem } from '../api/problem';
import type { Task } from '../api/types';
import { uploadFile } from '../api/upload';
import { notify, notifyProblem } from './notices';
import { putTask } from './store';

export interface Transfer {
  id: number;
  name: string;
  size: number;
  sent: number;
  rate: number;
  waiting: boolean;
  state: 'running' | 'done' | 'failed';
  problem: string | null;
}

export const transfers = signal<Transfer[]>([]);
const stops = new Map<number, AbortController>();
let last = 0;

function update(id: number, part: Partial<Transfer>): void {
  transfers.value = transfers.value.map((t) => (t.id === id ? { ...t, ...part } : t));
}

/** Leaving the page would stop an upload: the browser asks first. */
function guard(event: BeforeUnloadEvent): void {
  if (transfers.value.some((t) => t.state === 'running')) event.preventDefault();
}

export function startImport(file: File, request: Record<string, unknown>): void {
  window.addEventListener('beforeunload', guard);
  const id = ++last;
  const stop = new AbortController();
  stops.set(id, stop);
  transfers.value = [
    ...transfers.value,
    {
      id,
      name: file.name,
      size: file.size,
      sent: 0,
      rate: 0,
      waiting: false,
      state: 'running',
      problem: null,
    },
  ];
  void run(id, file, request, stop.signal);
}

async function run(
  id: number,
  file: File,
  request: Record<string, unknown>,
  signal: AbortSignal,
): Promise<void> {
  try {
    const upload = await uploadFile(file, (p) => update(id, p), signal);
    putTask(await post<Task>('/imports', { upload, ...request }));
    update(id, { state: 'done', sent: file.size });
    notify(`${file.name} is uploaded and being imported.`, 'ok');
    setTimeout(() => (transfers.value = transfers.value.filter((t) => t.id !== id)), 8000);
  } catch (error) {
    if (signal.aborted) return;
    update(id, { state: 'failed', problem: sayProblem(error) });
    notifyProblem(`${file.name} was not imported`, error);
  } finally {
    stops.delete(id);
  }
}

export function cancelTransfer(id: number): void {
  stops.get(id)?.abort();
  transfers.value = transfers.value.filter((t) => t.id !== id);
}
