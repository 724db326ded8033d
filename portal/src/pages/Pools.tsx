// Resource pools: who gets how much when there is not enough for all.
import { useState } from 'preact/hooks';
import { Boxes, Pencil, Plus, Trash2 } from '../ui/icons';
import { patch, post } from '../api/client';
import type { Pool } from '../api/types';
import {
  amountText,
  NORMAL,
  poolTree,
  RESOURCES,
  summary,
  type Amounts,
} from './resources/amounts';
import { AmountFields } from './resources/AmountFields';
import { bytes, count } from '../lib/format';
import { mergePatch } from '../lib/patch';
import { removeAsked } from '../state/actions';
import { host, isAdministrator, pools } from '../state/store';
import { Meter, Page } from '../ui/bits';
import { Button } from '../ui/Button';
import type { Column } from '../ui/DataTable';
import { SelectField, TextField } from '../ui/Field';
import { Listing } from '../ui/Listing';
import { FormDialog } from './FormDialog';
import { useListed } from './use-loaded';

const columns = (depths: Map<string, number>): Column<Pool>[] => [
  {
    key: 'name',
    title: 'Name',
    width: 'minmax(140px, 1.2fr)',
    cell: (p) => (
      <span style={{ paddingLeft: `${(depths.get(p.id) ?? 0) * 16}px` }}>
        <b>{p.name}</b>
      </span>
    ),
  },
  ...RESOURCES.map((field): Column<Pool> => ({
    key: field.key,
    title: field.title,
    width: 'minmax(120px, 1.2fr)',
    from: field.key === 'cpu' || field.key === 'memory' ? 'tablet' : 'desktop',
    cell: (p) => {
      const text = summary(field, p[field.key] as Amounts);
      return (
        <span class="muted clip" title={text}>
          {text}
        </span>
      );
    },
  })),
  {
    key: 'machines',
    title: 'Machines',
    width: '100px',
    align: 'end',
    cell: (p) => <a href={`#/machines?q=${encodeURIComponent(`pool:${p.id}`)}`}>{p.machines}</a>,
    sort: (p) => p.machines,
  },
];

function Capacity() {
  const capacity = host.value?.capacity;
  if (!capacity) return null;
  const cpu = RESOURCES[0]!;
  return (
    <div class="panel capacity" role="group" aria-label="Reserved of the host">
      <span>CPU reserved</span>
      <Meter value={capacity.cpu.reserved} max={capacity.cpu.total} label="CPU reserved" />
      <span class="muted">
        {amountText(capacity.cpu.reserved, cpu)} of {amountText(capacity.cpu.total, cpu)}
      </span>
      <span>Memory reserved</span>
      <Meter value={capacity.memory.reserved} max={capacity.memory.total} label="Memory reserved" />
      <span class="muted">
        {bytes(capacity.memory.reserved)} of {bytes(capacity.memory.total)}
      </span>
    </div>
  );
}

interface Draft extends Record<string, unknown> {
  name: string;
  parent: string | null;
}

function draftOf(pool: Pool | undefined): Draft {
  const draft: Draft = { name: pool?.name ?? '', parent: pool?.parent ?? null };
  for (const { key } of RESOURCES)
    draft[key] = pool?.[key] ?? {
      ...NORMAL[key],
      ...(key === 'cpu' || key === 'memory' ? { expandable: true } : {}),
    };
  return draft;
}

function PoolDialog({ pool, onClose }: { pool?: Pool; onClose(): void }) {
  const [before] = useState(() => draftOf(pool));
  const [now, setNow] = useState(before);
  return (
    <FormDialog
      title={pool ? `Edit ${pool.name}` : 'New resource pool'}
      action={pool ? 'Save' : 'Create'}
      size="medium"
      ready={now.name.trim() !== ''}
      fields={['/name', '/parent', ...RESOURCES.map((r) => `/${r.key}`)]}
      onClose={onClose}
      send={async () => {
        if (!pool) await post('/pools', now);
        else {
          const change = mergePatch(before, now);
          if (change) await patch(`/pools/${pool.id}`, change);
        }
        await pools.load();
      }}
    >
      {(at) => (
        <div class="form">
          <TextField
            label="Name"
            value={now.name}
            onInput={(name) => setNow({ ...now, name })}
            error={at('/name')}
            autoFocus
          />
          <SelectField
            label="Inside"
            value={now.parent ?? ''}
            onInput={(parent) => setNow({ ...now, parent: parent || null })}
            error={at('/parent')}
            options={[
              { value: '', label: 'The host' },
              ...poolTree(pools.items.value)
                .filter(({ pool: p }) => p.id !== pool?.id)
                .map(({ pool: p, depth }) => ({
                  value: p.id,
                  label: `${'\u2003'.repeat(depth)}${p.name}`,
                })),
            ]}
          />
          {RESOURCES.map((field) => (
            <AmountFields
              key={field.key}
              field={field}
              value={now[field.key] as Amounts}
              onChange={(value) => setNow({ ...now, [field.key]: value })}
              at={(member) => at(`/${field.key}/${member}`)}
            />
          ))}
        </div>
      )}
    </FormDialog>
  );
}

const drop = (pool: Pool): Promise<boolean> =>
  removeAsked({
    title: `Delete the pool ${pool.name}?`,
    body: [
      pool.machines
        ? `${count(pool.machines, 'machine')} of it must leave it first.`
        : 'No machine is in it.',
    ],
    path: `/pools/${pool.id}`,
    failed: `${pool.name} was not deleted`,
    then: () => pools.load(),
  });

export function Pools() {
  const all = useListed(pools);
  const tree = poolTree(all.items);
  const depths = new Map(tree.map((t) => [t.pool.id, t.depth]));
  const [editing, setEditing] = useState<{ pool?: Pool } | null>(null);
  return (
    <Page
      title="Resource pools"
      lead="Shares count when machines compete; a reservation is kept free for the pool; a limit is never passed."
      actions={
        isAdministrator.value && (
          <Button icon={Plus} variant="primary" onClick={() => setEditing({})}>
            New pool
          </Button>
        )
      }
    >
      <Capacity />
      <Listing
        label="Resource pools"
        list={{ ...all, items: tree.map((t) => t.pool) }}
        nothing={{
          icon: Boxes,
          title: 'No pools',
          text: 'Without pools all machines share the host as equals.',
        }}
        columns={columns(depths)}
        keyOf={(p) => p.id}
        nameOf={(p) => p.name}
        textOf={(p) => p.name}
        rowActions={
          isAdministrator.value
            ? (p) => [
                { icon: Pencil, label: `Edit ${p.name}`, run: () => setEditing({ pool: p }) },
                { icon: Trash2, label: `Delete ${p.name}`, run: () => void drop(p) },
              ]
            : undefined
        }
      />
      {editing && <PoolDialog pool={editing.pool} onClose={() => setEditing(null)} />}
    </Page>
  );
}
