// The table of every page: sorting, selection, keyboard, and only the rows in view in the document.
import type { ComponentChildren } from 'preact';
import { useEffect, useMemo, useRef, useState } from 'preact/hooks';
import { ArrowDown, ArrowUp } from './icons';
import { useVirtual } from './virtual';

export interface Column<T> {
  key: string;
  title: string;
  /** CSS grid track. */
  width: string;
  cell(item: T): ComponentChildren;
  /** What it is sorted by; without it the column cannot be sorted. */
  sort?(item: T): string | number | null;
  align?: 'end';
  /** Left out on screens narrower than this. */
  from?: 'tablet' | 'desktop' | 'wide';
}

export interface Sort {
  key: string;
  down: boolean;
}

export interface DataTableProps<T> {
  label: string;
  columns: Column<T>[];
  items: T[];
  keyOf(item: T): string;
  /** For who hears the table; without it the key. */
  nameOf?(item: T): string;
  /** How it is sorted before somebody has chosen. */
  first?: Sort;
  sort?: Sort;
  onSort?(sort: Sort): void;
  selected?: ReadonlySet<string>;
  onSelect?(selected: Set<string>): void;
  onOpen?(item: T): void;
  actions?(item: T): ComponentChildren;
  /** Each row is a grid of its own: the column needs a fixed width. */
  actionsWidth?: string;
  /** Scrolls by itself and draws only what is in view. */
  fill?: boolean;
  empty?: ComponentChildren;
  rowHeight?: number;
  /** More is on its way. */
  busy?: boolean;
}

const collator = new Intl.Collator('en', { numeric: true, sensitivity: 'base' });

export function sortItems<T>(items: T[], columns: Column<T>[], sort: Sort | undefined): T[] {
  const by = sort && columns.find((c) => c.key === sort.key)?.sort;
  if (!by) return items;
  const sign = sort.down ? -1 : 1;
  return items
    .map((item) => ({ item, value: by(item) }))
    .sort((a, b) => {
      if (a.value === null || b.value === null)
        return a.value === b.value ? 0 : a.value === null ? 1 : -1;
      if (typeof a.value === 'number' && typeof b.value === 'number')
        return sign * (a.value - b.value);
      return sign * collator.compare(String(a.value), String(b.value));
    })
    .map((x) => x.item);
}

const NARROWEST = { tablet: 640, desktop: 960, wide: 1280 };

function useWidth(): number {
  const [width, setWidth] = useState(window.innerWidth);
  useEffect(() => {
    const changed = (): void => setWidth(window.innerWidth);
    window.addEventListener('resize', changed);
    return () => window.removeEventListener('resize', changed);
  }, []);
  return width;
}

