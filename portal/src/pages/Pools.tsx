// Resource pools: who gets how much when there is not enough for all.
import { useState } from 'preact/hooks';
import { Boxes, Pencil, Plus, Trash2 } from '../ui/icons';
import { patch, post, remove } from '../api/client';
import type { Pool } from '../api/types';
import { bytes, count } from '../lib/format';
import { ask, notifyProblem } from '../state/notices';
import { isAdministrator, pools } from '../state/store';
import { Banner, Empty, Page } from '../ui/bits';
import { Button } from '../ui/Button';
import { DataTable, type Column } from '../ui/DataTable';
import { NumberField, SelectField, TextField } from '../ui/Field';
import { FormDialog } from './FormDialog';
import { useCollection } from './use-loaded';

type Amount = Pool['cpu'];
const GIB = 1024 ** 3;

const cpuText = (n: number | null | undefined): string => (n == null ? 'none' : `${n} %`);
const shareText = (a: Amount | undefined, say: (n: number | null | undefined) => string) => (
  <span class="muted">
    {a?.shares ?? 1000} shares
    {a?.reservation ? `, ${say(a.reservation)} kept` : ''}
    {a?.limit != null ? `, ${say(a.limit)} at most` : ''}
  </span>
);

const columns = (list: Pool[]): Column<Pool>[] => [
  {
    key: 'name',
    title: 'Name',
    width: 'minmax(120px, 1.2fr)',
    cell: (p) => <b>{p.name}</b>,
    sort: (p) => p.name,
  },
  {
    key: 'parent',
    title: 'In',
    width: 'minmax(90px, 0.8fr)',
    from: 'desktop',
    cell: (p) => list.find((x) => x.id === p.parent)?.name ?? 'Host',
  },
  {
    key: 'cpu',
    title: 'CPU',
    width: 'minmax(140px, 1.5fr)',
    from: 'tablet',
    cell: (p) => shareText(p.cpu, cpuText),
  },
  {
    key: 'memory',
    title: 'Memory',
    width: 'minmax(140px, 1.5fr)',
    from: 'tablet',
    cell: (p) => shareText(p.memory, bytes),
  },
  {
    key: 'machines',
    title: 'Machines',
    width: '100px',
    align: 'end',
    cell: (p) => p.machines,
    sort: (p) => p.machines,
  },
];

interface AmountFieldsProps {
  title: string;
  unit: string;
  scale: number;
  value: Amount;
  onChange(value: Amount): void;
  at(pointer: string): string | null;
}

function AmountFields({ title, unit, scale, value, onChange, at }: AmountFieldsProps) {
  const name = title.toLowerCase();
  const shown = (n: number | null | undefined): number | null => (n == null ? null : n / scale);
  const kept = (n: number | null): number | null => (n === null ? null : Math.round(n * scale));
  return (
    <>
      <h3>{title}</h3>
      <NumberField
        label={`${title} shares`}
        min={0}
        value={value.shares ?? 1000}
        onInput={(n) => onChange({ ...value, shares: n ?? 0 })}
        error={at(`/${name}/shares`)}
      />
      <NumberField
        label={`${title} reservation`}
        unit={unit}
        min={0}
        value={shown(value.reservation ?? 0)}
        onInput={(n) => onChange({ ...value, reservation: kept(n) ?? 0 })}
        error={at(`/${name}/reservation`)}
      />
      <NumberField
        label={`${title} limit`}
        unit={unit}
        min={0}
        placeholder="none"
        value={shown(value.limit)}
        onInput={(n) => onChange({ ...value, limit: kept(n) })}
        error={at(`/${name}/limit`)}
      />
    </>
  );
}

function PoolDialog({ pool, onClose }: { pool?: Pool; onClose(): void }) {
  const [name, setName] = useState(pool?.name ?? '');
  const [parent, setParent] = useState(pool?.parent ?? '');
  const [cpu, setCpu] = useState<Amount>(
    pool?.cpu ?? { shares: 1000, reservation: 0, limit: null },
  );
  const [memory, setMemory] = useState<Amount>(
    pool?.memory ?? { shares: 1000, reservation: 0, limit: null },
  );
  const body = { name, parent: parent || null, cpu, memory };
  return (
    <FormDialog
      title={pool ? `Edit ${pool.name}` : 'New resource pool'}
      action={pool ? 'Save' : 'Create'}
      size="medium"
      ready={name.trim() !== ''}
      fields={['/name', '/cpu', '/memory', '/parent']}
      onClose={onClose}
      send={async () => {
        if (pool) await patch(`/pools/${pool.id}`, body);
        else await post('/pools', body);
        await pools.load();
      }}
    >
      {(at) => (
        <div class="form">
          <TextField label="Name" value={name} onInput={setName} error={at('/name')} autoFocus />
          <SelectField
            label="Inside"
            value={parent}
            onInput={setParent}
            error={at('/parent')}
            options={[
              { value: '', label: 'The host' },
              ...pools.items.value
                .filter((p) => p.id !== pool?.id)
                .map((p) => ({ value: p.id, label: p.name })),
            ]}
          />
          <AmountFields title="CPU" unit="%" scale={1} value={cpu} onChange={setCpu} at={at} />
          <AmountFields
            title="Memory"
            unit="GiB"
            scale={GIB}
            value={memory}
            onChange={setMemory}
            at={at}
          />
        </div>
      )}
    </FormDialog>
  );
}

async function drop(pool: Pool): Promise<void> {
  const answer = await ask({
    title: `Delete the pool ${pool.name}?`,
    body: [
      pool.machines
        ? `${count(pool.machines, 'machine')} of it must leave it first.`
        : 'No machine is in it.',
    ],
    action: 'Delete',
    danger: true,
  });
  if (answer === null) return;
  try {
    await remove(`/pools/${pool.id}`);
    await pools.load();
  } catch (error) {
    notifyProblem(`${pool.name} was not deleted`, error);
  }
}

export function Pools() {
  const list = useCollection(pools);
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
      {pools.problem.value && <Banner tone="bad">{pools.problem.value}</Banner>}
      <div class="panel">
        {list.length || !pools.loaded.value ? (
          <DataTable
            label="Resource pools"
            columns={columns(list)}
            items={list}
            keyOf={(p) => p.id}
            actionsWidth="72px"
            actions={
              isAdministrator.value
                ? (p) => (
                    <>
                      <Button
                        small
                        variant="ghost"
                        icon={Pencil}
                        label={`Edit ${p.name}`}
                        onClick={() => setEditing({ pool: p })}
                      />
                      <Button
                        small
                        variant="ghost"
                        icon={Trash2}
                        label={`Delete ${p.name}`}
                        onClick={() => void drop(p)}
                      />
                    </>
                  )
                : undefined
            }
          />
        ) : (
          <Empty icon={Boxes} title="No pools">
            Without pools all machines share the host as equals.
          </Empty>
        )}
      </div>
      {editing && <PoolDialog pool={editing.pool} onClose={() => setEditing(null)} />}
    </Page>
  );
}
