// JSON merge patches (RFC 7396), and what differs between two descriptions in words.

type Json = unknown;
const isObject = (v: Json): v is Record<string, Json> =>
  typeof v === 'object' && v !== null && !Array.isArray(v);

export function same(a: Json, b: Json): boolean {
  if (a === b) return true;
  if (Array.isArray(a) && Array.isArray(b))
    return a.length === b.length && a.every((v, i) => same(v, b[i]));
  if (isObject(a) && isObject(b)) {
    const keys = new Set([...Object.keys(a), ...Object.keys(b)]);
    return [...keys].every((key) => same(a[key], b[key]));
  }
  return false;
}

/** The patch that turns `from` into `to`; undefined where nothing differs. */
export function mergePatch(from: Json, to: Json): Json {
  if (same(from, to)) return undefined;
  if (!isObject(from) || !isObject(to)) return to;
  const patch: Record<string, Json> = {};
  for (const key of new Set([...Object.keys(from), ...Object.keys(to)])) {
    if (!(key in to) || to[key] === undefined) {
      if (from[key] !== undefined) patch[key] = null;
      continue;
    }
    const part = mergePatch(from[key], to[key]);
    if (part !== undefined) patch[key] = part;
  }
  return patch;
}

export interface Change {
  path: string;
  from: Json;
  to: Json;
}

/** Every leaf that differs. Lists are compared entry by entry. */
export function changes(from: Json, to: Json, path = ''): Change[] {
  if (same(from, to)) return [];
  if ((isObject(from) && isObject(to)) || (Array.isArray(from) && Array.isArray(to))) {
    const a = from as Record<string, Json>;
    const b = to as Record<string, Json>;
    const keys = new Set([...Object.keys(a), ...Object.keys(b)]);
    return [...keys].flatMap((key) => changes(a[key], b[key], `${path}/${key}`));
  }
  return [{ path, from, to }];
}
