// What a machine may take of its host: its pool, and its own shares, reservations and limits. They
// hold at once, also while it runs.
import { useEffect, useState } from 'preact/hooks';
import { patch } from '../../api/client';
import { Problem, problemAt, sayProblem } from '../../api/problem';
import { bytes } from '../../lib/format';
import { mergePatch, same } from '../../lib/patch';
import { notify } from '../../state/notices';
import { isAdministrator, loadMachine, mayChange, pools } from '../../state/store';
import { Banner, Facts, Panel } from '../../ui/bits';
import { Button } from '../../ui/Button';
import { SelectField } from '../../ui/Field';
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
  const [now, setNow] = useState(base);
  const [edited, setEdited] = useState(false);
  const [wrong, setWrong] = useState<unknown>(null);
  const [busy, setBusy] = useState(false);
  const stamp = JSON.stringify(base);
  // What others change is taken over until this user has begun to edit.
  useEffect(() => {
    if (!edited) setNow(base);
  }, [stamp]);
  const set = (part: Record<string, unknown>): void => {
    setEdited(true);
    setNow({ ...now, ...part } as Draft);
  };
  const undo = (): void => {
    setNow(base);
    setEdited(false);
    setWrong(null);
  };
  const save = async (): Promise<void> => {
    const { pool: poolBefore, ...amountsBefore } = base;
    const { pool, ...amounts } = now;
    setBusy(true);
    setWrong(null);
    try {
      await patch(`/machines/${machine.id}`, {
        ...(pool === poolBefore ? {} : { pool }),
        ...(same(amountsBefore, amounts) ? {} : { resources: mergePatch(amountsBefore, amounts) }),
      });
      setEdited(false);
      notify('Saved. It holds from now on.', 'ok');
      reload();
      void loadMachine(machine.id);
    } catch (error) {
      setWrong(error);
    } finally {
      setBusy(false);
    }
  };
  return (
    <form
      class="hardware"
      noValidate
      onSubmit={(e) => {
        e.preventDefault();
        void save();
      }}
    >
      {wrong !== null && !(wrong instanceof Problem && wrong.field) && (
        <Banner tone="bad">{sayProblem(wrong)}</Banner>
      )}
      <fieldset disabled={!mayChange.value}>
        <div class="grid">
          <Panel title="Pool">
            <div class="form">
              <SelectField
                label="Resource pool"
                wide
                value={now.pool ?? ''}
                onInput={(pool) => set({ pool: pool || null })}
                error={problemAt(wrong, '/pool')}
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
                  onChange={(value) => set({ [field.key]: value })}
                  at={(member) => problemAt(wrong, `/resources/${field.key}/${member}`)}
                />
              </fieldset>
            </Panel>
          ))}
        </div>
      </fieldset>
      {edited && !same(base, now) && (
        <div class="save-bar" role="region" aria-label="Unsaved changes">
          <span>Not saved yet.</span>
          <Button onClick={undo}>Undo</Button>
          <Button type="submit" variant="primary" disabled={busy}>
            Save
          </Button>
        </div>
      )}
    </form>
  );
}
