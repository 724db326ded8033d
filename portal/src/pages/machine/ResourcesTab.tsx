// What a machine may take of its host: its pool, and its own shares, reservations and limits. They
// hold at once, also while it runs.
import { patch } from '../../api/client';
import { bytes } from '../../lib/format';
import { mergePatch, same } from '../../lib/patch';
import { isAdministrator, loadMachine, mayChange, pools } from '../../state/store';
import { Facts, Panel } from '../../ui/bits';
import { SelectField } from '../../ui/Field';
import { EditForm } from '../EditForm';
import { amountText, poolTree, RESOURCES, type Amounts } from '../resources/amounts';
import { AmountFields } from '../resources/AmountFields';
import { useCollection } from '../use-loaded';
import type { TabProps } from './MachinePage';

type Draft = Record<string, unknown> & { pool: string | null };

function Granted({ machine }: { machine: TabProps['machine'] }) {
  const { granted } = machine;
  if (!granted) return <p class="muted">The machine does not run, or has just started.</p>;
  const said = (key: string): string => {
    const n = granted[key as keyof typeof granted];
    const field = RESOURCES.find((r) => r.key === key)!;
    if (n === null || n === undefined) return 'no limit';
    return key === 'memory' ? bytes(n) : amountText(n, field);
  };
  return <Facts rows={RESOURCES.map(({ key, title }) => [title, said(key)] as [string, string])} />;
}

export function ResourcesTab({ machine, reload }: TabProps) {
  useCollection(pools);
  const base: Draft = { pool: machine.pool, ...machine.resources };
  const send = async (now: Draft): Promise<void> => {
    const { pool: poolBefore, ...amountsBefore } = base;
    const { pool, ...amounts } = now;
    await patch(`/machines/${machine.id}`, {
      ...(pool === poolBefore ? {} : { pool }),
      ...(same(amountsBefore, amounts) ? {} : { resources: mergePatch(amountsBefore, amounts) }),
    });
    reload();
    void loadMachine(machine.id);
  };
  return (
    <EditForm
      base={base}
      disabled={!mayChange.value}
      fields={['/pool', '/resources']}
      send={send}
      note="Not saved yet."
      saved="Saved. It holds from now on."
    >
      {({ now, set, at }) => (
        <>
          <Panel title="Pool">
            <div class="form">
              <SelectField
                label="Resource pool"
                wide
                value={now.pool ?? ''}
                onInput={(pool) => set({ pool: pool || null })}
                error={at('/pool')}
                options={[
                  { value: '', label: 'None' },
                  ...poolTree(pools.items.value).map(({ pool, depth }) => ({
                    value: pool.id,
                    label: `${'\u2003'.repeat(depth)}${pool.name}`,
                  })),
                ]}
              />
            </div>
          </Panel>
          <Panel title="What it may take now">
            <Granted machine={machine} />
          </Panel>
          {RESOURCES.map((field) => (
            <Panel key={field.key} title={field.title}>
              <fieldset disabled={!isAdministrator.value} class="form">
                <AmountFields
                  field={field}
                  bare
                  value={(now[field.key] ?? {}) as Amounts}
                  onChange={(value) => set({ [field.key]: value } as Partial<Draft>)}
                  at={(member) => at(`/resources/${field.key}/${member}`)}
                />
              </fieldset>
            </Panel>
          ))}
        </>
      )}
    </EditForm>
  );
}
