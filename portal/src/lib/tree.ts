// The inventory as rows of a tree: folders (made of the machines' folder paths), machines below them.
import type { MachineSummary, Pool } from '../api/types';

export interface TreeRow {
  key: string;
  kind: 'folder' | 'machine';
  level: number;
  label: string;
  machine?: MachineSummary;
  /** Machines below a folder, at any depth. */
  count?: number;
  open?: boolean;
  position: number;
  siblings: number;
}

/** Where machines stand in a tree: paths like "/a/b". */
export interface Places {
  of(machine: MachineSummary): string;
  /** Those to show even where nothing is in them. */
  all: Iterable<string>;
}

export const byFolder: Places = { of: (machine) => machine.folder, all: [] };

interface Folder {
  path: string;
  name: string;
  folders: Map<string, Folder>;
  machines: MachineSummary[];
  count: number;
}

const collator = new Intl.Collator('en', { numeric: true, sensitivity: 'base' });
export const byName = <T extends { name: string }>(a: T, b: T): number =>
  collator.compare(a.name, b.name);

function folderAt(root: Folder, path: string, more: number): Folder {
  let at = root;
  at.count += more;
  for (const part of path.split('/').filter(Boolean)) {
    let next = at.folders.get(part);
    if (!next) {
      const below = at.path === '/' ? `/${part}` : `${at.path}/${part}`;
      next = { path: below, name: part, folders: new Map(), machines: [], count: 0 };
      at.folders.set(part, next);
    }
    at = next;
    at.count += more;
  }
  return at;
}

function build(machines: Iterable<MachineSummary>, places: Places): Folder {
  const root: Folder = { path: '/', name: '', folders: new Map(), machines: [], count: 0 };
  for (const path of places.all) folderAt(root, path, 0);
  for (const machine of machines) folderAt(root, places.of(machine), 1).machines.push(machine);
  return root;
}

/** Rows to show, in order; `isOpen` says which folders are. */
export function treeRows(
  machines: Iterable<MachineSummary>,
  isOpen: (path: string) => boolean,
  places: Places = byFolder,
): TreeRow[] {
  const rows: TreeRow[] = [];
  const visit = (folder: Folder, level: number): void => {
    const folders = [...folder.folders.values()].sort(byName);
    const own = [...folder.machines].sort(byName);
    const siblings = folders.length + own.length;
    let position = 0;
    for (const sub of folders) {
      const open = isOpen(sub.path);
      rows.push({
        key: sub.path,
        kind: 'folder',
        level,
        label: sub.name,
        count: sub.count,
        open,
        position: ++position,
        siblings,
      });
      if (open) visit(sub, level + 1);
    }
    for (const machine of own)
      rows.push({
        key: machine.id,
        kind: 'machine',
        level,
        label: machine.name,
        machine,
        position: ++position,
        siblings,
      });
  };
  visit(build(machines, places), 1);
  return rows;
}

/** Resource pools as places: a pool's path is made of the names of those that it is in. */
export function byPool(pools: Pool[]): { places: Places; idOf: Map<string, string> } {
  const known = new Map(pools.map((p) => [p.id, p]));
  const pathOf = (id: string | null | undefined, depth = 0): string => {
    const pool = id ? known.get(id) : undefined;
    return pool && depth < 32 ? `${pathOf(pool.parent, depth + 1)}/${pool.name}` : '';
  };
  const idOf = new Map(pools.map((p) => [pathOf(p.id), p.id]));
  return { places: { of: (m) => pathOf(m.pool) || '/', all: idOf.keys() }, idOf };
}

/** Every folder there is, parents included, in order. */
export function allFolders(machines: Iterable<MachineSummary>): string[] {
  const found = new Set<string>(['/']);
  for (const { folder } of machines) {
    let path = '';
    for (const part of folder.split('/').filter(Boolean)) {
      path += `/${part}`;
      found.add(path);
    }
  }
  return [...found].sort(collator.compare);
}

/** Tags with how many machines bear them. */
export function allTags(machines: Iterable<MachineSummary>): [string, number][] {
  const counts = new Map<string, number>();
  for (const { tags } of machines)
    for (const tag of tags) counts.set(tag, (counts.get(tag) ?? 0) + 1);
  return [...counts].sort((a, b) => collator.compare(a[0], b[0]));
}
