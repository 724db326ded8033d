import { bytes, count } from '../../lib/format';
import { Facts } from '../../ui/bits';
import { CheckField } from '../../ui/Field';
import type { StepProps } from './CreateWizard';
import { toRequest } from './draft';

const SOURCE_TEXT = { image: 'Image', iso: 'ISO', template: 'Template', blank: 'Empty disk' };

export function ReviewStep({ draft, set }: StepProps) {
  const request = toRequest(draft);
  const network = request.networks?.[0];
  return (
    <>
      <Facts
        rows={[
          ['Name', <b>{draft.name}</b>],
          [
            'Made from',
            draft.from ? `${SOURCE_TEXT[draft.source]} ${draft.from}` : SOURCE_TEXT[draft.source],
          ],
          ['Hardware', `${count(draft.cpus, 'CPU')}, ${bytes(draft.memory)} of memory`],
          ...(request.disks ? ([['Disk', bytes(draft.disk)]] as [string, string][]) : []),
          [
            'Network',
            network
              ? `${network.network ?? 'default'}${network.forward ? `, ports ${network.forward.join(' ')}` : ''}`
              : 'Not connected',
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
      <CheckField
        label="Start it when it is made"
        checked={draft.start}
        onInput={(start) => set({ start })}
      />
    </>
  );
}