export function DataTable<T>(props: DataTableProps<T>) {
  const { columns, items, keyOf, selected, onSelect, onOpen, fill, rowHeight = 40 } = props;
  const [ownSort, setOwnSort] = useState<Sort | undefined>(props.first);
  const sort = props.sort ?? ownSort;
  const setSort = props.onSort ?? setOwnSort;
  const width = useWidth();
  const shown = columns.filter((c) => !c.from || width >= NARROWEST[c.from]);
  const rows = useMemo(() => sortItems(items, columns, sort), [items, sort?.key, sort?.down]);
  const scroller = useRef<HTMLDivElement>(null);
  const { start, end, onScroll } = useVirtual(scroller, rows.length, rowHeight, !!fill);
  const [cursor, setCursor] = useState(-1);
  const anchor = useRef(-1);

  const template = [
    onSelect && '36px',
    ...shown.map((c) => c.width),
    props.actions && (props.actionsWidth ?? '44px'),
  ]
    .filter(Boolean)
    .join(' ');

  const toggle = (index: number, range: boolean): void => {
    const row = rows[index];
    if (!onSelect || !row) return;
    const next = new Set(selected);
    const on = !next.has(keyOf(row));
    const from = range && anchor.current >= 0 ? anchor.current : index;
    for (let i = Math.min(from, index); i <= Math.max(from, index); i++) {
      const key = keyOf(rows[i]!);
      if (on) next.add(key);
      else next.delete(key);
    }
    anchor.current = index;
    onSelect(next);
  };

  const moveTo = (index: number): void => {
    const to = Math.max(0, Math.min(rows.length - 1, index));
    setCursor(to);
    const box = scroller.current;
    if (!box || !fill) return;
    const top = to * rowHeight;
    if (top < box.scrollTop) box.scrollTop = top;
    else if (top + rowHeight > box.scrollTop + box.clientHeight - rowHeight)
      box.scrollTop = top + 2 * rowHeight - box.clientHeight;
  };

  const onKeyDown = (e: KeyboardEvent): void => {
    if ((e.target as HTMLElement).matches('input:not([type=checkbox]), select, textarea')) return;
    const page = Math.max(1, Math.floor((scroller.current?.clientHeight ?? 400) / rowHeight) - 2);
    const keys: Record<string, () => void> = {
      ArrowDown: () => moveTo(cursor + 1),
      j: () => moveTo(cursor + 1),
      ArrowUp: () => moveTo(cursor - 1),
      k: () => moveTo(cursor - 1),
      PageDown: () => moveTo(cursor + page),
      PageUp: () => moveTo(cursor - page),
      Home: () => moveTo(0),
      End: () => moveTo(rows.length - 1),
      x: () => toggle(cursor, e.shiftKey),
      ' ': () => toggle(cursor, e.shiftKey),
    };
    if (e.key === 'Enter' && cursor >= 0 && onOpen && e.target === scroller.current)
      keys.Enter = () => onOpen(rows[cursor]!);
    if (e.key === ' ' && e.target !== scroller.current) return;
    const act = keys[e.key];
    if (!act || e.ctrlKey || e.metaKey || e.altKey) return;
    e.preventDefault();
    e.stopPropagation();
    act();
  };

  const all = rows.length > 0 && rows.every((r) => selected?.has(keyOf(r)));
  return (
    <div
      class={`table${fill ? ' fill' : ''}`}
      ref={scroller}
      onScroll={onScroll}
      tabIndex={onOpen || fill ? 0 : undefined}
      onKeyDown={onOpen || onSelect ? onKeyDown : undefined}
      role="table"
      aria-label={props.label}
      aria-rowcount={rows.length + 1}
      aria-busy={props.busy || undefined}
      style={{ '--columns': template, '--row': `${rowHeight}px` }}
    >
      <div role="rowgroup" class="table-head">
        <div role="row" aria-rowindex={1}>
          {onSelect && (
            <span role="columnheader" class="select">
              <input
                type="checkbox"
                aria-label="Select all"
                checked={all}
                onInput={() => onSelect(all ? new Set() : new Set(rows.map(keyOf)))}
              />
            </span>
          )}
          {shown.map((c) => {
            const active = sort?.key === c.key;
            return (
              <span
                key={c.key}
                role="columnheader"
                class={c.align}
                aria-sort={active ? (sort.down ? 'descending' : 'ascending') : undefined}
              >
                {c.sort ? (
                  <button
                    type="button"
                    onClick={() => setSort({ key: c.key, down: active ? !sort.down : false })}
                  >
                    {c.title}
                    {active &&
                      (sort.down ? (
                        <ArrowDown size={12} aria-hidden="true" />
                      ) : (
                        <ArrowUp size={12} aria-hidden="true" />
                      ))}
                  </button>
                ) : (
                  c.title
                )}
              </span>
            );
          })}
          {props.actions && (
            <span role="columnheader">
              <span class="only-read">Actions</span>
            </span>
          )}
        </div>
      </div>
      <div role="rowgroup" class="table-body">
        {fill && <div class="spacer" style={{ height: `${start * rowHeight}px` }} />}
        {rows.slice(start, end).map((item, i) => {
          const index = start + i;
          const key = keyOf(item);
          const on = selected?.has(key);
          return (
            <div
              key={key}
              role="row"
              aria-rowindex={index + 2}
              class={[on && 'selected', index === cursor && 'cursor', onOpen && 'opens']
                .filter(Boolean)
                .join(' ')}
              onClick={(e) => {
                setCursor(index);
                if (onOpen && !(e.target as Element).closest('a, button, input, .menu'))
                  onOpen(item);
              }}
            >
              {onSelect && (
                <span role="cell" class="select">
                  <input
                    type="checkbox"
                    aria-label={`Select ${props.nameOf?.(item) ?? key}`}
                    checked={!!on}
                    onClick={(e) => {
                      e.stopPropagation();
                      toggle(index, e.shiftKey);
                    }}
                  />
                </span>
              )}
              {shown.map((c) => (
                <span key={c.key} role="cell" class={c.align}>
                  {c.cell(item)}
                </span>
              ))}
              {props.actions && (
                <span role="cell" class="row-actions">
                  {props.actions(item)}
                </span>
              )}
            </div>
          );
        })}
        {fill && <div class="spacer" style={{ height: `${(rows.length - end) * rowHeight}px` }} />}
      </div>
      {rows.length === 0 && <div class="table-empty">{props.empty ?? 'Nothing here.'}</div>}
    </div>
  );
}
