// The inventory as rows of a tree: folders (made of the machines' folder paths), machines below them.
import type { MachineSummary } from '../api/types';

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

function build(machines: Iterable<MachineSummary>): Folder {
  const root: Folder = { path: '/', name: '', folders: new Map(), machines: [], count: 0 };
  for (const machine of machines) {
    let at = root;
    at.count++;
    for (const part of machine.folder.split('/').filter(Boolean)) {
      let next = at.folders.get(part);
      if (!next) {
        const path = at.path === '/' ? `/${part}` : `${at.path}/${part}`;
        next = { path, name: part, folders: new Map(), machines: [], count: 0 };
        at.folders.set(part, next);
      }
      at = next;
      at.count++;
    }
    at.machines.push(machine);
  }
  return root;
}

/** Rows to show, in order; `isOpen` says which folders are. */
export function treeRows(
  machines: Iterable<MachineSummary>,
  isOpen: (path: string) => boolean,
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
  visit(build(machines), 1);
  return rows;
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
