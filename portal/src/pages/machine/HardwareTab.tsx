// The machine's virtual hardware as a form. A running machine keeps what it cannot take now as
// pending changes, which are shown and can be dropped.
import { useEffect, useState } from 'preact/hooks';
import { patch } from '../../api/client';
import { Problem, problemAt, sayProblem } from '../../api/problem';
import type { MachineConfig } from '../../api/types';
import { bytes, count } from '../../lib/format';
import { changes, mergePatch, same, type Change } from '../../lib/patch';
import { notify, notifyProblem } from '../../state/notices';
import { host, loadMachine, mayChange } from '../../state/store';
import { Banner, Panel } from '../../ui/bits';
import { Button } from '../../ui/Button';
import { NumberField, SelectField, SizeField } from '../../ui/Field';
import { CdromEditor } from './CdromEditor';
import { CardEditor } from './CardEditor';
import type { TabProps } from './MachinePage';

const GIB = 1024 ** 3;

const FIRMWARE = [
  { value: '', label: 'None (direct boot)' },
  { value: 'bios', label: 'BIOS (SeaBIOS)' },
  { value: 'uefi', label: 'UEFI (OVMF)' },
];
const BOOT_ORDERS = [
  { value: '', label: "The firmware's order" },
  { value: 'disk', label: 'Disk' },
  { value: 'disk,cdrom', label: 'Disk, then CD' },
  { value: 'cdrom,disk', label: 'CD, then disk' },
  { value: 'network,disk', label: 'Network, then disk' },
];

function valueText({ path }: Change, value: unknown): string {
  if (value === undefined || value === null) return 'none';
  if (path === '/memory' && typeof value === 'number') return bytes(value);
  return typeof value === 'object' ? JSON.stringify(value) : String(value);
}

const pathText = (path: string): string =>
  path
    .split('/')
    .filter(Boolean)
    .map((part) => (/^\d+$/.test(part) ? String(Number(part) + 1) : part))
    .join(' ');

function Pending({ machine, reload }: TabProps) {
  if (!machine.pending_config) return null;
  const list = changes(machine.config, machine.pending_config);
  const drop = async (): Promise<void> => {
    try {
      await patch(`/machines/${machine.id}`, { pending_config: null });
      reload();
      void loadMachine(machine.id);
    } catch (error) {
      notifyProblem('The changes stay', error);
    }
  };
  return (
    <section class="pending" aria-label="Pending changes">
      <Banner tone="warn">
        <b>{count(list.length, 'change')} at the next start</b>
        {mayChange.value && (
          <div class="actions">
            <Button small onClick={() => void drop()}>
              Drop them
            </Button>
          </div>
        )}
        <ul>
          {list.map((c) => (
            <li key={c.path}>
              <span>{pathText(c.path)}</span> <del>{valueText(c, c.from)}</del> →{' '}
              <ins>{valueText(c, c.to)}</ins>
            </li>
          ))}
        </ul>
      </Banner>
    </section>
  );
}

export function HardwareTab({ machine, reload }: TabProps) {
  const base = machine.pending_config ?? machine.config;
  const [draft, setDraft] = useState<MachineConfig>(base);
  const [edited, setEdited] = useState(false);
  const [wrong, setWrong] = useState<unknown>(null);
  const [busy, setBusy] = useState(false);
  const stamp = JSON.stringify(base);
  // What others change is taken over until this user has begun to edit.
  useEffect(() => {
    if (!edited) setDraft(base);
  }, [stamp]);

  const set = (part: Partial<MachineConfig>): void => {
    setEdited(true);
    setDraft({ ...draft, ...part });
  };
  const at = (member: string): string | null =>
    problemAt(wrong, `/config/${member}`) ?? problemAt(wrong, `/${member}`);
  const dirty = edited && !same(base, draft);
  const off = machine.state === 'stopped' || machine.state === 'crashed';

  const save = async (): Promise<void> => {
    setBusy(true);
    setWrong(null);
    try {
      await patch(`/machines/${machine.id}`, { config: mergePatch(base, draft) });
      setEdited(false);
      notify(off ? 'Saved.' : 'Saved. What cannot change now waits for the next start.', 'ok');
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
      <Pending machine={machine} reload={reload} />
      {wrong !== null && !(wrong instanceof Problem && wrong.field) && (
        <Banner tone="bad">{sayProblem(wrong)}</Banner>
      )}
      <fieldset disabled={!mayChange.value}>
        <div class="grid">
          <Panel title="Processor and memory">
            <div class="form">
              <NumberField
                label="CPUs"
                min={1}
                max={64}
                value={draft.cpus ?? 1}
                onInput={(cpus) => set({ cpus: cpus ?? 1 })}
                hint={host.value ? `The host has ${host.value.cpus}` : undefined}
                error={at('cpus')}
              />
              <SelectField
                label="Engine"
                value={draft.engine ?? 'auto'}
                onInput={(engine) => set({ engine })}
                error={at('engine')}
                options={[
                  { value: 'auto', label: 'Automatic' },
                  ...(host.value?.engines ?? []).map((e) => ({
                    value: e.name as string,
                    label: e.available ? e.name : `${e.name} (not on this host)`,
                    disabled: !e.available,
                  })),
                ]}
              />
              <SizeField
                label="Memory"
                wide
                min={16 * 1024 * 1024}
                presets={[1, 2, 4, 8].map((n) => n * GIB)}
                value={draft.memory ?? 512 * 1024 * 1024}
                onInput={(memory) => set({ memory })}
                error={at('memory')}
              />
            </div>
          </Panel>
          <Panel title="Firmware">
            <div class="form">
              <SelectField
                label="Firmware"
                value={draft.firmware ?? ''}
                onInput={(firmware) => set({ firmware: firmware || undefined })}
                options={FIRMWARE}
                error={at('firmware')}
              />
              <SelectField
                label="Boot from"
                value={(draft.boot?.order ?? []).join(',')}
                onInput={(order) =>
                  set({ boot: { ...draft.boot, order: order ? order.split(',') : undefined } })
                }
                options={BOOT_ORDERS}
                error={at('boot')}
              />
            </div>
          </Panel>
          <CardEditor
            cards={draft.networks ?? []}
            onChange={(networks) => set({ networks })}
            error={at('networks')}
          />
          <CdromEditor
            drives={draft.cdroms ?? []}
            onChange={(cdroms) => set({ cdroms })}
            error={at('cdroms')}
          />
        </div>
      </fieldset>
      {dirty && (
        <div class="save-bar" role="region" aria-label="Unsaved changes">
          <span>
            {off
              ? 'Not saved yet.'
              : 'The machine runs: some of this takes effect at its next start.'}
          </span>
          <Button
            onClick={() => {
              setDraft(base);
              setEdited(false);
              setWrong(null);
            }}
          >
            Undo
          </Button>
          <Button type="submit" variant="primary" disabled={busy}>
            Save
          </Button>
        </div>
      )}
    </form>
  );
}
