import { afterEach, describe, expect, it, vi } from 'vitest';
import { apiUrl, getAll, patch, post, registerHooks } from '../src/api/client';
import { reconnectDelay } from '../src/api/events';
import { Problem, problemAt } from '../src/api/problem';
import { CHUNK_BYTES, uploadFile, type UploadProgress } from '../src/api/upload';
import { toRequest, missing, newDraft, stepOf } from '../src/pages/create/draft';
import { guessKind, guessName } from '../src/pages/import/kinds';

afterEach(() => vi.unstubAllGlobals());

const answer = (status: number, body: unknown): Response =>
  new Response(JSON.stringify(body), { status });

describe('the client', () => {
  it('sends the CSRF token, an idempotency key and merge patches', async () => {
    const fetched = vi.fn().mockImplementation(async () => answer(200, {}));
    vi.stubGlobal('fetch', fetched);
    registerHooks({ csrfToken: () => 'tok', unauthenticated() {}, unavailable() {} });
    await post('/machines', { name: 'a' });
    await patch('/machines/1', { name: 'b' }, '"etag"');
    const [first, second] = fetched.mock.calls.map((c) => c[1].headers);
    expect(first['X-CSRF-Token']).toBe('tok');
    expect(first['Idempotency-Key']).toMatch(/^[0-9a-f]{32}$/);
    expect(second['If-Match']).toBe('"etag"');
    expect(second['Content-Type']).toBe('application/merge-patch+json');
  });
  it('follows cursors to the end', async () => {
    const pages = [
      { items: [1, 2], next: 'c', total: 3 },
      { items: [3], next: null, total: 3 },
    ];
    vi.stubGlobal('fetch', async () => answer(200, pages.shift()));
    expect(await getAll('/x')).toEqual([1, 2, 3]);
  });
  it('turns problem details into problems, and a dead host into one', async () => {
    const lost = vi.fn();
    registerHooks({ csrfToken: () => null, unauthenticated: lost, unavailable() {} });
    vi.stubGlobal('fetch', async () =>
      answer(422, {
        type: 'https://mullion.example/problems/invalid',
        detail: 'Too many',
        field: '/cpus',
      }),
    );
    const problem = await post('/machines').catch((e: unknown) => e);
    expect(problem).toMatchObject({ kind: 'invalid', status: 422, field: '/cpus' });
    expect(problemAt(problem, '/cpus')).toBe('Too many');
    expect(problemAt(problem, '/memory')).toBeNull();
    vi.stubGlobal('fetch', async () => answer(401, {}));
    await post('/machines').catch(() => undefined);
    expect(lost).toHaveBeenCalledOnce();
    vi.stubGlobal('fetch', async () => Promise.reject(new TypeError('failed')));
    expect(await post('/x').catch((e: unknown) => e)).toMatchObject({ kind: 'network' });
  });
  it('leaves out what is not asked', () => {
    expect(apiUrl('/machines', { limit: 5, q: undefined })).toBe('/api/v1/machines?limit=5');
  });
});

describe('reconnection', () => {
  it('waits longer each time, to an end', () => {
    expect(reconnectDelay(0, 1)).toBe(500);
    expect(reconnectDelay(3, 1)).toBe(4000);
    expect(reconnectDelay(100, 1)).toBe(15_000);
    expect(reconnectDelay(3, 0)).toBe(2000);
  });
});

function fakeServer(size: number, failures: unknown[]) {
  let stored = 0;
  const seen: number[] = [];
  return {
    seen,
    stored: () => stored,
    discarded: false,
    create: async () => ({ id: 'u1', name: 'x', sha256: null, offset: 0, size, expires: '' }),
    offset: async () => stored,
    async append(_id: string, offset: number, bytes: Blob) {
      seen.push(offset);
      const failure = failures.shift();
      // A connection that breaks may have brought a part.
      if (failure === 'partly') stored += 1000;
      if (failure) throw failure === 'partly' ? new Problem(0, 'network', 'lost') : failure;
      if (offset !== stored) throw new Problem(409, 'conflict', 'offset');
      stored += bytes.size;
    },
    async discard() {
      this.discarded = true;
    },
    wait: async () => undefined,
  };
}

describe('uploads', () => {
  const size = CHUNK_BYTES * 2 + 5;
  const file = new File([new Uint8Array(size)], 'a.ova');
  vi.stubGlobal('localStorage', undefined);

  it('go on where the server stands after a broken connection', async () => {
    const server = fakeServer(size, [undefined, 'partly', new Problem(503, 'unavailable', 'busy')]);
    const seen: UploadProgress[] = [];
    const id = await uploadFile(
      file,
      (p) => seen.push({ ...p }),
      new AbortController().signal,
      server,
    );
    expect(id).toBe('u1');
    expect(server.stored()).toBe(size);
    expect(server.seen).toContain(CHUNK_BYTES + 1000);
    expect(seen.some((p) => p.waiting)).toBe(true);
    expect(seen[seen.length - 1]!.sent).toBe(size);
  });
  it('end at an error that will not pass', async () => {
    const server = fakeServer(size, [new Problem(507, 'no-space', 'The datastore is full')]);
    await expect(
      uploadFile(file, () => undefined, new AbortController().signal, server),
    ).rejects.toMatchObject({ kind: 'no-space' });
  });
  it('are discarded when the user stops them', async () => {
    const stop = new AbortController();
    const server = fakeServer(size, []);
    const append = server.append.bind(server);
    server.append = async (id, offset, bytes) => {
      await append(id, offset, bytes);
      stop.abort();
      throw new DOMException('aborted', 'AbortError');
    };
    await expect(uploadFile(file, () => undefined, stop.signal, server)).rejects.toThrow();
    expect(server.discarded).toBe(true);
  });
});

describe('wizards', () => {
  it('make the request that was asked for', () => {
    const draft = {
      ...newDraft(),
      from: 'debian-12',
      name: 'web-1',
      forward: 'tcp:2222:22',
      tags: 'web, prod',
    };
    draft.cloud = { ...draft.cloud, on: true, user: 'ada', keys: 'ssh-ed25519 AAA\n\n' };
    expect(toRequest(draft)).toMatchObject({
      name: 'web-1',
      image: 'debian-12',
      tags: ['web', 'prod'],
      networks: [{ forward: ['tcp:2222:22'] }],
      cloud_init: { user: 'ada', ssh_keys: ['ssh-ed25519 AAA'], hostname: 'web-1' },
    });
    expect(toRequest({ ...draft, source: 'blank' })).not.toHaveProperty('image');
    expect(toRequest({ ...draft, source: 'blank' })).not.toHaveProperty('cloud_init');
  });
  it('know what lacks, and where a problem belongs', () => {
    expect(missing(newDraft())).toEqual({ source: true, machine: true });
    expect(missing({ ...newDraft(), source: 'blank', name: 'a b' })).toEqual({
      source: false,
      machine: true,
    });
    expect(stepOf('/cloud_init/user')).toBe('guest');
    expect(stepOf('/name')).toBe('machine');
    expect(stepOf(null)).toBeNull();
  });
  it('guess what a file is', () => {
    expect(guessKind('Gateway.OVA')).toBe('appliance');
    expect(guessKind('debian.iso')).toBe('iso');
    expect(guessKind('disk.vmdk')).toBe('image');
    expect(guessName('My Gateway 4.2.ova')).toBe('My-Gateway-4.2');
    expect(guessName('disk.qcow2.gz')).toBe('disk');
  });
});
