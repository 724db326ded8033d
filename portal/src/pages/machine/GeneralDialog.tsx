// What a machine is called and where it stands; all of it can change while it runs.
import { useState } from 'preact/hooks';
import { patch } from '../../api/client';
import { problemAt, sayProblem } from '../../api/problem';
import type { Machine, MachineChange } from '../../api/types';
import { mergePatch } from '../../lib/patch';
import { allFolders } from '../../lib/tree';
import { has, loadMachine, machineList, pools } from '../../state/store';
import { Banner } from '../../ui/bits';
import { Button } from '../../ui/Button';
import { Dialog } from '../../ui/Dialog';
import { CheckField, NumberField, SelectField, TextField } from '../../ui/Field';

export const splitTags = (text: string): string[] => [
  ...new Set(text.split(/[,\s]+/).filter(Boolean)),
];

export function GeneralDialog({ machine, onClose }: { machine: Machine; onClose(): void }) {
  const before = {
    name: machine.name,
    description: machine.description,
    folder: machine.folder,
    tags: machine.tags,
    pool: machine.pool,
    autostart: {
      enabled: machine.autostart.enabled ?? false,
      order: machine.autostart.order ?? 0,
      delay: machine.autostart.delay ?? 0,
    },
  };
  const [now, setNow] = useState(before);
  const [tags, setTags] = useState(machine.tags.join(', '));
  const [wrong, setWrong] = useState<unknown>(null);
  const set = (part: Partial<typeof now>): void => setNow({ ...now, ...part });
  const auto = (part: Partial<typeof now.autostart>): void =>
    set({ autostart: { ...now.autostart, ...part } });

  const save = async (): Promise<void> => {
    const change = mergePatch(before, { ...now, tags: splitTags(tags) }) as
      MachineChange | undefined;
    if (!change) return onClose();
    // A null in a merge patch takes a member away, which for the pool is what is meant.
    try {
      await patch(`/machines/${machine.id}`, change);
      void loadMachine(machine.id);
      onClose();
    } catch (error) {
      setWrong(error);
    }
  };
  return (
    <Dialog
      title={`Edit ${machine.name}`}
      onClose={onClose}
      onSubmit={() => void save()}
      footer={
        <>
          <Button onClick={onClose}>Cancel</Button>
          <Button type="submit" variant="primary">
            Save
          </Button>
        </>
      }
    >
      <div class="form">
        {wrong !== null && (
          <div class="wide">
            <Banner tone="bad">{sayProblem(wrong)}</Banner>
          </div>
        )}
        <TextField
          label="Name"
          value={now.name}
          onInput={(name) => set({ name })}
          error={problemAt(wrong, '/name')}
          autoFocus
        />
        <TextField
          label="Folder"
          value={now.folder}
          onInput={(folder) => set({ folder })}
          list={allFolders(machineList.value)}
          error={problemAt(wrong, '/folder')}
        />
        <TextField
          label="Description"
          wide
          rows={2}
          value={now.description}
          onInput={(description) => set({ description })}
        />
        <TextField
          label="Tags"
          hint="Separated by commas"
          value={tags}
          onInput={setTags}
          error={problemAt(wrong, '/tags')}
        />
        {has('pools') && (
          <SelectField
            label="Resource pool"
            value={now.pool ?? ''}
            onInput={(pool) => set({ pool: pool || null })}
            options={[
              { value: '', label: 'None' },
              ...pools.items.value.map((p) => ({ value: p.id, label: p.name })),
            ]}
          />
        )}
        <h3>Autostart</h3>
        <div class="wide">
          <CheckField
            label="Start with the host"
            checked={now.autostart.enabled}
            onInput={(enabled) => auto({ enabled })}
          />
        </div>
        {now.autostart.enabled && (
          <>
            <NumberField
              label="Order"
              hint="Lower ones start first"
              min={0}
              value={now.autostart.order}
              onInput={(order) => auto({ order: order ?? 0 })}
            />
            <NumberField
              label="Delay before the next"
              unit="s"
              min={0}
              value={now.autostart.delay}
              onInput={(delay) => auto({ delay: delay ?? 0 })}
            />
          </>
        )}
      </div>
    </Dialog>
  );
}
