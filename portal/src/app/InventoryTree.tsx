// The tree of folders and machines. Only rows in view are drawn; the arrow keys walk it.
import { useRef, useState } from 'preact/hooks';
import { Boxes, ChevronDown, ChevronRight, Folder, FolderOpen } from '../ui/icons';
import type { MachineSummary } from '../api/types';
import { stateTone } from '../lib/format';
import { link, navigate, route } from '../lib/router';
import { byFolder, byPool, treeRows, type TreeRow } from '../lib/tree';
import { openFolders, openPools, toggleIn } from '../state/preferences';
import { machinesLoaded, pools } from '../state/store';
import { useVirtual } from '../ui/virtual';

const ROW = 28;

const search = (query: string): string => `#/machines?q=${encodeURIComponent(query)}`;

const folderHref = (path: string): string =>
  search(path.includes(' ') ? `folder:"${path}"` : `folder:${path}`);

interface RowProps {
  row: TreeRow;
  active: boolean;
  id: string;
  href: string;
  byPools: boolean;
  toggle(path: string): void;
}

function Row({ row, active, id, href, byPools, toggle }: RowProps) {
  const here =
    row.kind === 'machine' &&
    route.value.segments[0] === 'machines' &&
    route.value.segments[1] === row.key;
  const Chevron = row.open ? ChevronDown : ChevronRight;
  const Icon = byPools ? Boxes : row.open ? FolderOpen : Folder;
  return (
    <div
      id={id}
      role="treeitem"
      aria-level={row.level}
      aria-posinset={row.position}
      aria-setsize={row.siblings}
      aria-expanded={row.kind === 'folder' ? row.open : undefined}
      aria-selected={here}
      class={`tree-row${active ? ' active' : ''}${here ? ' here' : ''}`}
      style={{ paddingLeft: `${6 + (row.level - 1) * 14}px` }}
      onClick={(e) => {
        if (row.kind === 'folder' && (e.target as Element).closest('.chevron')) toggle(row.key);
        else navigate(href);
      }}
      onDblClick={() => row.kind === 'folder' && toggle(row.key)}
    >
      {row.kind === 'folder' ? (
        <>
          <span class="chevron" aria-hidden="true">
            <Chevron size={14} />
          </span>
          <Icon size={14} aria-hidden="true" class="folder" />
          <span class="clip">{row.label}</span>
          <span class="total">{row.count}</span>
        </>
      ) : (
        <>
          <span class={`status ${stateTone(row.machine!.state)}`}>
            <span class="dot" aria-hidden="true" />
          </span>
          <span class="clip">{row.label}</span>
          <span class="only-read">, {row.machine!.state}</span>
        </>
      )}
    </div>
  );
}

interface TreeProps {
  machines: MachineSummary[];
  expandAll: boolean;
  by: 'folder' | 'pool';
}

export function InventoryTree({ machines, expandAll, by }: TreeProps) {
  const box = useRef<HTMLDivElement>(null);
  const [active, setActive] = useState(0);
  const pooled = by === 'pool' ? byPool(pools.items.value) : null;
  const list = pooled ? openPools : openFolders;
  const open = new Set(list.value);
  const rows = treeRows(
    machines,
    (path) => expandAll || open.has(path),
    pooled ? pooled.places : byFolder,
  );
  const toggle = (path: string, to?: boolean): void => toggleIn(list, path, to);
  const hrefOf = (row: TreeRow): string =>
    row.kind === 'machine'
      ? link('machines', row.key)
      : pooled
        ? search(`pool:${pooled.idOf.get(row.key) ?? ''}`)
        : folderHref(row.key);
  const { start, end, onScroll } = useVirtual(box, rows.length, ROW, true);
  const at = Math.min(active, rows.length - 1);

  const onKeyDown = (e: KeyboardEvent): void => {
    const row = rows[at];
    const go = (to: number): void => {
      const next = Math.max(0, Math.min(rows.length - 1, to));
      setActive(next);
      const top = next * ROW;
      const view = box.current!;
      if (top < view.scrollTop) view.scrollTop = top;
      else if (top + ROW > view.scrollTop + view.clientHeight)
        view.scrollTop = top + ROW - view.clientHeight;
    };
    if (e.key === 'ArrowDown') go(at + 1);
    else if (e.key === 'ArrowUp') go(at - 1);
    else if (e.key === 'Home') go(0);
    else if (e.key === 'End') go(rows.length - 1);
    else if (e.key === 'ArrowRight' && row?.kind === 'folder')
      if (row.open) go(at + 1);
      else toggle(row.key, true);
    else if (e.key === 'ArrowLeft' && row)
      if (row.kind === 'folder' && row.open) toggle(row.key, false);
      else go(rows.slice(0, at).findLastIndex((r) => r.level < row.level));
    else if ((e.key === 'Enter' || e.key === ' ') && row) navigate(hrefOf(row));
    else return;
    e.preventDefault();
    e.stopPropagation();
  };

  if (!rows.length)
    return <p class="tree-empty">{machinesLoaded.value ? 'No machines.' : 'Loading…'}</p>;
  return (
    <div
      class="tree"
      role="tree"
      aria-label={pooled ? 'Machines by pool' : 'Machines by folder'}
      tabIndex={0}
      ref={box}
      onScroll={onScroll}
      onKeyDown={onKeyDown}
      aria-activedescendant={at >= start && at < end ? `tree-${at}` : undefined}
    >
      <div style={{ height: `${start * ROW}px` }} role="presentation" />
      {rows.slice(start, end).map((row, i) => (
        <Row
          key={row.key}
          row={row}
          id={`tree-${start + i}`}
          active={start + i === at}
          href={hrefOf(row)}
          byPools={pooled !== null}
          toggle={toggle}
        />
      ))}
      <div style={{ height: `${(rows.length - end) * ROW}px` }} role="presentation" />
    </div>
  );
}
