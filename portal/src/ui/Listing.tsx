// A list of the server as pages show it: while it loads, when that failed, when there is nothing, and the
// table otherwise, with a filter, what is chosen together and what can be done to each row. Knows a
// list by what it has, not where it comes from.
import type { ComponentChildren } from 'preact';
import { useEffect, useState } from 'preact/hooks';
import { bind } from '../lib/hotkeys';
import { Banner, Empty, Panel } from './bits';
import { Button } from './Button';
import { DataTable, type DataTableProps } from './DataTable';
import { Ellipsis, Search, type LucideIcon } from './icons';
import { Menu } from './Menu';

export interface Listed<T> {
  items: T[];
  loaded: boolean;
  /** Why it could not be loaded. */
  problem: string | null;
  reload(): unknown;
}

export interface RowAction {
  icon: LucideIcon;
  label: string;
  disabled?: boolean;
  /** Why it is disabled. */
  why?: string;
  danger?: boolean;
  run(): void;
}

type Passed<T> = Omit<
  DataTableProps<T>,
  'items' | 'empty' | 'selected' | 'onSelect' | 'actionsWidth'
>;

interface ListingProps<T> extends Passed<T> {
  list: Listed<T>;
  /** What is said where the list has nothing. */
  nothing: { icon: LucideIcon; title: string; text?: ComponentChildren };
  /** With a heading of its own, and what stands beside it. */
  title?: string;
  headActions?: ComponentChildren;
  /** What a filter of the page's own leaves of the list. */
  shown?: T[];
  /** What the list's own filter looks into; it appears where the list is long. */
  textOf?(item: T): string;
  /** Rows can be chosen; what is shown while some are. */
  bulk?(chosen: T[], clear: () => void): ComponentChildren;
  rowActions?(item: T): (RowAction | false)[];
}

/** A list is long enough to be filtered. */
const LONG = 8;
/** More buttons than these become a menu. */
const BUTTONS = 2;

function RowActions({ name, actions }: { name: string; actions: RowAction[] }) {
  if (actions.length > BUTTONS)
    return (
      <Menu
        label={`Actions for ${name}`}
        icon={Ellipsis}
        variant="ghost"
        small
        items={actions.map((a) => ({ ...a, apart: a.danger }))}
      />
    );
  return (
    <>
      {actions.map((a) => (
        <Button
          key={a.label}
          small
          variant="ghost"
          icon={a.icon}
          label={a.label}
          disabled={a.disabled}
          why={a.why}
          onClick={a.run}
        />
      ))}
    </>
  );
}

export function matching<T>(items: T[], textOf: (item: T) => string, filter: string): T[] {
  const words = filter.toLowerCase().split(/\s+/).filter(Boolean);
  if (!words.length) return items;
  return items.filter((item) => {
    const text = textOf(item).toLowerCase();
    return words.every((word) => text.includes(word));
  });
}

export function Listing<T>(props: ListingProps<T>) {
  const { list, nothing, title, headActions, textOf, bulk, rowActions, ...table } = props;
  const [filter, setFilter] = useState('');
  const [selected, setSelected] = useState<Set<string>>(new Set());
  useEffect(() => (bulk ? bind('Escape', () => setSelected(new Set())) : undefined), [!bulk]);

  const nameOf = props.nameOf ?? props.keyOf;
  const shown = props.shown ?? (textOf ? matching(list.items, textOf, filter) : list.items);
  const chosen = bulk ? list.items.filter((item) => selected.has(props.keyOf(item))) : [];
  const actionsOf = (item: T): RowAction[] =>
    (rowActions?.(item) ?? []).filter((a): a is RowAction => !!a);
  const widest = rowActions ? Math.max(1, ...list.items.map((i) => actionsOf(i).length)) : 0;
  const isEmpty = list.loaded && !list.items.length;
  const failed = list.problem !== null && !list.items.length;

  const filterLine = textOf && (list.items.length > LONG || filter !== '') && (
    <div class="search">
      <Search size={15} aria-hidden="true" />
      <input
        type="search"
        aria-label={`Filter ${props.label}`}
        placeholder="Filter"
        value={filter}
        onInput={(e) => setFilter(e.currentTarget.value)}
      />
    </div>
  );
  const body =
    isEmpty || failed ? (
      !failed && (
        <Empty icon={nothing.icon} title={nothing.title}>
          {nothing.text}
        </Empty>
      )
    ) : (
      <DataTable
        {...table}
        items={shown}
        busy={!list.loaded}
        selected={bulk ? selected : undefined}
        onSelect={bulk ? setSelected : undefined}
        actions={
          rowActions
            ? (item) => <RowActions name={nameOf(item)} actions={actionsOf(item)} />
            : props.actions
        }
        actionsWidth={widest === BUTTONS ? '72px' : undefined}
        empty={list.loaded ? 'Nothing matches the filter.' : 'Loading…'}
      />
    );
  return (
    <>
      {list.problem && (
        <Banner tone="bad">
          <span>{list.problem}</span>
          <Button small onClick={() => void list.reload()}>
            Try again
          </Button>
        </Banner>
      )}
      {filterLine && !title && <div class="filters">{filterLine}</div>}
      {chosen.length > 0 && bulk?.(chosen, () => setSelected(new Set()))}
      {title ? (
        <Panel
          title={title}
          flush
          actions={
            (filterLine || headActions) && (
              <>
                {filterLine}
                {headActions}
              </>
            )
          }
        >
          {body}
        </Panel>
      ) : props.fill ? (
        body
      ) : (
        body && <div class="panel">{body}</div>
      )}
    </>
  );
}
