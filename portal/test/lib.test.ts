import { describe, expect, it } from 'vitest';
import type { MachineSummary, Pool } from '../src/api/types';
import { fuzzyFilter, fuzzyScore } from '../src/lib/fuzzy';
import { isTyping, keyName } from '../src/lib/hotkeys';
import { changes, mergePatch } from '../src/lib/patch';
import { filterMachines } from '../src/lib/query';
import { parseRoute } from '../src/lib/router';
import { niceScale, paths, runs, summarize } from '../src/lib/series';
import { allFolders, allTags, byPool, treeRows } from '../src/lib/tree';
import { amountText, NORMAL, poolTree, RESOURCES, summary } from '../src/pages/resources/amounts';
import { windowOf } from '../src/ui/virtual';

const machine = (name: string, folder: string, more: Partial<MachineSummary> = {}) =>
  ({
    id: name,
    name,
    folder,
    description: '',
    tags: [],
    addresses: [],
    state: 'running',
    os: null,
    ...more,
  }) as unknown as MachineSummary;

const MACHINES = [
  machine('web-10', '/prod/web', { tags: ['web'] }),
  machine('web-2', '/prod/web', { tags: ['web'], state: 'stopped' }),
  machine('db-1', '/prod', { tags: ['db'], addresses: ['10.0.0.7'] }),
  machine('lone', '/'),
];

const POOLS = [
  { id: '2', name: 'web', parent: '1', machines: 1 },
  { id: '1', name: 'prod', parent: null, machines: 0 },
  { id: '3', name: 'empty', parent: null, machines: 0 },
] as unknown as Pool[];

describe('resource pools', () => {
  it('stand in a tree, children behind their parent', () => {
    expect(poolTree(POOLS).map(({ pool, depth }) => `${depth}${pool.name}`)).toEqual([
      '0empty',
      '0prod',
      '1web',
    ]);
  });
  it('are folders of the inventory, also where they are empty', () => {
    const { places, idOf } = byPool(POOLS);
    const rows = treeRows(
      [machine('a', '/', { pool: '2' }), machine('b', '/', { pool: null })],
      () => true,
      places,
    );
    expect(rows.map((r) => `${r.level}${r.label}`)).toEqual([
      '1empty',
      '1prod',
      '2web',
      '3a',
      '1b',
    ]);
    expect(idOf.get('/prod/web')).toBe('2');
    expect(rows[1]!.count).toBe(1);
  });
  it('say what is other than at first', () => {
    const [cpu, memory, disk] = RESOURCES;
    expect(summary(cpu!, NORMAL.cpu)).toBe('normal shares');
    expect(summary(cpu!, { shares: 300, reservation: 50, limit: 150 })).toBe(
      '300 shares, 50 % kept, 150 % at most',
    );
    expect(summary(disk!, { ...NORMAL.disk, iops_limit: 500 })).toContain('disk requests 500 /s');
    expect(amountText(3 * 1024 ** 3, memory!)).toBe('3 GiB');
  });
});

describe('the inventory tree', () => {
  it('has folders before machines, in natural order, closed ones empty', () => {
    const rows = treeRows(MACHINES, () => true);
    expect(rows.map((r) => [r.level, r.label])).toEqual([
      [1, 'prod'],
      [2, 'web'],
      [3, 'web-2'],
      [3, 'web-10'],
      [2, 'db-1'],
      [1, 'lone'],
    ]);
    expect(rows[0]!.count).toBe(3);
    expect(treeRows(MACHINES, () => false).map((r) => r.label)).toEqual(['prod', 'lone']);
  });
  it('knows positions for who hears it', () => {
    const rows = treeRows(MACHINES, () => true);
    expect(rows.map((r) => `${r.position}/${r.siblings}`)).toEqual([
      '1/2',
      '1/2',
      '1/2',
      '2/2',
      '2/2',
      '2/2',
    ]);
  });
  it('lists folders and tags', () => {
    expect(allFolders(MACHINES)).toEqual(['/', '/prod', '/prod/web']);
    expect(allTags(MACHINES)).toEqual([
      ['db', 1],
      ['web', 2],
    ]);
  });
});

