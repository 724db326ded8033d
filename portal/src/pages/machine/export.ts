// Exports: asked for in a format, downloaded when their task has succeeded.
import { effect } from '@preact/signals';
import { PackageOpen } from '../../ui/icons';
import { post } from '../../api/client';
import type { Machine, Task } from '../../api/types';
import { notify, notifyProblem } from '../../state/notices';
import { putTask, tasks } from '../../state/store';
import type { MenuItem } from '../../ui/Menu';

export function download(url: string, name = ''): void {
  const anchor = document.createElement('a');
  anchor.href = url;
  anchor.download = name;
  anchor.click();
}

async function exportMachine(machine: Machine, format: string): Promise<void> {
  try {
    const task = await post<Task>(`/machines/${machine.id}/export`, { format });
    putTask(task);
    notify(`${machine.name} is being exported; the download starts when it is done.`);
    const stop = effect(() => {
      const now = tasks.value.get(task.id);
      if (!now || now.state === 'queued' || now.state === 'running') return;
      queueMicrotask(() => stop());
      const path = now.result?.download;
      if (now.state === 'succeeded' && typeof path === 'string') download(path);
    });
  } catch (error) {
    notifyProblem(`${machine.name} was not exported`, error);
  }
}

export function exportItems(machine: Machine): MenuItem[] {
  if (!['stopped', 'crashed'].includes(machine.state)) return [];
  return [
    {
      label: 'Export as OVA',
      icon: PackageOpen,
      apart: true,
      run: () => void exportMachine(machine, 'ova'),
    },
    {
      label: 'Export as VMX folder (tar)',
      icon: PackageOpen,
      run: () => void exportMachine(machine, 'vmx'),
    },
    {
      label: 'Export as libvirt folder (tar)',
      icon: PackageOpen,
      run: () => void exportMachine(machine, 'libvirt'),
    },
    {
      label: 'Export disk as QCOW2',
      icon: PackageOpen,
      disabled: !machine.config.disks?.length,
      run: () => void exportMachine(machine, 'qcow2'),
    },
  ];
}
