// Disks, how full they are, and the snapshots that their own format keeps.
import { useState } from 'preact/hooks';
import { Camera, HardDrive, Plus, Scaling, Trash2 } from '../../ui/icons';
import { get, patch, post, remove } from '../../api/client';
import { sayProblem } from '../../api/problem';
import type { Disk, Page as ListPage, Task } from '../../api/types';
import { bytes } from '../../lib/format';
import { ask, notifyProblem } from '../../state/notices';
import { mayChange, putTask, revisions } from '../../state/store';
import { Badge, Banner, Empty, Meter, Panel } from '../../ui/bits';
import { Button } from '../../ui/Button';
import { Dialog } from '../../ui/Dialog';
import { SelectField, SizeField } from '../../ui/Field';
import { useLoaded } from '../use-loaded';
import { DiskSnapshots } from './DiskSnapshots';
import type { TabProps } from './MachinePage';

const GIB = 1024 ** 3;
const BUSES = ['virtio', 'nvme', 'sata', 'scsi', 'pvscsi', 'ide'];
/** The formats that keep snapshots inside. */
const WITH_SNAPSHOTS = new Set(['qcow2']);

interface SizeDialogProps {
  machine: string;
  /** The disk to grow; without it one is added. */
  disk?: Disk;
  onClose(): void;
}

function SizeDialog({ machine, disk, onClose }: SizeDialogProps) {
  const [capacity, setCapacity] = useState(disk ? disk.capacity * 2 : 20 * GIB);
  const [bus, setBus] = useState('virtio');
  const [wrong, setWrong] = useState<unknown>(null);
  const save = async (): Promise<void> => {
    try {
      const path = `/machines/${machine}/disks`;
      const task = disk
        ? await patch<Task | undefined>(`${path}/${encodeURIComponent(disk.name)}`, { capacity })
        : await post<Task | undefined>(path, { capacity, bus });
      if (task?.id && task.state) putTask(task);
      onClose();
    } catch (error) {
      setWrong(error);
    }
  };
  return (
    <Dialog
      title={disk ? `Grow ${disk.name}` : 'Add a disk'}
      size="small"
      onClose={onClose}
      onSubmit={() => void save()}
      footer={
        <>
          <Button onClick={onClose}>Cancel</Button>
          <Button type="submit" variant="primary">
            {disk ? 'Grow' : 'Add disk'}
          </Button>
        </>
      }
    >
      <div class="stack">
        {wrong !== null && <Banner tone="bad">{sayProblem(wrong)}</Banner>}
        <SizeField
          label="Size"
          value={capacity}
          min={disk ? disk.capacity : 1024 * 1024}
          presets={disk ? undefined : [10 * GIB, 20 * GIB, 100 * GIB]}
          onInput={setCapacity}
          hint={
            disk
              ? `It has ${bytes(disk.capacity)} now. The guest then grows its partition and file system.`
              : 'Space is taken as the guest writes.'
          }
        />
        {!disk && (
          <SelectField
            label="Bus"
            value={bus}
            onInput={setBus}
            options={BUSES.map((b) => ({ value: b, label: b }))}
          />
        )}
      </div>
    </Dialog>
  );
}

async function removeDisk(machine: string, disk: Disk): Promise<void> {
  const answer = await ask({
    title: `Remove ${disk.name}?`,
    body: [
      `Its file is deleted with all that is on it (${bytes(disk.allocated)}). There is no way back.`,
    ],
    action: 'Remove and delete',
    danger: true,
    typed: disk.name,
  });
  if (answer === null) return;
  try {
    const task = await remove<Task | undefined>(
      `/machines/${machine}/disks/${encodeURIComponent(disk.name)}`,
    );
    if (task?.id) putTask(task);
  } catch (error) {
    notifyProblem(`${disk.name} was not removed`, error);
  }
}

interface DiskCardProps {
  machine: string;
  disk: Disk;
  stopped: boolean;
  onGrow(): void;
}

function DiskCard({ machine, disk, stopped, onGrow }: DiskCardProps) {
  const [open, setOpen] = useState(false);
  return (
    <section class="panel disk" aria-label={disk.name}>
      <div class="disk-head">
        <HardDrive size={20} aria-hidden="true" />
        <div class="disk-name">
          <b>{disk.name}</b>
          <span class="muted mono clip" title={disk.path}>
            {disk.path}
          </span>
        </div>
        <span class="disk-badges">
          <Badge>{disk.format}</Badge>
          <Badge>{disk.bus}</Badge>
          {disk.bootable && <Badge tone="info">boot</Badge>}
          {disk.readonly && <Badge tone="warn">read only</Badge>}
          {disk.cbt && <Badge>changed blocks</Badge>}
        </span>
        <span class="disk-size">
          <Meter
            value={disk.allocated}
            max={disk.capacity}
            label={`Space taken by ${disk.name}`}
            text={`${bytes(disk.allocated)} of ${bytes(disk.capacity)}`}
          />
        </span>
        <div class="actions">
          {WITH_SNAPSHOTS.has(disk.format) && (
            <Button small icon={Camera} pressed={open} onClick={() => setOpen(!open)}>
              Snapshots
            </Button>
          )}
          {mayChange.value && (
            <>
              <Button small icon={Scaling} label={`Grow ${disk.name}`} onClick={onGrow} />
              <Button
                small
                icon={Trash2}
                label={`Remove ${disk.name}`}
                disabled={!stopped}
                why="Stop the machine first"
                onClick={() => void removeDisk(machine, disk)}
              />
            </>
          )}
        </div>
      </div>
      {open && <DiskSnapshots machine={machine} disk={disk.name} stopped={stopped} />}
    </section>
  );
}

export function DisksTab({ machine }: TabProps) {
  const list = useLoaded(
    () => get<ListPage<Disk>>(`/machines/${machine.id}/disks`),
    [machine.id, revisions.value.get(machine.id)],
  );
  const [dialog, setDialog] = useState<{ disk?: Disk } | null>(null);
  const disks = list.value?.items ?? [];
  return (
    <>
      {list.problem && <Banner tone="bad">{list.problem}</Banner>}
      {mayChange.value && (
        <div class="filters">
          <Button icon={Plus} onClick={() => setDialog({})}>
            Add disk
          </Button>
        </div>
      )}
      <div class="stack">
        {disks.map((disk) => (
          <DiskCard
            key={disk.name}
            machine={machine.id}
            disk={disk}
            stopped={machine.state === 'stopped' || machine.state === 'crashed'}
            onGrow={() => setDialog({ disk })}
          />
        ))}
        {list.value && !disks.length && (
          <Panel title="Disks">
            <Empty icon={HardDrive} title="No disks" />
          </Panel>
        )}
      </div>
      {dialog && (
        <SizeDialog
          machine={machine.id}
          disk={dialog.disk}
          onClose={() => {
            setDialog(null);
            list.reload();
          }}
        />
      )}
    </>
  );
}
