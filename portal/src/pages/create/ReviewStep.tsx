import { bytes, count } from '../../lib/format';
import { templates } from '../../state/store';
import { Facts } from '../../ui/bits';
import { CheckField } from '../../ui/Field';
import type { StepProps } from './CreateWizard';
import { toRequest } from './draft';

const SOURCE_TEXT = { image: 'Image', iso: 'ISO', template: 'Template', blank: 'Empty disk' };

export function ReviewStep({ draft, set }: StepProps) {
  const request = toRequest(draft);
  const network = request.networks?.[0];
  const from =
    draft.source === 'template'
      ? (templates.items.value.find((t) => t.id === draft.from)?.name ?? draft.from)
      : draft.from;
  return (
    <>
      <Facts
        rows={[
          ['Name', <b>{draft.name}</b>],
          ['Made from', from ? `${SOURCE_TEXT[draft.source]} ${from}` : SOURCE_TEXT[draft.source]],
          ['Hardware', `${count(draft.cpus, 'CPU')}, ${bytes(draft.memory)} of memory`],
          ...(request.disks ? ([['Disk', bytes(draft.disk)]] as [string, string][]) : []),
          [
            'Network',
            network
              ? `${network.network ?? 'default'}${network.forward ? `, ports ${network.forward.join(' ')}` : ''}`
              : request.networks
                ? 'Not connected'
                : 'As the template',
          ],
          ['Folder', draft.folder],
          ...(request.tags ? ([['Tags', request.tags.join(', ')]] as [string, string][]) : []),
          ...(request.cloud_init
            ? ([
                [
                  'First start',
                  `User ${draft.cloud.user || 'of the image'}, host name ${draft.cloud.hostname || draft.name}`,
                ],
              ] as [string, string][])
            : []),
        ]}
      />
      {draft.source === 'template' && (
        <CheckField
          label="Stand on the template's disks instead of copying them"
          checked={draft.linked}
          onInput={(linked) => set({ linked })}
        />
      )}
      <CheckField
        label="Start it when it is made"
        checked={draft.start}
        onInput={(start) => set({ start })}
      />
    </>
  );
}
