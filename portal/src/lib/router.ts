// Where the user is: the hash, so that any path of the server shows the same single page.
import { computed, signal } from '@preact/signals';

const hash = signal(typeof window === 'undefined' ? '' : window.location.hash);

if (typeof window !== 'undefined')
  window.addEventListener('hashchange', () => (hash.value = window.location.hash));

export interface Route {
  path: string;
  segments: string[];
  query: URLSearchParams;
}

export function parseRoute(text: string): Route {
  const [path = '', search = ''] = text.replace(/^#/, '').split('?', 2);
  const segments = path.split('/').filter(Boolean).map(safeDecode);
  return {
    path: `/${segments.map(encodeURIComponent).join('/')}`,
    segments,
    query: new URLSearchParams(search),
  };
}

function safeDecode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

export const route = computed(() => parseRoute(hash.value));

export const link = (...parts: string[]): string => `#/${parts.map(encodeURIComponent).join('/')}`;

export function navigate(to: string, replace = false): void {
  const target = to.startsWith('#') ? to : `#${to}`;
  if (replace) window.history.replaceState(null, '', target);
  else window.history.pushState(null, '', target);
  hash.value = target;
}

/** Change parts of the query and stay where we are. */
export function setQuery(changes: Record<string, string | null>): void {
  const query = new URLSearchParams(route.value.query);
  for (const [name, value] of Object.entries(changes)) {
    if (value) query.set(name, value);
    else query.delete(name);
  }
  const text = query.toString();
  navigate(`${route.value.path}${text ? `?${text}` : ''}`, true);
}
