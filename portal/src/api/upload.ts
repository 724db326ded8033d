// Uploads in pieces that go on where they stopped: after a broken network, after a reload, after the
// same file is chosen again. It knows of bytes and offsets, not of what becomes of the file.
import { get, post, remove, requestRaw } from './client';
import { Problem } from './problem';
import type { Upload } from './types';

export const CHUNK_BYTES = 8 * 1024 * 1024;
const REMEMBER = 'mullion.uploads';

export interface UploadProgress {
  sent: number;
  size: number;
  /** Bytes a second, of the last seconds. */
  rate: number;
  waiting: boolean;
}

interface Transport {
  create(name: string, size: number): Promise<Upload>;
  offset(id: string): Promise<number>;
  append(id: string, offset: number, bytes: Blob, signal: AbortSignal): Promise<void>;
  discard(id: string): Promise<void>;
  wait(ms: number, signal: AbortSignal): Promise<void>;
}

export const httpTransport: Transport = {
  create: (name, size) => post<Upload>('/uploads', { name, size }),
  offset: async (id) => (await get<Upload>(`/uploads/${id}`)).offset,
  async append(id, offset, bytes, signal) {
    await requestRaw('PATCH', `/uploads/${id}`, {
      body: bytes,
      headers: {
        'Content-Type': 'application/octet-stream',
        'Upload-Offset': String(offset),
      },
      signal,
    });
  },
  discard: (id) => remove(`/uploads/${id}`),
  wait: (ms, signal) =>
    new Promise((resolve, reject) => {
      const timer = setTimeout(resolve, ms);
      signal.addEventListener('abort', () => {
        clearTimeout(timer);
        reject(new DOMException('aborted', 'AbortError'));
      });
    }),
};

const keyOf = (file: File): string => `${file.name}:${file.size}:${file.lastModified}`;

function remembered(): Record<string, string> {
  try {
    return JSON.parse(localStorage.getItem(REMEMBER) ?? '{}') as Record<string, string>;
  } catch {
    return {};
  }
}

function remember(key: string, id: string | null): void {
  const all = remembered();
  if (id === null) delete all[key];
  else all[key] = id;
  try {
    localStorage.setItem(REMEMBER, JSON.stringify(all));
  } catch {
    // A full or forbidden storage only costs going on after a reload.
  }
}

/** Where an earlier upload of this file stands, or a new one. */
async function begin(file: File, transport: Transport): Promise<{ id: string; offset: number }> {
  const known = remembered()[keyOf(file)];
  if (known) {
    try {
      return { id: known, offset: await transport.offset(known) };
    } catch (error) {
      if (!(error instanceof Problem) || error.kind === 'network') throw error;
      remember(keyOf(file), null);
    }
  }
  const made = await transport.create(file.name, file.size);
  remember(keyOf(file), made.id);
  return { id: made.id, offset: made.offset ?? 0 };
}

/** Worth another attempt: no answer, an offset the server sees otherwise, or a server in trouble. */
const passing = (error: unknown): boolean =>
  error instanceof Problem &&
  (error.kind === 'network' ||
    error.status === 409 ||
    error.status === 429 ||
    error.status === 502 ||
    error.status === 503);

/**
 * Send a file.
 * @returns the upload's id, for an import
 * @throws Problem; DOMException AbortError when `signal` says so, after the upload was discarded
 */
export async function uploadFile(
  file: File,
  onProgress: (progress: UploadProgress) => void,
  signal: AbortSignal,
  transport: Transport = httpTransport,
): Promise<string> {
  const { id, offset: first } = await begin(file, transport);
  let offset = first;
  let failures = 0;
  let rate = 0;
  const report = (waiting: boolean) => onProgress({ sent: offset, size: file.size, rate, waiting });
  report(false);
  try {
    while (offset < file.size) {
      const started = performance.now();
      const piece = file.slice(offset, offset + CHUNK_BYTES);
      try {
        if (failures > 0) offset = await transport.offset(id);
        const from = offset;
        const bytes = failures > 0 ? file.slice(from, from + CHUNK_BYTES) : piece;
        await transport.append(id, from, bytes, signal);
        offset = from + bytes.size;
        failures = 0;
        const now = bytes.size / Math.max(0.001, (performance.now() - started) / 1000);
        rate = rate ? rate * 0.7 + now * 0.3 : now;
        report(false);
      } catch (error) {
        if (signal.aborted || !passing(error)) throw error;
        report(true);
        await transport.wait(Math.min(10_000, 500 * 2 ** Math.min(failures++, 5)), signal);
      }
    }
  } catch (error) {
    if (signal.aborted) {
      remember(keyOf(file), null);
      await transport.discard(id).catch(() => undefined);
    }
    throw error;
  }
  remember(keyOf(file), null);
  return id;
}
