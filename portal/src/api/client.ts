// The one place that speaks HTTP with mulliond: paths, CSRF, ETags, idempotency, problem details.
// It knows no state of the portal; who needs to hear of a lost session registers for it.
import { Problem } from './problem';
import type { Page } from './types';

export const API = '/api/v1';

export interface RequestOptions {
  query?: Record<string, string | number | boolean | undefined>;
  body?: unknown;
  ifMatch?: string;
  headers?: Record<string, string>;
  signal?: AbortSignal;
}

interface Hooks {
  csrfToken(): string | null;
  unauthenticated(): void;
  /** The server has no such list: `/templates`. */
  unavailable(path: string, reason: string): void;
}

let hooks: Hooks = { csrfToken: () => null, unauthenticated() {}, unavailable() {} };

export function registerHooks(registered: Hooks): void {
  hooks = registered;
}

/** `path` with its query, below /api/v1. */
export function apiUrl(path: string, query: RequestOptions['query'] = {}): string {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(query))
    if (value !== undefined) search.set(name, String(value));
  const text = search.toString();
  return API + path + (text ? `?${text}` : '');
}

export function randomKey(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (b) => b.toString(16).padStart(2, '0')).join('');
}

async function send(method: string, path: string, options: RequestOptions): Promise<Response> {
  const headers: Record<string, string> = { Accept: 'application/json', ...options.headers };
  let body: BodyInit | undefined;
  if (options.body instanceof Blob || options.body instanceof ArrayBuffer) {
    body = options.body;
  } else if (options.body !== undefined) {
    headers['Content-Type'] =
      method === 'PATCH' ? 'application/merge-patch+json' : 'application/json';
    body = JSON.stringify(options.body);
  }
  if (options.ifMatch) headers['If-Match'] = options.ifMatch;
  if (method !== 'GET') {
    const token = hooks.csrfToken();
    if (token) headers['X-CSRF-Token'] = token;
  }
  try {
    return await fetch(apiUrl(path, options.query), {
      method,
      headers,
      body,
      credentials: 'same-origin',
      signal: options.signal,
    });
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new Problem(0, 'network', 'The host does not answer. Check the connection to it.');
  }
}

/** @throws Problem */
export async function requestRaw(
  method: string,
  path: string,
  options: RequestOptions = {},
): Promise<Response> {
  if (method === 'POST') {
    options = { ...options, headers: { 'Idempotency-Key': randomKey(), ...options.headers } };
  }
  const response = await send(method, path, options);
  if (response.ok) return response;
  const problem = await Problem.fromResponse(response);
  if (response.status === 401 && path !== '/sessions') hooks.unauthenticated();
  if (response.status === 501 && method === 'GET') hooks.unavailable(path, problem.message);
  throw problem;
}

export async function request<T>(
  method: string,
  path: string,
  options: RequestOptions = {},
): Promise<T> {
  const response = await requestRaw(method, path, options);
  if (response.status === 204) return undefined as T;
  const text = await response.text();
  return (text ? JSON.parse(text) : undefined) as T;
}

export const get = <T>(path: string, query?: RequestOptions['query']): Promise<T> =>
  request<T>('GET', path, { query });
export const post = <T>(path: string, body: unknown = {}): Promise<T> =>
  request<T>('POST', path, { body });
export const patch = <T>(path: string, body: unknown, ifMatch?: string): Promise<T> =>
  request<T>('PATCH', path, { body, ifMatch });
export const remove = <T>(path: string, query?: RequestOptions['query']): Promise<T> =>
  request<T>('DELETE', path, { query });

/** Every item of a list, page after page. */
export async function getAll<T>(path: string, query: RequestOptions['query'] = {}): Promise<T[]> {
  const items: T[] = [];
  let cursor: string | undefined;
  do {
    const page = await get<Page<T> | T[]>(path, { limit: 1000, ...query, cursor });
    if (Array.isArray(page)) return page;
    items.push(...page.items);
    cursor = page.next ?? undefined;
  } while (cursor);
  return items;
}
