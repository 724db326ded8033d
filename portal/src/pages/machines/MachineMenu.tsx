import {
  Ellipsis,
  Pause,
  Pencil,
  Play,
  Power as PowerIcon,
  PowerOff,
  RefreshCw,
  RotateCcw,
  Terminal,
  Trash2,
} from '../../ui/icons';
import type { MachineSummary } from '../../api/types';
import { link, navigate } from '../../lib/router';
import { applies, deleteMachines, power, POWER, type Power } from '../../state/actions';
import { Menu, type MenuItem } from '../../ui/Menu';

export const POWER_ICONS = {
  start: Play,
  stop: PowerIcon,
  'force-stop': PowerOff,
  restart: RefreshCw,
  pause: Pause,
  resume: Play,
  reset: RotateCcw,
} as const;

export function powerItems(machine: MachineSummary): MenuItem[] {
  return (Object.keys(POWER) as Power[])
    .filter((what) => applies(what, machine))
    .map((what) => ({
      label: POWER[what].label,
      icon: POWER_ICONS[what],
      danger: POWER[what].danger,
      run: () => void power(what, [machine]),
    }));
}

export function MachineMenu({ machine }: { machine: MachineSummary }) {
  const go = (tab: string) => (): void => navigate(link('machines', machine.id, tab));
  return (
    <Menu
      label={`Actions for ${machine.name}`}
      icon={Ellipsis}
      variant="ghost"
      small
      items={[
        ...powerItems(machine),
        { label: 'Console', icon: Terminal, apart: true, run: go('console') },
        { label: 'Edit hardware', icon: Pencil, run: go('hardware') },
        {
          label: 'Delete',
          icon: Trash2,
          danger: true,
          apart: true,
          disabled: !['stopped', 'crashed'].includes(machine.state),
          run: () => void deleteMachines([machine]),
        },
      ]}
    />
  );
}
