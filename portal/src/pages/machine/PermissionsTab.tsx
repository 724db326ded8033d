import { isAdministrator } from '../../state/store';
import { Banner } from '../../ui/bits';
import { GrantTable } from '../access/GrantTable';
import type { TabProps } from './MachinePage';

export function PermissionsTab({ machine }: TabProps) {
  if (!isAdministrator.value)
    return <Banner tone="info">Administrators see and change who may do what.</Banner>;
  return (
    <GrantTable
      title="Granted on this machine"
      object={`machine:${machine.id}`}
      inherited={[
        ...(machine.pool ? [`pool:${machine.pool}`] : []),
        ...foldersAbove(machine.folder).map((f) => `folder:${f}`),
      ]}
    />
  );
}

function foldersAbove(folder: string): string[] {
  const parts = folder.split('/').filter(Boolean);
  return ['/', ...parts.map((_, i) => `/${parts.slice(0, i + 1).join('/')}`)];
}
