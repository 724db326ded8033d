import { bytes } from '../../lib/format';
import { allFolders } from '../../lib/tree';
import { datastores, has, host, machineList, networks, pools } from '../../state/store';
import { NumberField, SelectField, SizeField, TextField } from '../../ui/Field';
import { useCollection } from '../use-loaded';
import type { StepProps } from './CreateWizard';
import { nameProblem } from './draft';

const GIB = 1024 ** 3;

export function MachineStep({ draft, set, at }: StepProps) {
  const networkList = useCollection(networks);
  const storeList = useCollection(datastores);
  const poolList = useCollection(pools);
  return (
    <div class="form">
      <TextField
        label="Name"
        value={draft.name}
        onInput={(name) => set({ name })}
        error={nameProblem(draft.name) ?? at('/name')}
        placeholder="web-1"
        autoFocus
      />
      <TextField
        label="Folder"
        value={draft.folder}
        onInput={(folder) => set({ folder })}
        list={allFolders(machineList.value)}
        error={at('/folder')}
      />
      <NumberField
        label="CPUs"
        min={1}
        max={64}
        value={draft.cpus}
        onInput={(cpus) => set({ cpus: cpus ?? 1 })}
        hint={host.value ? `The host has ${host.value.cpus}` : undefined}
        error={at('/cpus')}
      />
      <SizeField
        label="Memory"
        min={16 * 1024 * 1024}
        presets={[GIB, 2 * GIB, 4 * GIB]}
        value={draft.memory}
        onInput={(memory) => set({ memory })}
        error={at('/memory')}
      />
      {draft.source !== 'template' && (
        <SizeField
          label="Disk"
          wide
          min={Math.max(1024 * 1024, draft.least)}
          presets={[10, 20, 50, 100].map((n) => n * GIB).filter((n) => n >= draft.least)}
          value={draft.disk}
          onInput={(disk) => set({ disk })}
          hint={
            draft.least
              ? `The image has ${bytes(draft.least)}; the guest sees what is more.`
              : 'Space is taken as the guest writes.'
          }
          error={at('/disks')}
        />
      )}
      <SelectField
        label="Network"
        value={draft.network || networkList[0]?.name || ''}
        onInput={(network) => set({ network })}
        error={at('/networks')}
        options={[
          ...networkList.map((n) => ({ value: n.name, label: `${n.name} (${n.type})` })),
          { value: 'none', label: 'Not connected' },
        ]}
      />
      <TextField
        label="Forwarded ports"
        placeholder="tcp:2222:22"
        hint="Host port, guest port"
        value={draft.forward}
        onInput={(forward) => set({ forward })}
        error={at('/networks/0/forward')}
      />
      {storeList.length > 1 && (
        <SelectField
          label="Datastore"
          value={draft.datastore || storeList.find((d) => d.default)?.id || ''}
          onInput={(datastore) => set({ datastore })}
          error={at('/datastore')}
          options={storeList.map((d) => ({ value: d.id, label: d.name }))}
        />
      )}
      {has('pools') && poolList.length > 0 && (
        <SelectField
          label="Resource pool"
          value={draft.pool}
          onInput={(pool) => set({ pool })}
          error={at('/pool')}
          options={[
            { value: '', label: 'None' },
            ...poolList.map((p) => ({ value: p.id, label: p.name })),
          ]}
        />
      )}
      <TextField
        label="Tags"
        hint="Separated by commas"
        value={draft.tags}
        onInput={(tags) => set({ tags })}
        error={at('/tags')}
      />
    </div>
  );
}
