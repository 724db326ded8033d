// The tree of folders and machines. Only rows in view are drawn; the arrow keys walk it.
import { useRef, useState } from 'preact/hooks';
import { ChevronDown, ChevronRight, Folder, FolderOpen } from '../ui/icons';
import type { MachineSummary } from '../api/types';
import { stateTone } from '../lib/format';
import { link, navigate, route } from '../lib/router';
import { treeRows, type TreeRow } from '../lib/tree';
import { openFolders, toggleFolder } from '../state/preferences';
import { machinesLoaded } from '../state/store';
import { useVirtual } from '../ui/virtual';

const ROW = 28;

const hrefOf = (row: TreeRow): string =>
  row.kind === 'machine'
    ? link('machines', row.key)
    : `#/machines?q=${encodeURIComponent(row.key.includes(' ') ? `folder:"${row.key}"` : `folder:${row.key}`)}`;

function Row({ row, active, id }: { row: TreeRow; active: boolean; id: string }) {
  const here =
    row.kind === 'machine' &&
    route.value.segments[0] === 'machines' &&
    route.value.segments[1] === row.key;
  const Chevron = row.open ? ChevronDown : ChevronRight;
  const Icon = row.open ? FolderOpen : Folder;
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
        if (row.kind === 'folder' && (e.target as Element).closest('.chevron'))
          toggleFolder(row.key);
        else navigate(hrefOf(row));
      }}
      onDblClick={() => row.kind === 'folder' && toggleFolder(row.key)}
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
}

export function InventoryTree({ machines, expandAll }: TreeProps) {
  const box = useRef<HTMLDivElement>(null);
  const [active, setActive] = useState(0);
  const open = new Set(openFolders.value);
  const rows = treeRows(machines, (path) => expandAll || open.has(path));
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
      else toggleFolder(row.key, true);
    else if (e.key === 'ArrowLeft' && row)
      if (row.kind === 'folder' && row.open) toggleFolder(row.key, false);
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
      aria-label="Machines by folder"
      tabIndex={0}
      ref={box}
      onScroll={onScroll}
      onKeyDown={onKeyDown}
      aria-activedescendant={at >= start && at < end ? `tree-${at}` : undefined}
    >
      <div style={{ height: `${start * ROW}px` }} role="presentation" />
      {rows.slice(start, end).map((row, i) => (
        <Row key={row.key} row={row} id={`tree-${start + i}`} active={start + i === at} />
      ))}
      <div style={{ height: `${(rows.length - end) * ROW}px` }} role="presentation" />
    </div>
  );
}