describe('the filter line', () => {
  const names = (text: string): string[] => filterMachines(MACHINES, text).map((m) => m.name);
  it('finds by name, address and member', () => {
    expect(names('web')).toEqual(['web-10', 'web-2']);
    expect(names('10.0.0')).toEqual(['db-1']);
    expect(names('tag:web state:stopped')).toEqual(['web-2']);
    expect(names('folder:/prod')).toEqual(['web-10', 'web-2', 'db-1']);
    expect(names('folder:/pro')).toEqual([]);
    expect(names('-tag:web -lone')).toEqual(['db-1']);
    expect(names('')).toHaveLength(4);
  });
});

describe('fuzzy search', () => {
  it('wants the letters in order', () => {
    expect(fuzzyScore('wb1', 'web-10')).not.toBeNull();
    expect(fuzzyScore('bw', 'web-10')).toBeNull();
  });
  it('puts whole words first', () => {
    expect(fuzzyFilter(['cobweb', 'web-1', 'w-e-b'], 'web', (x) => x)[0]).toBe('web-1');
  });
});

describe('merge patches', () => {
  it('say what differs, null for what is gone, lists whole', () => {
    expect(
      mergePatch({ a: 1, b: { c: 2, d: 3 }, e: [1] }, { a: 1, b: { c: 4 }, e: [1, 2] }),
    ).toEqual({
      b: { c: 4, d: null },
      e: [1, 2],
    });
    expect(mergePatch({ a: [{ b: 1 }] }, { a: [{ b: 1 }] })).toBeUndefined();
  });
  it('find every leaf that changes', () => {
    expect(changes({ cpus: 2, disks: [{ bus: 'a' }] }, { cpus: 4, disks: [{ bus: 'b' }] })).toEqual(
      [
        { path: '/cpus', from: 2, to: 4 },
        { path: '/disks/0/bus', from: 'a', to: 'b' },
      ],
    );
  });
});

describe('charts', () => {
  it('scale to round ends', () => {
    expect(niceScale(87)).toEqual({ top: 100, ticks: [0, 25, 50, 75, 100] });
    const { top, ticks } = niceScale(3 * 1024 ** 3, true);
    expect(top).toBe(3 * 1024 ** 3);
    expect(ticks).toHaveLength(4);
    expect(niceScale(0).top).toBe(1);
  });
  it('leave gaps where nothing is known', () => {
    expect(runs([1, null, 2, 3])).toEqual([
      [0, [1]],
      [2, [2, 3]],
    ]);
    const frame = { width: 300, height: 100, count: 4, top: 4 };
    expect(paths([null, null, 2, 4], frame).line).toBe('M200 50L300 0');
    expect(paths([null, null, null, null], frame)).toEqual({ line: '', area: '' });
  });
  it('are summed up', () => {
    expect(summarize([null, 1, 3])).toEqual({ last: 3, mean: 2, max: 3 });
    expect(summarize([null])).toEqual({ last: null, mean: null, max: null });
  });
});

describe('routes and keys', () => {
  it('decode the hash, whatever it holds', () => {
    const { segments, query } = parseRoute('#/machines/a%20b?q=tag%3Aweb');
    expect(segments).toEqual(['machines', 'a b']);
    expect(query.get('q')).toBe('tag:web');
    expect(parseRoute('#/%E0%A4%A').segments).toEqual(['%E0%A4%A']);
  });
  it('name keys and leave typing alone', () => {
    expect(keyName({ key: 'K', ctrlKey: true, metaKey: false })).toBe('mod+k');
    expect(keyName({ key: '?', ctrlKey: false, metaKey: false })).toBe('?');
    expect(isTyping({ tagName: 'INPUT' } as unknown as EventTarget)).toBe(true);
    expect(isTyping({ tagName: 'DIV' } as unknown as EventTarget)).toBe(false);
  });
});

describe('long lists', () => {
  it('draw what is in view and a little more', () => {
    expect(windowOf(0, 400, 500, 40)).toEqual({ start: 0, end: 18 });
    expect(windowOf(4000, 400, 500, 40)).toEqual({ start: 92, end: 118 });
    expect(windowOf(1e9, 400, 10, 40)).toEqual({ start: 10, end: 10 });
  });
});
