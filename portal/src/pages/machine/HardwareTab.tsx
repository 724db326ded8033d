// The machine's virtual hardware as a form. A running machine keeps what it cannot take now as
// pending changes, which are shown and can be dropped.
import { patch } from '../../api/client';
import type { MachineConfig } from '../../api/types';
import { bytes, count } from '../../lib/format';
import { changes, mergePatch, type Change } from '../../lib/patch';
import { notifyProblem } from '../../state/notices';
import { host, loadMachine, mayChange } from '../../state/store';
import { Banner, Panel } from '../../ui/bits';
import { Button } from '../../ui/Button';
import { EditForm } from '../EditForm';
import { NumberField, SelectField, SizeField } from '../../ui/Field';
import { CdromEditor } from './CdromEditor';
import { CardEditor } from './CardEditor';
import type { TabProps } from './MachinePage';

/** With a field of their own here. */
const MEMBERS = ['cpus', 'engine', 'memory', 'firmware', 'boot', 'networks', 'cdroms'];
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
  const off = machine.state === 'stopped' || machine.state === 'crashed';
  const send = async (now: MachineConfig): Promise<void> => {
    await patch(`/machines/${machine.id}`, { config: mergePatch(base, now) });
    reload();
    void loadMachine(machine.id);
  };
  return (
    <EditForm
      base={base}
      disabled={!mayChange.value}
      fields={MEMBERS.map((member) => `/config/${member}`)}
      send={send}
      note={
        off ? 'Not saved yet.' : 'The machine runs: some of this takes effect at its next start.'
      }
      saved={off ? 'Saved.' : 'Saved. What cannot change now waits for the next start.'}
      above={<Pending machine={machine} reload={reload} />}
    >
      {({ now, set, at }) => (
        <>
          <Panel title="Processor and memory">
            <div class="form">
              <NumberField
                label="CPUs"
                min={1}
                max={64}
                value={now.cpus ?? 1}
                onInput={(cpus) => set({ cpus: cpus ?? 1 })}
                hint={host.value ? `The host has ${host.value.cpus}` : undefined}
                error={at('/config/cpus')}
              />
              <SelectField
                label="Engine"
                value={now.engine ?? 'auto'}
                onInput={(engine) => set({ engine })}
                error={at('/config/engine')}
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
                value={now.memory ?? 512 * 1024 * 1024}
                onInput={(memory) => set({ memory })}
                error={at('/config/memory')}
              />
            </div>
          </Panel>
          <Panel title="Firmware">
            <div class="form">
              <SelectField
                label="Firmware"
                value={now.firmware ?? ''}
                onInput={(firmware) => set({ firmware: firmware || undefined })}
                options={FIRMWARE}
                error={at('/config/firmware')}
              />
              <SelectField
                label="Boot from"
                value={(now.boot?.order ?? []).join(',')}
                onInput={(order) =>
                  set({ boot: { ...now.boot, order: order ? order.split(',') : undefined } })
                }
                options={BOOT_ORDERS}
                error={at('/config/boot')}
              />
            </div>
          </Panel>
          <CardEditor
            cards={now.networks ?? []}
            onChange={(networks) => set({ networks })}
            error={at('/config/networks')}
          />
          <CdromEditor
            drives={now.cdroms ?? []}
            onChange={(cdroms) => set({ cdroms })}
            error={at('/config/cdroms')}
          />
        </>
      )}
    </EditForm>
  );
}
