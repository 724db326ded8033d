// Keyboard shortcuts: single keys and two-key sequences ("g m"), never while the user types.

type Handler = (event: KeyboardEvent) => void;

const bindings = new Map<string, Handler[]>();
const SEQUENCE_MS = 1200;
let prefix: { key: string; time: number } | null = null;

/** `mod+k` (Ctrl, or Command on a Mac), `/`, `g m`. @returns what takes the binding back */
export function bind(keys: string, handler: Handler): () => void {
  const list = bindings.get(keys) ?? [];
  bindings.set(keys, list);
  list.push(handler);
  return () => {
    const at = list.indexOf(handler);
    if (at >= 0) list.splice(at, 1);
  };
}

export function isTyping(target: EventTarget | null): boolean {
  const element = target as Partial<HTMLElement> | null;
  if (!element?.tagName) return false;
  return (
    /^(INPUT|TEXTAREA|SELECT|CANVAS)$/.test(element.tagName) ||
    element.isContentEditable === true ||
    !!element.closest?.('[data-captures-keys]')
  );
}

export function keyName(event: Pick<KeyboardEvent, 'key' | 'ctrlKey' | 'metaKey'>): string {
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  return event.ctrlKey || event.metaKey ? `mod+${key}` : event.key.length === 1 ? event.key : key;
}

/** @returns whether a binding took the key */
export function dispatchKey(event: KeyboardEvent, now = Date.now()): boolean {
  const name = keyName(event);
  if (event.altKey || event.defaultPrevented) return false;
  if (isTyping(event.target) && !name.startsWith('mod+')) return false;
  if ((event.target as Element | null)?.closest?.('[data-captures-keys]')) return false;
  const sequence = prefix && now - prefix.time < SEQUENCE_MS ? `${prefix.key} ${name}` : null;
  prefix = null;
  const list = (sequence && bindings.get(sequence)) || bindings.get(name);
  const handler = list?.[list.length - 1];
  if (handler) {
    event.preventDefault();
    handler(event);
    return true;
  }
  if ([...bindings.keys()].some((keys) => keys.startsWith(`${name} `)))
    prefix = { key: name, time: now };
  return false;
}

export function listen(): () => void {
  const handler = (event: KeyboardEvent): void => void dispatchKey(event);
  window.addEventListener('keydown', handler);
  return () => window.removeEventListener('keydown', handler);
}
